//! The list of processes that emit.

use super::canvas::{Canvas, Side};
use crate::top::screen::{Screen, View};
use crate::top::units::{Unit, grouped, show, show_rate};
use crate::top::workers::Worker;

/// Widths of the columns behind the name.
const COLUMNS: [(&str, usize); 6] = [
    ("records/s", 9),
    ("lost", 8),
    ("lane", 6),
    ("CPU", 7),
    ("RSS", 10),
    ("GPU mem", 9),
];

pub(super) fn list(screen: &mut Screen, canvas: &mut Canvas<'_>) {
    let look = canvas.look;
    let numbers: usize = COLUMNS.iter().map(|(_, width)| width + 1).sum();
    // Half of what a wide screen has beyond that is for the last minute.
    let chart = (canvas.width().saturating_sub(100) / 2).min(60);
    let gap = usize::from(chart > 0);
    let name = canvas
        .width()
        .saturating_sub(numbers + chart + gap + 1)
        .max(8);
    let mut line = canvas.line();
    let is_mean = screen.workers.iter().any(|worker| worker.usage.of > 1);
    line.write(
        0,
        name + 1,
        Side::Left,
        if is_mean {
            " WORKER  (~ mean)"
        } else {
            " WORKER"
        },
        look.title(),
    );
    let mut at = name + 1;
    for (title, width) in COLUMNS {
        line.write(at + 1, width, Side::Right, title, look.title());
        at += width + 1;
    }
    line.write(at + 1, chart, Side::Left, "last minute", look.title());
    let (len, height) = (screen.workers.len(), canvas.height());
    screen.worker_list.fit(len, height);
    if len == 0 {
        let told = match screen.view == View::Workers && !screen.filter.is_empty() {
            true => "no worker matches the filter",
            false => "no process is attached, or nobody knows which",
        };
        return canvas.line().put(1, told, look.dim());
    }
    let cursor = &screen.worker_list;
    for (at, worker) in screen
        .workers
        .iter()
        .enumerate()
        .skip(cursor.offset)
        .take(height)
    {
        let is_chosen = at == cursor.at && screen.on_workers && !screen.once;
        write(screen, worker, (name, chart), is_chosen, &mut canvas.line());
    }
}

fn write(
    screen: &Screen,
    worker: &Worker,
    (name, chart): (usize, usize),
    is_chosen: bool,
    line: &mut Canvas<'_>,
) {
    let look = line.look;
    let style = if worker.alive {
        ratatui::style::Style::new()
    } else {
        look.dim()
    };
    let mark = if is_chosen {
        look.sign("▸", ">")
    } else {
        " "
    };
    line.put(0, mark, style);
    line.write(1, name, Side::Left, &title(worker), style);
    let about = |text: String| match worker.usage.of > 1 && text != "-" {
        true => format!("~{text}"),
        false => text,
    };
    let usage = &worker.usage;
    let cells = [
        show_rate(worker.rate, Unit::None)
            .trim_end_matches("/s")
            .trim_end()
            .to_owned(),
        grouped(worker.lost),
        show(worker.lane, Unit::Ratio),
        about(show(usage.cpu, Unit::Ratio)),
        about(show(usage.resident, Unit::Bytes)),
        about(show(usage.gpu_memory, Unit::Bytes)),
    ];
    let mut at = name + 1;
    for (place, (text, (_, width))) in cells.iter().zip(COLUMNS).enumerate() {
        let style = if place == 1 && worker.lost > 0 {
            look.bad()
        } else {
            style
        };
        line.write(at + 1, width, Side::Right, text, style);
        at += width + 1;
    }
    if let Some(ring) = &worker.ring {
        let bars = ring.last(screen.store.tick, 60, chart);
        line.put(at + 1, &look.bars(&bars), look.line());
    }
    if is_chosen {
        line.mark(look.selected());
    }
}

/// Pid, role, and what tells its command apart: what stands behind the folder.
pub(super) fn title(worker: &Worker) -> String {
    let pid = worker
        .pid
        .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let (program, arguments) = match worker.command.split_once(' ') {
        Some((program, arguments)) => (program, arguments),
        None => (worker.command.as_str(), ""),
    };
    let program = program.rsplit('/').next().unwrap_or(program);
    let gone = if worker.alive { "" } else { "(gone)" };
    let parts = [pid.as_str(), gone, &worker.role, program, arguments];
    let told: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    told.join(" ")
}
