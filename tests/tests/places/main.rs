//! Places that differ: what a program meets there is the right thing or a clear refusal, and it
//! goes on.

mod filesystems;
mod kernels;
mod limits;
mod paths;
mod processes;
mod scale;
mod time;
mod users;
mod versions;

use qbus::Address;
use qbus_tests::{Host, Place, TestBus};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");
const HOST: &str = env!("CARGO_BIN_EXE_test-host");

/// No particular place.
const HERE: &str = "exec \"$@\"";

/// Says aloud that a test was skipped.
fn skip(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED, {why}");
}

/// Whether this process is root; says so aloud when a test is skipped for it.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(&format!("it needs root: {what}"));
    }
    root
}

/// Starts a host in a place that shell makes; it ends by `exec "$@"`.
fn host(address: &Address, place: &str) -> Host {
    Host::start(HOST, address, place)
}

/// A name for a bus, and a host of it in a place.
fn host_of_a_name(place: &str) -> (TestBus, Host) {
    let test = TestBus::reserve(Place::Named);
    let host = host(test.address(), place);
    (test, host)
}

/// Makes a bus, emits, aggregates and reads back: all as it should be.
fn check_all_works(host: &mut Host) {
    host.expect("create", "open");
    host.expect("emit 3", "accepted 3 of 3");
    host.expect("aggregate", "aggregating");
    host.expect("finish", "counted 3");
    host.expect("threads 4", "accepted 4 of 4");
    host.expect("finish", "counted 7");
    host.expect("rest", "resting");
    host.expect("aggregate", "aggregating");
    host.expect("read", "counted 7");
    host.expect("force", "removed");
}

/// A bus that cannot be made there; nothing is left, and the program goes on.
fn check_refused(host: &mut Host, words: &[&str]) {
    host.expect_refusal("create", words);
    host.expect_refusal("emit 3", &["no bus"]);
    host.expect_refusal("open", &["there is no "]);
}
