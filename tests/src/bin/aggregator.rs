//! Aggregates a bus until its input is closed: `test-aggregator BUS [HISTORY RECENT]`.

use std::error::Error;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use qbus::Bus;
use qbus_aggregate::{Aggregator, AggregatorOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (bus, sizes) = args.split_first().ok_or("expected BUS [HISTORY RECENT]")?;
    let mut config = AggregatorOptions::default();
    if let [history, recent] = sizes {
        (config.history, config.recent) = (history.parse()?, recent.parse()?);
    }
    let bus = Bus::open(&bus.parse()?)?;
    let mut aggregator = match Aggregator::open(&bus, &config) {
        Ok(aggregator) => aggregator,
        Err(error) => {
            writeln!(io::stdout(), "refused: {error}")?;
            return Ok(());
        }
    };
    writeln!(io::stdout(), "ready")?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        stopper.store(true, Ordering::Relaxed);
    });
    aggregator.run(false, &|| stop.load(Ordering::Relaxed), &mut |news| {
        panic!("an aggregator of a test has nothing to tell: {news:?}");
    });
    Ok(())
}
