//! What the measurements mean for a user's choices.

use qbus::Geometry;

use super::measure::{CLOCK_COARSE, CLOCK_PRECISE, Latency, Load, OWN_LANE, SHARED_LANE};
use super::{IDLE, IN_USE, Report, SPINNING};

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

/// A latency that every report has.
fn visible<'a>(report: &'a Report, name: &str) -> &'a Latency {
    let row = report.visible.iter().find(|row| row.name == name);
    row.expect("each of them is measured")
}

fn clock(report: &Report) -> String {
    let [coarse, precise] = [CLOCK_COARSE, CLOCK_PRECISE].map(|name| ns(report, name));
    let more = (precise - coarse).max(0.0);
    let source = &report.machine.clock_source;
    if precise > SLOW_CLOCK_NS {
        format!(
            "Clock: the precise clock takes {precise:.0} ns here (clock source {source}), most of \
            an emit. Make hot gauges and summaries with Clock::Coarse, or give the machine a \
            faster clock source (tsc)."
        )
    } else {
        format!(
            "Clock: the precise clock adds {more:.0} ns to an emit. Counters and histograms read \
            none; a hot gauge or summary may take the coarse one, where steps of a few \
            milliseconds in its history will do."
        )
    }
}

fn lanes(report: &Report, geometry: &Geometry) -> String {
    let own = geometry.lanes - geometry.shared_lanes;
    let [own_ns, shared_ns] = [OWN_LANE, SHARED_LANE].map(|name| ns(report, name));
    format!(
        "Lanes: {own} threads have a lane of their own on a default bus, at {own_ns:.0} ns an \
        emit; those beyond share {} at {shared_ns:.0} ns and more, as they contend. With more \
        emitting threads: `qbus create --lanes N`.",
        geometry.shared_lanes
    )
}

fn slots(report: &Report, geometry: &Geometry) -> String {
    let slots = geometry.slots;
    let [in_use, idle] = [IN_USE, IDLE].map(|name| visible(report, name));
    // A lane has to hold what comes between two looks of the aggregator.
    let rate = slots as f64 / in_use.p99_us;
    let dropped = report.sustained.get(1).map_or(0.0, Load::dropped_ratio) * 100.0;
    format!(
        "Slots: a lane holds {slots} records until the aggregator looks again, within {:.0} µs \
        (p99) on a bus in use and {:.0} µs after a pause. Below {rate:.1} M records/s a thread \
        loses none; one that never pauses drops {dropped:.0} % here. For longer bursts: `qbus \
        create --slots N`, 64 bytes each.",
        in_use.p99_us, idle.p99_us
    )
}

fn nap(report: &Report) -> String {
    let [in_use, idle, spinning] = [IN_USE, IDLE, SPINNING].map(|name| visible(report, name));
    if report.machine.cores < 2 || spinning.p99_us >= in_use.p99_us {
        return format!(
            "Nap: leave it. `qbus agg --spin` needs a core that nobody else uses, and shows \
            records no sooner here ({:.0} µs at p99, against {:.0} µs).",
            spinning.p99_us, in_use.p99_us
        );
    }
    format!(
        "Nap: a record is visible after {:.0} µs (p99 {:.0} µs; {:.0} µs after a pause), which no \
        scrape notices. `qbus agg --spin` makes it {:.1} µs (p99 {:.0} µs), for a whole core.",
        in_use.p50_us, in_use.p99_us, idle.p99_us, spinning.p50_us, spinning.p99_us
    )
}

fn headroom(report: &Report) -> String {
    let sustained = report.sustained.first();
    let sustained = sustained.map_or(f64::NAN, |load| load.committed_per_second);
    let paced = &report.paced;
    format!(
        "Headroom: {:.0} records/s take {:.1} % of a core; {:.0} times as many are sustained \
        without loss, all producers together.",
        paced.records_per_second,
        paced.cores * 100.0,
        sustained / paced.records_per_second
    )
}
