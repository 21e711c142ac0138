//! What an operator reads of a source: each loss and each recovery once.

use std::time::{Duration, Instant};

use crate::readings::Trouble;

/// Something to tell an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The machine lacks the subject of the source.
    Absent(String),
    /// The source failed, wholly or in part.
    Failed(String),
    /// What had been reported works again: a thing of the source by its name, or the whole source
    /// where the name is empty.
    Recovered(String),
}

impl News {
    /// The line that an operator reads.
    pub fn told(&self, source: &str) -> String {
        match self {
            News::Absent(what) => format!("nothing to sample for {source}: {what}"),
            News::Failed(why) => format!("sampling {source} failed: {why}"),
            News::Recovered(thing) if thing.is_empty() => {
                format!("sampling {source} works again")
            }
            News::Recovered(thing) => format!("sampling {source} works again: {thing}"),
        }
    }
}

/// How long a thing must have been well before its next failure is told again. A thing that fails
/// in every other read is told of once.
const WELL: Duration = Duration::from_secs(10);

/// Distinct messages that are told of one trouble; further ones are only counted.
const MESSAGES_MAX: usize = 16;

/// Things whose troubles are remembered; those that are well go first.
const EPISODES_MAX: usize = 256;

/// The troubles of one source, past and present.
#[derive(Debug, Default)]
pub(crate) struct Episodes {
    episodes: Vec<Episode>,
    absent: Option<String>,
}

#[derive(Debug)]
struct Episode {
    thing: String,
    /// What was told since it was last well for long enough.
    told: Vec<String>,
    failing: bool,
    /// Whether the present trouble was told, so that its end is told as well.
    end_is_news: bool,
    well_since: Instant,
}

impl Episodes {
    /// Books what a whole read said: what is not among `troubles` is well.
    pub(crate) fn settle(&mut self, now: Instant, troubles: Vec<Trouble>, news: &mut Vec<News>) {
        if self.absent.take().is_some() {
            news.push(News::Recovered(String::new()));
        }
        for episode in self.episodes.iter_mut().filter(|episode| episode.failing) {
            if troubles
                .iter()
                .all(|trouble| trouble.thing != episode.thing)
            {
                episode.failing = false;
                episode.well_since = now;
                if std::mem::take(&mut episode.end_is_news) {
                    news.push(News::Recovered(episode.thing.clone()));
                }
            }
        }
        for trouble in troubles {
            self.fail(now, trouble, news);
        }
    }

    /// Books one trouble beside those that there are.
    pub(crate) fn fail(&mut self, now: Instant, trouble: Trouble, news: &mut Vec<News>) {
        let Trouble { thing, message } = trouble;
        let place = self.episodes.iter().position(|known| known.thing == thing);
        let place = place.unwrap_or_else(|| {
            if self.episodes.len() >= EPISODES_MAX {
                self.episodes.retain(|episode| episode.failing);
                self.episodes.truncate(EPISODES_MAX - 1);
            }
            self.episodes.push(Episode {
                thing,
                told: Vec::new(),
                failing: false,
                end_is_news: false,
                well_since: now,
            });
            self.episodes.len() - 1
        });
        let episode = &mut self.episodes[place];
        if !episode.failing && now.saturating_duration_since(episode.well_since) >= WELL {
            episode.told.clear();
        }
        episode.failing = true;
        if episode.told.len() < MESSAGES_MAX && !episode.told.contains(&message) {
            episode.told.push(message.clone());
            episode.end_is_news = true;
            news.push(News::Failed(message));
        }
    }

    /// Books that the machine lacks the subject.
    pub(crate) fn absent(&mut self, message: String, news: &mut Vec<News>) {
        if self.absent.as_ref() != Some(&message) {
            self.absent = Some(message.clone());
            news.push(News::Absent(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_and_each_recovery_is_told_once() {
        let start = Instant::now();
        let mut episodes = Episodes::default();
        let mut read = |second: u64, things: &[&str]| {
            let mut news = Vec::new();
            let trouble = |thing: &&str| Trouble {
                thing: (*thing).to_owned(),
                message: format!("{thing} is lost"),
            };
            let now = start + Duration::from_secs(second);
            episodes.settle(now, things.iter().map(trouble).collect(), &mut news);
            news
        };
        let lost = |thing: &str| News::Failed(format!("{thing} is lost"));
        let back = |thing: &str| News::Recovered(thing.to_owned());
        assert_eq!(read(0, &["a"]), [lost("a")]);
        assert_eq!(read(1, &["a", "b"]), [lost("b")]);
        assert_eq!(read(2, &["b"]), [back("a")]);
        assert_eq!(read(3, &["a", "b"]), [], "it was not well for long");
        assert_eq!(read(4, &[]), [back("b")]);
        assert_eq!(read(20, &["a", "b"]), [lost("a"), lost("b")]);
        assert_eq!(read(21, &[]), [back("a"), back("b")]);
    }
}
