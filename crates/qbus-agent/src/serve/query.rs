//! What a request's query asks for.

use glob::Pattern;

/// No honest client sends longer or more patterns than these.
const PATTERNS_MAX: usize = 64;
const LEN_MAX: usize = 1024;

/// Which families, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// `name[]`: families by name, or by the name of one of their samples.
    names: Vec<String>,
    /// `collect[]`: families by pattern.
    collect: Vec<Pattern>,
    /// `exclude[]`: families that are left out, by pattern.
    exclude: Vec<Pattern>,
    /// `history`: also the points of each series.
    pub(super) history: bool,
}

impl Query {
    /// Reads a query string. What is not known is passed over, as other exporters do.
    pub(super) fn parse(text: &str) -> Result<Query, String> {
        let mut query = Query::default();
        for pair in text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .take(PATTERNS_MAX)
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key), decode(value));
            if value.len() > LEN_MAX {
                return Err(format!("a value of {key} is longer than {LEN_MAX} bytes"));
            }
            let pattern = || {
                Pattern::new(&value).map_err(|error| {
                    format!("{value:?} is no pattern: {error}; expected *, ? or […]")
                })
            };
            match key.as_str() {
                "name[]" => query.names.push(value),
                "collect[]" => query.collect.push(pattern()?),
                "exclude[]" => query.exclude.push(pattern()?),
                "history" => query.history = matches!(value.as_str(), "" | "1" | "true"),
                _ => {}
            }
        }
        Ok(query)
    }

    /// The same for a format that has no place for histories.
    pub(super) fn without_history(self) -> Query {
        Query {
            history: false,
            ..self
        }
    }

    /// Whether the query selects a family.
    pub(super) fn takes(&self, family: &str) -> bool {
        let is_wanted = self.names.is_empty() && self.collect.is_empty()
            || self.names.iter().any(|name| is_of(name, family))
            || self.collect.iter().any(|pattern| pattern.matches(family));
        is_wanted && !self.exclude.iter().any(|pattern| pattern.matches(family))
    }
}

/// Whether a name is a family's, one of its samples', or that of a counter in OpenMetrics.
fn is_of(name: &str, family: &str) -> bool {
    let of_sample = ["_bucket", "_sum", "_count"]
        .iter()
        .any(|suffix| name.strip_suffix(suffix) == Some(family));
    name == family || of_sample || family.strip_suffix("_total") == Some(name)
}

/// Undoes percent encoding, and `+` for a space. What is not an encoding stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let digit = |at: usize| more.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &more[2..];
            }
            (b'+', ..) => {
                bytes.push(b' ');
                rest = more;
            }
            _ => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(query: &str) -> Vec<&'static str> {
        let query = Query::parse(query).unwrap();
        let families = ["jobs_total", "wait_seconds", "host_load1", "host_cpu"];
        families
            .into_iter()
            .filter(|name| query.takes(name))
            .collect()
    }

    #[test]
    fn families_are_chosen_by_name_sample_and_pattern() {
        assert_eq!(taken("").len(), 4);
        assert_eq!(taken("unknown=1&&x").len(), 4);
        assert_eq!(taken("name[]=jobs_total"), ["jobs_total"]);
        assert_eq!(
            taken("name[]=jobs&name%5B%5D=wait_seconds_bucket"),
            ["jobs_total", "wait_seconds"]
        );
        assert_eq!(taken("collect[]=host_*"), ["host_load1", "host_cpu"]);
        assert_eq!(taken("collect[]=host_*&exclude[]=*1"), ["host_cpu"]);
        assert_eq!(taken("exclude[]=host_*"), ["jobs_total", "wait_seconds"]);
        assert_eq!(taken("name[]=none"), [""; 0]);
    }

    #[test]
    fn encodings_are_undone_and_garbage_stands_for_itself() {
        for (text, decoded) in [
            ("a%20b+c", "a b c"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode(text), decoded);
        }
        assert!(
            Query::parse("collect[]=[")
                .unwrap_err()
                .contains("is no pattern")
        );
        assert!(Query::parse(&format!("name[]={}", "x".repeat(2000))).is_err());
    }
}
