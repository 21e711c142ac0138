//! `qbus agg`

use std::thread;

use qbus::{Address, Bus};
use qbus_agent::{Agent, AgentOptions, SamplingOptions};
use qbus_aggregate::AggregatorOptions;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::Agg;
use crate::command::open;
#[cfg(feature = "http")]
use crate::command::serve;
use crate::error::{Doing, Error};
use crate::sampling::{self, warn};

pub(crate) fn run(address: &Address, agg: &Agg) -> Result<(), Error> {
    // Before anything is made that a signal would leave behind.
    let mut signals = Signals::new([SIGTERM, SIGINT]).doing("handle signals")?;
    let bus = if agg.no_create {
        open(address)?
    } else {
        Bus::open_or_create(address, &qbus::BusOptions::default()).map_err(Error::failed)?
    };
    bus.set_role("aggregator");
    let agent = Agent::start(&bus, options(agg), warn).map_err(Error::failed)?;
    warn(format_args!(
        "aggregating the bus {address} into {}",
        agent.snapshot().display()
    ));
    // It goes when this returns.
    #[cfg(feature = "http")]
    let _server = (!agg.listen.is_empty())
        .then(|| serve::start(address, agent.snapshot(), &agg.listen, None, &agg.web))
        .transpose()?;
    let waiting = signals.handle();
    thread::scope(|scope| {
        scope.spawn(|| {
            if signals.forever().next().is_some() {
                agent.stop();
            }
        });
        // It ends by itself when the bus is removed.
        agent.wait();
        waiting.close();
    });
    agent.stop();
    if bus.is_removed() {
        return Err(Error::Absent(format!(
            "the bus {address} was removed; nothing is aggregated any more"
        )));
    }
    Ok(())
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
    }
}
