//! Prints what the sampler reads now, and what each source took, for a look without any bus.
//!
//! `page [qbus|node|seed] [TICKS]`: with more than one tick, one a second, the last is printed.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use qbus_sampler::{Names, Sampler, SamplerOptions, Source};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let names = match args.next().as_deref() {
        Some("node") => Names::Node,
        Some("seed") => Names::Seed,
        _ => Names::Qbus,
    };
    let ticks: u32 = args
        .next()
        .and_then(|ticks| ticks.parse().ok())
        .unwrap_or(1);
    let mut options = SamplerOptions {
        names,
        sources: Source::defaults(names),
        ..SamplerOptions::default()
    };
    // A host, or a tree of fixtures, that lies elsewhere.
    if let Some(root) = std::env::var_os("PAGE_ROOT").map(PathBuf::from) {
        options.roots.proc = root.join("proc");
        options.roots.sys = root.join("sys");
        options.roots.udev = root.join("udev/data");
        options.roots.root = root;
    }
    options.filters.textfile_directory = std::env::var_os("PAGE_TEXTFILES").map(PathBuf::from);
    let mut sampler = Sampler::new(options);
    let attached = [].into();
    let mut out = io::stdout().lock();
    for tick in 1..=ticks {
        let last = tick == ticks;
        let start = Instant::now();
        let mut failed = Ok(());
        let outcomes = sampler.sample(start, &attached, &mut |sample| {
            if last && failed.is_ok() {
                failed = writeln!(
                    out,
                    "{:?} {} {:?} {}",
                    sample.metric.trend, sample.metric.name, sample.labels, sample.value
                );
            }
        });
        let took = start.elapsed();
        if last {
            for outcome in outcomes {
                writeln!(out, "# {outcome:?}")?;
            }
            writeln!(out, "# the tick took {took:?}")?;
        }
        failed?;
        if !last {
            thread::sleep(Duration::from_secs(1));
        }
    }
    Ok(())
}
