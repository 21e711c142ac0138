//! qbus beside what others use: everything in one run, in turns, on one machine.

mod aggregator;
mod bars;
mod dump;
mod emit;
mod others;
mod pages;
mod plot;
mod programs;
mod report;
mod rounds;
mod scrape;
mod series;
mod single;
mod sustained;
mod visible;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use programs::Programs;
use qbus_benches::Machine;
use report::{Section, wrapped};
use serde_json::json;

const USAGE: &str =
    "usage: peers [--quick] [--only SECTION]... [--out FOLDER] [--qbus PROGRAM] [--python PROGRAM]
sections: emit, single, scaling, sustained, visible, dump, scrape, fold, commit, memory, footprint";

/// What was typed.
#[derive(Debug, Default)]
struct Args {
    /// A tenth of the time, and figures that say less.
    quick: bool,
    /// These sections; all when there is none.
    only: Vec<String>,
    /// Where the JSON and the plots go.
    out: Option<PathBuf>,
    programs: Programs,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("worker", rest)) = args
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        return sustained::work(rest);
    }
    let Some(args) = parse(args) else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let machine = Machine::this();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    println!("{machine}\nload average at the start {load}; figures are medians");
    println!("{}", wrapped(&versions(), ""));
    let start = Instant::now();
    let mut sections = Vec::new();
    for (key, measure) in all() {
        if args.only.is_empty() || args.only.iter().any(|only| only == key) {
            let section = measure(&args);
            print!("{}", section.table());
            sections.push(section);
        }
    }
    let bars = bars::bars(&sections);
    println!("\nbars");
    let is_whole = args.only.is_empty();
    for bar in bars.iter().filter(|bar| is_whole || bar.is_measured()) {
        println!("{}", bar.line());
    }
    println!("\nmeasured in {:.0} s", start.elapsed().as_secs_f64());
    if let Some(out) = &args.out {
        let report = json!({
            "machine": machine.to_string(),
            "load": load,
            "versions": versions(),
            "sections": sections.iter().map(Section::json).collect::<Vec<_>>(),
            "bars": bars.iter().map(bars::Bar::json).collect::<Vec<_>>(),
        });
        write(out, &report, &sections);
    }
}

type Measure = fn(&Args) -> Section;

/// All sections, in the order of the page.
fn all() -> [(&'static str, Measure); 12] {
    [
        ("emit", |args| emit::section(args.quick)),
        ("single", |args| single::section(args.quick)),
        ("scaling", |args| sustained::scaling(args.quick)),
        ("sustained", |args| sustained::section(args.quick)),
        ("visible", |args| visible::section(args.quick)),
        ("dump", |args| dump::section(args.quick, &args.programs)),
        ("scrape", |args| scrape::section(args.quick, &args.programs)),
        ("pages", |args| pages::section(&args.programs)),
        ("fold", |args| aggregator::fold(args.quick)),
        ("commit", |args| aggregator::commit(args.quick)),
        ("memory", |args| aggregator::memory(&args.programs)),
        ("footprint", |args| {
            aggregator::footprint(args.quick, &args.programs)
        }),
    ]
}

fn parse(args: Vec<String>) -> Option<Args> {
    let mut parsed = Args::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => parsed.quick = true,
            "--only" => parsed
                .only
                .push(args.next().filter(|only| is_section(only))?),
            "--out" => parsed.out = Some(args.next()?.into()),
            "--qbus" => parsed.programs.qbus = Some(args.next()?.into()),
            "--python" => parsed.programs.python = Some(args.next()?.into()),
            _ => return None,
        }
    }
    Some(parsed)
}

fn is_section(key: &str) -> bool {
    all().iter().any(|(known, _)| *known == key)
}

/// The versions of all that is measured, as the lock file has them, and of the compiler.
fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let peers = [
        "qbus",
        "cadence",
        "crossbeam-queue",
        "iceoryx2",
        "metrics",
        "metrics-exporter-prometheus",
        "opentelemetry_sdk",
        "prometheus",
        "prometheus-client",
        "rtrb",
    ];
    let version = |name: &str| {
        let package = lock
            .split(&format!("name = \"{name}\"\nversion = \""))
            .nth(1)?;
        Some(format!("{name}@{}", package.split('"').next()?))
    };
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map_or(String::new(), |said| {
        String::from_utf8_lossy(&said.stdout).into_owned()
    });
    // Without its commit.
    let compiler = compiler.split(' ').take(2).collect::<Vec<_>>().join("@");
    let versions: Vec<_> = peers
        .into_iter()
        .filter_map(version)
        .chain([compiler])
        .collect();
    versions.join(", ")
}

/// The JSON, and a plot of each section that is worth one.
fn write(out: &Path, report: &serde_json::Value, sections: &[Section]) {
    let failed = "the folder for the results takes them";
    std::fs::create_dir_all(out).expect(failed);
    let page = serde_json::to_string_pretty(report).expect("figures");
    std::fs::write(out.join("peers.json"), page).expect(failed);
    let plots = [
        ("emit", "median"),
        ("single", "p99.9"),
        ("sustained", "median"),
        ("visible", "p99"),
        ("dump", "100k"),
    ];
    for (key, column) in plots {
        let section = sections.iter().find(|section| section.key == key);
        if let Some(plot) = section.and_then(|section| plot::svg(section, column)) {
            std::fs::write(out.join(format!("{key}.svg")), plot).expect(failed);
        }
    }
    println!("figures and plots: {}", out.display());
}
