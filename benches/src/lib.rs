//! What the benchmarks share: a bus of their own, an aggregator beside them, and how results are
//! printed.
#![allow(clippy::print_stdout)]

use std::path::Path;

use qbus::{Address, BusOptions};
pub use qbus_cli::stage::{Machine, Stage, quantile};

/// Whether this is a measurement (`cargo bench`), and not a test that it runs (`cargo test
/// --benches`).
pub fn is_measured() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// Says what is measured, and on what.
pub fn print_machine(title: &str) {
    println!("{title}\nmachine: {}", Machine::this());
}

/// A bus of the default geometry that nobody else uses, and an aggregator beside it.
///
/// # Panics
///
/// When there is no room for it.
pub fn start(name: &str, spin: bool) -> Stage {
    start_with(name, &BusOptions::default(), spin)
}

/// As [`start`], with a bus as one likes.
///
/// # Panics
///
/// When there is no room for it.
pub fn start_with(name: &str, options: &BusOptions, spin: bool) -> Stage {
    let mut stage = Stage::create(&unused(name), options).expect("room in /dev/shm");
    stage.aggregate(spin).expect("the only aggregator");
    stage
}

/// A bus's name that nobody else uses: in the folder QBUS_BENCH_FOLDER if that is set, so that
/// whoever set it can clean up after a run that was killed.
///
/// # Panics
///
/// When a bus cannot lie in that folder.
pub fn unused(name: &str) -> Address {
    let name = format!("bench-{name}-{}", std::process::id());
    let text = match std::env::var_os("QBUS_BENCH_FOLDER") {
        Some(folder) => Path::new(&folder).join(name).display().to_string(),
        None => name,
    };
    text.parse().expect("a name")
}
