use super::heap::HeapCells;
use super::writer::CellWriter;
use super::*;
use crate::lane::Lease;
use crate::owner::OwnerId;

fn owner(index: u16) -> OwnerId {
    OwnerId {
        index,
        generation: 1,
    }
}

fn write_as(memory: &HeapCells, index: u16) -> CellWriter<'_> {
    let leased = Lease::word(owner(index));
    memory.tail.lease.store(leased, Ordering::Release);
    CellWriter::new(memory.bank(), leased)
}

fn apply(writer: &CellWriter<'_>, unit: &Unit, op: CellOp) -> bool {
    let at = writer.hinted(unit).or_else(|| writer.find(unit));
    at.is_some_and(|at| writer.apply(at, op) != Done::No)
}

/// What came of a series.
type Changes = Vec<(u32, CellChange)>;
/// How many calls were an owner's.
type Calls = Vec<(u16, u64)>;

/// Everything that comes of one round, with a commit.
fn harvest(harvest: &mut Harvest<'_>) -> (Changes, Calls) {
    let (mut changes, mut calls) = (Vec::new(), Vec::new());
    let look = harvest.look();
    let counted = harvest.take(&look, &mut |series, change| {
        changes.push((series.0, change));
        Placed::Yes
    });
    harvest.attribute(counted, &mut |owner, count| {
        calls.push((owner.index, count))
    });
    harvest.committed();
    (changes, calls)
}

fn begin(memory: &HeapCells) -> Harvest<'_> {
    Harvest::new(memory.bank(), &memory.tail.lease)
}

#[test]
fn keys_say_what_they_are_of() {
    let kinds = [
        CellKind::Count,
        CellKind::Sum,
        CellKind::Residue,
        CellKind::Min,
        CellKind::Max,
        CellKind::Last,
        CellKind::Bucket(0),
        CellKind::Bucket(256),
        CellKind::Level,
        CellKind::Stamp,
        CellKind::Sparse((1 << 18) - 1),
    ];
    for series in [0, 1, (1 << 25) - 1] {
        for kind in kinds {
            let key = CellKey::new(SeriesId(series), kind, 7);
            assert_eq!(CellKey::decode(key.0), Some((SeriesId(series), kind)));
        }
    }
    assert_eq!(CellKey::decode(0), None);
    assert_eq!(CellKey::decode(u64::MAX), None);
}

#[test]
fn a_counter_of_whole_and_other_numbers() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let (count, sum) = (Unit::count(SeriesId(3)), Unit::sum(SeriesId(3)));
    assert!(apply(&writer, &count, CellOp::Count(1 << 60)));
    assert!(apply(&writer, &count, CellOp::Count(2)));
    for _ in 0..1000 {
        assert!(apply(&writer, &sum, CellOp::Sum(0.1)));
    }
    let (changes, calls) = harvest(&mut taken);
    assert_eq!(changes[0], (3, CellChange::Count((1 << 60) + 2)));
    let total: (f64, f64) = changes[1..]
        .iter()
        .fold((0.0, 0.0), |sum, change| match change {
            (3, CellChange::Sum(by, residue)) => (sum.0 + by, sum.1 + residue),
            (3, CellChange::Residue(by)) => (sum.0, sum.1 + by),
            other => panic!("{other:?}"),
        });
    assert!((total.0 + total.1 - 100.0).abs() < 1e-13, "{total:?}");
    assert_eq!(calls, [(1, 1002)]);
    assert_eq!(harvest(&mut taken), (vec![], vec![]), "nothing comes twice");
}

#[test]
fn a_histogram_comes_whole() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let unit = Unit::histogram(SeriesId(5), 3);
    for (bucket, value) in [(1, 0.0), (0, -2.0), (1, 7.0), (1, 1.0)] {
        assert!(apply(&writer, &unit, CellOp::Observe(bucket, value)));
    }
    let expected = [
        CellChange::Sum(6.0, 0.0),
        CellChange::Min(-2.0),
        CellChange::Max(7.0),
        CellChange::Last(1.0),
        CellChange::Bucket(0, 1),
        CellChange::Bucket(1, 3),
    ];
    let (changes, calls) = harvest(&mut taken);
    assert_eq!(changes, expected.map(|change| (5, change)));
    assert_eq!(calls, [(1, 4)]);
}

#[test]
fn an_observation_of_the_same_value_is_another_one() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let unit = Unit::histogram(SeriesId(5), 3);
    for value in [0.0, 0.0, 2.5, 2.5] {
        assert!(apply(&writer, &unit, CellOp::Observe(1, value)));
        let (changes, _) = harvest(&mut taken);
        let last = (5, CellChange::Last(value));
        let count = |found| changes.iter().filter(|change| **change == found).count();
        assert_eq!(count(last), 1, "{changes:?}");
        assert_eq!(count((5, CellChange::Bucket(1, 1))), 1, "{changes:?}");
    }
}

#[test]
fn a_series_in_the_cells_of_another_one_has_states_of_its_own() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    // There is room for four.
    for series in 1..20 {
        let value = if series < 10 { 2.5 } else { 0.0 };
        let unit = Unit::histogram(SeriesId(series), 6);
        assert!(apply(&writer, &unit, CellOp::Observe(1, value)), "{series}");
        let (changes, _) = harvest(&mut taken);
        for state in [
            CellChange::Min(value),
            CellChange::Max(value),
            CellChange::Last(value),
        ] {
            assert!(changes.contains(&(series, state)), "{changes:?}");
        }
        taken.committed();
    }
}

#[test]
fn a_state_that_is_written_after_a_look_is_not_taken_for_the_word_before() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    for series in 1..=4 {
        let unit = Unit::histogram(SeriesId(series), 6);
        assert!(apply(&writer, &unit, CellOp::Observe(1, 2.5)));
    }
    harvest(&mut taken);
    taken.committed();
    let at = writer.find(&Unit::histogram(SeriesId(5), 6)).unwrap();
    let cell = |kind: CellKind| &memory.cells[at + kind.offset()].value;
    // It has come to the sum and the bucket so far.
    let sum = f64::from_bits(cell(CellKind::Sum).load(Ordering::Relaxed)) + 2.5;
    cell(CellKind::Sum).store(sum.to_bits(), Ordering::Relaxed);
    cell(CellKind::Bucket(1)).fetch_add(1, Ordering::Relaxed);
    memory.head.pulses[at / 16].fetch_add(1, Ordering::Release);
    let (changes, _) = harvest(&mut taken);
    assert_eq!(changes[1..], [(5, CellChange::Bucket(1, 1))]);
    for kind in [CellKind::Min, CellKind::Max, CellKind::Last] {
        cell(kind).store(encode_state(2.5), Ordering::Relaxed);
    }
    memory.head.pulses[at / 16].fetch_add(1, Ordering::Release);
    let states = [
        CellChange::Min(2.5),
        CellChange::Max(2.5),
        CellChange::Last(2.5),
    ];
    assert_eq!(harvest(&mut taken).0, states.map(|change| (5, change)));
}

#[test]
fn a_sum_that_would_overflow_is_left_as_it_was() {
    let memory = HeapCells::new(64);
    let writer = write_as(&memory, 1);
    let unit = Unit::sum(SeriesId(1));
    assert!(apply(&writer, &unit, CellOp::Sum(f64::MAX)));
    assert!(!apply(&writer, &unit, CellOp::Sum(f64::MAX)));
    let (changes, calls) = harvest(&mut begin(&memory));
    assert_eq!(changes, [(1, CellChange::Sum(f64::MAX, 0.0))]);
    assert_eq!(calls, [(1, 1)]);
}

#[test]
fn cells_that_are_used_up_are_replaced_once_they_are_committed() {
    let memory = HeapCells::new(16);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let units: Vec<Unit> = (0..40)
        .map(|series| Unit::count(SeriesId(series)))
        .collect();
    let mut put = vec![0_u64; units.len()];
    let mut came = vec![0_u64; units.len()];
    for round in 0..2000_usize {
        let unit = (round * 7) % units.len();
        put[unit] += u64::from(apply(&writer, &units[unit], CellOp::Count(1)));
        if round % 5 == 0 {
            for (series, change) in harvest(&mut taken).0 {
                let CellChange::Count(by) = change else {
                    panic!("{change:?}");
                };
                came[series as usize] += by;
            }
        }
    }
    for (series, change) in harvest(&mut taken).0 {
        let CellChange::Count(by) = change else {
            panic!("{change:?}");
        };
        came[series as usize] += by;
    }
    assert_eq!(came, put);
    assert!(
        put.iter().all(|&count| count > 0),
        "all had a cell at times: {put:?}"
    );
}

#[test]
fn nothing_is_replaced_without_a_consumer() {
    let memory = HeapCells::new(16);
    let writer = write_as(&memory, 1);
    for series in 0..16 {
        assert!(apply(
            &writer,
            &Unit::count(SeriesId(series)),
            CellOp::Count(1)
        ));
    }
    assert!(!apply(
        &writer,
        &Unit::count(SeriesId(16)),
        CellOp::Count(1)
    ));
    assert!(apply(&writer, &Unit::count(SeriesId(0)), CellOp::Count(1)));
}

#[test]
fn what_has_no_place_stays_in_its_cell() {
    let memory = HeapCells::new(16);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let unit = Unit::count(SeriesId(1));
    assert!(apply(&writer, &unit, CellOp::Count(5)));
    let pulses = memory.bank().pulses();
    let answers = [
        (Placed::Later, 0, Fate::Unread),
        (Placed::NoRoom, 0, Fate::NoRoom),
        (Placed::NotNow, 1, Fate::Committed),
    ];
    assert_eq!(memory.bank().fate(&pulses), Fate::Unread);
    for (answer, counted, fate) in answers.map(|answer| [answer; 2]).into_iter().flatten() {
        let look = taken.look();
        let mut asked = 0;
        let (_, calls) = taken.take(&look, &mut |_, change| {
            assert_eq!(change, CellChange::Count(5));
            asked += 1;
            answer
        });
        taken.committed();
        assert_eq!((asked, calls), (1, counted), "{answer:?}");
        assert_eq!(memory.bank().fate(&pulses), fate, "{answer:?}");
        assert_eq!(taken.is_settled(&look), counted == 1, "{answer:?}");
    }
    assert!(apply(&writer, &unit, CellOp::Count(2)));
    assert_eq!(memory.bank().fate(&pulses), Fate::Committed);
    assert_eq!(memory.bank().fate(&memory.bank().pulses()), Fate::Unread);
    assert_eq!(harvest(&mut taken).0, [(1, CellChange::Count(7))]);
    assert_eq!(memory.bank().fate(&memory.bank().pulses()), Fate::Committed);
}

#[test]
fn calls_are_their_owners_also_when_nobody_looked_for_a_while() {
    let memory = HeapCells::new(16);
    let mut taken = begin(&memory);
    for index in 1..=5 {
        let writer = write_as(&memory, index);
        for _ in 0..index {
            assert!(apply(&writer, &Unit::count(SeriesId(1)), CellOp::Count(1)));
        }
    }
    let (changes, calls) = harvest(&mut taken);
    assert_eq!(changes, [(1, CellChange::Count(15))]);
    assert_eq!(calls, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
}

/// Calls that count late, since another writer came after the look or their series had no room.
#[test]
fn calls_are_their_owners_also_when_another_one_has_the_lane_by_then() {
    let memory = HeapCells::new(16);
    let mut taken = begin(&memory);
    let take = |taken: &mut Harvest<'_>, look: &Look, placed: Placed| {
        let mut calls = Vec::new();
        let counted = taken.take(look, &mut |_, _| placed);
        taken.attribute(counted, &mut |owner, n| calls.push((owner.index, n)));
        taken.committed();
        calls
    };
    let unit = Unit::count(SeriesId(1));
    let call = |writer: &CellWriter<'_>| assert!(apply(writer, &unit, CellOp::Count(1)));
    let first = write_as(&memory, 1);
    (0..4).for_each(|_| call(&first));
    let look = taken.look();
    (0..2).for_each(|_| call(&first));
    let second = write_as(&memory, 2);
    call(&second);
    assert_eq!(take(&mut taken, &look, Placed::NoRoom), []);
    assert_eq!(take(&mut taken, &look, Placed::Yes), [(1, 4)]);
    let third = write_as(&memory, 3);
    call(&third);
    let look = taken.look();
    assert_eq!(take(&mut taken, &look, Placed::NoRoom), []);
    let all = [(1, 2), (2, 1), (3, 1)];
    assert_eq!(take(&mut taken, &look, Placed::Yes), all);
}

#[test]
fn more_hand_overs_than_are_known_lose_a_name_and_no_call() {
    let memory = HeapCells::new(16);
    let mut taken = begin(&memory);
    for index in 1..=20 {
        let writer = write_as(&memory, index);
        assert!(apply(&writer, &Unit::count(SeriesId(1)), CellOp::Count(1)));
    }
    let (_, calls) = harvest(&mut taken);
    assert_eq!(calls.iter().map(|(_, count)| count).sum::<u64>(), 20);
    assert_eq!(calls.last(), Some(&(20, 1)));
}

#[test]
fn garbage_is_counted_and_harms_nobody_else() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let (count, sum) = (Unit::count(SeriesId(1)), Unit::sum(SeriesId(2)));
    assert!(apply(&writer, &count, CellOp::Count(9)));
    assert!(apply(&writer, &sum, CellOp::Sum(0.5)));
    harvest(&mut taken);
    let garbage = |at: usize, key: Option<u64>, value: u64| {
        if let Some(key) = key {
            memory.cells[at].key.store(key, Ordering::Relaxed);
        }
        memory.cells[at].value.store(value, Ordering::Relaxed);
        memory.head.pulses[0].fetch_add(1, Ordering::Release);
    };
    // A count that fell, a sum that is no number, a key that nobody writes.
    garbage(0, None, 3);
    garbage(1, None, f64::NAN.to_bits());
    garbage(5, Some(u64::MAX), 3);
    memory.head.used.store(u64::MAX, Ordering::Relaxed);
    let (changes, _) = harvest(&mut taken);
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(
        changes
            .iter()
            .all(|(_, change)| *change == CellChange::Violation)
    );
    assert!(apply(&writer, &count, CellOp::Count(2)));
    assert_eq!(harvest(&mut taken).0, [(1, CellChange::Count(2))]);
    memory.head.handovers.store(u64::MAX, Ordering::Relaxed);
    memory.head.pulses[1].store(u64::MAX, Ordering::Relaxed);
    harvest(&mut taken);
}

#[test]
fn writers_of_a_shared_lane_agree_on_a_unit() {
    let memory = HeapCells::new(64);
    let bank = memory.bank();
    let (a, b) = (
        Unit::histogram(SeriesId(5), 2),
        Unit::histogram(SeriesId(5), 2),
    );
    for (unit, value) in [(&a, 1.5), (&b, 0.5)] {
        let at = bank.find_shared(unit).expect("cells");
        assert!(bank.apply_shared(at, CellOp::Observe(1, value)));
    }
    let (changes, _) = harvest(&mut begin(&memory));
    let expected = [
        CellChange::Sum(2.0, 0.0),
        CellChange::Min(0.5),
        CellChange::Max(1.5),
        CellChange::Last(0.5),
        CellChange::Bucket(1, 2),
    ];
    assert_eq!(changes, expected.map(|change| (5, change)));
}

#[test]
fn a_unit_lies_in_one_group() {
    let memory = HeapCells::new(64);
    let writer = write_as(&memory, 1);
    assert!(apply(&writer, &Unit::count(SeriesId(1)), CellOp::Count(1)));
    // 11 of a group of 16; then only a new group has room.
    assert!(apply(
        &writer,
        &Unit::histogram(SeriesId(2), 6),
        CellOp::Observe(0, 1.0)
    ));
    assert!(apply(
        &writer,
        &Unit::histogram(SeriesId(3), 6),
        CellOp::Observe(0, 1.0)
    ));
    assert_eq!(memory.bank().used(), 16 + 11);
    assert!(!apply(
        &writer,
        &Unit::histogram(SeriesId(4), 20),
        CellOp::Observe(0, 1.0)
    ));
}

#[test]
fn a_gauge_keeps_its_last_value_and_its_time() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let unit = Unit::level(SeriesId(1));
    for (value, stamp) in [(1.5, 10), (0.0, 20), (0.0, 30), (f64::NAN, 30)] {
        assert!(apply(&writer, &unit, CellOp::Level(value, stamp)));
        let (changes, calls) = harvest(&mut taken);
        let [(1, CellChange::Level(found, at))] = changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!((found.to_bits(), at), (value.to_bits(), stamp));
        assert_eq!(calls, [(1, 1)]);
    }
    // Who died between the two words had stated nothing.
    memory.cells[1].value.store(0, Ordering::Relaxed);
    memory.head.pulses[0].fetch_add(1, Ordering::Release);
    assert_eq!(harvest(&mut taken).0, []);
}

#[test]
fn a_summary_counts_in_cells_by_bucket() {
    let memory = HeapCells::new(64);
    let (writer, mut taken) = (write_as(&memory, 1), begin(&memory));
    let unit = Unit::summary(SeriesId(1));
    for (bucket, value) in [(9, 1.5), (9, 1.5), (70_000, -2.0)] {
        assert!(apply(&writer, &unit, CellOp::Summarize(value, 7)));
        assert!(apply(&writer, &unit.sparse(bucket), CellOp::Count(1)));
    }
    let expected = [
        CellChange::Sum(1.0, 0.0),
        CellChange::Min(-2.0),
        CellChange::Max(1.5),
        CellChange::Sparse(9, 2),
        CellChange::Sparse(70_000, 1),
    ];
    let (changes, calls) = harvest(&mut taken);
    assert_eq!(changes, expected.map(|change| (1, change)));
    assert_eq!(calls, [(1, 3)], "a call is counted once");
}

#[test]
fn a_wild_key_whose_unit_ends_outside_leads_nobody_there() {
    for unit in [Unit::histogram(SeriesId(1), 2), Unit::sum(SeriesId(1))] {
        let memory = HeapCells::new(64);
        let (bank, writer) = (memory.bank(), write_as(&memory, 1));
        memory.cells[63].key.store(unit.key(), Ordering::Relaxed);
        memory.head.used.store(64, Ordering::Relaxed);
        unit.hint.store(63, Ordering::Relaxed);
        unit.shared_hint.store(63, Ordering::Relaxed);
        let op = match unit.len {
            2 => CellOp::Sum(1e-17),
            _ => CellOp::Observe(1, 1.0),
        };
        assert_eq!(writer.apply(63, op), Done::No);
        assert_eq!(writer.find(&unit), None);
        assert_eq!(bank.find_shared(&unit), None);
        memory.head.used.store(0, Ordering::Relaxed);
        assert_eq!(bank.find_shared(&unit), Some(0));
    }
}

#[test]
fn a_wild_count_of_used_cells_gives_nobody_any() {
    let memory = HeapCells::new(64);
    let bank = memory.bank();
    for used in [65, 1 << 32, u64::MAX - 1, u64::MAX] {
        memory.head.used.store(used, Ordering::Relaxed);
        for unit in [Unit::count(SeriesId(1)), Unit::sum(SeriesId(1))] {
            assert_eq!(bank.find_shared(&unit), None);
            assert!(!apply(&write_as(&memory, 1), &unit, CellOp::Count(1)));
        }
    }
}

#[test]
fn who_died_while_it_stated_a_shared_value_stops_nobody() {
    let memory = HeapCells::new(64);
    let (bank, unit) = (memory.bank(), Unit::level(SeriesId(5)));
    let mut taken = begin(&memory);
    assert!(bank.state_shared(&unit, 1.5, 7));
    assert_eq!(harvest(&mut taken).0, [(5, CellChange::Level(1.5, 7))]);
    // Another writer dies before it has stored its value, or after.
    memory.cells[1]
        .value
        .store(super::CHANGING | 7, Ordering::Relaxed);
    assert!(bank.state_shared(&unit, 2.5, 8));
    let changes = harvest(&mut taken).0;
    assert!(
        changes.contains(&(5, CellChange::Level(2.5, 8))),
        "{changes:?}"
    );
    // The next ones go where the last one did: no cells are used up.
    let used = memory.head.used.load(Ordering::Relaxed);
    for stamp in 9..100 {
        assert!(bank.state_shared(&unit, 3.5, stamp));
    }
    assert_eq!(memory.head.used.load(Ordering::Relaxed), used);
    assert_eq!(harvest(&mut taken).0, [(5, CellChange::Level(3.5, 99))]);
    // A time that uses the mark's bit is a time like any other.
    assert!(bank.state_shared(&unit, 4.5, u64::MAX));
    assert_eq!(
        harvest(&mut taken).0,
        [(5, CellChange::Level(4.5, u64::MAX >> 1))]
    );
}
