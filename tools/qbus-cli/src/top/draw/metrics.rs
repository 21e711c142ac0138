//! The list of families, with the series of those that are opened.

use qbus::MetricType;

use super::canvas::{Canvas, Side};
use crate::top::observed::{self, Buckets, buckets};
use crate::top::rows::{self, Row, Sort, label_order, telling_text};
use crate::top::screen::{Life, Screen};
use crate::top::store::{FamilyView, Ring, SeriesView, is_level, is_observed, level};
use crate::top::text::{cut, cut_start};
use crate::top::units::{Unit, brief, show, show_rate};

/// Ticks of the small charts.
const MINUTE: usize = 60;
/// The quantiles that are shown.
const PARTS: [f64; 2] = [0.5, 0.99];
const TYPE: usize = 5;
/// Width of what is now, and of a quantile.
const NOW: usize = 10;
const QUANTILE: usize = 8;
/// Columns of the small charts on a screen of 80.
const CHART_MIN: usize = 13;

/// Where the columns of a list stand.
pub(super) struct Columns {
    name: usize,
    pub(super) chart: usize,
}

impl Columns {
    pub(super) fn of(width: usize) -> Columns {
        let chart = (CHART_MIN + width.saturating_sub(80) / 2).min(MINUTE);
        let fixed = 1 + 1 + TYPE + (NOW + 1) + 2 * (QUANTILE + 1) + 1 + chart;
        Columns {
            name: width.saturating_sub(fixed).max(10),
            chart,
        }
    }
}

/// The cells of a line.
pub(super) struct Cells {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) now: String,
    pub(super) beside: Beside,
    pub(super) bars: Vec<f32>,
}

/// What stands beside the value.
pub(super) enum Beside {
    /// The median, and the 99th percentile.
    Quantiles([String; 2]),
    Text(String),
}

pub(super) fn short(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Counter => "count",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "hist",
        MetricType::Summary => "summ",
        MetricType::Untyped => "?",
    }
}

pub(super) fn list(screen: &mut Screen, canvas: &mut Canvas<'_>) {
    let columns = Columns::of(canvas.width());
    let sort = Sort::ALL.iter().find(|(sort, _)| *sort == screen.sort);
    let metric = format!(" METRIC by {}", sort.map_or("", |(_, name)| name));
    let now = if screen.totals { "total" } else { "now" };
    let minute = match screen.store.seconds() {
        1.0 => "last minute".to_owned(),
        seconds => format!("last {:.0} s", seconds * MINUTE as f64),
    };
    titles(
        &columns,
        [&metric, "type", now, &minute],
        &mut canvas.line(),
    );
    let (len, height) = (screen.rows.len(), canvas.height());
    screen.list_mut().fit(len, height);
    let cursor = screen.list().clone();
    if len == 0 {
        let told = match screen.filter.is_empty() {
            true => "no metric of this kind so far",
            false => "nothing matches the filter; esc drops it",
        };
        let style = canvas.look.dim();
        return canvas.line().put(1, told, style);
    }
    let mut order: (usize, Vec<String>) = (usize::MAX, Vec::new());
    for at in cursor.offset..len.min(cursor.offset + height) {
        let Row { family, series } = screen.rows[at];
        let view = &screen.store.families[family];
        let mut line = canvas.line();
        let is_chosen = at == cursor.at && !screen.on_workers && !screen.once;
        let cells = match series {
            None => {
                let is_open = screen.expanded.contains(&view.family.name);
                of_family(screen, view, is_open, columns.chart)
            }
            Some(series) => {
                if order.0 != family {
                    order = (family, label_order(view));
                }
                of_series(screen, view, &view.series[series], &order.1, columns.chart)
            }
        };
        write(&columns, &cells, is_chosen, &mut line);
    }
}

pub(super) fn titles(columns: &Columns, titles: [&str; 4], line: &mut Canvas<'_>) {
    let style = line.look.title();
    let [name, kind, now, minute] = titles;
    line.write(0, columns.name + 1, Side::Left, name, style);
    let mut at = columns.name + 2;
    line.write(at, TYPE, Side::Left, kind, style);
    at += TYPE;
    for (title, width) in [(now, NOW), ("p50", QUANTILE), ("p99", QUANTILE)] {
        line.write(at + 1, width, Side::Right, title, style);
        at += width + 1;
    }
    line.write(at + 1, columns.chart, Side::Left, minute, style);
}

pub(super) fn write(columns: &Columns, cells: &Cells, is_chosen: bool, line: &mut Canvas<'_>) {
    let look = line.look;
    let plain = ratatui::style::Style::new();
    let mark = if is_chosen {
        look.sign("▸", ">")
    } else {
        " "
    };
    line.put(0, mark, plain);
    let name = look.text(&cells.name);
    // The beginning says which series it is, and the end which metric.
    let name = match cells.kind {
        "" => cut(&name, columns.name, look),
        _ => cut_start(&name, columns.name, look),
    };
    line.write(1, columns.name, Side::Left, &name, plain);
    let mut at = columns.name + 2;
    line.write(at, TYPE, Side::Left, cells.kind, look.dim());
    at += TYPE;
    line.write(at + 1, NOW, Side::Right, &cells.now, plain);
    at += NOW + 1;
    match &cells.beside {
        Beside::Quantiles(quantiles) => {
            for (place, text) in quantiles.iter().enumerate() {
                let at = at + 1 + place * (QUANTILE + 1);
                line.write(at, QUANTILE, Side::Right, text, plain);
            }
        }
        Beside::Text(text) => {
            line.write(at + 1, 2 * QUANTILE + 1, Side::Right, text, look.dim());
        }
    }
    at += 2 * (QUANTILE + 1);
    line.put(at + 1, &look.bars(&cells.bars), look.line());
    if is_chosen {
        line.mark(look.selected());
    }
}

/// A gauge's value, the rate or the sum of all else.
fn number(screen: &Screen, view: &FamilyView, now: f64, total: f64) -> String {
    match view.family.metric_type {
        _ if is_level(&view.family) => brief(now, view.unit, screen.store.unix_ns),
        MetricType::Counter if screen.totals => show(total, view.unit),
        MetricType::Counter => show_rate(now, view.unit),
        _ if screen.totals => show(total, Unit::None),
        _ => show_rate(now, Unit::None),
    }
}

fn of_family(screen: &Screen, view: &FamilyView, is_open: bool, chart: usize) -> Cells {
    let tick = screen.store.tick;
    let family = &view.family;
    let total = view.series.iter().map(|one| level(&one.value)).sum();
    let len = view.series.len();
    let beside = if is_observed(family) {
        let of_all = || {
            view.series
                .iter()
                .flat_map(|one| buckets(&one.value))
                .collect()
        };
        quantiles(
            screen,
            view,
            |part| view.window.quantile(family, part, tick),
            of_all,
        )
    } else if is_level(family) && len == 1 {
        most(screen, view, &view.ring)
    } else if is_level(family) {
        let known = view
            .series
            .iter()
            .map(|one| one.now)
            .filter(|now| !now.is_nan());
        let least = known.fold(f64::NAN, f64::min);
        Beside::Text(format!(
            "min {} of {len}",
            brief(least, view.unit, screen.store.unix_ns)
        ))
    } else if len > 1 {
        Beside::Text(format!("sum of {len}"))
    } else {
        Beside::Text(String::new())
    };
    let opened = match is_open {
        true => screen.look.sign("▾ ", "- "),
        false => "",
    };
    Cells {
        name: format!("{opened}{}", family.name),
        kind: short(family.metric_type),
        now: number(screen, view, view.now, total),
        beside,
        bars: view.ring.last(tick, MINUTE, chart),
    }
}

/// The quantiles of the last ticks. Of what is over, where nobody looked at those, all that was
/// observed speaks.
fn quantiles(
    screen: &Screen,
    view: &FamilyView,
    late: impl Fn(f64) -> f64,
    all: impl FnOnce() -> Buckets<u64>,
) -> Beside {
    let mut found = PARTS.map(late);
    if found[0].is_nan() && screen.life() == Life::Over {
        let mut counts: Buckets<f64> = all()
            .into_iter()
            .map(|(bucket, count)| (bucket, count as f64))
            .collect();
        counts.sort_by_key(|(bucket, _)| *bucket);
        found = PARTS.map(|part| observed::quantile(&view.family, &counts, part));
    }
    Beside::Quantiles(found.map(|value| show(value, view.unit)))
}

/// The largest value of the last minute, where that is not a point in time.
fn most(screen: &Screen, view: &FamilyView, ring: &Ring) -> Beside {
    let most = ring.max(screen.store.tick, MINUTE);
    Beside::Text(match view.family.name.ends_with("_timestamp_seconds") {
        true => String::new(),
        false => format!("max {}", brief(most, view.unit, screen.store.unix_ns)),
    })
}

pub(super) fn of_series(
    screen: &Screen,
    view: &FamilyView,
    one: &SeriesView,
    order: &[String],
    chart: usize,
) -> Cells {
    let tick = screen.store.tick;
    let beside = match one.ring.as_ref() {
        _ if is_observed(&view.family) => {
            let late = |part| rows::quantile(view, one, part, tick);
            quantiles(screen, view, late, || buckets(&one.value))
        }
        Some(ring) if is_level(&view.family) => most(screen, view, ring),
        _ => Beside::Text(String::new()),
    };
    let labels = match one.labels.is_empty() {
        true => "no labels".to_owned(),
        false => telling_text(&one.labels, order),
    };
    let indent = if screen.pages.is_empty() { "  " } else { "" };
    Cells {
        name: format!("{indent}{labels}"),
        kind: "",
        now: number(screen, view, one.now, level(&one.value)),
        beside,
        bars: one
            .ring
            .as_ref()
            .map_or_else(Vec::new, |ring| ring.last(tick, MINUTE, chart)),
    }
}
