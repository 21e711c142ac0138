//! What a filter takes: as the dashboard's.

use std::str::FromStr;

use regex_lite::{Regex, RegexBuilder};

/// All of its words: a part of the name or of a label's value, `label=value`, or `/regex/`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    text: String,
    words: Vec<Word>,
}

#[derive(Clone, Debug)]
enum Word {
    Part(String),
    Label(String, String),
    Regex(Regex),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let words: Result<_, String> = text.split_whitespace().map(Word::parse).collect();
        Ok(Filter {
            text: text.trim().to_owned(),
            words: words?,
        })
    }
}

impl Word {
    fn parse(text: &str) -> Result<Word, String> {
        let inner = text
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        if let Some(pattern) = inner.filter(|pattern| !pattern.is_empty()) {
            let made = RegexBuilder::new(pattern).case_insensitive(true).build();
            return made.map(Word::Regex).map_err(|error| format!("{error}"));
        }
        let label = text.split_once('=').filter(|(name, _)| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        });
        Ok(match label {
            Some((name, value)) => Word::Label(name.to_owned(), value.to_lowercase()),
            None => Word::Part(text.to_lowercase()),
        })
    }

    fn takes(&self, name: &str, labels: &[(String, String)]) -> bool {
        let has = |text: &str, part: &str| text.to_lowercase().contains(part);
        match self {
            Word::Part(part) => has(name, part) || labels.iter().any(|(_, value)| has(value, part)),
            Word::Label(label, part) => labels
                .iter()
                .any(|(name, value)| name == label && has(value, part)),
            Word::Regex(regex) => {
                regex.is_match(name) || labels.iter().any(|(_, value)| regex.is_match(value))
            }
        }
    }
}

impl Filter {
    /// As it was typed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether it takes a series, or what else has a name and labels.
    pub(crate) fn takes(&self, name: &str, labels: &[(String, String)]) -> bool {
        self.words.iter().all(|word| word.takes(name, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_looked_for() {
        let labels = [("model".to_owned(), "Qwen3-VL".to_owned())];
        for (filter, takes) in [
            ("", true),
            ("token", true),
            ("TOKEN qwen", true),
            ("token llama", false),
            ("model=qwen", true),
            ("model=llama", false),
            ("other=qwen", false),
            ("/^tokens_.*total$/", true),
            ("/^total/", false),
            ("/qwen\\d/", true),
            ("/", false),
            ("=", false),
        ] {
            let parsed: Filter = filter.parse().unwrap();
            assert_eq!(parsed.takes("tokens_total", &labels), takes, "{filter}");
        }
        assert!("/(/".parse::<Filter>().is_err());
    }
}
