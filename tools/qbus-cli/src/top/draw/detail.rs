//! One family, one series, one worker.

use std::time::Duration;

use qbus::MetricType;
use qbus_aggregate::Value;
use ratatui::style::Style;

use super::canvas::{Canvas, Side};
use super::metrics::{Columns, of_series, titles, write};
use crate::top::observed::{Buckets, buckets, upper};
use crate::top::rows::{label_order, label_text, quantile};
use crate::top::screen::Screen;
use crate::top::store::{FamilyView, KEPT, Ring, SeriesView, is_level, is_observed, level};
use crate::top::text::range;
use crate::top::units::{Unit, grouped, show, show_rate};

/// Lines of a chart.
const CHART: usize = 6;
/// Rows of a heat map.
const HEAT: usize = 6;
/// Columns for what stands beside a chart.
const MARGIN: usize = 11;

/// A family: what it is, its chart, its series.
pub(super) fn family(screen: &mut Screen, name: &str, canvas: &mut Canvas<'_>) {
    let series = screen.page_series(name);
    let Some(view) = screen.store.find(name) else {
        return gone(name, canvas);
    };
    heading(
        view,
        &format!("{} series", grouped(view.series.len() as u64)),
        canvas,
    );
    let small = canvas.height() < 16;
    chart(
        screen,
        view,
        &view.ring,
        if small { 3 } else { CHART },
        canvas,
    );
    if is_observed(&view.family) && !small {
        heat(screen, view, canvas);
    }
    let order = label_order(view);
    let columns = Columns::of(canvas.width());
    let now = if screen.totals { "total" } else { "now" };
    titles(
        &columns,
        [" SERIES", "", now, "last minute"],
        &mut canvas.line(),
    );
    let mut cursor = screen
        .pages
        .last()
        .map(|open| open.list.clone())
        .unwrap_or_default();
    cursor.fit(series.len(), canvas.height());
    let seen = series
        .iter()
        .enumerate()
        .skip(cursor.offset)
        .take(cursor.height);
    for (at, &place) in seen {
        let cells = of_series(screen, view, &view.series[place], &order, columns.chart);
        write(&columns, &cells, at == cursor.at, &mut canvas.line());
    }
    if let Some(open) = screen.pages.last_mut() {
        open.list = cursor;
    }
}

/// One series: its chart, its quantiles and buckets, its traces, and its values by time. What does
/// not fit is scrolled to.
pub(super) fn series(
    screen: &mut Screen,
    name: &str,
    labels: &[(String, String)],
    canvas: &mut Canvas<'_>,
) {
    let found = screen.store.find(name).and_then(|view| {
        let one = view.series.iter().find(|one| one.labels == labels)?;
        Some((view, one))
    });
    let Some((view, one)) = found else {
        return gone(&format!("{name}{{{}}}", label_text(labels)), canvas);
    };
    let told = match labels.is_empty() {
        true => "no labels".to_owned(),
        false => format!("{{{}}}", label_text(labels)),
    };
    heading(view, &told, canvas);
    let empty = Ring::default();
    let ring = one.ring.as_ref().unwrap_or(&empty);
    let small = canvas.height() < 16;
    chart(screen, view, ring, if small { 3 } else { CHART }, canvas);
    let lines = series_lines(screen, view, one);
    let height = canvas.height();
    let list = screen.pages.last().map_or(0, |open| open.list.at);
    let offset = list.min(lines.len().saturating_sub(height));
    for (left, right) in lines.iter().skip(offset).take(height) {
        let mut line = canvas.line();
        line.write(1, 34, Side::Left, left, Style::new());
        line.put(36, right, Style::new());
    }
    let more = lines.len().saturating_sub(offset + height);
    if let Some(open) = screen.pages.last_mut() {
        (open.list.at, open.list.height) = (offset, height);
    }
    if more > 0 && height > 0 {
        // Over the last line: it is scrolled to with the rest.
        let sign = canvas.look.sign("↓", "v");
        canvas.corner(&format!(" {sign} {} more ", more + 1));
    }
}

fn gone(what: &str, canvas: &mut Canvas<'_>) {
    let style = canvas.look.warning();
    canvas.line().put(
        1,
        &format!("{what} has left the page; esc goes back"),
        style,
    );
}

fn heading(view: &FamilyView, more: &str, canvas: &mut Canvas<'_>) {
    let look = canvas.look;
    let family = &view.family;
    let mut line = canvas.line();
    let at = line.put_all(1, &family.name, look.title());
    line.put(at + 2, more, Style::new());
    let unit = if family.unit.is_empty() {
        String::new()
    } else {
        format!(", {}", family.unit)
    };
    let kind = match family.metric_type {
        MetricType::Untyped => "untyped",
        metric_type => metric_type.as_str(),
    };
    let mut line = canvas.line();
    let at = line.put_all(1, &format!("{kind}{unit}"), look.dim());
    line.put(at + 2, &family.help, look.dim());
}

/// What happened in the last minutes; its largest value and the zero line beside it.
fn chart(screen: &Screen, view: &FamilyView, ring: &Ring, height: usize, canvas: &mut Canvas<'_>) {
    let look = canvas.look;
    let width = canvas.width().saturating_sub(MARGIN + 1);
    let values = ring.last(screen.store.tick, width.min(KEPT), width);
    let (low, high) = range(&values);
    let tell = |value: f32| match view.family.metric_type {
        _ if is_level(&view.family) => show(f64::from(value), view.unit),
        MetricType::Counter => show_rate(f64::from(value), view.unit),
        _ => show_rate(f64::from(value), Unit::None),
    };
    for place in 0..height {
        let mut line = canvas.line();
        let beside = match place {
            0 if values.iter().all(|value| value.is_nan()) => "no points".to_owned(),
            0 => tell(high),
            _ if place + 1 == height => tell(low),
            _ => String::new(),
        };
        line.write(0, MARGIN - 1, Side::Right, &beside, look.dim());
        line.put(MARGIN, &look.chart(&values, height, place), look.line());
    }
}

/// How many observations of each tick lay where: the values upwards, the time to the right.
fn heat(screen: &Screen, view: &FamilyView, canvas: &mut Canvas<'_>) {
    let look = canvas.look;
    let width = canvas.width().saturating_sub(MARGIN + 1).min(KEPT);
    let first = (screen.store.tick + 1).saturating_sub(width as u64);
    let columns = || view.columns.iter().filter(|(tick, _)| *tick >= first);
    let all = || columns().flat_map(|(_, column)| column.iter().map(|(bucket, _)| *bucket));
    let (Some(least), Some(most)) = (all().min(), all().max()) else {
        return;
    };
    // Buckets of a row: a few where there are many.
    let size = (most - least + 1).div_euclid(HEAT as i64)
        + i64::from((most - least + 1).rem_euclid(HEAT as i64) != 0);
    let size = size.max(1);
    let rows = usize::try_from((most - least) / size + 1)
        .unwrap_or(HEAT)
        .min(HEAT);
    let mut counts = vec![vec![0.0; width]; rows];
    for (tick, column) in columns() {
        let at = usize::try_from(tick - first).unwrap_or(0).min(width - 1);
        for (bucket, count) in column {
            let row = usize::try_from((bucket - least) / size)
                .unwrap_or(0)
                .min(rows - 1);
            counts[row][at] += *count as f64;
        }
    }
    let peak = counts.iter().flatten().copied().fold(0.0, f64::max);
    for (row, counts) in counts.iter().enumerate().rev() {
        let mut line = canvas.line();
        let end = upper(
            &view.family,
            (least + (row as i64 + 1) * size - 1).min(most),
        );
        let beside = format!("<= {}", show(end, view.unit));
        line.write(0, MARGIN - 1, Side::Right, &beside, look.dim());
        let cells: String = counts
            .iter()
            .map(|count| look.heat((count / peak).sqrt()))
            .collect();
        line.put(MARGIN, &cells, look.line());
    }
}

/// Two columns of facts, then buckets, traces and values by time.
fn series_lines(screen: &Screen, view: &FamilyView, one: &SeriesView) -> Vec<(String, String)> {
    let mut lines = facts(screen, view, one);
    if is_observed(&view.family) {
        lines.extend(bucket_lines(screen, view, one));
    }
    if !one.exemplars.is_empty() {
        lines.push((String::new(), String::new()));
        lines.push((
            "TRACES, the last of each bucket".to_owned(),
            "value, at".to_owned(),
        ));
        for exemplar in one.exemplars.iter().rev() {
            let trace = format!("{:032x}", exemplar.trace_id);
            lines.push((
                trace,
                format!(
                    "{}  {}",
                    show(exemplar.value, view.unit),
                    time(exemplar.timestamp_ns)
                ),
            ));
        }
    }
    lines.push((String::new(), String::new()));
    let title = if is_level(&view.family) {
        "value"
    } else {
        "a second"
    };
    lines.push(("TIME".to_owned(), title.to_owned()));
    let (tick, seconds) = (screen.store.tick, screen.store.seconds());
    if let Some(ring) = &one.ring {
        let values = ring.last(tick, KEPT, KEPT);
        for (back, value) in values
            .iter()
            .rev()
            .enumerate()
            .filter(|(_, value)| !value.is_nan())
        {
            let at_ns = (tick.saturating_sub(back as u64) as f64 * seconds * 1e9) as u64;
            let value = f64::from(*value);
            let told = match view.family.metric_type {
                _ if is_level(&view.family) => show(value, view.unit),
                MetricType::Counter => show_rate(value, view.unit),
                _ => show_rate(value, Unit::None),
            };
            lines.push((time(at_ns), told));
        }
    }
    lines
}

fn facts(screen: &Screen, view: &FamilyView, one: &SeriesView) -> Vec<(String, String)> {
    let unit = view.unit;
    let mut lines = Vec::new();
    let told = match &one.value {
        Value::Counter(_) => vec![
            format!("now   {}", show_rate(one.now, unit)),
            format!("total {}", show(level(&one.value), unit)),
        ],
        Value::Gauge(value) => vec![format!("now   {}", show(*value, unit))],
        Value::Histogram(value) => {
            observed(value.count, value.sum.value(), value.min, value.max, unit)
        }
        Value::Summary(value) => {
            observed(value.count, value.sum.value(), value.min, value.max, unit)
        }
    };
    let mut beside = vec![format!("last emitted {}", time(one.timestamp_ns))];
    if is_observed(&view.family) {
        let parts = [0.5, 0.9, 0.99].map(|part| {
            let now = quantile(view, one, part, screen.store.tick);
            format!("p{} {}", part * 100.0, show(now, unit))
        });
        beside.push(format!("recent   {}", parts.join(" ")));
        if let Value::Summary(value) = &one.value
            && !view.family.window.is_all_time()
        {
            beside.push(of_window(view.family.window.length, &value.quantiles, unit));
        }
        let counts = buckets(&one.value)
            .into_iter()
            .map(|(bucket, count)| (bucket, count as f64));
        let counts: Buckets<f64> = counts.collect();
        let parts = [0.5, 0.9, 0.99].map(|part| {
            let all = crate::top::observed::quantile(&view.family, &counts, part);
            format!("p{} {}", part * 100.0, show(all, unit))
        });
        beside.push(format!("all time {}", parts.join(" ")));
    }
    for at in 0..told.len().max(beside.len()) {
        let of = |texts: &[String]| texts.get(at).cloned().unwrap_or_default();
        lines.push((of(&told), of(&beside)));
    }
    lines
}

/// The quantiles that the page shows: of the last minutes.
fn of_window(length: Duration, quantiles: &[(f64, f64)], unit: Unit) -> String {
    let parts = [0.5, 0.9, 0.99].map(|part| {
        let found = quantiles.iter().find(|(quantile, _)| *quantile == part);
        let value = found.map_or(f64::NAN, |(_, value)| *value);
        format!("p{} {}", part * 100.0, show(value, unit))
    });
    let length = show(length.as_secs_f64(), Unit::Seconds);
    format!("{length:<8} {}", parts.join(" "))
}

fn observed(count: u64, sum: f64, min: f64, max: f64, unit: Unit) -> Vec<String> {
    vec![
        format!("count {}  sum {}", grouped(count), show(sum, unit)),
        format!("mean  {}", show(sum / count as f64, unit)),
        format!("min   {}  max {}", show(min, unit), show(max, unit)),
    ]
}

/// Each bucket since the start, with a bar. A summary's are put together to a few.
fn bucket_lines(screen: &Screen, view: &FamilyView, one: &SeriesView) -> Vec<(String, String)> {
    /// Buckets of a summary in a line.
    const OF_SUMMARY: i64 = 8;
    /// Columns of the longest bar.
    const BAR: f64 = 24.0;
    let mut all: Vec<(i64, u64)> = Vec::new();
    for (bucket, count) in buckets(&one.value) {
        // Up to a power of two's fourth root: the last bucket of them says where they end.
        let end = match view.family.metric_type {
            MetricType::Summary if bucket != 0 => {
                (bucket + OF_SUMMARY - 1).div_euclid(OF_SUMMARY) * OF_SUMMARY
            }
            _ => bucket,
        };
        match all.last_mut() {
            Some((known, sum)) if *known == end => *sum = sum.saturating_add(count),
            _ => all.push((end, count)),
        }
    }
    let most = all
        .iter()
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(1)
        .max(1) as f64;
    let full = screen.look.sign("█", "#");
    let mut lines = vec![
        (String::new(), String::new()),
        (
            "BUCKETS, since the start".to_owned(),
            "observations".to_owned(),
        ),
    ];
    for (bucket, count) in all {
        let bar = full.repeat(((count as f64 / most) * BAR).ceil() as usize);
        let end = format!("<= {}", show(upper(&view.family, bucket), view.unit));
        lines.push((end, format!("{:>14} {bar}", grouped(count))));
    }
    lines
}

/// A time of day, to the second, in UTC.
fn time(unix_ns: u64) -> String {
    if unix_ns == 0 {
        return "never".to_owned();
    }
    let second = i64::try_from(unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let when = jiff::Timestamp::from_second(second);
    when.map_or_else(
        |_| "-".to_owned(),
        |when| when.strftime("%H:%M:%SZ").to_string(),
    )
}

/// A worker: what became of its records.
pub(super) fn worker(screen: &Screen, id: &str, canvas: &mut Canvas<'_>) {
    let look = canvas.look;
    let found = screen.workers.iter().find(|worker| worker.id == *id);
    let Some((worker, owner)) = found.and_then(|worker| Some((worker, worker.owner.as_ref()?)))
    else {
        return gone("this worker", canvas);
    };
    canvas
        .line()
        .put(1, &super::workers::title(worker), look.title());
    canvas.line().put(1, &worker.command, look.dim());
    if let Some(ring) = &worker.ring {
        let width = canvas.width().saturating_sub(MARGIN + 1);
        let values = ring.last(screen.store.tick, width.min(KEPT), width);
        for place in 0..3 {
            let mut line = canvas.line();
            if place == 0 {
                let beside = show_rate(f64::from(range(&values).1), Unit::None);
                line.write(0, MARGIN - 1, Side::Right, &beside, look.dim());
            }
            line.put(MARGIN, &look.chart(&values, 3, place), look.line());
        }
    }
    let usage = &worker.usage;
    let shared = match usage.of {
        0 | 1 => String::new(),
        of => format!(" (mean of {of} of its role and command)"),
    };
    let rows = [
        ("entry", owner.id.clone()),
        ("attached since", time(owner.joined_ns)),
        ("CPU", format!("{}{shared}", show(usage.cpu, Unit::Ratio))),
        (
            "resident memory",
            format!("{}{shared}", show(usage.resident, Unit::Bytes)),
        ),
        ("GPU memory", show(usage.gpu_memory, Unit::Bytes)),
        (
            "lanes",
            format!(
                "{}, the fullest {}",
                owner.lanes,
                show(owner.fill_ratio, Unit::Ratio)
            ),
        ),
        (
            "delivered",
            format!(
                "{}  {}",
                grouped(owner.delivered),
                show_rate(worker.rate, Unit::None)
            ),
        ),
        (
            "kept as state",
            format!(
                "{} that met a full lane: in the totals, without a point",
                grouped(owner.coalesced)
            ),
        ),
        ("dropped", grouped(owner.dropped)),
        ("torn", grouped(owner.torn)),
        ("revoked", grouped(owner.revoked)),
    ];
    for (title, text) in rows {
        let mut line = canvas.line();
        let is_bad = matches!(title, "dropped" | "torn" | "revoked") && text != "0";
        line.write(1, 18, Side::Left, title, look.dim());
        line.put(20, &text, if is_bad { look.bad() } else { Style::new() });
    }
}
