//! Coming and going: lanes change hands, the dead are found, the second aggregator is refused, and
//! a bus that is removed ends for those who have it.

use std::sync::Barrier;
use std::thread;

use qbus::{
    Bus, ConsumeError, CreateError, EmitError, Geometry, JoinError, LaneView, Removal, RemoveError,
};
use qbus_aggregate::{AggregateError, Aggregator, AggregatorOptions, Value};
use qbus_tests::{Lane, Load, Place, Process, TestBus, Totals, check_load, until};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");

fn begin(bus: &TestBus, load: &Load) -> Process {
    load.begin(PRODUCER, bus.address())
}

fn exclusive(bus: &Bus) -> Vec<LaneView> {
    bus.lanes()
        .into_iter()
        .filter(|lane| !lane.shared)
        .collect()
}

/// Kills one of several producers of that sort of lane in the middle of its load.
fn check_kill(place: Place, lane: Lane) {
    let test = TestBus::small(place);
    let bus = test.open();
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let loads = ["survivor", "other"].map(|worker| Load::counting(worker, lane));
    let mut survivors: Vec<Process> = loads.iter().map(|load| begin(&test, load)).collect();
    for round in 0..5 {
        let victim = begin(&test, &Load::counting("victim", lane));
        let (pid, goal) = (victim.pid(), 100 + round * 97);
        let delivered = || {
            let owners = bus.owners().expect("the locks answer");
            let owner = owners.iter().find(|owner| owner.pid == pid);
            owner.map_or(0, |owner| {
                test.reader().owners()[usize::from(owner.id.index)]
                    .present
                    .delivered
            })
        };
        until("the victim's records", || delivered() >= goal);
        victim.kill();
        let owner = |pid| {
            let owners = bus.owners().expect("the locks answer");
            owners
                .into_iter()
                .find(|owner| owner.pid == pid)
                .expect("its entry")
        };
        assert!(!owner(pid).alive, "the kernel dropped its lock");
        let id = owner(pid).id;
        until("its lanes to come back", || {
            exclusive(&bus).iter().all(|lane| lane.holder != Some(id))
        });
    }
    let reports: Vec<_> = survivors
        .iter_mut()
        .zip(&loads)
        .map(|(process, load)| load.reports(process))
        .collect();
    let pids: Vec<u64> = survivors.iter().map(Process::pid).collect();
    // They have left by now, and their places are still theirs: nobody else has joined since.
    survivors.into_iter().for_each(Process::end_well);
    aggregator.end_well();
    let totals = Totals::read(&bus, &mut test.reader());
    for ((load, pid), reports) in loads.iter().zip(pids).zip(&reports) {
        check_load(&totals, load, pid, reports);
    }
    // Whoever was killed: what the ledger delivered is what the series count.
    let (ledger, folded) = (totals.ledger(), totals.counter("test_counter"));
    // A kill between a cell's value and its pulse leaves a call that is not in the ledger.
    let uncounted = folded - ledger.delivered as f64;
    assert!((0.0..=5.0).contains(&uncounted), "{uncounted} calls");
    assert_eq!(ledger.violations, 0);
}

#[test]
fn a_killed_producer_is_reaped_and_the_others_go_on() {
    for place in Place::ALL {
        check_kill(place, Lane::Handle);
    }
}

#[test]
fn a_killed_producer_of_a_shared_lane_leaves_no_hole() {
    check_kill(Place::Named, Lane::SharedWait);
    check_kill(Place::Path, Lane::Shared);
}

#[test]
fn a_thread_that_ends_gives_its_lane_to_the_next() {
    let geometry = Geometry {
        lanes: 2,
        shared_lanes: 1,
        ..TestBus::ring_geometry()
    };
    let test = TestBus::create(Place::Named, geometry);
    let bus = test.open();
    let counter = bus.counter("test_counter").register().expect("it fits");
    let mut aggregator =
        Aggregator::open(&bus, &AggregatorOptions::default()).expect("the first one");
    let end = |lane: &LaneView| lane.head + lane.fill;
    for lessee in 1..=10_u64 {
        thread::scope(|scope| {
            let emit = || {
                for _ in 0..60 {
                    counter.try_add(1.0).expect("there is room");
                }
                assert!(exclusive(&bus)[0].holder.is_some());
            };
            scope.spawn(emit).join().expect("the thread ends well");
        });
        let lane = exclusive(&bus)[0];
        assert_eq!(lane.holder, None);
        assert_eq!(
            end(&lane),
            lessee * 60,
            "the next goes on where the last one ended"
        );
        // Two of the lessees' records lie in the lane when the next one comes.
        if lessee % 3 == 0 {
            aggregator.round();
        }
    }
    assert_eq!(end(&bus.lanes()[0]), 0, "nobody needed the shared lane");
    aggregator.finish();
    assert_eq!(
        Totals::read(&bus, &mut test.reader()).counter("test_counter"),
        600.0
    );
}

#[test]
fn threads_beyond_the_lanes_get_a_share_or_a_reason() {
    for shared_lanes in [1, 0] {
        let geometry = Geometry {
            lanes: 2 + shared_lanes,
            shared_lanes,
            ..TestBus::small_geometry()
        };
        let test = TestBus::create(Place::Named, geometry);
        let (bus, all) = (test.open(), Barrier::new(5));
        let kinds: Vec<Option<bool>> = thread::scope(|scope| {
            let lease = || {
                let producer = bus.producer();
                all.wait();
                match producer {
                    Ok(producer) => Some(producer.is_exclusive()),
                    Err(JoinError::NoLane { lanes: 2 }) => None,
                    Err(error) => panic!("{error}"),
                }
            };
            let threads: Vec<_> = (0..5).map(|_| scope.spawn(lease)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a lane"))
                .collect()
        });
        let other = (shared_lanes == 1).then_some(false);
        assert_eq!(kinds.iter().filter(|kind| **kind == Some(true)).count(), 2);
        assert_eq!(kinds.iter().filter(|kind| **kind == other).count(), 3);
    }
}

#[test]
fn a_full_owner_table_is_said_and_counted() {
    let geometry = Geometry {
        owners: 1,
        ..TestBus::small_geometry()
    };
    let test = TestBus::create(Place::Named, geometry);
    let (first, second) = (test.open(), test.open());
    let producer = first.producer().expect("the only place");
    let error = second.producer().expect_err("no place");
    assert!(
        matches!(error, JoinError::OwnersFull { owners: 1 }),
        "{error}"
    );
    let counter = second.counter("test_counter").register().expect("it fits");
    for _ in 0..3 {
        assert_eq!(counter.try_add(1.0), Err(EmitError::NotJoined));
    }
    assert_eq!(second.counts().dropped_unowned, 3);
    drop((producer, first));
    until("the place of the one that left", || {
        counter.try_add(1.0).is_ok()
    });
}

#[test]
fn a_second_aggregator_is_refused_with_the_pid_of_the_first() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let first = Process::ready(AGGREGATOR, test.address(), &[]);
        let view = bus.aggregator().expect("an aggregator");
        assert_eq!((view.pid, view.alive), (first.pid(), true));

        match Aggregator::open(&bus, &AggregatorOptions::default()) {
            Err(AggregateError::Consume(ConsumeError::Taken { pid })) => {
                assert_eq!(pid, first.pid());
            }
            other => panic!("not refused: {other:?}"),
        }
        let second = Process::start(AGGREGATOR, test.address(), &[]);
        let line = second.line();
        assert!(line.contains(&format!("pid {}", first.pid())), "{line}");
        second.end_well();

        // Refused without harm: the first goes on, and after its death another can begin.
        let counter = bus.counter("test_counter").register().expect("it fits");
        counter.try_add(1.0).expect("there is room");
        until("the first to commit", || {
            test.reader().globals().records == 1
        });
        first.kill();
        assert!(!bus.aggregator().expect("there was one").alive);
        let own = Aggregator::open(&bus, &AggregatorOptions::default()).expect("the only one");
        // Also within one process.
        let second = Aggregator::open(&test.open(), &AggregatorOptions::default());
        let second = second.expect_err("refused").to_string();
        let pid = format!("pid {}", std::process::id());
        assert!(second.contains(&pid), "{second}");
        drop(own);
        Process::ready(AGGREGATOR, test.address(), &[]).end_well();
    }
}

/// Takes a bus away from a running producer, by `remove`, and makes another one of its name.
fn check_successor(place: Place, remove: &dyn Fn(&TestBus)) {
    let test = TestBus::small(place);
    let old = test.open();
    let load = Load::counting("old", Lane::Handle);
    let mut producer = begin(&test, &load);
    let taken = |lane: &LaneView| lane.fill + lane.calls;
    let fill = |bus: &Bus| bus.lanes().iter().map(taken).sum::<u64>();
    until("the producer's first emits", || fill(&old) > 0);
    remove(&test);
    let new = test.make(TestBus::small_geometry());
    assert_ne!(new.instance(), old.instance());
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let joined = || !new.owners().expect("the locks answer").is_empty();
    until("the producer to join the new bus", joined);
    let of_new = new.counter("test_counter").label("worker", "new");
    let of_new = of_new.label("thread", "0").register().expect("it fits");
    of_new.try_add(7.0).expect("there is room");
    until("the removal to be seen here too", || old.is_removed());
    let committed = || {
        test.reader()
            .owners()
            .iter()
            .map(|row| row.present.delivered)
            .sum::<u64>()
    };
    until("records in the new bus", || committed() > 100);

    let reports = load.reports(&mut producer);
    let accepted: u64 = reports.iter().map(|report| report.accepted).sum();
    producer.end_well();
    aggregator.end_well();
    let totals = Totals::read(&new, &mut test.reader());
    // Nobody drained the old one: what it took lies there, and is nowhere said to be delivered.
    let by_old: f64 = totals.counter("test_counter") - 7.0;
    assert_eq!(by_old + fill(&old) as f64, accepted as f64, "{reports:?}");
    assert!(matches!(old.consumer(), Err(ConsumeError::Removed)));

    // Handles of the old one, and new ones, are of the new one.
    let successor = old.successor().expect("it is there");
    assert_eq!(successor.instance(), new.instance());
    let other = old.counter("test_other").register().expect("it fits");
    assert_eq!(other.try_add(1.0), Ok(()));
    assert!(new.find("test_other", &[]).is_some());
    drop((old, successor, other, of_new));
    drop(new);
    Bus::remove(test.address(), Removal::Unused).expect("nobody has it");
}

#[test]
fn producers_of_a_bus_that_was_removed_join_the_next_one() {
    for place in Place::ALL {
        check_successor(place, &|test| {
            let pids = [test.open().owners().expect("the locks answer")[0].pid];
            match Bus::remove(test.address(), Removal::Unused) {
                Err(RemoveError::InUse { pids: found }) => assert_eq!(found, pids),
                other => panic!("removed a bus in use: {other:?}"),
            }
            Bus::remove(test.address(), Removal::Forced).expect("it is removed");
        });
    }
}

#[test]
fn producers_of_a_bus_whose_file_was_unlinked_join_the_next_one() {
    for place in Place::ALL {
        check_successor(place, &|test| {
            std::fs::remove_file(test.address().file()).expect("it was there");
        });
    }
}

#[test]
fn what_a_dead_creator_left_is_removed_and_nothing_else() {
    let mut image = vec![0; 1 << 16];
    image[40_000] = 7;
    // Nothing reserved; reserved and without a header; and what is not ours.
    let cases = [
        (vec![], true),
        (vec![0; 1 << 16], true),
        (vec![7; 100], false),
        (image, false),
    ];
    thread::scope(|scope| {
        for (place, (bytes, is_ours)) in Place::ALL
            .into_iter()
            .flat_map(|p| cases.clone().map(|c| (p, c)))
        {
            scope.spawn(move || {
                let test = TestBus::reserve(place);
                std::fs::write(test.address().file(), &bytes).expect("room");
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(test.address().file(), mode).expect("it is ours");
                let opened = || Bus::open_or_create(test.address(), &qbus::BusOptions::default());
                assert!(opened().is_err(), "a creator may be at it");
                thread::sleep(std::time::Duration::from_secs(5));
                assert_eq!(opened().is_ok(), is_ours, "{} bytes", bytes.len());
            });
        }
    });
}

#[test]
fn an_aggregator_whose_file_was_unlinked_ends() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let mut aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        std::fs::remove_file(test.address().file()).expect("it was there");
        until("the aggregator's end", || !aggregator.is_running());
        assert!(bus.is_removed(), "it told all who have the bus");
    }
}

#[test]
fn a_full_registry_names_who_filled_it_and_counts_every_refusal() {
    let geometry = Geometry {
        series: 8,
        ..TestBus::small_geometry()
    };
    let test = TestBus::create(Place::Named, geometry);
    let bus = test.open();
    let register = |user: u32| {
        let counter = bus.counter("requests_total");
        counter.label("user", &user.to_string()).register()
    };
    (0..8).for_each(|user| drop(register(user).expect("it fits")));
    for user in 8..20 {
        let error = register(user).expect_err("no room").to_string();
        assert!(
            error.contains("requests_total") && error.contains("user"),
            "{error}"
        );
    }
    assert_eq!(bus.counts().refused_series, 12);
    assert!(register(3).is_ok(), "a known series is found");
}

#[test]
fn a_producer_of_a_bus_that_was_removed_says_so() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let counter = bus.counter("test_counter").register().expect("it fits");
    let producer = bus.producer().expect("a lane");
    assert_eq!(counter.try_add(1.0), Ok(()));
    Bus::remove(test.address(), Removal::Forced).expect("it is removed");
    assert!(bus.is_removed());
    assert_eq!(counter.try_add(1.0), Err(EmitError::Removed));
    let record = qbus::Record::new(1, counter.series(), qbus::Kind::Increment, 1.0);
    assert_eq!(producer.emit(record), Err(EmitError::Removed));
    assert_eq!(bus.counts().dropped_unowned, 2);
    assert!(bus.successor().is_none());
}

#[test]
fn a_new_bus_does_not_go_on_with_the_snapshot_of_an_old_one() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let emit = |bus: &Bus, increment| {
            let counter = bus.counter("test_counter").register().expect("it fits");
            counter.try_add(increment).expect("there is room");
        };
        emit(&test.open(), 5.0);
        Process::ready(AGGREGATOR, test.address(), &[]).end_well();
        // As if somebody had deleted the file by hand: the snapshot stays.
        std::fs::remove_file(test.address().file()).expect("it was there");
        let new = test.make(TestBus::small_geometry());
        emit(&new, 3.0);
        Process::ready(AGGREGATOR, test.address(), &[]).end_well();
        let totals = Totals::read(&new, &mut test.reader());
        assert_eq!(totals.counter("test_counter"), 3.0);
        let value = &totals.get("test_counter", &[]).expect("the counter").value;
        assert_eq!(*value, Value::Counter(3.0.into()));
    }
}

#[test]
fn nothing_stays_of_a_bus_that_is_removed() {
    let test = TestBus::small(Place::Path);
    Process::ready(AGGREGATOR, test.address(), &[]).end_well();
    std::fs::remove_file(test.address().file()).expect("it was there");
    drop(test.make(TestBus::small_geometry()));
    Process::ready(AGGREGATOR, test.address(), &[]).end_well();
    Bus::remove(test.address(), Removal::Unused).expect("nobody has it");
    let folder = test.address().file().parent().expect("a folder");
    let left: Vec<_> = std::fs::read_dir(folder).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_lane_with_room_is_leased_before_a_full_one() {
    let test = TestBus::create(Place::Named, TestBus::ring_geometry());
    let bus = test.open();
    let counter = bus.counter("test_counter").register().expect("it fits");
    let fill = || (0..300).filter(|_| counter.try_add(1.0).is_ok()).count();
    // Nobody drains; there are seven exclusive lanes.
    for lessee in 1..=7 {
        let accepted = thread::scope(|scope| scope.spawn(fill).join().expect("it ends well"));
        assert_eq!(accepted, 256, "of lessee {lessee}");
    }
}

#[test]
fn threads_that_come_and_go_do_not_fill_one_lane_in_a_row() {
    let test = TestBus::create(Place::Named, TestBus::ring_geometry());
    let bus = test.open();
    let counter = bus.counter("test_counter").register().expect("it fits");
    let some = || (0..100).filter(|_| counter.try_add(1.0).is_ok()).count();
    // Nobody drains; two of them find room in a lane of 256 slots, and there are seven lanes.
    for thread in 1..=14 {
        let accepted = thread::scope(|scope| scope.spawn(some).join().expect("it ends well"));
        assert_eq!(accepted, 100, "of thread {thread}");
    }
}

#[test]
fn who_aggregates_a_bus_at_once_keeps_it_from_those_who_sweep() {
    // As private buses are: whoever finds one that nobody uses removes it.
    let bus = TestBus::reserve(Place::Named);
    let address = bus.address();
    let options = qbus::BusOptions {
        geometry: TestBus::small_geometry(),
        ..qbus::BusOptions::default()
    };
    let make = || {
        let mut kept = 0;
        while kept < 1000 {
            let made = match Bus::create(address, &options) {
                // The last one was declared removed: its name goes a moment later.
                Err(CreateError::Exists { .. }) => continue,
                made => made.expect("nobody else makes one"),
            };
            match made.consumer() {
                Ok(_aggregating) => {
                    assert!(!made.is_removed(), "it was removed: number {kept}");
                    kept += 1;
                    Bus::remove(address, Removal::Forced).expect("the bus of this test");
                }
                // Who sweeps removes it.
                Err(ConsumeError::Taken { .. } | ConsumeError::Removed) => {
                    until("it to be removed", || made.is_removed());
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    thread::scope(|scope| {
        let maker = scope.spawn(make);
        while !maker.is_finished() {
            // In use, or not there just now.
            let _ = Bus::remove(address, Removal::Unused);
        }
        maker.join().expect("it keeps its buses");
    });
}
