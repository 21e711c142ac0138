//! How many instructions an emit takes: a figure that a machine's noise cannot touch.
//!
//! Valgrind runs this very program twice, with different counts of emits; the difference is the
//! emits' own. More than recorded fails, so that nobody pays an instruction unawares.
#![allow(clippy::print_stdout)]

use std::process::{Command, ExitCode};

use qbus::{Bus, BusOptions, Kind, Record, Removal};
use qbus_benches::{is_measured, unused};

/// Emits of the shorter and of the longer run: both fit into a lane.
const RUNS: [u32; 2] = [1000, 3000];
/// How far from the recorded figure is still the same: a compiler's next version may differ a
/// little.
const TOLERANCE: f64 = 0.1;

/// Records of a batch.
const BATCH: u32 = 50;

/// What is emitted, and the instructions of one emit on x86-64. Under Valgrind a clock is a system
/// call, of which it counts the little that the process itself does.
const CASES: [(&str, f64); 7] = [
    ("Counter::inc, to its cell", 43.4),
    ("Counter::add, of a fraction", 67.4),
    ("Histogram::observe, 11 bounds", 195.3),
    // Nine of them ask whether its series was freed: it would emit under a stale id.
    ("Gauge::try_set_at, no clock", 95.5),
    ("Producer::emit, own lane", 54.2),
    ("Producer::emit, shared lane", 238.0),
    ("Producer::emit_many, 50 at once", 59.7),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, case, emits] = args.as_slice()
        && mode == "emit"
    {
        emit(case, emits.parse().expect("a count"));
        return ExitCode::SUCCESS;
    }
    if !is_measured() {
        for (case, _) in CASES {
            emit(case, RUNS[0]);
        }
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: instructions of an emit; install valgrind");
        return ExitCode::SUCCESS;
    }
    check()
}

/// Compares each case with what is recorded.
fn check() -> ExitCode {
    let mut is_good = true;
    println!(
        "{:<32} {:>7} {:>9}",
        "instructions of an emit", "found", "recorded"
    );
    for (case, recorded) in CASES {
        let [short, long] = RUNS.map(|emits| instructions(case, emits));
        let found = (long - short) / f64::from(RUNS[1] - RUNS[0]);
        let verdict = if cfg!(not(target_arch = "x86_64")) {
            "  recorded for x86-64"
        } else if found > recorded * (1.0 + TOLERANCE) {
            is_good = false;
            "  more: mend the emit, or say why and record it"
        } else if found < recorded * (1.0 - TOLERANCE) {
            "  fewer: record it"
        } else {
            ""
        };
        println!("{case:<32} {found:>7.1} {recorded:>9.1}{verdict}");
    }
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Instructions of a whole run, as Valgrind counts them.
fn instructions(case: &str, emits: u32) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["emit", case, &emits.to_string()])
        .output()
        .expect("valgrind starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind counted nothing: {said}"))
}

/// Emits so often, on a bus that nobody drains.
fn emit(case: &str, emits: u32) {
    let address = unused("instructions");
    let bus = Bus::create(&address, &BusOptions::default()).expect("room in /dev/shm");
    let failed = "a new bus takes it";
    let counter = bus.counter("bench_total").register().expect(failed);
    let gauge = bus.gauge("bench_level").register().expect(failed);
    let record = Record::new(1, counter.series(), Kind::Increment, 1.0);
    let batch = [record; BATCH as usize];
    match case {
        "Counter::inc, to its cell" => repeat(emits, |_| counter.inc()),
        "Counter::add, of a fraction" => repeat(emits, |_| counter.add(0.25)),
        "Histogram::observe, 11 bounds" => {
            let histogram = bus.histogram("bench_seconds").register().expect(failed);
            repeat(emits, |n| histogram.observe(f64::from(n % 1000) / 1000.0));
        }
        "Gauge::try_set_at, no clock" => repeat(emits, |n| {
            gauge.try_set_at(1, f64::from(n)).expect(failed);
        }),
        "Producer::emit, own lane" => {
            let producer = bus.producer().expect(failed);
            repeat(emits, |_| producer.emit(record).expect(failed));
        }
        "Producer::emit, shared lane" => {
            let producer = bus.shared_producer().expect(failed);
            repeat(emits, |_| producer.emit(record).expect(failed));
        }
        "Producer::emit_many, 50 at once" => {
            let producer = bus.producer().expect(failed);
            repeat(emits / BATCH, |_| producer.emit_many(&batch).expect(failed));
        }
        _ => panic!("unknown case {case:?}"),
    }
    let _ = Bus::remove(&address, Removal::Forced);
}

/// The loop is compiled with the call: nothing is counted that a caller would not have.
fn repeat(calls: u32, mut call: impl FnMut(u32)) {
    for n in 0..calls {
        call(n);
    }
}
