//! The keys.

use super::canvas::{Canvas, Side};

/// As htop, btop and nvitop have them, where they do.
const KEYS: [(&str, &str); 16] = [
    ("1 2 3 4", "metrics, workers, machine, bus"),
    (
        "up, down, j, k",
        "move; page up and down, g and G, home and end",
    ),
    (
        "enter",
        "metric > its series > one series; worker > what became of its records",
    ),
    ("esc", "back; on a view: drop the filter"),
    (
        "space, e",
        "show or hide the series of a metric (+ and - as well)",
    ),
    ("tab", "from the metrics to the workers, and back"),
    (
        "/, F3, F4",
        "filter: text, label=value, /regex/; all words count",
    ),
    ("s, F6", "sort by the next column"),
    ("r, I", "reverse the order"),
    ("t", "totals in place of rates"),
    ("p, Z", "pause: nothing is read until the next p"),
    ("?, h, F1", "this"),
    ("q, F10, ^C", "quit; ^Z stops, as in any shell"),
    (
        "",
        "Rates are of the last tick, p50 and p99 of the last ten or so.",
    ),
    (
        "",
        "Of several gauges, now is the largest. ~ is the mean of the processes of one",
    ),
    (
        "",
        "role and command: qbus agg --pid-label tells them apart.",
    ),
];

pub(super) fn draw(canvas: &mut Canvas<'_>) {
    let look = canvas.look;
    canvas.line().put(0, " KEYS", look.title());
    for (key, what) in KEYS {
        let mut line = canvas.line();
        line.write(1, 16, Side::Left, key, look.title());
        line.put(
            if key.is_empty() { 1 } else { 18 },
            what,
            ratatui::style::Style::new(),
        );
    }
}
