//! Bar charts as SVG, for light and dark pages.

use std::fmt::Write;

use crate::report::{Section, short};

/// What the names of rows that are not ours begin with.
const OTHERS: [&str; 10] = [
    "clock",
    "rtrb",
    "ArrayQueue",
    "iceoryx2",
    "prometheus",
    "metrics",
    "opentelemetry",
    "cadence",
    "statsd",
    "Python",
];

const ROW: usize = 20;
const LEFT: usize = 290;
const BARS: f64 = 400.0;

/// One column of a section; on a logarithmic scale when the figures lie far apart.
pub fn svg(section: &Section, column: &str) -> Option<String> {
    let at = section.columns.iter().position(|known| *known == column)?;
    let rows: Vec<(&str, f64)> = section
        .rows
        .iter()
        .filter_map(|row| {
            Some((
                row.name.as_str(),
                row.figures[at].filter(|figure| *figure > 0.0)?,
            ))
        })
        .collect();
    let (least, most) = rows
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), (_, figure)| {
            (least.min(*figure), most.max(*figure))
        });
    let is_logarithmic = most > least * 50.0;
    let length = |figure: f64| {
        if is_logarithmic {
            (figure / least * 2.0).ln() / (most / least * 2.0).ln() * BARS
        } else {
            figure / most * BARS
        }
    };
    let height = 44 + rows.len() * ROW;
    let scale = if is_logarithmic { ", logarithmic" } else { "" };
    let mut page = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" \
        font-family=\"sans-serif\" font-size=\"12\">\n<style>text {{ fill: #1f2328 }} .ours {{ \
        fill: #2f6feb }} .other {{ fill: #9aa4b2 }}\n@media (prefers-color-scheme: dark) {{ text \
        {{ fill: #e6edf3 }} .ours {{ fill: #58a6ff }} .other {{ fill: #6e7681 }} }}</style>\n<text \
        x=\"8\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{} ({column}{scale})</text>\n",
        escaped(section.title)
    );
    for (n, (name, figure)) in rows.iter().enumerate() {
        let y = 36 + n * ROW;
        let is_other = OTHERS.iter().any(|other| name.starts_with(other));
        let class = if is_other { "other" } else { "ours" };
        let length = length(*figure);
        let _ = writeln!(
            page,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"14\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            LEFT - 8,
            y + 11,
            escaped(name),
            LEFT as f64 + length + 6.0,
            y + 11,
            short(*figure)
        );
    }
    page.push_str("</svg>\n");
    Some(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
