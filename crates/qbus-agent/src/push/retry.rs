//! When a request is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use jiff::fmt::rfc2822;

/// The first pause, at most.
const FIRST: Duration = Duration::from_millis(100);
/// Later pauses are no longer.
const LONGEST: Duration = Duration::from_secs(5);
/// A receiver may ask for so long a pause, and no longer.
const ASKED_MAX: Duration = Duration::from_secs(600);

/// Pauses that double, each of random length: who was cut off together does not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next pause; what the receiver asked for, and a little more, where it did.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(LONGEST);
        self.attempts += 1;
        match asked {
            Some(asked) => asked.min(ASKED_MAX) + doubled.mul_f64(random()),
            None => doubled / 2 + (doubled / 2).mul_f64(random()),
        }
    }
}

/// From 0 to 1.
fn random() -> f64 {
    // The standard library's only source of chance.
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// How long a `Retry-After` asks to wait: seconds, or a date of HTTP. `None` where it is neither.
pub(super) fn retry_after(text: &str, now_unix: Duration) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let date = Duration::try_from(date.as_duration()).ok()?;
    Some(date.saturating_sub(now_unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_understood() {
        let now = Duration::from_secs(1_445_412_400);
        let seconds = |text| retry_after(text, now).map(|after| after.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(80));
        assert_eq!(
            seconds("Tue, 20 Oct 2015 07:28:00 GMT"),
            Some(0),
            "it is past"
        );
        for text in [
            "",
            "soon",
            "-1",
            "1.5",
            "99999999999999999999",
            "Wed, 99 Oct 2015",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.next(None)).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses[39] <= LONGEST && pauses[39] >= LONGEST / 2);
        assert!(pauses[20..].windows(2).any(|pair| pair[0] != pair[1]));
        let asked = Backoff::default().next(Some(Duration::from_secs(7)));
        assert!((Duration::from_secs(7)..Duration::from_millis(7101)).contains(&asked));
        let absurd = Backoff::default().next(Some(Duration::MAX));
        assert!(absurd <= ASKED_MAX + FIRST);
    }
}
