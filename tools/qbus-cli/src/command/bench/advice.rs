//! What the measurements mean for a user's choices.

use qbus::Geometry;

use super::Report;
use super::measure::{CLOCK_COARSE, CLOCK_PRECISE, OWN_LANE, SHARED_LANE};

/// A vDSO reads a good clock in less; a system call takes more.
const SLOW_CLOCK_NS: f64 = 60.0;

/// A sentence or two for each choice: clock, lanes, slots, nap.
pub(super) fn of(report: &Report, geometry: &Geometry) -> Vec<String> {
    vec![
        clock(report),
        lanes(report, geometry),
        slots(report, geometry),
        nap(report),
        headroom(report),
    ]
}

fn ns(report: &Report, name: &str) -> f64 {
    let row = report.emit.iter().find(|cost| cost.name == name);
    row.map_or(f64::NAN, |cost| cost.median_ns)
}

fn clock(report: &Report) -> String {
    let [coarse, precise] = [CLOCK_COARSE, CLOCK_PRECISE].map(|name| ns(report, name));
    let more = (precise - coarse).max(0.0);
    let source = &report.machine.clock_source;
    if precise > SLOW_CLOCK_NS {
        format!(
            "Clock: the precise clock takes {precise:.0} ns here (clock source {source}), most of an emit. Make hot \
             gauges, histograms and summaries with Clock::Coarse, or give the machine a faster clock source (tsc)."
        )
    } else {
        format!(
            "Clock: the precise clock adds {more:.0} ns to an emit. Counters take the coarse one by themselves; a \
             hot gauge, histogram or summary may too, where steps of a few milliseconds in its history will do."
        )
    }
}

fn lanes(report: &Report, geometry: &Geometry) -> String {
    let own = geometry.lanes - geometry.shared_lanes;
    let [own_ns, shared_ns] = [OWN_LANE, SHARED_LANE].map(|name| ns(report, name));
    format!(
        "Lanes: {own} threads have a lane of their own on a default bus, at {own_ns:.0} ns an emit; those beyond share \
         {} at {shared_ns:.0} ns and more, as they contend. With more emitting threads: `qbus create --lanes N`.",
        geometry.shared_lanes
    )
}

fn slots(report: &Report, geometry: &Geometry) -> String {
    // A lane has to hold what comes between two looks of the aggregator.
    let p99_us = report.visible.first().map_or(f64::NAN, |row| row.p99_us);
    let rate = geometry.slots as f64 / p99_us;
    format!(
        "Slots: the aggregator looks again within {p99_us:.0} µs (p99), so a thread that starts to emit out of the \
         blue loses nothing below {rate:.1} M records/s or a burst of {} records. For larger bursts: `qbus create \
         --slots N`, at 64 bytes each.",
        geometry.slots
    )
}

fn nap(report: &Report) -> String {
    let [Some(napping), Some(spinning)] = [0, 1].map(|row| report.visible.get(row)) else {
        return String::new();
    };
    if report.machine.cores < 2 || spinning.p99_us >= napping.p99_us {
        return format!(
            "Nap: leave it. `qbus agg --spin` needs a core that nobody else uses, and shows records no sooner here \
             ({:.0} µs at p99, against {:.0} µs).",
            spinning.p99_us, napping.p99_us
        );
    }
    format!(
        "Nap: a record is visible after {:.0} µs (p99 {:.0} µs), which no scrape notices. `qbus agg --spin` makes it \
         {:.1} µs (p99 {:.0} µs), for a whole core.",
        napping.p50_us, napping.p99_us, spinning.p50_us, spinning.p99_us
    )
}

fn headroom(report: &Report) -> String {
    let sustained = report.sustained.first();
    let sustained = sustained.map_or(f64::NAN, |load| load.committed_per_second);
    let paced = &report.paced;
    format!(
        "Headroom: {:.0} records/s take {:.1} % of a core; {:.0} times as many are sustained without loss, all \
         producers together.",
        paced.records_per_second,
        paced.cores * 100.0,
        sustained / paced.records_per_second
    )
}
