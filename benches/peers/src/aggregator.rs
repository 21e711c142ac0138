//! What the aggregator's work costs, and what all of it takes in memory and on disk.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Clock, Kind, Record, Removal, SeriesId};
use qbus_aggregate::{Aggregator, Reader};
use qbus_benches::unused;

use crate::programs::{Programs, run_ns, status_mib, stripped_kib};
use crate::report::Section;
use crate::rounds::{Cores, Drain, spread};
use crate::series::{COUNTS, ManySeries};

/// Records of a round of one lane.
const ROUND: u32 = 1024;

pub const IDLE: &str = "idle aggregator, % of a core";
pub const PRODUCER: &str = "producer over an empty program, KiB";

/// Fold cost by kind.
pub fn fold(quick: bool) -> Section {
    let columns = &["median", "q1", "q3"];
    let mut section = Section::new("fold", "drain and fold, ns a record", columns);
    // Here the emitters are the ones that are told what to do.
    let cores = Cores::for_consumers();
    let many = ManySeries::create("fold", 0);
    let bus = &many.bus;
    let failed = "a new bus takes it";
    let kinds = [
        (
            "counter",
            Kind::Increment,
            bus.counter("a_total").register().expect(failed).series(),
        ),
        (
            "gauge",
            Kind::Set,
            bus.gauge("b").register().expect(failed).series(),
        ),
        (
            "histogram",
            Kind::Observe,
            bus.histogram("c").register().expect(failed).series(),
        ),
        (
            "summary",
            Kind::Observe,
            bus.summary("d").register().expect(failed).series(),
        ),
    ];
    let config = qbus_aggregate::AggregatorOptions::default();
    let mut aggregator = Aggregator::open(bus, &config).expect("the only aggregator");
    let mut cases = kinds.map(|(name, kind, series)| {
        let [full, one] = [ROUND, 1].map(|records| emitter(bus, records, kind, series));
        (name, full, one, Vec::new())
    });
    cores.for_emitter();
    for _ in 0..if quick { 50 } else { 500 } {
        for (_, full, one, measured) in &mut cases {
            // What a round costs in any case, its commit above all, is not the fold's.
            let [full, one] = [full, one].map(|emit| {
                emit.now();
                let start = Instant::now();
                aggregator.round();
                start.elapsed().as_nanos() as f64
            });
            measured.push((full - one) / f64::from(ROUND - 1));
        }
    }
    for (name, .., measured) in &mut cases {
        section.row(*name, spread(measured));
    }
    section
        .notes
        .push("records that another core has written, with history and recent records".to_owned());
    section
}

/// Emits so many records whenever it is told to, on a thread of its own.
fn emitter(bus: &Bus, records: u32, kind: Kind, series: SeriesId) -> Drain {
    let bus = bus.clone();
    Drain::start(move || {
        let producer = bus.producer().expect("a lane");
        move || {
            for n in 0..records {
                let value = f64::from(n % 1000) / 1000.0;
                let record = Record::new(Clock::Coarse.now_ns(), series, kind, value);
                producer.emit(record).expect("room for a round");
            }
        }
    })
}

/// Commit cost by touched series.
pub fn commit(quick: bool) -> Section {
    let columns = &["median", "q1", "q3"];
    let mut section = Section::new("commit", "commit of so many touched series, µs", columns);
    let many = ManySeries::create("commit", 1000);
    let config = qbus_aggregate::AggregatorOptions::default();
    let mut aggregator = Aggregator::open(&many.bus, &config).expect("the only aggregator");
    let producer = many.bus.producer().expect("a lane");
    let mut cases = [1, 10, 100, 1000].map(|touched| (touched, Vec::new()));
    for _ in 0..if quick { 20 } else { 200 } {
        for (touched, measured) in &mut cases {
            for &(series, is_counter) in &many.series[..*touched] {
                let kind = if is_counter {
                    Kind::Increment
                } else {
                    Kind::Set
                };
                let record = Record::new(Clock::Coarse.now_ns(), series, kind, 1.0);
                producer.emit(record).expect("room for a round");
            }
            let before = aggregator.globals().commit_ns;
            aggregator.round();
            measured.push((aggregator.globals().commit_ns - before) as f64 / 1000.0);
        }
    }
    for (touched, measured) in &mut cases {
        section.row(touched.to_string(), spread(measured));
    }
    section
}

/// An aggregator process; ended when it is dropped.
struct Aggregating(Child);

impl Aggregating {
    fn start(qbus: &Path, bus: &Bus) -> Aggregating {
        let mut command = Command::new(qbus);
        command.args(["agg", "--no-host", "--no-gpu", "--no-self", "--bus"]);
        command.arg(bus.address().to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Aggregating(command.spawn().expect("qbus starts"))
    }
}

impl Drop for Aggregating {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Memory by series.
pub fn memory(programs: &Programs) -> Section {
    let columns = &["1k", "10k", "100k"];
    let mut section = Section::new("memory", "aggregator by series, MiB", columns);
    let Some(qbus) = &programs.qbus else {
        section
            .notes
            .push("skipped: no qbus program; give one with --qbus".to_owned());
        return section;
    };
    let mut table = [(); 3].map(|()| Vec::new());
    for count in COUNTS {
        let many = ManySeries::create("memory", count);
        let aggregating = Aggregating::start(qbus, &many.bus);
        let producer = many.bus.producer().expect("a lane");
        for &(series, is_counter) in &many.series {
            let kind = if is_counter {
                Kind::Increment
            } else {
                Kind::Set
            };
            let record = Record::new(Clock::Coarse.now_ns(), series, kind, 1.0);
            let emitted = producer.emit_or_wait(record, Duration::from_secs(10));
            emitted.expect("an aggregator runs");
        }
        let snapshot = many.bus.address().snapshot();
        let is_whole =
            || Reader::open(&snapshot).is_ok_and(|reader| reader.series_count() == count);
        while !is_whole() {
            thread::sleep(Duration::from_millis(5));
        }
        let pid = aggregating.0.id();
        let size = snapshot
            .metadata()
            .map_or(f64::NAN, |file| file.len() as f64);
        let figures = [
            status_mib(pid, "RssAnon").unwrap_or(f64::NAN),
            status_mib(pid, "RssShmem").unwrap_or(f64::NAN),
            size / f64::from(1 << 20),
        ];
        for (row, figure) in table.iter_mut().zip(figures) {
            row.push(figure);
        }
    }
    let names = [
        "resident, private",
        "resident, bus and snapshot",
        "snapshot file",
    ];
    for (name, figures) in names.into_iter().zip(table) {
        section.row(name, figures);
    }
    section
}

/// What is there even when nothing happens.
pub fn footprint(quick: bool, programs: &Programs) -> Section {
    let columns = &["median", "q1", "q3"];
    let mut section = Section::new("footprint", "attaching, idling, sizes", columns);
    let bus =
        Bus::create(&unused("footprint"), &qbus::BusOptions::default()).expect("room in /dev/shm");
    let mut attached = [(); 3].map(|()| Vec::new());
    for _ in 0..if quick { 20 } else { 200 } {
        for (measured, took) in attached.iter_mut().zip(attach(&bus)) {
            measured.push(took);
        }
    }
    let names = [
        "Bus::open, µs",
        "register a known counter, µs",
        "first inc (join, lease a lane), µs",
    ];
    for (name, mut measured) in names.into_iter().zip(attached) {
        section.row(name, spread(&mut measured));
    }
    if let Some(qbus) = &programs.qbus {
        section.row(IDLE, [idle(qbus, &bus, if quick { 1 } else { 5 })]);
    } else {
        section
            .notes
            .push("skipped: no qbus program; give one with --qbus".to_owned());
    }
    section.row(
        "default bus, MiB",
        [bus.geometry().size_bytes() as f64 / f64::from(1 << 20)],
    );
    let sizes = (stripped_kib("producer"), stripped_kib("empty"));
    if let (Some(producer), Some(empty)) = sizes {
        section.row("producer program, stripped, KiB", [producer]);
        section.row(PRODUCER, [producer - empty]);
    } else {
        section
            .notes
            .push("skipped: sizes need `strip` and `cargo build --release --bins`".to_owned());
    }
    let _ = Bus::remove(bus.address(), Removal::Forced);
    section
}

/// Microseconds of each step that a producer takes.
fn attach(bus: &Bus) -> [f64; 3] {
    let start = Instant::now();
    let opened = Bus::open(bus.address()).expect("the bus");
    let open = Instant::now();
    let counter = opened.counter("bench_total").register().expect("it fits");
    let registered = Instant::now();
    counter.inc();
    let joined = Instant::now();
    let steps = [open - start, registered - open, joined - registered];
    steps.map(|step| step.as_nanos() as f64 / 1000.0)
}

/// Percent of a core that an aggregator takes for nothing.
fn idle(qbus: &Path, bus: &Bus, seconds: u64) -> f64 {
    let aggregating = Aggregating::start(qbus, bus);
    // Its naps grow at first.
    thread::sleep(Duration::from_millis(500));
    let pid = aggregating.0.id();
    let (start, before) = (Instant::now(), run_ns(pid).unwrap_or(f64::NAN));
    thread::sleep(Duration::from_secs(seconds));
    let used = run_ns(pid).unwrap_or(f64::NAN) - before;
    used / start.elapsed().as_nanos() as f64 * 100.0
}
