//! A storm: producers join, emit, fork, become daemons, are interrupted, lose descriptors, leave,
//! are killed, stopped and continued at random, the aggregator is killed and restarted, and a
//! reader dumps all the time. No dump is unreadable, nothing is ever counted back, nobody ends who
//! was not to, and in the end all adds up.
//!
//! `QBUS_STORM_SECONDS` says how long it lasts, `QBUS_SEED` replays what was decided.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Clock, Geometry};
use qbus_aggregate::export::{self, Format};
use qbus_aggregate::{
    Aggregator, AggregatorOptions, ReadError, ReadOptions, Reader, Series, Value,
};
use qbus_tests::{Journal, Life, Place, Process, Random, TestBus, Totals};
use rustix::process::Signal;
use tempfile::TempDir;

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const STORMER: &str = env!("CARGO_BIN_EXE_test-stormer");
const GEOMETRY: Geometry = Geometry {
    lanes: 6,
    shared_lanes: 2,
    slots: 64,
    owners: 128,
    families: 4,
    series: 2048,
    arena_words: 1 << 15,
    cells: 256,
};
const WORKERS_MAX: usize = 6;
/// Set in the storm that another one has started in a place of its own.
const INSIDE: &str = "QBUS_STORM_INSIDE";
/// How large its /dev/shm is: less than the histories of a minute take.
const SHM: &str = "64m";

/// What the storm has done.
#[derive(Debug, Default)]
struct Done {
    started: u64,
    killed: u64,
    stopped: u64,
    aggregators_killed: u64,
}

struct Storm<'a> {
    test: &'a TestBus,
    folder: &'a Path,
    random: Random,
    /// By name.
    workers: Vec<(String, Process)>,
    ended: Vec<Process>,
    killed: HashSet<String>,
    aggregator: Option<Process>,
    done: Done,
}

impl Storm<'_> {
    fn step(&mut self) {
        let among = self.workers.len() as u64;
        match self.random.below(16) {
            0..5 if self.workers.len() < WORKERS_MAX => self.start(),
            5..7 if among > 0 => {
                let (name, worker) = &self.workers[self.random.below(among) as usize];
                self.killed.insert(name.clone());
                worker.signal(Signal::KILL);
                self.done.killed += 1;
            }
            7..9 if among > 0 => {
                let at = self.random.below(among) as usize;
                self.workers[at].1.signal(Signal::STOP);
                self.done.stopped += 1;
            }
            9..13 if among > 0 => {
                let at = self.random.below(among) as usize;
                self.workers[at].1.signal(Signal::CONT);
            }
            13 => {
                if let Some(aggregator) = self.aggregator.take() {
                    aggregator.kill();
                    self.done.aggregators_killed += 1;
                }
                self.aggregator = Some(Process::ready(AGGREGATOR, self.test.address(), &[]));
            }
            _ => {}
        }
        // Dead ones make room; their children go on for themselves.
        for at in (0..self.workers.len()).rev() {
            if self.workers[at].1.status().is_some() {
                self.ended.push(self.workers.swap_remove(at).1);
            }
        }
        thread::sleep(Duration::from_micros(self.random.below(20_000)));
    }

    fn start(&mut self) {
        self.done.started += 1;
        let name = format!("w{}", self.done.started);
        let folder = self.folder.display().to_string();
        let args = [folder, name.clone(), self.random.word().to_string()];
        let worker = Process::start(STORMER, self.test.address(), &args);
        self.workers.push((name, worker));
    }
}

/// Dumps until it is told to end; how many dumps there were.
fn dump(path: &Path, stop: &AtomicBool) -> u64 {
    let (mut dumps, mut epoch, mut counted) = (0, 0, HashMap::<String, f64>::new());
    while !stop.load(Ordering::Relaxed) {
        let mut reader = Reader::open(path).expect("the snapshot opens");
        // Often with a mapping of before a growth.
        for _ in 0..20 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let snapshot = match reader.read(&ReadOptions::default()) {
                Err(ReadError::Empty) => continue,
                read => read.expect("a dump"),
            };
            assert!(snapshot.epoch >= epoch, "{} after {epoch}", snapshot.epoch);
            epoch = snapshot.epoch;
            for series in &snapshot.series {
                let (journal, sum) = (journal(series), sum(series));
                let before = counted.insert(journal.clone(), sum).unwrap_or(0.0);
                assert!(
                    sum >= before,
                    "{journal} counted back from {before} to {sum}"
                );
            }
            let mut page = Vec::new();
            export::export(
                &snapshot,
                Format::Json,
                &export::Options::default(),
                &mut page,
            )
            .expect("memory takes it");
            serde_json::from_slice::<serde_json::Value>(&page).expect("a JSON document");
            dumps += 1;
        }
    }
    dumps
}

fn journal(series: &Series) -> String {
    let (_, value) = &series.labels[0];
    value.clone()
}

fn sum(series: &Series) -> f64 {
    match series.value {
        Value::Counter(sum) => sum.value(),
        _ => panic!("{series:?} is no counter"),
    }
}

/// Has everything drained and repaired, by a successor.
fn settle(bus: &Bus) {
    let mut aggregator =
        Aggregator::open(bus, &AggregatorOptions::default()).expect("the only one");
    aggregator.finish();
    // What the reaper found in the first pass.
    aggregator.finish();
}

/// Checks what the journals say against the snapshot; how many records were attempted.
///
/// Of a process whose lock somebody closed, the record that it was inside of when it was thought
/// dead may lie in the place of another's: `closes` is how often that could be.
fn check_totals(test: &TestBus, journals: &Path, closes: u64) -> u64 {
    let totals = Totals::read(&test.open(), &mut test.reader());
    let by_journal: HashMap<String, f64> = totals
        .series
        .iter()
        .map(|series| (journal(series), sum(series)))
        .collect();
    let (mut attempted, mut open_calls, mut full, mut revoked) = (0, 0, 0, 0);
    let (mut unowned, mut misplaced) = (0, [0, 0]);
    for entry in std::fs::read_dir(journals).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.metadata().expect("a file").len() == 0 {
            // Killed before the first attempt.
            continue;
        }
        let entries = Journal::open(&path).read();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(entries.open_calls() <= 1, "{name}: {entries:?}");
        let (open, found) = (
            entries.open_calls() + entries.untold,
            by_journal.get(&name).copied().unwrap_or(0.0),
        );
        let (least, most) = (entries.accepted, entries.accepted + open);
        misplaced[0] += least.saturating_sub(found as u64);
        misplaced[1] += (found as u64).saturating_sub(most);
        let is_right = misplaced.iter().all(|&records| records <= closes);
        assert!(
            is_right,
            "{name}: {entries:?}, but {found}; {closes} closed"
        );
        attempted += entries.attempted;
        open_calls += open;
        full += entries.full;
        revoked += entries.revoked;
        unowned += entries.unowned;
    }
    let ledger = totals.ledger();
    let by_nobody = test.open().counts().dropped_unowned;
    let within = |found, least| (least..=least + open_calls).contains(&found);
    let parts = format!(
        "{ledger:?}, {by_nobody} of nobody: {attempted} attempted, {full} full, {revoked} revoked, {unowned} unowned"
    );
    let lost = ledger.dropped() + ledger.torn + ledger.revoked + by_nobody;
    let accounted = ledger.delivered + lost;
    assert!(
        accounted <= attempted && attempted <= accounted + open_calls,
        "{parts}"
    );
    // Who lost its lock is thought dead: what it finds revoked was counted as torn.
    let given_up = ledger.revoked + ledger.torn;
    assert!(
        within(ledger.dropped_full, full) && within(given_up, revoked),
        "{parts}"
    );
    assert!(
        within(by_nobody, unowned) && unowned * 10 <= attempted,
        "{parts}"
    );
    assert_eq!((ledger.rejected, ledger.violations), (0, 0), "{parts}");
    // The ledger may lack a call that its caller died inside of: a cell's value is stored before
    // its pulse.
    let delivered = by_journal.values().sum::<f64>() as u64;
    assert!(within(delivered, ledger.delivered), "{delivered}, {parts}");
    assert_eq!(test.open().counts().violations, 0);
    attempted
}

/// Stops the dumps when the storm ends, also by a panic: the scope waits for them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// In a container's /dev/shm: histories find no room there, totals do. Here descriptors are closed,
/// too.
#[test]
fn a_storm_in_a_small_shm_leaves_every_count_exact() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    let user: &[&str] = if root {
        &[]
    } else {
        &["--user", "--map-root-user"]
    };
    let unshare = |then: &str| {
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={SHM} x /dev/shm; {then}");
        command
            .args(user)
            .args(["--mount", "sh", "-ec", &mount, "sh"]);
        command
    };
    let tried = unshare("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no /dev/shm of one's own here");
        return;
    }
    let mut storm = unshare("exec \"$@\"");
    storm.arg(std::env::current_exe().expect("this test"));
    storm.args(["--exact", "a_storm_leaves_every_count_exact", "--nocapture"]);
    let done = storm.env(INSIDE, "1").output().expect("it starts");
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    write!(std::io::stdout(), "in a /dev/shm of {SHM}: {out}").expect("an output");
    assert!(
        done.status.success() && out.contains("1 passed"),
        "{}: {out}{err}",
        done.status
    );
}

#[test]
fn a_storm_leaves_every_count_exact() {
    let number = |variable: &str| -> Option<u64> {
        let set = std::env::var(variable).ok();
        set.map(|text| text.parse().expect("a number"))
    };
    let seed = number("QBUS_SEED").unwrap_or_else(|| Clock::Precise.now_ns() & 0xffff_ffff);
    let lasts = Duration::from_secs(number("QBUS_STORM_SECONDS").unwrap_or(8));
    let mut out = std::io::stdout();
    writeln!(out, "storm: QBUS_SEED={seed}").expect("an output");

    let (test, folder) = (
        TestBus::create(Place::Named, GEOMETRY),
        TempDir::new().expect("a temporary folder"),
    );
    for name in ["journals", "lives", "failures"] {
        std::fs::create_dir(folder.path().join(name)).expect("room");
    }
    if std::env::var_os(INSIDE).is_some() {
        std::fs::create_dir(folder.path().join("closes")).expect("room");
    }
    let go = folder.path().join("go");
    std::fs::write(&go, "").expect("room");
    let mut storm = Storm {
        test: &test,
        folder: folder.path(),
        random: Random::new(seed),
        workers: Vec::new(),
        ended: Vec::new(),
        killed: HashSet::new(),
        aggregator: Some(Process::ready(AGGREGATOR, test.address(), &[])),
        done: Done::default(),
    };
    let (stop, start) = (AtomicBool::new(false), Instant::now());
    let dumps = thread::scope(|scope| {
        let dumps = scope.spawn(|| dump(&test.address().snapshot(), &stop));
        let stop = StopOnDrop(&stop);
        while start.elapsed() < lasts && !dumps.is_finished() {
            storm.step();
        }
        drop(stop);
        dumps.join().expect("every dump is good")
    });
    std::fs::remove_file(&go).expect("it was there");
    for (_, worker) in &storm.workers {
        worker.signal(Signal::CONT);
    }
    let workers = storm.workers.iter().map(|(_, worker)| worker);
    workers.chain(&storm.ended).for_each(Process::await_silence);
    // Also of those who were killed before they ended by it.
    let failures = std::fs::read_dir(folder.path().join("failures")).expect("a folder");
    let read = |failure: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(failure.expect("an entry").path()).expect("a text")
    };
    let failures: Vec<String> = failures.map(read).collect();
    assert!(failures.is_empty(), "workers failed: {failures:?}");
    let mut lost = Life::lost(&folder.path().join("lives"));
    lost.retain(|name| !storm.killed.contains(name));
    assert!(
        lost.is_empty(),
        "ended, though nobody told them to: {lost:?}"
    );
    if let Some(aggregator) = storm.aggregator.take() {
        aggregator.end_well();
    }
    let bus = test.open();
    settle(&bus);
    let closes = std::fs::read_dir(folder.path().join("closes")).map_or(0, Iterator::count);
    let attempted = check_totals(&test, &folder.path().join("journals"), closes as u64);
    let held = |lane: &qbus::LaneView| lane.holder.is_some();
    assert!(!bus.lanes().iter().any(held), "{:?}", bus.lanes());
    let done = &storm.done;
    writeln!(out, "storm: {done:?}, {dumps} dumps, {attempted} records").expect("an output");
}
