//! `qbus bench`

mod advice;
mod measure;

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use crate::args::Bench;
use crate::command::until_signal;
use crate::error::Error;
use crate::progress::Progress;
use crate::stage::Machine;
use measure::{Cost, Latency, Load, Measuring};

/// Rows of latencies that advice is derived from.
const IN_USE: &str = "on a bus in use";
const IDLE: &str = "after 100 ms of nothing";
const SPINNING: &str = "with qbus agg --spin";

/// Columns of a page.
const WIDTH: usize = 80;

pub(crate) fn run(bench: &Bench, out: &mut dyn Write) -> Result<(), Error> {
    // Before anything is made that a signal would leave behind.
    let stop = until_signal()?;
    let report = Report::measure(bench.seconds, &stop)?;
    if bench.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    report.print(out)
}

/// What was measured: the wire form of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    /// What an emit costs its producer.
    emit: Vec<Cost>,
    /// How long after an emit a reader sees it: [`IN_USE`], [`IDLE`], [`SPINNING`].
    visible: Vec<Latency>,
    /// One producer, as fast as it goes.
    sustained: Vec<Load>,
    /// What the aggregator takes of a core while [`measure::PACE`] records a second come.
    paced: Paced,
    advice: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Paced {
    records_per_second: f64,
    cores: f64,
}

impl Report {
    fn measure(time: Duration, stop: &AtomicBool) -> Result<Report, Error> {
        let progress = Progress::new();
        let mut measuring = Measuring::start(stop)?;
        progress.show(0.0, "emit cost");
        measuring.aggregate(false)?;
        let emit = measure::emit(&measuring, time.mul_f64(0.35))?;
        progress.show(0.35, "emit to visible");
        let in_use = measure::visible(&measuring, IN_USE, measure::in_use, time.mul_f64(0.2))?;
        let idle = measure::visible(&measuring, IDLE, measure::idle, time.mul_f64(0.1))?;
        progress.show(0.65, "sustained");
        let sustained = measure::sustained(&measuring, time.mul_f64(0.15))?;
        progress.show(0.8, "emit to visible, aggregator spinning");
        measuring.aggregate(true)?;
        let spinning = measure::visible(&measuring, SPINNING, measure::in_use, time.mul_f64(0.1))?;
        progress.show(0.9, "aggregator at a steady rate");
        measuring.aggregate(false)?;
        let (records_per_second, cores) = measure::paced(&mut measuring, time.mul_f64(0.1))?;
        let mut report = Report {
            machine: Machine::this(),
            emit,
            visible: vec![in_use, idle, spinning],
            sustained,
            paced: Paced {
                records_per_second,
                cores,
            },
            advice: Vec::new(),
        };
        report.advice = advice::of(&report, measuring.bus().geometry());
        Ok(report)
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), Error> {
        writeln!(out, "{}\n", self.machine)?;
        writeln!(
            out,
            "{:<38} {:>8} {:>8} {:>8}",
            "ns an emit", "median", "p10", "p90"
        )?;
        for cost in &self.emit {
            writeln!(
                out,
                "  {:<36} {:>8.1} {:>8.1} {:>8.1}",
                cost.name, cost.median_ns, cost.p10_ns, cost.p90_ns
            )?;
        }
        writeln!(
            out,
            "\n{:<38} {:>8} {:>8}",
            "µs from an emit until it is visible", "p50", "p99"
        )?;
        for latency in &self.visible {
            writeln!(
                out,
                "  {:<36} {:>8.1} {:>8.1}",
                latency.name, latency.p50_us, latency.p99_us
            )?;
        }
        writeln!(
            out,
            "\n{:<38} {:>8} {:>8}",
            "sustained, one producer", "M/s", "dropped"
        )?;
        for load in &self.sustained {
            writeln!(
                out,
                "  {:<36} {:>8.1} {:>6.1} %",
                load.name,
                load.committed_per_second / 1e6,
                load.dropped_ratio() * 100.0
            )?;
        }
        writeln!(
            out,
            "\n{:<38} {:>6.2} % of a core\n",
            format!(
                "aggregator at {:.0} records/s",
                self.paced.records_per_second
            ),
            self.paced.cores * 100.0
        )?;
        for advice in &self.advice {
            writeln!(out, "{}", wrapped(advice))?;
        }
        Ok(())
    }
}

/// A paragraph in lines that fit a page.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::from("*"));
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, String::from(" ")));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}
