//! Liveness is a lock, and its descriptor can be lost, copied, or confused with another: nobody is
//! thought dead who lives, nobody kept alive who left, and no lane has two producers.

use qbus_tests::{Place, Process, TestBus, Totals, until};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const STRAY: &str = env!("CARGO_BIN_EXE_test-stray");

fn stray(test: &TestBus, mode: &str, rounds: u64) -> Process {
    Process::ready(
        STRAY,
        test.address(),
        &[mode.to_owned(), rounds.to_string()],
    )
}

/// The number behind a word that the stray says.
fn said(stray: &Process, word: &str) -> u64 {
    let line = stray.line();
    let rest = line
        .strip_prefix(word)
        .and_then(|rest| rest.trim().parse().ok());
    rest.unwrap_or_else(|| panic!("{line:?}, not {word} and a number"))
}

fn alive(bus: &qbus::Bus) -> usize {
    let owners = bus.owners().expect("the locks answer");
    owners.into_iter().filter(|owner| owner.alive).count()
}

#[test]
fn a_process_that_closes_all_descriptors_loses_no_record() {
    for place in Place::ALL {
        // One exclusive lane: who takes it from the first one writes where it wrote.
        let geometry = qbus::Geometry {
            lanes: 2,
            ..TestBus::small_geometry()
        };
        let test = TestBus::create(place, geometry);
        let bus = test.open();
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        let mut first = stray(&test, "closes", 20_000);
        let is_held = || bus.lanes().iter().any(|lane| lane.holder.is_some());
        until("the lane of the one that looks dead to come back", || {
            !is_held()
        });
        let mut second = stray(&test, "closes", 20_000);
        first.tell("go");
        second.tell("go");
        let accepted = said(&first, "emitted") + said(&second, "emitted");
        first.end_well();
        second.end_well();
        aggregator.end_well();
        let totals = Totals::read(&bus, &mut test.reader());
        assert_eq!(totals.counter("test_stray"), accepted as f64, "{place:?}");
        assert_eq!(totals.ledger().delivered, accepted);
        assert_eq!(bus.counts().violations, 0);
    }
}

#[test]
fn a_number_that_means_another_file_by_now_is_not_closed() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let mut stray = stray(&test, "reuses", 100);
        stray.tell("go");
        let line = stray.line();
        let numbers: Vec<u64> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{line}");
        stray.end_well();
    }
}

#[test]
fn a_copy_of_the_descriptor_does_not_keep_who_left_alive() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let mut stray = stray(&test, "duplicates", 0);
        assert_eq!(alive(&bus), 1);
        stray.tell("go");
        assert_eq!(stray.line(), "left");
        assert_eq!(alive(&bus), 0, "{place:?}");
        stray.end_well();
    }
}

#[test]
fn a_fork_beside_a_join_does_not_keep_who_left_alive() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    // Whether any fork of a process meets a join is up to the scheduler.
    let has_met = (0..20).any(|_| {
        let mut stray = stray(&test, "forks", 300);
        stray.tell("go");
        let joined = said(&stray, "joined");
        assert_eq!(alive(&bus), 0, "a lock that an idle child keeps");
        stray.end_well();
        joined > 0
    });
    assert!(has_met);
}

#[test]
fn threads_of_a_child_that_emit_first_at_once_keep_their_lock() {
    let test = TestBus::small(Place::Named);
    let mut stray = stray(&test, "races", 300);
    stray.tell("go");
    assert_eq!(said(&stray, "lost"), 0);
    stray.end_well();
}

#[test]
fn a_daemon_emits_on_whatever_it_forks_and_closes() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        let mut stray = stray(&test, "daemonizes", 100);
        stray.tell("go");
        let accepted = said(&stray, "emitted");
        assert_eq!(accepted, 500);
        stray.close_input();
        stray.await_silence();
        aggregator.end_well();
        let totals = Totals::read(&bus, &mut test.reader());
        assert_eq!(totals.counter("test_stray"), accepted as f64);
    }
}

#[test]
fn a_program_that_it_starts_does_not_keep_who_left_alive() {
    for leaves in [true, false] {
        let test = TestBus::small(Place::Named);
        let bus = test.open();
        let mut stray = stray(&test, "spawns", 0);
        assert_eq!(alive(&bus), 1);
        stray.tell("go");
        assert_eq!(stray.line(), "started");
        if leaves {
            stray.tell("leave");
            assert_eq!(stray.line(), "left");
            assert_eq!(alive(&bus), 0);
            stray.end_well();
        } else {
            stray.kill();
            assert_eq!(alive(&bus), 0, "the program that it started lives");
        }
    }
}

/// Its lock goes when it becomes another program; a copy of the descriptor that the program
/// inherits keeps it for as long as that runs, which is as long as nobody else can have its lane.
#[test]
fn what_becomes_another_program_is_dead_at_the_latest_when_that_ends() {
    for (mode, lives_on) in [("executes", 0), ("executes-a-copy", 1)] {
        let test = TestBus::small(Place::Named);
        let bus = test.open();
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        let mut stray = stray(&test, mode, 0);
        assert_eq!(alive(&bus), 1);
        stray.tell("go");
        let program = format!("/proc/{}/comm", stray.pid());
        until("the other program", || {
            std::fs::read_to_string(&program).is_ok_and(|name| name == "cat\n")
        });
        assert_eq!(alive(&bus), lives_on, "{mode}");
        stray.close_input();
        stray.await_silence();
        until("its lane to come back", || {
            !bus.lanes().iter().any(|lane| lane.holder.is_some())
        });
        aggregator.end_well();
        let totals = Totals::read(&bus, &mut test.reader());
        assert_eq!(totals.counter("test_stray"), 1.0, "{mode}");
        assert_eq!(totals.ledger().delivered, 1);
    }
}

#[test]
fn an_aggregator_whose_descriptors_are_closed_goes_on_and_leaves_other_files_alone() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let mut stray = stray(&test, "aggregates", 0);
        stray.tell("go");
        assert_eq!(said(&stray, "refused"), 1, "{place:?}");
        assert!(said(&stray, "grown") > 0, "{place:?}");
        let emitted = said(&stray, "emitted");
        assert_eq!(said(&stray, "bytes"), 0, "somebody else's file");
        stray.end_well();
        let totals = Totals::read(&test.open(), &mut test.reader());
        assert_eq!(totals.counter("test_stray"), emitted as f64);
        assert_eq!(totals.ledger().delivered, emitted + 1);
    }
}

#[test]
fn an_aggregator_that_lost_its_lock_to_another_one_commits_nothing_more() {
    let test = TestBus::small(Place::Named);
    let mut stray = stray(&test, "is-superseded", 40);
    stray.tell("go");
    assert_eq!(said(&stray, "superseded"), 1);
    let emitted = said(&stray, "emitted");
    stray.end_well();
    assert_eq!(emitted, 3 * 40);
    let totals = Totals::read(&test.open(), &mut test.reader());
    assert_eq!(totals.counter("test_stray"), emitted as f64);
    assert_eq!(totals.ledger().delivered, emitted);
}
