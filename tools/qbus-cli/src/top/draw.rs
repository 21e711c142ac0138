//! The cells of a screen.

mod bus;
mod canvas;
mod detail;
mod keys;
mod machine;
mod metrics;
mod workers;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::canvas::Canvas;
use super::machine::Machine;
use super::screen::{Life, Page, Screen, View};
use super::units::{Unit, age, grouped, show, show_rate};

/// Columns of a small chart in the lines at the top.
const SMALL: usize = 8;

/// Draws all of it. Screens smaller than 80 × 24 show what fits.
pub(crate) fn draw(screen: &mut Screen, area: Rect, buffer: &mut Buffer) {
    let mut canvas = Canvas::new(buffer, area, screen.look);
    let machine = Machine::of(&screen.store, SMALL);
    header(screen, &mut canvas.line());
    summary(&machine, &mut canvas.line());
    for (text, is_bad) in notices(screen) {
        let style = if is_bad {
            screen.look.bad()
        } else {
            screen.look.warning()
        };
        canvas.line().put(0, &text, style);
    }
    canvas.rule();
    // What is printed once takes no keys.
    let footer = canvas.keep_bottom(if screen.once { 0 } else { 2 });
    match screen.pages.last().map(|open| open.page.clone()) {
        Some(Page::Keys) => keys::draw(&mut canvas),
        Some(Page::Family(name)) => detail::family(screen, &name, &mut canvas),
        Some(Page::Series(name, labels)) => detail::series(screen, &name, &labels, &mut canvas),
        Some(Page::Worker(id)) => detail::worker(screen, &id, &mut canvas),
        None => view(screen, &machine, &mut canvas),
    }
    let mut canvas = canvas.within(footer);
    canvas.rule();
    last_line(screen, &mut canvas.line());
}

/// How many lines the present view takes when nothing is left out, and nothing is said of keys.
pub(crate) fn lines(screen: &Screen) -> usize {
    let above = match screen.view {
        View::Metrics | View::Workers => screen.workers.len().max(1) + 1,
        View::Machine => machine::lines(&Machine::of(&screen.store, SMALL)),
        View::Bus => bus::lines(screen),
    };
    // The lines at the top, and the titles of the list.
    3 + notices(screen).len() + above + 1 + screen.rows.len().max(1)
}

fn view(screen: &mut Screen, machine: &Machine, canvas: &mut Canvas<'_>) {
    match screen.view {
        View::Metrics => {
            // The workers have a third, unless the metrics need less than the rest.
            let third = (canvas.height() / 3).max(4);
            let unused = canvas.height().saturating_sub(screen.rows.len().max(1) + 1);
            let most = screen.workers.len().max(1) + 1;
            let below = canvas.keep_bottom(most.min(third.max(unused)));
            metrics::list(screen, canvas);
            workers::list(screen, &mut canvas.within(below));
        }
        View::Workers => {
            let most = screen.workers.len().max(1) + 1;
            let half = canvas.height() / 2;
            let unused = canvas.height().saturating_sub(screen.rows.len().max(1) + 1);
            workers::list(screen, &mut canvas.take_top(most.min(half.max(unused))));
            metrics::list(screen, canvas);
        }
        View::Machine => {
            // The list below keeps half, or what it needs.
            let height = share(canvas, screen, 2);
            machine::draw(machine, screen.look, height, canvas);
            metrics::list(screen, canvas);
        }
        View::Bus => {
            let height = share(canvas, screen, 3);
            bus::draw(screen, height, canvas);
            metrics::list(screen, canvas);
        }
    }
}

/// How much stands above a list that keeps that part of the lines, or what it needs of them.
fn share(canvas: &Canvas<'_>, screen: &Screen, part: usize) -> usize {
    let height = canvas.height();
    height - (height / part).min(screen.rows.len().max(1) + 1)
}

/// Whose, how old, how much, how much of it lost.
fn header(screen: &Screen, line: &mut Canvas<'_>) {
    let look = screen.look;
    let Some(report) = &screen.report else {
        return line.put(0, "qbus top: no reading so far", look.title());
    };
    let who = format!("qbus {} · {} · ", report.bus, screen.host);
    let old = if screen.is_old() { " OLD" } else { " old" };
    let old = format!("{}{old}", age(screen.age()));
    let style = if screen.is_old() {
        look.warning()
    } else {
        look.title()
    };
    let at = line.put_all(0, &who, look.title());
    let mut at = line.put_all(at, &old, style);
    if screen.frozen {
        at = line.put_all(at, " · PAUSED", look.warning());
    }
    let lost = report.records.lost();
    let rate = show_rate(screen.rate, Unit::None);
    let per_second = if rate == "-" {
        "- records/s".to_owned()
    } else {
        rate.replace(" /s", "/s").replace("/s", " records/s")
    };
    let series = format!("{} series", grouped(screen.store.series_count() as u64));
    let few = format!("{} lost", grouped(lost));
    let more = format!("{per_second}   {few}");
    let all = format!("{more}   {series}");
    // What there is room for beside whose it is.
    let room = line.width().saturating_sub(at + 2);
    let told = [all, more, few].into_iter().find(|told| told.len() <= room);
    let style = if lost > 0 { look.bad() } else { look.title() };
    line.put_right(&told.unwrap_or_default(), style);
}

/// Processor, memory and GPUs in one line.
fn summary(machine: &Machine, line: &mut Canvas<'_>) {
    let look = line.look;
    let mut at = 0;
    if !machine.cpu.is_nan() {
        at = line.put_all(at, "CPU ", look.dim());
        at = line.put_all(at, &look.bars(&machine.cpu_bars), look.line());
        at = line.put_all(
            at,
            &format!(" {}   ", show(machine.cpu, Unit::Ratio)),
            look.title(),
        );
    }
    if !machine.memory_total.is_nan() {
        at = line.put_all(at, "mem ", look.dim());
        let text = format!("{}   ", used(machine.memory_used, machine.memory_total));
        at = line.put_all(at, &text, look.title());
    }
    if at == 0 && machine.gpus.is_empty() {
        return line.put(
            0,
            "no sample of the machine (qbus agg --no-host)",
            look.dim(),
        );
    }
    for gpu in &machine.gpus {
        at = line.put_all(at, &format!("GPU{} ", gpu.name), look.dim());
        let mut parts = vec![
            show(gpu.usage, Unit::Ratio),
            used(gpu.memory_used, gpu.memory_total),
        ];
        if !gpu.temperature.is_nan() {
            parts.push(show(gpu.temperature, Unit::Celsius));
        }
        at = line.put_all(at, &format!("{}   ", parts.join(" ")), look.title());
    }
}

/// Used of all, with the unit once where it is the same.
fn used(used: f64, all: f64) -> String {
    let (part, whole) = (show(used, Unit::Bytes), show(all, Unit::Bytes));
    if all.is_nan() {
        return part;
    }
    match (part.split_once(' '), whole.split_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => format!("{number}/{whole}"),
        _ => format!("{part}/{whole}"),
    }
}

/// What a person has to know before anything else; whether it is about loss.
fn notices(screen: &Screen) -> Vec<(String, bool)> {
    let mut notices = Vec::new();
    let Some(report) = &screen.report else {
        let awaited = screen
            .down
            .iter()
            .map(|reason| (format!("WAITING: {reason}"), false));
        return awaited.collect();
    };
    let aggregator = &report.aggregator;
    if let Some(reason) = &screen.down {
        notices.push((format!("GONE: {reason}"), false));
    } else if screen.life() == Life::Over {
        let who = match aggregator.alive {
            Some(_) => format!("its aggregator (pid {}) is gone", aggregator.pid),
            None => "nobody writes this snapshot (a copy, or no bus)".to_owned(),
        };
        let told = format!("POST MORTEM: {who}; as of {} ago", age(screen.age()));
        notices.push((told, false));
    } else if screen.life() == Life::Quiet {
        let told = format!(
            "QUIET: nothing was committed for {}; the aggregator (pid {}) is idle, or stuck",
            age(screen.age()),
            aggregator.pid
        );
        notices.push((told, false));
    }
    let worst = report.records.lost.iter().max_by_key(|lost| lost.records);
    if let Some(worst) = worst.filter(|worst| worst.records > 0) {
        let loser = screen
            .workers
            .iter()
            .filter(|worker| worker.lost > 0)
            .max_by_key(|worker| worker.lost);
        let who = loser.map_or_else(String::new, |worker| {
            format!(", most of pid {}", worker.pid.unwrap_or(0))
        });
        let now = if screen.lost_now > 0 {
            "LOSING DATA"
        } else {
            "LOST"
        };
        let told = format!(
            "{now}: {} records ({}){who}",
            grouped(worst.records),
            worst.cause
        );
        notices.push((told, true));
        notices.push((format!("  {}", worst.remedy), true));
    }
    if report.records.refused_series > 0 {
        let told = format!(
            "REFUSED: {} registrations, the registry is full: qbus create --max-series",
            grouped(report.records.refused_series)
        );
        notices.push((told, true));
    }
    notices
}

/// What is being typed, or what keys there are.
fn last_line(screen: &Screen, line: &mut Canvas<'_>) {
    let look = screen.look;
    if let Some(text) = &screen.typing {
        let at = line.put_all(0, "filter: ", look.title());
        let at = line.put_all(at, text, look.title());
        line.put_all(at, "_", look.title());
        let wrong = text.parse::<super::filter::Filter>().err();
        let hint = wrong.unwrap_or_else(|| {
            "text, label=value, /regex/; enter keeps it, esc drops it".to_owned()
        });
        return line.put_right(&hint, look.dim());
    }
    let sort = match screen.on_workers {
        true => super::workers::WorkerSort::ALL
            .iter()
            .find(|(sort, _)| *sort == screen.worker_sort)
            .map(|(_, name)| *name),
        false => super::rows::Sort::ALL
            .iter()
            .find(|(sort, _)| *sort == screen.sort)
            .map(|(_, name)| *name),
    };
    let keys = match screen.pages.last().map(|open| &open.page) {
        Some(Page::Keys) => "any key goes back  q quit",
        Some(Page::Family(_)) => "esc back  enter open  s sort  / filter  p pause  ? keys  q quit",
        Some(_) => "esc back  up, down scroll  p pause  ? keys  q quit",
        None => "/ filter  s sort  enter open  space labels  p pause  1-4 views  ? keys  q quit",
    };
    line.put(0, keys, look.dim());
    let filter = match screen.filter.is_empty() {
        true => String::new(),
        false => format!("filter {} · ", screen.filter.text()),
    };
    let order = if screen.reversed { "reversed" } else { "" };
    let state = format!("{filter}{} {order}", sort.unwrap_or(""));
    let state = state.trim_end();
    // The keys have all of a line of 80, but for what is filtered.
    if !screen.filter.is_empty() || line.width() > 100 {
        line.put_right(&format!("  {state}"), look.title());
    }
}
