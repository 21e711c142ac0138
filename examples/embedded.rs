//! A program with metrics and no set-up: the collector embeds a bus and its aggregator.
//!
//!     cargo run --release -p qbus-examples --bin embedded
//!
//! With `QBUS=NAME` in the environment the same program emits to that bus, and `qbus agg -b NAME`
//! aggregates it beside all others.

use std::error::Error;

use qbus_collector::{Collector, CollectorOptions, Metric};

fn main() -> Result<(), Box<dyn Error>> {
    let collector = Collector::new(&CollectorOptions::default())?;
    // From now on the machine and this process are sampled every second.
    collector.start_collection();

    for batch in 1..=100_u32 {
        collector.add_performance_tracker("train_step", None, None);
        let loss = 2.0 / f64::from(batch);
        collector.add_metric(&Metric {
            labels: &[("split", "train")],
            description: "Mean loss of a batch.",
            ..Metric::gauge("loss", loss)
        })?;
        // Emits how long the step took, and what memory it left.
        collector.end_performance_tracker("train_step")?;
    }

    let loss = collector.get_metric("loss", &[("split", "train")]);
    println!("the last loss: {:?}", loss.map(|series| series.value));
    print!("{}", collector.export_to_prometheus(false)?);
    Ok(())
}
