//! Another pid namespace, another user, a clock that was set back, and a machine on which
//! everything was killed at once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use qbus::{BusOptions, Kind, Record};
use qbus_aggregate::{Aggregator, ReadOptions, Reader, Value};
use qbus_tests::{Finished, Lane, Load, Place, Process, TestBus, Totals, check_load, run, until};
use tempfile::TempDir;

use super::{AGGREGATOR, PRODUCER, is_root};

/// uid and gid of nobody, wherever Debian's base-passwd is.
const NOBODY: u32 = 65534;

fn begin(test: &TestBus, load: &Load) -> Process {
    load.begin(PRODUCER, test.address())
}

#[test]
fn a_sidecar_in_another_pid_namespace_tells_the_living_from_the_dead() {
    if !is_root("an aggregator in a pid namespace of its own") {
        return;
    }
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let mut command = Command::new("unshare");
    command.args([
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        AGGREGATOR,
    ]);
    command.arg(test.address().to_string());
    let sidecar = Process::spawn(command);
    assert_eq!(sidecar.line(), "ready");
    // Pid 1 of its namespace: none of the pids in the owner table means anything there.
    assert_eq!(
        bus.aggregator()
            .map(|aggregator| (aggregator.pid, aggregator.alive)),
        Some((1, true))
    );

    let (living, dying) = (
        Load::counting("living", Lane::Wait),
        Load::counting("dying", Lane::Wait),
    );
    let mut survivor = begin(&test, &living);
    let victim = begin(&test, &dying);
    let holders = |pid: u64| {
        let owners = bus.owners().expect("the locks answer");
        let id = owners
            .iter()
            .find(|owner| owner.pid == pid && owner.alive)
            .map(|owner| owner.id);
        bus.lanes()
            .iter()
            .filter(|lane| id.is_some() && lane.holder == id)
            .count()
    };
    let (survivor_pid, victim_pid) = (survivor.pid(), victim.pid());
    until("both have lanes", || {
        holders(survivor_pid) == 2 && holders(victim_pid) == 2
    });
    victim.kill();
    until("the sidecar reaps the dead one", || {
        bus.counts().reaped == 1
    });
    assert_eq!(
        bus.lanes()
            .iter()
            .filter(|lane| lane.holder.is_some())
            .count(),
        2
    );
    assert_eq!(holders(survivor_pid), 2, "the living one keeps its lanes");
    let reports = living.reports(&mut survivor);
    survivor.end_well();
    sidecar.end_well();
    check_load(
        &Totals::read(&bus, &mut test.reader()),
        &living,
        survivor_pid,
        &reports,
    );
}

/// A copy of a program, `helper`, that other users may execute too.
pub(crate) fn public_copy(program: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our folder");
    // Not by this process: what it forks meanwhile would hold the copy open, which then cannot run.
    let copied = Command::new("cp")
        .arg(program)
        .arg(folder.path().join("helper"))
        .status();
    assert!(copied.expect("it runs").success(), "no copy of {program}");
    folder
}

/// The producer where nobody may execute it, and run by nobody.
fn producer_of_nobody(test: &TestBus, load: &Load) -> (TempDir, Command) {
    let folder = public_copy(PRODUCER);
    let program = folder.path().join("helper");
    let mut command = Command::new("setpriv");
    let ids = [
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        "--clear-groups".to_owned(),
    ];
    command
        .args(ids)
        .arg(program)
        .arg(test.address().to_string())
        .args(load.to_args());
    (folder, command)
}

#[test]
fn a_group_shares_a_bus_of_mode_0660() {
    if !is_root("a second user") {
        return;
    }
    let test = TestBus::reserve(Place::Named);
    let config = BusOptions {
        geometry: TestBus::small_geometry(),
        mode: 0o660,
        ..BusOptions::default()
    };
    let bus = qbus::Bus::create(test.address(), &config).expect("room");
    chown(test.address().file(), None, Some(NOBODY)).expect("root may");
    let mut aggregator = Aggregator::open(&bus, &qbus_aggregate::AggregatorOptions::default())
        .expect("the only one");
    // Whoever of the group comes after this process may go on with the snapshot.
    let snapshot = fs::metadata(test.address().snapshot()).expect("a snapshot");
    assert_eq!((snapshot.gid(), snapshot.mode() & 0o777), (NOBODY, 0o660));
    let load = Load {
        records: 50,
        ..Load::counting("nobody", Lane::Handle)
    };
    let (_folder, command) = producer_of_nobody(&test, &load);
    let mut producer = Process::spawn(command);
    assert_eq!(producer.line(), "ready");
    // `setpriv` became the producer: the pid is the same.
    let pid = producer.pid();
    producer.tell("go");
    let reports = load.reports(&mut producer);
    producer.end_well();
    aggregator.finish();
    check_load(
        &Totals::read(&bus, &mut test.reader()),
        &load,
        pid,
        &reports,
    );
}

#[test]
fn a_bus_of_mode_0600_is_refused_to_others() {
    if !is_root("a second user") {
        return;
    }
    let test = TestBus::small(Place::Named);
    let (_folder, mut command) = producer_of_nobody(&test, &Load::counting("nobody", Lane::Handle));
    let Finished { code, err, .. } = run(command.stdin(Stdio::null()), "");
    assert_ne!(code, Some(0));
    assert!(err.contains("Foreign"), "{err}");
}

#[test]
fn a_clock_that_was_set_back_takes_nothing_back() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let level = bus
        .gauge("test_level")
        .register()
        .expect("it fits")
        .series();
    let total = bus
        .counter("test_total")
        .register()
        .expect("it fits")
        .series();
    let producer = bus.producer().expect("a free lane");
    let (late, early) = (2_000_000_000, 1_000_000_000);
    for (timestamp_ns, value) in [(late, 7.0), (early, 5.0)] {
        producer
            .emit(Record::new(timestamp_ns, level, Kind::Set, value))
            .expect("room");
        producer
            .emit(Record::new(timestamp_ns, total, Kind::Increment, value))
            .expect("room");
    }
    let mut aggregator = Aggregator::open(&bus, &qbus_aggregate::AggregatorOptions::default())
        .expect("the only one");
    aggregator.finish();
    let options = ReadOptions {
        history: true,
        ..ReadOptions::default()
    };
    let snapshot = test.reader().read(&options).expect("a snapshot");
    let find = |name| {
        snapshot
            .series
            .iter()
            .find(|series| series.family.name == name)
            .expect("it is there")
    };
    // The last by timestamp: what was said of a later moment is not unsaid by an earlier one.
    assert_eq!(
        (&find("test_level").value, find("test_level").timestamp_ns),
        (&Value::Gauge(7.0), late)
    );
    assert_eq!(
        (&find("test_total").value, find("test_total").timestamp_ns),
        (&Value::Counter(12.0.into()), late)
    );
    // History has what came, in the order in which it came.
    let times: Vec<u64> = find("test_level")
        .history
        .iter()
        .map(|point| point.timestamp_ns)
        .collect();
    assert_eq!(times, [late, early]);
}

/// The sum of all counters that is committed.
fn committed(reader: &mut Reader) -> f64 {
    let snapshot = reader.read(&ReadOptions::default()).expect("a snapshot");
    let value = |value: &Value| {
        if let Value::Counter(sum) = value {
            sum.value()
        } else {
            0.0
        }
    };
    snapshot
        .series
        .iter()
        .map(|series| value(&series.value))
        .sum()
}

#[test]
fn after_a_kill_of_everything_totals_are_what_was_committed_and_what_lay_in_the_lanes() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    for round in 1..=5 {
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        let loads = ["a", "b"].map(|worker| Load::counting(worker, Lane::Wait));
        let producers: Vec<Process> = loads.iter().map(|load| begin(&test, load)).collect();
        let goal = test.reader().globals().records + 1000 * round;
        until("records flow", || test.reader().globals().records >= goal);
        // The aggregator first: what comes after is only in the lanes.
        aggregator.kill();
        until("the lanes to fill", || {
            bus.lanes().iter().any(|lane| lane.fill > 0)
        });
        producers.into_iter().for_each(Process::kill);
        let mut reader = test.reader();
        let before = committed(&mut reader);
        let heads = reader.heads();
        let exclusive = || bus.lanes().into_iter().filter(|lane| !lane.shared);
        let waiting: u64 = exclusive()
            .map(|lane| lane.head + lane.fill - heads[lane.index])
            .sum();
        Process::ready(AGGREGATOR, test.address(), &[]).end_well();
        assert_eq!(
            committed(&mut test.reader()),
            before + waiting as f64,
            "round {round}"
        );
        assert_eq!(exclusive().filter(|lane| lane.holder.is_some()).count(), 0);
    }
}
