//! What `qbus agg` sends on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use qbus::{Address, Bus, FlushError};
use qbus_agent::push::{PushOptions, Pusher};
use qbus_agent::{Agent, AgentOptions};

use crate::args::Push;
use crate::error::Error;
use crate::log::{info, warn};

/// How long a receiver has to take what a job has left.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends the snapshot on, if anybody is to receive it.
pub(crate) fn start(
    bus: &Bus,
    snapshot: &Path,
    push: &Push,
    labels: &[(String, String)],
    self_metrics: bool,
) -> Result<Option<Pusher>, Error> {
    let options = PushOptions {
        self_metrics,
        ..options(bus.address(), push, labels)
    };
    if options.destinations.is_empty() {
        return Ok(None);
    }
    for destination in &options.destinations {
        info(format_args!(
            "sending the bus {} on to {} every {:?}",
            bus.address(),
            destination.shown(),
            push.push_interval
        ));
    }
    let pusher = Pusher::start(bus, snapshot.to_owned(), options, warn);
    pusher.map(Some).map_err(Error::failed)
}

/// Sends what is left, and says what nobody took.
pub(crate) fn stop(pusher: Pusher) {
    let left = pusher.stop();
    if left.unsent > 0 {
        warn(format_args!(
            "{} requests were not taken; with --push-queue they wait for the next start",
            left.unsent
        ));
    }
}

/// Aggregates a bus, unless somebody does so already, and sends it on once.
pub(crate) fn once(
    bus: &Bus,
    agent: AgentOptions,
    push: &Push,
    labels: &[(String, String)],
) -> Result<(), Error> {
    let options = PushOptions {
        self_metrics: false,
        grace: PATIENCE,
        // What is not taken is an error, and sent again by whoever handles it.
        queue_folder: None,
        ..options(bus.address(), push, labels)
    };
    if options.destinations.is_empty() {
        return Err(Error::failed(
            "--push-once sends to nobody: give --remote-write or --otlp",
        ));
    }
    let mut snapshot = agent.aggregator.snapshot.clone();
    if bus.aggregator().is_some_and(|aggregator| aggregator.alive) {
        match bus.flush(PATIENCE) {
            Err(full @ FlushError::NoRoom { .. }) => warn(full),
            flushed => flushed.map_err(Error::failed)?,
        }
    } else {
        let unsampled = AgentOptions {
            sampling: None,
            ..agent
        };
        let agent = Agent::start(bus, unsampled, warn).map_err(Error::failed)?;
        agent.stop();
        snapshot = Some(agent.snapshot().to_owned());
    }
    let snapshot = snapshot.unwrap_or_else(|| bus.address().snapshot());
    let pusher = Pusher::start(bus, snapshot, options, warn).map_err(Error::failed)?;
    let left = pusher.stop();
    match (left.unsent, left.lost) {
        (0, 0) => Ok(()),
        (unsent, lost) => Err(Error::failed(format!(
            "not all of it was taken: {unsent} requests were not, and {lost} samples were refused"
        ))),
    }
}

fn options(address: &Address, push: &Push, typed: &[(String, String)]) -> PushOptions {
    PushOptions {
        destinations: push.destinations(),
        interval: push.push_interval,
        labels: labels(address, typed),
        queue_bytes: push.push_queue_size,
        queue_folder: push.push_queue.clone(),
        ..PushOptions::default()
    }
}

/// What was typed; beside it the bus is the job, and the host the instance: what keeps the series
/// of many hosts apart.
fn labels(address: &Address, typed: &[(String, String)]) -> Vec<(String, String)> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut labels = typed.to_vec();
    for (name, value) in [
        ("job", address.to_string()),
        ("instance", host.trim().to_owned()),
    ] {
        if typed.iter().all(|(typed, _)| typed != name) {
            labels.push((name.to_owned(), value));
        }
    }
    labels
}
