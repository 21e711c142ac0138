//! The collector as its users see it: embedded, and on a bus that others share.

mod adding;
mod daemons;
#[cfg(all(feature = "push", feature = "statsd"))]
mod doors;
mod lifecycle;
mod reading;
#[cfg(feature = "http")]
mod serving;
mod shared_bus;

use qbus_collector::{Collector, CollectorOptions};

/// A private collector, whatever the environment says.
fn collector() -> Collector {
    assert_eq!(
        std::env::var_os("QBUS"),
        None,
        "these tests need the default"
    );
    Collector::new(&CollectorOptions::default()).unwrap()
}
