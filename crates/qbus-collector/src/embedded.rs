//! The embedded default: a private bus, and its agent on threads of a process that uses it.
//!
//! Forked children, their threads and workers emit to it as to any bus. Who finds that nobody
//! aggregates it any more (its process became a daemon, or was killed) does so from then on. It is
//! removed by the last that closes it, or ends; what killed processes leave is swept by the next
//! one that starts. A forked child whose parent has removed it, and ended, makes it anew.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem;
use std::process;
use std::sync::{Arc, Mutex};

use qbus::{Address, Bus, ConsumeError, CreateError, Geometry, OpenOrCreateError, Removal};
use qbus_agent::{Agent, AgentOptions, SamplingOptions};
use qbus_aggregate::{AggregateError, AggregatorOptions};

use crate::collector::{CollectorOptions, lock};
use crate::error::{ResetError, StartError};
use crate::statistics::Counts;

/// How often a bus is made anew that another process has swept before it was aggregated.
const ATTEMPTS: usize = 8;

/// A private bus, as this process sees it.
#[derive(Debug)]
pub(crate) struct Embedded {
    bus: Bus,
    options: AgentOptions,
    sampling: SamplingOptions,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The one of this process, or that of the process from which a fork made this one.
    agent: Option<Arc<Agent>>,
    /// What this process has made in the place of a bus that its parent removed.
    anew: Option<Bus>,
    is_sampling: bool,
    is_closed: bool,
}

impl Embedded {
    /// Makes a private bus and aggregates it.
    pub(crate) fn start(
        config: &CollectorOptions,
        counts: &Arc<Counts>,
    ) -> Result<Embedded, StartError> {
        sweep();
        let mut attempts = 0..ATTEMPTS;
        loop {
            let bus =
                create().map_err(|error| StartError::Bus(OpenOrCreateError::Create(error)))?;
            let embedded = Embedded::join(bus, config, counts);
            match embedded.start_agent(&embedded.bus) {
                Ok(agent) => {
                    if let Some(mut state) = lock(&embedded.state) {
                        state.agent = Some(Arc::new(agent));
                    }
                    return Ok(embedded);
                }
                // Another process took it for what a killed one had left.
                Err(qbus_agent::StartError::Aggregate(AggregateError::Consume(
                    ConsumeError::Taken { .. } | ConsumeError::Removed,
                ))) if attempts.next().is_some() => {}
                Err(error) => {
                    remove(embedded.bus.address());
                    return Err(StartError::Agent(error));
                }
            }
        }
    }

    /// Uses a private bus that another process made and aggregates.
    pub(crate) fn join(bus: Bus, config: &CollectorOptions, counts: &Arc<Counts>) -> Embedded {
        Embedded {
            bus,
            options: AgentOptions {
                aggregator: AggregatorOptions {
                    history: config.max_history_per_metric,
                    recent: config.max_metrics_buffer,
                    ..AggregatorOptions::default()
                },
                ..AgentOptions::default()
            },
            sampling: SamplingOptions {
                sampler: config.sampler.clone(),
                interval: config.collection_interval,
                self_metrics: false,
            },
            counts: counts.clone(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    fn start_agent(&self, bus: &Bus) -> Result<Agent, qbus_agent::StartError> {
        let counts = self.counts.clone();
        Agent::start(bus, self.options.clone(), move |news| counts.note(news))
    }

    /// The agent, if it runs in this process.
    fn agent(&self) -> Option<Arc<Agent>> {
        let agent = lock(&self.state)?.agent.clone();
        agent.filter(|agent| !agent.is_inherited())
    }

    /// Aggregates the bus from now on if nobody does.
    pub(crate) fn revive(&self) {
        let is_alive = |agent: qbus::AggregatorView| agent.alive;
        let is_removed = || self.bus.is_removed();
        if self.agent().is_some() || !is_removed() && self.bus.aggregator().is_none_or(is_alive) {
            return;
        }
        let Some(mut state) = lock(&self.state) else {
            return;
        };
        // The parent's, in a forked child.
        let is_ours = |agent: &Arc<Agent>| !agent.is_inherited();
        if state.is_closed || state.agent.as_ref().is_some_and(is_ours) {
            return;
        }
        let mut attempts = 0..ATTEMPTS;
        loop {
            let bus = if !is_removed() {
                self.bus.clone()
            } else if state.agent.is_none() {
                // Only joined: it was another's to remove, and stays so.
                return;
            } else {
                match self.made_anew(&mut state) {
                    Ok(bus) if bus.aggregator().is_some_and(is_alive) => return,
                    Ok(bus) => bus,
                    Err(error) => {
                        self.counts
                            .note(format!("the bus was removed, and: {error}"));
                        return;
                    }
                }
            };
            match self.start_agent(&bus) {
                Ok(agent) => {
                    // The parent's, whose threads are not this process's to join or let go of.
                    mem::forget(state.agent.take());
                    if state.is_sampling {
                        self.sample_with(&agent);
                    }
                    state.agent = Some(Arc::new(agent));
                    return;
                }
                // Nobody used it, and another process swept it.
                Err(_) if bus.is_removed() && attempts.next().is_some() => {}
                // Another one was faster, or sweeps it right now.
                Err(qbus_agent::StartError::Aggregate(AggregateError::Consume(
                    ConsumeError::Taken { .. },
                ))) => return,
                Err(error) => {
                    self.counts
                        .note(format!("nobody aggregates the bus: {error}"));
                    return;
                }
            }
        }
    }

    /// Whether this process makes a bus anew that is taken away from it: it was forked by the one
    /// that aggregated it.
    pub(crate) fn is_heir(&self) -> bool {
        lock(&self.state).is_some_and(|state| {
            let is_inherited = state
                .agent
                .as_ref()
                .is_some_and(|agent| agent.is_inherited());
            !state.is_closed && (is_inherited || state.anew.is_some())
        })
    }

    /// The bus that took the place of the removed one; made now, unless a sibling was faster.
    fn made_anew(&self, state: &mut State) -> Result<Bus, OpenOrCreateError> {
        if let Some(bus) = state.anew.as_ref().filter(|bus| !bus.is_removed()) {
            return Ok(bus.clone());
        }
        let options = qbus::BusOptions {
            geometry: *self.bus.geometry(),
            ..qbus::BusOptions::default()
        };
        let bus = Bus::open_or_create(self.bus.address(), &options)?;
        state.anew = Some(bus.clone());
        // Whose handles are of the removed one finds it at once.
        let _ = self.bus.successor();
        Ok(bus)
    }

    /// Samples the machine, once for all processes of the bus: where its agent is.
    pub(crate) fn start_sampling(&self) {
        let Some(mut state) = lock(&self.state) else {
            return;
        };
        state.is_sampling = true;
        if let Some(agent) = &state.agent {
            self.sample_with(agent);
        }
    }

    fn sample_with(&self, agent: &Agent) {
        if let Err(error) = agent.start_sampling(self.sampling.clone()) {
            self.counts
                .note(format!("no thread for the sampler: {error}"));
        }
    }

    pub(crate) fn stop_sampling(&self) {
        let agent = lock(&self.state).and_then(|mut state| {
            state.is_sampling = false;
            state.agent.clone()
        });
        if let Some(agent) = agent {
            agent.stop_sampling();
        }
    }

    /// Has the agent drain what there is and begin with an empty snapshot.
    pub(crate) fn reset(&self) -> Result<(), ResetError> {
        let shared = || ResetError::Shared {
            bus: self.bus.address().to_string(),
        };
        let agent = self.agent().ok_or_else(shared)?;
        agent.reset().map_err(ResetError::Agent)
    }

    /// Ends the agent if it is this process's, and removes the bus unless others use it: one of
    /// them goes on with it.
    pub(crate) fn stop(&self) {
        let bus = self.closed();
        if let Some(agent) = self.agent() {
            agent.stop();
            remove_if_last(&bus);
        }
    }

    /// The same when the process ends: whoever made the bus, it goes with the last process that has
    /// it. Others' collectors in this process are of no use any more.
    pub(crate) fn end(&self) {
        let bus = self.closed();
        if let Some(agent) = self.agent() {
            agent.stop();
        }
        if bus.aggregator().is_some_and(|aggregator| !aggregator.alive) {
            remove_if_last(&bus);
        }
    }

    /// Starts nothing any more. Gives the bus, or what took its place.
    fn closed(&self) -> Bus {
        let anew = lock(&self.state).and_then(|mut state| {
            state.is_closed = true;
            state.anew.clone()
        });
        anew.unwrap_or_else(|| self.bus.clone())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A new bus under a name that nobody has: smaller where there is little room.
fn create() -> Result<Bus, CreateError> {
    let small = Geometry {
        lanes: 16,
        shared_lanes: 2,
        slots: 1024,
        families: 512,
        series: 4096,
        arena_words: 1 << 17,
        cells: 2048,
        owners: 256,
    };
    let mut created = create_sized(Geometry::default());
    if matches!(created, Err(CreateError::NoSpace { .. })) {
        created = create_sized(small);
    }
    created
}

fn create_sized(geometry: Geometry) -> Result<Bus, CreateError> {
    let config = qbus::BusOptions {
        geometry,
        ..qbus::BusOptions::default()
    };
    loop {
        let unique = RandomState::new().build_hasher().finish();
        match Bus::create(&Address::private(unique), &config) {
            Err(CreateError::Exists { .. }) => {}
            created => return created,
        }
    }
}

/// Removes the private buses of dead processes.
fn sweep() {
    let example = Address::private(0);
    let folder = example.file().parent().map(fs::read_dir);
    for entry in folder.into_iter().flatten().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let name = file.split_once('.').map_or("", |(_, name)| name);
        if let Ok(address) = name.parse::<Address>()
            && address.is_private()
            && address.file() == entry.path()
        {
            // In use, another user's, or gone by now: not ours to remove.
            let _ = Bus::remove(&address, Removal::Unused);
        }
    }
}

/// Removes the bus if no other process lives that has it. Of two that end at the same moment each
/// may still see the other: then it is left to be swept.
fn remove_if_last(bus: &Bus) {
    let own = u64::from(process::id());
    let owners = bus.owners().unwrap_or_default();
    let is_last = !owners.iter().any(|owner| owner.alive && owner.pid != own);
    // By its name: another one may have that by now.
    if is_last && !bus.is_removed() {
        remove(bus.address());
    }
}

fn remove(address: &Address) {
    // Somebody else may have removed it.
    let _ = Bus::remove(address, Removal::Forced);
}
