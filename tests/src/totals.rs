//! What became of all records: the snapshot and the ledger, to be checked against the reports.

use qbus::Bus;
use qbus_aggregate::{OwnerRow, ReadOptions, Reader, Series, Tally, Value};

use crate::load::{Load, Report};

/// What a snapshot says at rest.
#[derive(Debug)]
pub struct Totals {
    /// All series, with their histories.
    pub series: Vec<Series>,
    /// The ledger, in the order of the owner table.
    pub rows: Vec<OwnerRow>,
    owners: Vec<qbus::OwnerView>,
}

impl Totals {
    /// Reads them. Nobody commits any more, so the cut is a whole one.
    pub fn read(bus: &Bus, reader: &mut Reader) -> Totals {
        let options = ReadOptions {
            history: true,
            ..ReadOptions::default()
        };
        let snapshot = reader.read(&options).expect("a committed snapshot");
        assert!(snapshot.consistent, "a cut at rest is of one epoch");
        let globals = reader.globals();
        let lost = (
            globals.unknown_series,
            globals.unplaced,
            globals.lost_positions,
        );
        assert_eq!(lost, (0, 0, 0), "{globals:?}");
        Totals {
            series: snapshot.series,
            rows: reader.owners(),
            owners: bus.owners().expect("the locks answer"),
        }
    }

    /// The series of a metric with these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Series> {
        self.series.iter().find(|series| {
            let has = |&(name, value): &(&str, &str)| {
                series.labels.iter().any(|(n, v)| n == name && v == value)
            };
            series.family.name == name && labels.iter().all(has)
        })
    }

    /// The sum of a counter over all of its series.
    pub fn counter(&self, name: &str) -> f64 {
        let of = |series: &&Series| series.family.name == name;
        let value = |series: &Series| match series.value {
            Value::Counter(sum) => sum.value(),
            _ => panic!("{name} is no counter"),
        };
        self.series.iter().filter(of).map(value).sum()
    }

    /// What the process of that pid did. Zero for one that never joined.
    pub fn tally(&self, pid: u64) -> Tally {
        let mine = self.owners.iter().filter(|owner| owner.pid == pid);
        mine.map(|owner| {
            let row = self.rows[usize::from(owner.id.index)];
            if row.generation == owner.id.generation {
                row.present
            } else {
                Tally::default()
            }
        })
        .fold(Tally::default(), |sum, tally| sum.plus(&tally))
    }

    /// The sum over all owners of all times.
    pub fn ledger(&self) -> Tally {
        let parts = self.rows.iter().flat_map(|row| [row.present, row.departed]);
        parts.fold(Tally::default(), |sum, tally| sum.plus(&tally))
    }
}

/// Checks the series of a load, and its process's part of the ledger, against the threads' reports.
pub fn check_load(totals: &Totals, load: &Load, pid: u64, reports: &[Report]) {
    for (thread, report) in reports.iter().enumerate() {
        check_series(totals, load, thread, report);
    }
    let sum = |part: fn(&Report) -> u64| reports.iter().map(part).sum::<u64>();
    let expected = Tally {
        delivered: sum(|report| report.accepted),
        dropped_full: sum(|report| report.full + report.removed),
        revoked: sum(|report| report.revoked),
        ..Tally::default()
    };
    assert_eq!(totals.tally(pid), expected, "the ledger of {load:?}");
    let attempted = sum(|report| report.attempted);
    let accounted = expected.delivered
        + expected.dropped()
        + expected.torn
        + expected.revoked
        + expected.unplaced;
    assert_eq!(attempted, accounted, "of {load:?}");
}

fn check_series(totals: &Totals, load: &Load, thread: usize, report: &Report) {
    let labels = [
        ("worker", load.worker.as_str()),
        ("thread", &thread.to_string()),
    ];
    let Some(series) = totals.get(&load.name(), &labels) else {
        assert_eq!(report.accepted, 0, "no series of {load:?}, thread {thread}");
        return;
    };
    match series.value {
        // What came as state counts once a round.
        Value::Counter(_) | Value::Gauge(_) => assert!(
            (1..=report.accepted).contains(&series.records) || report.accepted == 0,
            "{} records of {labels:?}, {} accepted",
            series.records,
            report.accepted
        ),
        _ => assert_eq!(series.records, report.accepted, "records of {labels:?}"),
    }
    match &series.value {
        Value::Counter(sum) => assert_eq!(*sum, report.sum, "of {labels:?}"),
        Value::Gauge(last) => assert_eq!(*last, report.last, "of {labels:?}"),
        Value::Histogram(found) => {
            assert_eq!(
                (found.count, found.sum.value()),
                (report.accepted, report.sum),
                "of {labels:?}"
            );
            assert_eq!(found.last, report.last, "of {labels:?}");
            assert_eq!(found.cumulative.last(), Some(&found.count), "of {labels:?}");
            assert!(found.cumulative.is_sorted(), "{:?}", found.cumulative);
        }
        Value::Summary(found) => {
            assert_eq!(
                (found.count, found.sum.value()),
                (report.accepted, report.sum),
                "of {labels:?}"
            );
            assert_eq!(found.last, report.last, "of {labels:?}");
        }
    }
}
