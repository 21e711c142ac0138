//! The bus itself: its aggregator, its lanes, and what became of all records.

use qbus_agent::view::Records;

use super::canvas::{Canvas, Side};
use crate::top::screen::{Life, Screen};
use crate::top::units::{Unit, grouped, show};

/// How many lines [`draw`] takes.
pub(super) fn lines(screen: &Screen) -> usize {
    rows(screen).len()
}

pub(super) fn draw(screen: &Screen, height: usize, canvas: &mut Canvas<'_>) {
    for (title, count, told, is_bad) in rows(screen).into_iter().take(height) {
        let look = canvas.look;
        let mut line = canvas.line();
        let style = if is_bad {
            look.bad()
        } else {
            ratatui::style::Style::new()
        };
        line.write(0, 18, Side::Left, &title, look.dim());
        line.write(18, 18, Side::Right, &count, style);
        line.put(38, &told, style);
    }
}

/// What, how much, and what to say of it; whether it is a loss.
type Row = (String, String, String, bool);

fn rows(screen: &Screen) -> Vec<Row> {
    let Some(report) = &screen.report else {
        return Vec::new();
    };
    let aggregator = &report.aggregator;
    let life = match (aggregator.alive, screen.life()) {
        (Some(true), Life::Quiet) => "alive, idle or stuck",
        (Some(true), _) => "alive",
        (Some(false), _) => "gone",
        (None, _) => "life unknown: the bus cannot be opened",
    };
    let row = |title: &str, count: String, told: String| (title.to_owned(), count, told, false);
    let mut rows = vec![
        row(
            "aggregator",
            format!("pid {}", aggregator.pid),
            format!("{life}; {} restarts", grouped(aggregator.restarts)),
        ),
        row(
            "commits",
            grouped(report.epoch),
            format!(
                "{} each on average",
                show(
                    aggregator.commit_seconds_total / report.epoch.max(1) as f64,
                    Unit::Seconds
                )
            ),
        ),
    ];
    if let Some(lanes) = &report.lanes {
        rows.push(row(
            "lanes",
            format!(
                "{} of {}",
                lanes.leased,
                lanes.all - lanes.shared.min(lanes.all)
            ),
            format!(
                "leased; {} more are shared; the fullest {}",
                lanes.shared,
                show(lanes.fullest_ratio, Unit::Ratio)
            ),
        ));
    }
    let capacity = report
        .series_capacity
        .map_or_else(String::new, |all| format!("of {}", grouped(all)));
    rows.push(row("series", grouped(report.series as u64), capacity));
    rows.push(row(
        "snapshot",
        show(report.snapshot_bytes as f64, Unit::Bytes),
        String::new(),
    ));
    rows.push(row(
        "delivered",
        grouped(report.records.delivered),
        String::new(),
    ));
    rows.extend(losses(&report.records));
    rows.push(row(
        "violations",
        grouped(report.records.violations),
        String::new(),
    ));
    rows
}

/// The same of what was lost and refused, each with its remedy.
fn losses(records: &Records) -> impl Iterator<Item = Row> {
    let row = |title, count, remedy: &str| {
        let is_bad = count > 0;
        let told = if is_bad { remedy } else { "" };
        (title, grouped(count), told.to_owned(), is_bad)
    };
    let lost = records.lost.iter();
    let lost =
        lost.map(move |lost| row(format!("lost: {}", lost.cause), lost.records, lost.remedy));
    let full = "the registry is full: qbus create --max-series";
    lost.chain([row(
        "refused series".to_owned(),
        records.refused_series,
        full,
    )])
}
