//! A worker process: it answers requests, and says how it fares on the bus.
//!
//!     qbus agg -b inference &
//!     QBUS=inference cargo run --release -p qbus-examples --bin worker -- 1000
//!     qbus dump -b inference --match 'request*'
//!
//! Start as many of them as you like: their counters and histograms add up.

use std::error::Error;
use std::time::Duration;
use std::{env, thread};

use qbus::{Bus, BusOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let requests: u32 = env::args().nth(1).map_or(Ok(1000), |typed| typed.parse())?;
    let name = env::var("QBUS").unwrap_or_else(|_| "default".to_owned());

    // Who comes first makes the bus. An aggregator may come later: what is emitted waits for it.
    let bus = Bus::open_or_create(&name.parse()?, &BusOptions::default())?;
    // A role groups the processes on the page: their CPU time and memory are shown by it.
    bus.set_role("worker");

    // Registering takes a microsecond or so and can fail; using a handle takes nanoseconds and
    // cannot.
    let answered = bus
        .counter("requests_total")
        .help("Requests answered.")
        .label("endpoint", "/predict")
        .register()?;
    let seconds = bus
        .histogram("request_seconds")
        .help("Time from request to answer.")
        .unit("seconds")
        .buckets([0.0005, 0.001, 0.0025, 0.005, 0.01])
        .register()?;
    let in_flight = bus
        .gauge("requests_in_flight")
        .help("Requests that are being answered.")
        .register()?;

    for request in 0..requests {
        in_flight.add(1.0);
        let timer = seconds.start_timer();
        predict(request);
        // Observes the time since it was started.
        drop(timer);
        in_flight.add(-1.0);
        answered.inc();
    }
    Ok(())
}

/// What takes the time.
fn predict(request: u32) {
    thread::sleep(Duration::from_micros(100 + u64::from(request % 10) * 50));
}
