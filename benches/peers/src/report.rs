//! What was measured: sections of rows, printed as a table and written as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

/// A table of figures with one unit.
#[derive(Debug)]
pub struct Section {
    /// Its name on the command line and in the JSON.
    pub key: &'static str,
    /// What its figures are.
    pub title: &'static str,
    /// The names of the figures of a row.
    pub columns: &'static [&'static str],
    /// A row each.
    pub rows: Vec<Row>,
    /// What there is to say of it: what was skipped, what it is to be read as.
    pub notes: Vec<String>,
}

/// Figures with a name.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// A figure for each column; `None` where there is none.
    pub figures: Vec<Option<f64>>,
}

impl Section {
    /// An empty one.
    pub fn new(
        key: &'static str,
        title: &'static str,
        columns: &'static [&'static str],
    ) -> Section {
        Section {
            key,
            title,
            columns,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row; figures that are missing at its end have none.
    pub fn row(&mut self, name: impl Into<String>, figures: impl IntoIterator<Item = f64>) {
        let mut figures: Vec<_> = figures.into_iter().map(Some).collect();
        figures.resize(self.columns.len(), None);
        self.rows.push(Row {
            name: name.into(),
            figures,
        });
    }

    /// The table, within 80 columns.
    pub fn table(&self) -> String {
        let width = 78 - self.columns.len() * 9;
        let mut page = format!("\n{:<width$}", self.title);
        for column in self.columns {
            let _ = write!(page, " {column:>8}");
        }
        page.push('\n');
        for row in &self.rows {
            let _ = write!(page, "  {:<1$}", row.name, width - 2);
            for figure in &row.figures {
                let _ = write!(page, " {:>8}", figure.map_or(String::new(), short));
            }
            page.truncate(page.trim_end().len());
            page.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(page, "{}", wrapped(note, "  "));
        }
        page
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            let figures = self.columns.iter().zip(&row.figures);
            let figures: serde_json::Map<_, _> = figures
                .map(|(name, figure)| (name.to_string(), json!(figure)))
                .collect();
            json!({ "name": row.name, "figures": figures })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        json!({ "key": self.key, "title": self.title, "rows": rows, "notes": self.notes })
    }
}

/// The first figure of a row, of any section.
pub fn figure(sections: &[Section], key: &str, name: &str, column: &str) -> Option<f64> {
    let section = sections.iter().find(|section| section.key == key)?;
    let column = section.columns.iter().position(|known| *known == column)?;
    let row = section.rows.iter().find(|row| row.name == name)?;
    row.figures[column]
}

/// A paragraph in lines that fit a page of 80 columns.
pub fn wrapped(text: &str, indent: &str) -> String {
    let (mut page, mut length) = (String::new(), 0);
    for word in text.split(' ') {
        let word_length = word.chars().count();
        if page.is_empty() || length + 1 + word_length > 80 {
            page += if page.is_empty() { "" } else { "\n" };
            page += indent;
            length = indent.len();
        } else {
            page.push(' ');
            length += 1;
        }
        page += word;
        length += word_length;
    }
    page
}

/// A figure with three digits that count.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 99.95 || figure == 0.0 => format!("{figure:.0}"),
        size if size >= 9.995 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
