//! `qbus agg`

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use qbus::{Address, Bus, FlushError};
#[cfg(feature = "statsd")]
use qbus_agent::listen::{ListenOptions, Listeners};
use qbus_agent::{Agent, AgentOptions, SamplingOptions};
use qbus_aggregate::AggregatorOptions;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::Agg;
#[cfg(feature = "push")]
use crate::command::push;
#[cfg(feature = "http")]
use crate::command::serve;
use crate::command::{is_an_end, open};
use crate::error::{Doing, Error};
use crate::log::{self, info, warn};
use crate::sampling;
use crate::service::Manager;

pub(crate) fn run(address: &Address, agg: &Agg) -> Result<(), Error> {
    log::set_level(agg.log_level);
    #[cfg(feature = "http")]
    if agg.listen.is_empty() && agg.web.is_typed() {
        let why = "--web.… says how to serve, and nothing is served without --listen ADDRESS";
        return Err(Error::Failed(why.to_owned()));
    }
    // Before anything is made that a signal would leave behind.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).doing("handle signals")?;
    let manager = Manager::of_environment();
    let bus = if agg.no_create {
        open(address)?
    } else {
        Bus::open_or_create(address, &qbus::BusOptions::default()).map_err(Error::failed)?
    };
    #[cfg(feature = "push")]
    if agg.push.push_once {
        return push::once(&bus, options(agg), &agg.push, &agg.labels);
    }
    bus.set_role("aggregator");
    let agent = Agent::start(&bus, options(agg), warn).map_err(Error::failed)?;
    let into = agent.snapshot().display();
    let status = format!("aggregating the bus {address} into {into}");
    info(&status);
    // It goes when this returns.
    #[cfg(feature = "http")]
    let _server = (!agg.listen.is_empty())
        .then(|| {
            serve::start(
                address,
                agent.snapshot(),
                &agg.listen,
                None,
                &agg.web,
                &agg.labels,
            )
        })
        .transpose()?;
    #[cfg(feature = "statsd")]
    let listeners = listen(&bus, &agg.statsd.options())?;
    #[cfg(feature = "push")]
    let pusher = push::start(&bus, agent.snapshot(), &agg.push, &agg.labels, !agg.no_self)?;
    manager.ready(&status);
    let waiting = signals.handle();
    let (ending, is_ending) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            if signals.forever().any(is_an_end) {
                manager.stopping();
                // What it has taken is part of the last commit.
                #[cfg(feature = "statsd")]
                drop(listeners);
                agent.stop();
            }
        });
        let (bus, manager) = (&bus, &manager);
        scope.spawn(move || keep_watchdog_content(bus, manager, &is_ending));
        // It ends by itself when the bus is removed.
        agent.wait();
        drop(ending);
        waiting.close();
    });
    agent.stop();
    // After the last commit, which is part of what is sent.
    #[cfg(feature = "push")]
    pusher.into_iter().for_each(push::stop);
    if bus.is_removed() {
        return Err(Error::Absent(format!(
            "the bus {address} was removed; nothing is aggregated any more"
        )));
    }
    Ok(())
}

/// Listens for StatsD, and says where.
#[cfg(feature = "statsd")]
fn listen(bus: &Bus, options: &ListenOptions) -> Result<Listeners, Error> {
    let listeners = Listeners::start(bus, options).map_err(Error::failed)?;
    for address in listeners.addresses() {
        warn(format_args!("listening for StatsD at {address}"));
    }
    Ok(listeners)
}

/// Tells the service manager again and again that the aggregator works: what was emitted before is
/// committed soon after.
fn keep_watchdog_content(bus: &Bus, manager: &Manager, is_ending: &Receiver<()>) {
    let Some(limit) = manager.watchdog() else {
        return;
    };
    let mut is_content = true;
    // As often as systemd advises: twice in the time that it waits.
    while let Err(RecvTimeoutError::Timeout) = is_ending.recv_timeout(limit / 4) {
        let flushed = bus.flush(limit / 4);
        // A full file system is not cured by a restart.
        let is_working = matches!(flushed, Ok(()) | Err(FlushError::NoRoom { .. }));
        if is_working {
            manager.alive();
        } else if is_content {
            warn("nothing is committed any more: the watchdog is not told that all is well");
        }
        is_content = is_working;
    }
}

/// What was typed, as an agent wants it.
fn options(agg: &Agg) -> AgentOptions {
    AgentOptions {
        aggregator: AggregatorOptions {
            snapshot: agg.snapshot.clone(),
            history: agg.history,
            recent: agg.recent,
            latency: agg.latency,
        },
        sampling: Some(SamplingOptions {
            sampler: sampling::options(&agg.sources, agg.no_host, agg.no_gpu),
            interval: agg.interval,
            self_metrics: !agg.no_self,
        }),
        spin: agg.spin,
        max_series_per_family: agg.max_series_per_family,
    }
}
