//! As many as there may be, and one more.

use super::{HERE, host_of_a_name};

#[test]
fn two_thousand_threads_and_a_thousand_processes_emit_at_once() {
    let (_test, mut host) = host_of_a_name(HERE);
    host.expect("create 1024 256", "open");
    host.expect("aggregate", "aggregating");
    // A thread waits a while for another one that joins, and no longer: this one has joined.
    host.expect("emit 1", "accepted 1 of 1");
    // Most have a lane of their own, the others a share of one that nobody drains meanwhile.
    host.expect("threads 1250", "accepted 1250 of 1250");
    host.expect("finish", "counted 1251");
    host.expect("threads 2000", "accepted 2000 of 2000");
    host.expect("finish", "counted 3251");
    host.expect("fork 1000", "accepted 1000 of 1000");
    host.expect("finish", "counted 4251");
    host.expect("rest", "resting");
    host.expect("force", "removed");
    host.end();
}

#[test]
fn the_most_lanes_and_one_more() {
    let (_test, mut host) = host_of_a_name(HERE);
    host.expect_refusal("create 4097 2", &["4097", "4096"]);
    host.expect_refusal("create 64 33554432", &["33554432", "16777216"]);
    host.expect("create 4096 64", "open");
    // A thread waits a while for another one that joins, and no longer: this one has joined.
    host.expect("emit 1", "accepted 1 of 1");
    host.expect("threads 300", "accepted 300 of 300");
    host.expect("aggregate", "aggregating");
    host.expect("finish", "counted 301");
    host.expect("force", "removed");
    host.end();
}

#[test]
fn a_bus_of_a_gibibyte() {
    let shm = rustix::fs::statvfs("/dev/shm");
    let available = shm.map_or(0, |shm| shm.f_bavail * shm.f_frsize);
    let (_test, mut host) = host_of_a_name(HERE);
    if available > 4 << 30 {
        host.expect("create 64 262144", "open");
        host.expect("emit 1000", "accepted 1000 of 1000");
        host.expect("aggregate", "aggregating");
        host.expect("finish", "counted 1000");
        host.expect("force", "removed");
    }
    // 64 GiB and more is refused as a number, what the place has no room for by its name.
    host.expect_refusal("create 128 16777216", &["size in bytes"]);
    host.end();
}

#[test]
fn two_hundred_buses_in_one_process() {
    use qbus_tests::{Place, TestBus};
    let tests: Vec<TestBus> = (0..200).map(|_| TestBus::small(Place::Named)).collect();
    let counters: Vec<_> = tests
        .iter()
        .map(|test| test.open().counter("test_many").register().expect("room"))
        .collect();
    for round in 1..=2 {
        for counter in &counters {
            counter.try_add(1.0).expect("a lane of each bus");
        }
        for test in &tests {
            let options = qbus_aggregate::AggregatorOptions::default();
            let mut aggregator =
                qbus_aggregate::Aggregator::open(&test.open(), &options).expect("it");
            aggregator.finish();
            assert_eq!(test.reader().globals().records, round);
        }
    }
}
