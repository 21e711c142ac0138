//! Models of the cells.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom::thread;

use super::heap::HeapCells;
use super::writer::CellWriter;
use super::{CellChange, CellOp, Done, Harvest, Placed, Unit};
use crate::lane::Lease;
use crate::layout::CELL_GROUPS;
use crate::model::explore;
use crate::owner::OwnerId;
use crate::record::SeriesId;
use crate::sync::{AtomicU64, Fault, Ordering, cut_after, drop_fences};

/// What a consumer came to: of each series the sum, of each owner the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Totals {
    sums: BTreeMap<u32, u64>,
    calls: BTreeMap<u16, u64>,
}

impl Totals {
    /// One round: look, take; the commit is the caller's.
    fn round(&mut self, harvest: &mut Harvest<'_>) {
        let look = harvest.look();
        let calls = harvest.take(&look, &mut |series, change| {
            let by = match change {
                CellChange::Count(by) | CellChange::Bucket(_, by) => by,
                CellChange::Sum(sum, residue) => (sum + residue) as u64,
                CellChange::Violation => panic!("nothing here is garbage"),
                _ => 0,
            };
            *self.sums.entry(series.0).or_default() += by;
            Placed::Yes
        });
        harvest.attribute(calls, &mut |owner, count| {
            *self.calls.entry(owner.index).or_default() += count;
        });
    }

    fn sum(&self, series: u32) -> u64 {
        self.sums.get(&series).copied().unwrap_or(0)
    }
}

fn owner(index: u16) -> OwnerId {
    OwnerId {
        index,
        generation: 1,
    }
}

impl HeapCells {
    /// Leases the lane as `Lane::lease` does, and begins to write.
    fn write_as(&self, index: u16) -> Option<CellWriter<'_>> {
        let leased = Lease::of(owner(index)).0;
        let lease = &self.tail.lease;
        lease
            .compare_exchange(Lease::FREE, leased, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        Some(CellWriter::new(self.bank(), leased))
    }

    fn give_back(&self) {
        self.tail.lease.store(Lease::FREE, Ordering::Release);
    }

    fn harvest(&self) -> Harvest<'_> {
        Harvest::new(self.bank(), &self.tail.lease)
    }
}

/// Adds 1 to a unit's count, as a handle does; false when there is no cell for it.
fn inc(writer: &CellWriter<'_>, unit: &Unit) -> bool {
    let at = writer.hinted(unit).or_else(|| writer.find(unit));
    at.is_some_and(|at| writer.apply(at, CellOp::Count(1)) != Done::No)
}

/// A writer beside a consumer: nothing is lost, and nothing is counted twice.
fn publish(name: &str, prepare: impl Fn(&HeapCells) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(CELL_GROUPS));
        prepare(&memory);
        let shared = memory.clone();
        let writing = thread::spawn(move || {
            let writer = shared.write_as(1).expect("a free lane");
            let unit = Unit::count(SeriesId(1));
            (0..3).filter(|_| inc(&writer, &unit)).count() as u64
        });
        let (mut totals, mut harvest) = (Totals::default(), memory.harvest());
        for _ in 0..2 {
            totals.round(&mut harvest);
            harvest.committed();
        }
        let early = totals.sum(1);
        let counted = writing.join().unwrap();
        totals.round(&mut harvest);
        assert_eq!((totals.sum(1), counted), (3, 3));
        assert_eq!(totals.calls, BTreeMap::from([(1, 3)]));
        outcomes.note(early);
    });
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn increments_come_once() {
    publish("cells, publish", |_| {});
}

#[test]
#[should_panic]
fn without_c1_an_increment_is_lost() {
    publish("cells, no C1", |memory| {
        for pulse in &memory.head.pulses {
            pulse.inject(Fault::Unordered);
        }
    });
}

/// A writer gives a cell another key as soon as it may, beside a consumer.
fn replace(name: &str, prepare: impl Fn() + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(CELL_GROUPS));
        // All cells but the first are taken by what nobody may replace.
        for at in 1..CELL_GROUPS {
            let key = Unit::histogram(SeriesId(9), 1).key();
            memory.cells[at].key.store(key, Ordering::Relaxed);
        }
        let writer = memory.write_as(1).expect("a free lane");
        assert!(inc(&writer, &Unit::count(SeriesId(1))));
        memory
            .head
            .used
            .store(CELL_GROUPS as u64, Ordering::Relaxed);
        drop(writer);
        memory.give_back();
        let (mut totals, mut harvest) = (Totals::default(), memory.harvest());
        totals.round(&mut harvest);
        harvest.committed();
        prepare();
        let shared = memory.clone();
        let writing = thread::spawn(move || {
            let writer = shared.write_as(1).expect("a free lane");
            let (a, b) = (Unit::count(SeriesId(1)), Unit::count(SeriesId(2)));
            let counted = [&b, &a].map(|unit| u64::from(inc(&writer, unit)));
            (counted[1], counted[0])
        });
        for _ in 0..2 {
            totals.round(&mut harvest);
            harvest.committed();
        }
        let (a, b) = writing.join().unwrap();
        totals.round(&mut harvest);
        assert_eq!((totals.sum(1), totals.sum(2)), (1 + a, b));
        assert_eq!(totals.calls, BTreeMap::from([(1, 1 + a + b)]));
        outcomes.note((a, b));
    });
    assert!(seen.iter().any(|&(_, b)| b == 1), "no cell changed hands");
}

#[test]
fn a_cell_with_another_key_counts_for_its_series() {
    replace("cells, replace", || {});
}

#[test]
#[should_panic]
fn without_c2_an_increment_counts_for_another_series() {
    replace("cells, no C2", || drop_fences(true));
}

/// Two writers in turn, whichever comes first, and a consumer.
fn hand_over(name: &str, prepare: impl Fn(&HeapCells) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(CELL_GROUPS));
        prepare(&memory);
        let write = |index: u16| {
            let memory = memory.clone();
            thread::spawn(move || {
                let writer = memory.write_as(index)?;
                assert!(inc(&writer, &Unit::count(SeriesId(1))));
                memory.give_back();
                Some(index)
            })
        };
        let writing = [write(1), write(2)];
        let (mut totals, mut harvest) = (Totals::default(), memory.harvest());
        totals.round(&mut harvest);
        harvest.committed();
        let wrote = writing.map(|writing| writing.join().unwrap());
        totals.round(&mut harvest);
        let wrote: BTreeMap<u16, u64> = wrote
            .into_iter()
            .flatten()
            .map(|index| (index, 1))
            .collect();
        assert_eq!(totals.sum(1), wrote.len() as u64);
        assert_eq!(totals.calls, wrote, "each call is its owner's");
        outcomes.note(wrote.len());
    });
    assert!(seen.contains(&2), "{seen:?}");
}

#[test]
fn the_next_writer_goes_on_from_where_values_stand() {
    hand_over("cells, hand-over", |_| {});
}

#[test]
#[should_panic]
fn without_c4_a_writer_goes_on_from_an_old_value() {
    hand_over("cells, no C4", |memory| {
        memory.tail.lease.inject(Fault::Unordered);
    });
}

/// A consumer dies between its commit and some word of `seen`; a successor goes on with what the
/// snapshot has, or (which is wrong) with what the region has.
fn crash(name: &str, seen_stores: u64, from_snapshot: bool) {
    explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(CELL_GROUPS));
        let shared = memory.clone();
        let writing = thread::spawn(move || {
            let writer = shared.write_as(1).expect("a free lane");
            let (a, b) = (Unit::count(SeriesId(1)), Unit::count(SeriesId(2)));
            assert!(inc(&writer, &a) && inc(&writer, &b));
        });
        let (mut totals, mut harvest) = (Totals::default(), memory.harvest());
        totals.round(&mut harvest);
        // The commit: totals and versions count, together.
        let committed: Vec<(usize, Vec<u64>)> = harvest
            .touched()
            .map(|group| (group, harvest.version(group).collect()))
            .collect();
        let early = totals.clone();
        cut_after(seen_stores);
        harvest.committed();
        cut_after(u64::MAX);
        // What it folded and did not commit is gone with it.
        let mut totals = early.clone();
        let mut successor = memory.harvest();
        if from_snapshot {
            for (group, version) in &committed {
                successor.resume(*group, version);
            }
        }
        totals.round(&mut successor);
        successor.committed();
        writing.join().unwrap();
        totals.round(&mut successor);
        assert_eq!((totals.sum(1), totals.sum(2)), (1, 1));
        assert_eq!(totals.calls, BTreeMap::from([(1, 2)]));
        outcomes.note((early.sum(1), early.sum(2)));
    });
}

#[test]
fn a_successor_takes_nothing_twice() {
    for seen_stores in 0..3 {
        let name = format!("cells, consumer dies after {seen_stores} words of seen");
        crash(&name, seen_stores, true);
    }
}

#[test]
#[should_panic]
fn a_successor_that_believes_seen_takes_twice() {
    crash("cells, successor at seen", 0, false);
}

/// A writer dies after so many stores; the next one goes on.
fn death(stores: u64) -> bool {
    let name = format!("cells, writer dies after {stores} stores");
    let seen = explore(&name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(CELL_GROUPS));
        let shared = memory.clone();
        let dying = thread::spawn(move || {
            let writer = shared.write_as(1).expect("a free lane");
            let unit = Unit::count(SeriesId(1));
            cut_after(stores);
            let _ = inc(&writer, &unit) && inc(&writer, &unit);
        });
        let (mut totals, mut harvest) = (Totals::default(), memory.harvest());
        dying.join().unwrap();
        cut_after(u64::MAX);
        let value: u64 = memory
            .cells
            .iter()
            .fold(0, |sum, cell| sum + cell.value.load(Ordering::Relaxed));
        let calls: u64 = memory
            .head
            .pulses
            .iter()
            .fold(0, |sum, pulse| sum + pulse.load(Ordering::Relaxed));
        assert!(value - calls <= 1, "{value} added by {calls} calls");
        // The kernel told the reaper of the death.
        memory.give_back();
        let shared = memory.clone();
        let next = thread::spawn(move || {
            let writer = shared.write_as(2).expect("a free lane");
            inc(&writer, &Unit::count(SeriesId(1)))
        });
        totals.round(&mut harvest);
        harvest.committed();
        assert!(next.join().unwrap());
        totals.round(&mut harvest);
        assert_eq!(totals.sum(1), value + 1);
        assert_eq!(totals.calls.get(&2), Some(&1));
        assert_eq!(totals.calls.get(&1).copied().unwrap_or(0), calls);
        outcomes.note(value > calls);
    });
    seen.contains(&true)
}

#[test]
fn a_writer_may_die_after_any_store() {
    let uncounted: Vec<bool> = (0..=9).map(death).collect();
    assert!(uncounted.contains(&true), "a value without its pulse");
}

/// Two writers of a shared lane, each with its own unit and one for both.
fn share(name: &str, prepare: impl Fn(&HeapCells) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(4 * CELL_GROUPS));
        prepare(&memory);
        let write = |index: u32| {
            let memory = memory.clone();
            thread::spawn(move || {
                let bank = memory.bank();
                let both = Unit::sum(SeriesId(9));
                let at = bank.find_shared(&both).expect("cells");
                assert!(bank.add_sum_shared(at, 1.0));
                let own = Unit::count(SeriesId(index));
                let at = bank.find_shared(&own).expect("cells");
                bank.add_count_shared(at, 1);
            })
        };
        for writing in [write(1), write(2)] {
            writing.join().unwrap();
        }
        let mut totals = Totals::default();
        totals.round(&mut memory.harvest());
        assert_eq!([9, 1, 2].map(|series| totals.sum(series)), [2, 1, 1]);
        // One unit of the series for both, or one for each.
        outcomes.note(memory.head.used.load(Ordering::Relaxed));
    });
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn writers_of_a_shared_lane_add_up() {
    share("cells, shared", |_| {});
}

#[test]
#[should_panic]
fn without_an_exchange_writers_take_the_same_cells() {
    share("cells, shared, no exchange", |memory| {
        memory.head.used.inject(Fault::NotAtomic);
    });
}

#[test]
#[should_panic]
fn without_an_exchange_an_addition_is_lost() {
    share("cells, shared, no exchange of values", |memory| {
        for cell in &memory.cells {
            cell.value.inject(Fault::NotAtomic);
        }
    });
}

/// A writer of a shared lane beside a consumer.
fn share_and_take(name: &str, prepare: impl Fn(&HeapCells) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(4 * CELL_GROUPS));
        prepare(&memory);
        let shared = memory.clone();
        let writing = thread::spawn(move || {
            let (bank, unit) = (shared.bank(), Unit::sum(SeriesId(9)));
            for _ in 0..2 {
                let at = bank.find_shared(&unit).expect("cells");
                assert!(bank.add_sum_shared(at, 1.0));
            }
        });
        let (mut totals, mut harvest) = (Totals::default(), memory.harvest());
        for _ in 0..2 {
            totals.round(&mut harvest);
            harvest.committed();
        }
        let early = totals.sum(9);
        writing.join().unwrap();
        totals.round(&mut harvest);
        assert_eq!(totals.sum(9), 2);
        outcomes.note(early);
    });
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn what_is_added_to_a_shared_lane_comes_once() {
    share_and_take("cells, shared, publish", |_| {});
}

#[test]
#[should_panic]
fn without_c1_an_addition_to_a_shared_lane_is_lost() {
    share_and_take("cells, shared, no C1", |memory| {
        for pulse in &memory.head.pulses {
            pulse.inject(Fault::Unordered);
        }
    });
}

/// Two writers of a shared lane that state a gauge's value beside a consumer. Each time is that of
/// its value, or of the one before; what is taken in the end is a value with its own.
fn state_and_take(name: &str, prepare: impl Fn(&HeapCells) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(4 * CELL_GROUPS));
        let unit = || Unit::level(SeriesId(9));
        assert!(memory.bank().state_shared(&unit(), 1.0, 1));
        prepare(&memory);
        let state = |stamp: u64| {
            let memory = memory.clone();
            thread::spawn(move || {
                assert!(memory.bank().state_shared(&unit(), stamp as f64, stamp));
            })
        };
        let writing = [state(2), state(3)];
        let mut harvest = memory.harvest();
        let mut taken = Vec::new();
        let mut round = |harvest: &mut Harvest<'_>| {
            let look = harvest.look();
            harvest.take(&look, &mut |_, change| {
                let CellChange::Level(value, stamp) = change else {
                    panic!("{change:?}");
                };
                taken.push((value as u64, stamp));
                Placed::Yes
            });
            harvest.committed();
        };
        round(&mut harvest);
        for writing in writing {
            writing.join().unwrap();
        }
        round(&mut harvest);
        assert!(taken.iter().all(|&(_, stamp)| (1..=3).contains(&stamp)));
        let units = memory.head.used.load(Ordering::Relaxed) / 2;
        for at in 0..units as usize {
            let word = |at: usize| memory.cells[at].value.load(Ordering::Relaxed);
            let value = super::decode_state(word(at * 2)) as u64;
            assert_eq!(value, word(at * 2 + 1), "a value and its own time");
            assert!(taken.contains(&(value, value)), "{taken:?} has {value}");
        }
        outcomes.note(units);
    });
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn a_shared_gauge_ends_at_a_value_with_its_time() {
    state_and_take("cells, shared, state", |_| {});
}

#[test]
#[should_panic]
fn without_an_exchange_a_value_gets_the_time_of_another() {
    state_and_take("cells, shared, state, no exchange", |memory| {
        for cell in &memory.cells {
            cell.value.inject(Fault::NotAtomic);
        }
    });
}

/// A series is freed while a writer finds cells for it: afterwards no unit of it is found, unless
/// the writer came first and its call was of a living series.
fn revoke(name: &str, prepare: impl Fn() + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapCells::new(CELL_GROUPS));
        // 1 while the series is there.
        let life = Arc::new(AtomicU64::new(1));
        prepare();
        let (shared, its_life) = (memory.clone(), life.clone());
        let writing = thread::spawn(move || {
            let writer = shared.write_as(1).expect("a free lane");
            let unit = Unit::count(SeriesId(7));
            let is_open = |_| its_life.load(Ordering::Relaxed) == 1;
            let kept = writer
                .find(&unit)
                .filter(|&at| shared.bank().is_kept(at, is_open));
            kept.is_some()
        });
        // The aggregator.
        life.store(0, Ordering::Relaxed);
        memory.bank().revoke(&mut |series| series == SeriesId(7));
        let is_kept = writing.join().unwrap();
        let key = memory.cells[0].key.load(Ordering::Relaxed);
        let is_found = key == Unit::count(SeriesId(7)).key();
        assert!(!is_found, "a unit of a series that is gone is found again");
        outcomes.note(is_kept);
    });
    assert_eq!(seen.len(), 2, "both came first");
}

#[test]
fn no_unit_of_a_series_that_is_gone_is_found() {
    revoke("cells, revoke", || {});
}

#[test]
#[should_panic(expected = "found again")]
fn without_c5_a_unit_is_found_of_a_series_that_is_gone() {
    revoke("cells, no C5", || drop_fences(true));
}
