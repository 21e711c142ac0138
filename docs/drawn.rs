//! Parts of a document that tests draw from the code, so that neither can change alone.
//!
//! The layouts that are drawn are private to their crates, hence this file is a module of their
//! tests.

use std::fs;
use std::path::Path;

/// Checks that a part of `docs/format.md`, between the comments `<!-- NAME -->` and `<!-- end -->`,
/// is as drawn. With `QBUS_DRAW` in the environment it is written there instead.
pub(crate) fn check(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    let page = fs::read_to_string(&path).expect("docs/format.md");
    let begin = format!("<!-- {name} -->\n");
    let parts = page.split_once(&begin).and_then(|(before, rest)| {
        let (part, after) = rest.split_once("<!-- end -->")?;
        Some((before, part, after))
    });
    let (before, part, after) = parts.unwrap_or_else(|| panic!("no part {name} in {path:?}"));
    if std::env::var_os("QBUS_DRAW").is_some() {
        let drawn = format!("{before}{begin}{drawn}<!-- end -->{after}");
        fs::write(&path, drawn).expect("room");
        return;
    }
    assert_eq!(
        part, drawn,
        "{path:?} does not show the layout: say what changed there, raise the layout's version, \
        and have the tables drawn with `QBUS_DRAW=1 cargo test -p qbus -p qbus-aggregate --lib \
        format -- --test-threads 1`"
    );
}

/// A table in Markdown, its columns as wide as they need be.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(&head) + &line(&rule) + &rows
}

/// Words in hexadecimal, four to a line, in a block.
pub(crate) fn words(words: &[u64]) -> String {
    let line = |words: &[u64]| {
        let words: Vec<String> = words.iter().map(|word| format!("{word:016x}")).collect();
        words.join(" ") + "\n"
    };
    let lines: String = words.chunks(4).map(line).collect();
    format!("```\n{lines}```\n")
}
