//! What is wrong with a bus, what it means, and what mends it.

mod stopped;

use qbus::{Address, Bus, OwnerView};
use qbus_aggregate::{OwnerLedger, Tally};
use serde::Serialize;

use crate::figures::{bytes, counted, grouped, percent, short, span};
use crate::look::{Look, named};
pub(crate) use stopped::namespace;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Good to know; nothing needs to be done.
    Note,
    /// Somebody should look at it.
    Look,
    /// Data is being lost now.
    Losing,
}

/// Something that was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// What was found, in one line.
    pub(crate) found: String,
    /// What that means.
    pub(crate) meaning: String,
    /// What mends it: a command, where there is one.
    pub(crate) mend: String,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        found: impl Into<String>,
        meaning: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding {
            severity,
            found: found.into(),
            meaning: meaning.into(),
            mend: mend.into(),
        }
    }
}

/// The worst first.
pub(crate) fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
}

/// A page that is older while something waits for it is stuck.
const STUCK_SECONDS: u64 = 1;
/// A registry or a table that is filled to so many percent is nearly full.
const NEARLY_FULL: u64 = 90;
/// A snapshot grows by 2 MiB; with less than four of these left it soon cannot.
const LITTLE_ROOM: u64 = 8 << 20;

/// How a bus gets more room of a kind: its sizes are fixed when it is made.
fn anew(name: &Address, option: &str, size: u64) -> String {
    let size = size * 4;
    format!("a bus with more room: qbus rm -b {name}; qbus create -b {name} {option} {size}")
}

/// Judges a bus by two looks at it: what grew between them is going on now.
pub(crate) fn judge(bus: &Bus, before: &Look, now: &Look) -> Vec<Finding> {
    let mut findings = Vec::new();
    if now.is_removed {
        findings.push(removed(now));
    }
    findings.extend(aggregator(before, now));
    findings.extend(stopped::stopped(now));
    findings.extend(snapshot(now));
    findings.extend(losses(before, now));
    findings.extend(refusals(bus, before, now));
    findings.extend(overflowing(bus, now));
    findings.extend(filling(before, now));
    findings.extend(room(now));
    findings.extend(garbage(now));
    sort(&mut findings);
    findings
}

fn removed(now: &Look) -> Finding {
    let name = &now.address;
    Finding::new(
        Severity::Look,
        format!("the bus {name} was removed, or its file was, while it was looked at"),
        "whoever has it open notices within a second or so, and joins the bus that is there",
        format!("qbus agg -b {name}"),
    )
}

fn aggregator(before: &Look, now: &Look) -> Option<Finding> {
    let name = &now.address;
    let Some(aggregator) = now.aggregator.filter(|aggregator| aggregator.alive) else {
        let found = match now.aggregator {
            None => "nobody has aggregated the bus so far".to_owned(),
            Some(gone) => {
                let since = now
                    .age()
                    .map(|age| format!("; the page is {} old", span(age)));
                format!(
                    "no aggregator runs; the last one, pid {}, is gone{}",
                    gone.pid,
                    since.unwrap_or_default()
                )
            }
        };
        return Some(Finding::new(
            Severity::Look,
            found,
            "nothing new comes to the page: counters and histograms go on counting in the bus, all \
             else waits in its lanes, and is dropped when these are full",
            format!("qbus agg -b {name}"),
        ));
    };
    let waits = |look: &Look| Look::fullest(look.lanes.iter()) > 0;
    let has_moved =
        now.page.as_ref().map(|page| page.epoch) != before.page.as_ref().map(|page| page.epoch);
    let age = now.age().filter(|age| age.as_secs() >= STUCK_SECONDS)?;
    (waits(before) && waits(now) && !has_moved).then(|| {
        Finding::new(
            Severity::Look,
            format!(
                "the aggregator, pid {}, has committed nothing for {}, and records wait",
                aggregator.pid,
                span(age)
            ),
            "it is stopped, gets no processor time, or waits for a file system",
            format!("ps -o pid,stat,wchan,cmd -p {}", aggregator.pid),
        )
    })
}

fn snapshot(now: &Look) -> Option<Finding> {
    let why = now.no_page.as_ref()?;
    Some(Finding::new(
        Severity::Look,
        format!("the snapshot is not read: {why}"),
        "what was delivered is not known here, and `qbus dump` shows nothing of this bus",
        format!(
            "qbus agg -b {}: it moves aside what an earlier bus left; what is no snapshot is \
             yours to move",
            now.address
        ),
    ))
}

/// A cause of loss, as words; and how many records of an owner it cost.
struct Cause {
    /// As [`qbus_aggregate::Ledger::losses`] has it.
    name: &'static str,
    what: &'static str,
    of: fn(&Tally) -> u64,
    meaning: &'static str,
    mend: fn(&Look) -> String,
    /// What happened before, of processes that still run: whether somebody should look at it.
    past: Severity,
}

const CAUSES: [Cause; 7] = [
    Cause {
        name: "full",
        what: "lane full",
        of: |tally| tally.dropped_full,
        meaning: "its lane was full: an emit never waits, and what finds no room is dropped",
        mend: |now| {
            let more = anew(&now.address, "--slots", now.geometry.slots);
            format!("an aggregator that gets processor time; or {more}")
        },
        past: Severity::Look,
    },
    Cause {
        name: "rejected",
        what: "rejected",
        of: |tally| tally.rejected,
        meaning: "values that a metric cannot take: a negative increment, an observation of NaN",
        mend: |_| {
            let how = "mend the caller: `try_…` in Rust, the exception in Python say which value";
            format!("{how} it is")
        },
        past: Severity::Look,
    },
    Cause {
        name: "unowned",
        what: "no place among the processes",
        of: |_| 0,
        meaning: "more processes than the bus has places for",
        mend: |now| anew(&now.address, "--max-owners", now.geometry.owners),
        past: Severity::Look,
    },
    Cause {
        name: "torn",
        what: "torn",
        of: |tally| tally.torn,
        meaning: "a process was killed in the middle of an emit: one record each time",
        mend: |_| "nothing to do".to_owned(),
        past: Severity::Note,
    },
    Cause {
        name: "revoked",
        what: "revoked",
        of: |tally| tally.revoked,
        meaning: "a process was stopped for over a second in the middle of an emit",
        mend: |_| {
            "nothing to do, unless it comes often: look for swapping or a debugger".to_owned()
        },
        past: Severity::Note,
    },
    Cause {
        name: "unplaced",
        what: "no room in the snapshot",
        of: |tally| tally.unplaced,
        meaning: "the snapshot could not grow for the series of these records, or it was forgotten",
        mend: |now| {
            let elsewhere = format!("qbus agg -b {} --snapshot PATH", now.address);
            format!("make room in its file system (df), or aggregate elsewhere: {elsewhere}")
        },
        past: Severity::Look,
    },
    Cause {
        name: "undefined",
        what: "unknown series",
        of: |_| 0,
        meaning: "records of series that nobody registered: another version, or garbage",
        mend: |now| {
            let name = &now.address;
            let anew = format!("qbus rm -b {name}; qbus agg -b {name}");
            format!("restart the workers; if it goes on, make the bus anew: {anew}")
        },
        past: Severity::Look,
    },
];

/// What a cause of [`qbus_aggregate::Ledger::losses`] is called here.
pub(crate) fn cause_in_words(name: &str) -> &'static str {
    let cause = CAUSES.iter().find(|cause| cause.name == name);
    cause.map_or("unknown", |cause| cause.what)
}

/// Of each cause who lost most, now or before.
fn losses(before: &Look, now: &Look) -> Vec<Finding> {
    let seconds = now.since(before).as_secs_f64();
    let counts = now.ledger.losses().into_iter().zip(before.ledger.losses());
    let mut findings = Vec::new();
    for ((name, lost), (_, lost_before)) in counts {
        let Some(cause) = CAUSES.iter().find(|cause| cause.name == name) else {
            continue;
        };
        let new = lost.saturating_sub(lost_before);
        if lost == 0 {
            continue;
        }
        let (severity, found) = if new > 0 {
            let most = most(now, |row| {
                (cause.of)(&row.tally).saturating_sub(then(before, row, cause))
            });
            let rate = short(new as f64 / seconds.max(1e-9));
            let found = format!(
                "{rate} records/s are being lost{} ({})",
                by(most),
                cause.what
            );
            (Severity::Losing, found)
        } else {
            let living = most(now, |row| {
                if row.owner.alive {
                    (cause.of)(&row.tally)
                } else {
                    0
                }
            });
            // A cause without an owner has no process that ended.
            let is_over = living.is_none() && !matches!(name, "unowned" | "undefined");
            let severity = if is_over { Severity::Note } else { cause.past };
            let whose = if is_over {
                " by processes that have ended".to_owned()
            } else {
                by(living)
            };
            let records = counted(lost, "record was", "records were");
            (
                severity,
                format!("{records} lost so far{whose} ({})", cause.what),
            )
        };
        let mend = (cause.mend)(now);
        findings.push(Finding::new(severity, found, cause.meaning, mend));
    }
    findings
}

/// What an owner had lost at an earlier look.
fn then(before: &Look, row: &OwnerLedger, cause: &Cause) -> u64 {
    let mut owners = before.ledger.owners.iter();
    let same = owners.find(|earlier| earlier.owner.id == row.owner.id);
    same.map_or(0, |earlier| (cause.of)(&earlier.tally))
}

/// The owner with most of something.
fn most(now: &Look, of: impl Fn(&OwnerLedger) -> u64) -> Option<(&OwnerView, u64)> {
    let owners = now.ledger.owners.iter().map(|row| (&row.owner, of(row)));
    owners
        .max_by_key(|(_, count)| *count)
        .filter(|(_, count)| *count > 0)
}

fn by(most: Option<(&OwnerView, u64)>) -> String {
    most.map_or_else(String::new, |(owner, _)| {
        format!(", most by {}", named(owner))
    })
}

/// Registrations that the registry had no room for.
fn refusals(bus: &Bus, before: &Look, now: &Look) -> Option<Finding> {
    let refused = now.counts.refused_series;
    if refused == 0 {
        return None;
    }
    let is_going_on = refused > before.counts.refused_series;
    let severity = if is_going_on {
        Severity::Losing
    } else {
        Severity::Look
    };
    let times = counted(refused, "registration was", "registrations were");
    let so_far = if is_going_on { ", and more are" } else { "" };
    let names = now.geometry.families;
    if now.counts.families >= names {
        let found = format!(
            "{times} refused{so_far}: the registry has room for {} metric names",
            grouped(names)
        );
        let meaning = "what is emitted under a name that has no place never becomes a record; \
                       known names go on. Names that are made of values are nearly always the \
                       cause";
        let mend = anew(&now.address, "--max-families", names);
        let mend = format!("make labels of what varies in names; or {mend}");
        return Some(Finding::new(severity, found, meaning, mend));
    }
    let largest = largest_family(bus).map(|(name, series)| {
        let label = format!("; the family {name} has {} of them", grouped(series));
        (label, name)
    });
    let (whose, name) = largest.unwrap_or_default();
    let found = format!(
        "{times} refused{so_far}: the registry has room for {} series{whose}",
        grouped(now.geometry.series)
    );
    Some(Finding::new(
        severity,
        found,
        "what is emitted to a series that has no place never becomes a record; known series go on. \
         A label with a value for each user, request or batch is nearly always the cause",
        format!(
            "leave that label out; what is over: qbus forget -b {} '{name}' --dry-run",
            now.address
        ),
    ))
}

/// Metrics with more label values than they may have: one finding each.
fn overflowing(bus: &Bus, now: &Look) -> Vec<Finding> {
    let mut families = std::collections::BTreeMap::new();
    for (id, series) in bus.overflow_series() {
        families.entry(series.family).or_insert((id, series.labels));
    }
    let find = |(family, (id, labels)): (_, (_, Vec<(String, String)>))| {
        let name = bus.family(family)?.name;
        let size = bus.family_size(family)?;
        let limit = grouped(size.limit?);
        let whose = bus.registrant(id);
        let whose = whose.map_or_else(String::new, |process| format!(", first by {process}"));
        let labels = labels
            .into_iter()
            .filter(|(_, value)| value == qbus::OVERFLOW);
        let label = labels.map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        Some(Finding::new(
            Severity::Look,
            format!("the metric {name} had as many series as it may have, {limit}{whose}"),
            format!(
                "values of its label {label} beyond these are counted together, under {:?}: sums \
                 are right, and which value it was is not known",
                qbus::OVERFLOW
            ),
            format!(
                "give the label fewer values, or the metric more room: qbus agg -b {} \
                 --max-series-per-family NUMBER",
                now.address
            ),
        ))
    };
    families.into_iter().filter_map(find).collect()
}

/// The family with the most series, and how many.
fn largest_family(bus: &Bus) -> Option<(String, u64)> {
    let mut sizes = std::collections::HashMap::new();
    for id in bus.series_ids() {
        if let Some(series) = bus.series(id) {
            *sizes.entry(series.family).or_insert(0) += 1;
        }
    }
    let (family, series) = sizes.into_iter().max_by_key(|(_, series)| *series)?;
    Some((bus.family(family)?.name, series))
}

/// What is filling up, and not full yet.
fn filling(before: &Look, now: &Look) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut nearly =
        |used: u64, of: u64, what: &str, meaning: &str, (option, size): (&str, u64)| {
            // What is in use is a count in shared memory, and that may hold anything.
            if used.saturating_mul(100) >= of * NEARLY_FULL {
                let (part, all) = (grouped(used), grouped(of));
                let found = format!("{part} of {all} {what} are in use ({})", percent(used, of));
                let mend = anew(&now.address, option, size);
                findings.push(Finding::new(Severity::Look, found, meaning, mend));
            }
        };
    let (geometry, counts) = (&now.geometry, &now.counts);
    nearly(
        now.living_series,
        geometry.series,
        "places for series",
        "further series are refused when all are; known ones go on",
        ("--max-series", geometry.series),
    );
    nearly(
        counts.families,
        geometry.families,
        "places for metric families",
        "further names are refused when all are; known ones go on",
        ("--max-families", geometry.families),
    );
    nearly(
        counts.arena_words,
        geometry.arena_words,
        "words for names, labels and helps",
        "further series are refused when all are; known ones go on",
        ("--max-series", geometry.series),
    );
    let living = now.living().count() as u64;
    nearly(
        living,
        geometry.owners,
        "places for processes",
        "what further processes emit is dropped when all are",
        ("--max-owners", geometry.owners),
    );
    let (leased, exclusive) = now.leases();
    nearly(
        leased,
        exclusive,
        "lanes",
        "further threads share lanes: an emit costs several times as much, and loses nothing by it",
        ("--lanes", geometry.lanes),
    );
    findings.extend(lanes_filling(before, now));
    findings
}

fn lanes_filling(before: &Look, now: &Look) -> Option<Finding> {
    let is_half_full =
        |look: &Look| Look::fullest(look.lanes.iter()) >= look.geometry.slots.div_ceil(2);
    let (fullest, slots) = (Look::fullest(now.lanes.iter()), now.geometry.slots);
    (is_half_full(before) && is_half_full(now)).then(|| {
        let (meaning, mend) = if now.is_aggregated() {
            let more = anew(&now.address, "--slots", slots);
            (
                "the aggregator is slower than what comes",
                format!("more processor time for the aggregator; or {more}"),
            )
        } else {
            ("nobody drains it", format!("qbus agg -b {}", now.address))
        };
        let meaning = format!("{meaning}; what a full lane has no room for is dropped");
        let found = format!("a lane is {} full", percent(fullest, slots));
        Finding::new(Severity::Look, found, meaning, mend)
    })
}

fn room(now: &Look) -> Option<Finding> {
    let room = now
        .room
        .as_ref()
        .filter(|room| room.free_bytes < LITTLE_ROOM)?;
    Some(Finding::new(
        Severity::Look,
        format!(
            "{} left of {} in {}",
            bytes(room.free_bytes),
            bytes(room.size_bytes),
            room.folder.display()
        ),
        "the snapshot cannot grow by much: histories stop first, then new series are left out",
        "remove what is of no use there; in a container give it more (--shm-size=256m)",
    ))
}

fn garbage(now: &Look) -> Option<Finding> {
    let violations = now.ledger.violations;
    let words = counted(violations, "word or record", "words or records");
    (violations > 0).then(|| {
        Finding::new(
            Severity::Look,
            format!("{words} made no sense, and were passed over"),
            "another program writes to the file, a worker is of another version, or a gauge \
             was set for a time minutes ahead of the clock",
            format!("qbus stat -b {} --json has them by process", now.address),
        )
    })
}

#[cfg(test)]
mod tests {
    use qbus_tests::{Place, TestBus};

    use super::*;

    #[test]
    fn counts_that_make_no_sense_are_judged_as_any() {
        let bus = TestBus::small(Place::Named).open();
        let mut now = Look::at(&bus, None).expect("a bus");
        let before = Look::at(&bus, None).expect("a bus");
        let counts = &mut now.counts;
        for count in [
            &mut counts.families,
            &mut counts.arena_words,
            &mut counts.refused_series,
            &mut now.living_series,
            &mut now.ledger.violations,
        ] {
            *count = u64::MAX;
        }
        for lane in &mut now.lanes {
            lane.fill = u64::MAX;
        }
        let found = judge(&bus, &before, &now).into_iter();
        let found: Vec<String> = found.map(|finding| finding.found).collect();
        let full = format!("{} of 256 places for series are in use", grouped(u64::MAX));
        assert!(
            found.iter().any(|text| text.starts_with(&full)),
            "{found:#?}"
        );
        assert!(
            found.iter().any(|text| text.contains("made no sense")),
            "{found:#?}"
        );
    }
}
