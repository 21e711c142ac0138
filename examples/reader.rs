//! A reader: prints what a bus says, from its snapshot alone.
//!
//!     cargo run --release -p qbus-examples --bin reader -- inference
//!
//! It maps one file read-only. No worker and no aggregator notices it, and it works as well when
//! all of them are gone.

use std::env;
use std::error::Error;

use qbus::Address;
use qbus_aggregate::{ReadOptions, Reader, Value};

fn main() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).unwrap_or_else(|| "default".to_owned());
    let address: Address = name.parse()?;
    let mut reader = Reader::open(&address.snapshot())?;

    // One cut: all series as they were at one commit of the aggregator.
    let snapshot = reader.read(&ReadOptions::default())?;
    println!(
        "{name}, commit {}, {} series",
        snapshot.epoch,
        snapshot.series.len()
    );
    for series in &snapshot.series {
        let labels: Vec<String> = series
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let value = match &series.value {
            Value::Counter(sum) => sum.to_string(),
            Value::Gauge(value) => value.to_string(),
            Value::Histogram(observed) => {
                format!("{} observations, sum {}", observed.count, observed.sum)
            }
            Value::Summary(observed) => {
                format!("{} observations, sum {}", observed.count, observed.sum)
            }
        };
        println!("{} {{{}}} {value}", series.family.name, labels.join(", "));
    }
    Ok(())
}
