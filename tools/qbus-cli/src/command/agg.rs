//! `qbus agg`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, Bus};
use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_collector::sampling::sample_until;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::Agg;
use crate::command::open;
use crate::error::{Doing, Error};
use crate::sampling::{self, warn};

/// A lack of room that lasts is told this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

pub(crate) fn run(address: &Address, agg: &Agg) -> Result<(), Error> {
    // Before anything is made that a signal would leave behind.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).doing("handle signals")?;
    }
    let bus = if agg.no_create {
        open(address)?
    } else {
        Bus::open_or_create(address, &qbus::BusOptions::default()).map_err(Error::failed)?
    };
    bus.set_role("aggregator");
    let config = AggregatorOptions {
        snapshot: agg.snapshot.clone(),
        history: agg.history,
        recent: agg.recent,
        ..AggregatorOptions::default()
    };
    let mut aggregator = Aggregator::open(&bus, &config).map_err(Error::failed)?;
    warn(format_args!(
        "aggregating the bus {address} into {}",
        aggregator.snapshot().display()
    ));

    let (stop_sampler, stopped) = mpsc::channel();
    let sampler = {
        let (bus, snapshot) = (
            bus.clone(),
            (!agg.no_self).then(|| aggregator.snapshot().to_owned()),
        );
        let interval = agg.interval;
        let config = sampling::config(&agg.sources, agg.no_host, agg.no_gpu);
        let sample = move || {
            if let Err(error) = sample_until(
                &bus,
                snapshot.as_deref(),
                config,
                interval,
                &stopped,
                &mut |news| warn(news),
            ) {
                warn(format_args!("not sampling: {error}"));
            }
        };
        thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(sample)
            .doing("start the sampler")?
    };
    let mut warned: Option<Instant> = None;
    aggregator.run(agg.spin, &|| stop.load(Ordering::Relaxed), &mut |error| {
        if warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            warned = Some(Instant::now());
            warn(format_args!(
                "the snapshot cannot grow, new series are left out: {error}"
            ));
        }
    });
    // The sampler's last records are part of what is left.
    drop(stop_sampler);
    if sampler.join().is_err() {
        warn("the sampler panicked");
    }
    aggregator.finish();
    if bus.is_removed() {
        return Err(Error::Absent(format!(
            "the bus {address} was removed; nothing is aggregated any more"
        )));
    }
    Ok(())
}
