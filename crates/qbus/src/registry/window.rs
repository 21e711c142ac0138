//! Of which time a summary's quantiles are.

use std::fmt;
use std::time::Duration;

/// What the quantiles of a summary are of: the observations of the last minutes, say.
///
/// They slide in steps: with the default, ten minutes in five steps, quantiles are of the last
/// eight to ten minutes. A summary's count and sum, its smallest and largest observation and its
/// buckets are of all time.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use qbus::Window;
/// assert_eq!(Window::default().to_string(), "10m in 5 steps");
/// let minute = Window { length: Duration::from_secs(60), steps: 6 };
/// assert!(minute.is_valid() && Window::ALL_TIME.is_valid());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Whole milliseconds, at most 49 days, and at least 100 ms for each step.
    pub length: Duration,
    /// 1 to 60.
    pub steps: u32,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            length: Duration::from_secs(600),
            steps: 5,
        }
    }
}

impl Window {
    /// Quantiles of all observations, however old.
    pub const ALL_TIME: Window = Window {
        length: Duration::ZERO,
        steps: 0,
    };
    /// The most steps.
    pub const STEPS_MAX: u32 = 60;
    /// The shortest step.
    pub const STEP_MIN: Duration = Duration::from_millis(100);

    /// Whether the quantiles are of all observations.
    pub fn is_all_time(self) -> bool {
        self == Window::ALL_TIME
    }

    /// Whether a summary can have it.
    pub fn is_valid(self) -> bool {
        Window::from_raw(self.to_raw()) == Some(self)
    }

    /// How long a step is; `None` where there are none.
    pub fn step(self) -> Option<Duration> {
        self.length.checked_div(self.steps)
    }

    /// Its number in shared memory: 0 is the default, 1 all time, else milliseconds and steps. Of
    /// no meaning where it is not valid.
    pub(super) fn to_raw(self) -> u64 {
        if self == Window::default() {
            0
        } else if self.is_all_time() {
            1
        } else {
            let milliseconds = u32::try_from(self.length.as_millis()).unwrap_or(0);
            u64::from(milliseconds) << STEPS_BITS | u64::from(self.steps) & STEPS_MASK
        }
    }

    pub(super) fn from_raw(raw: u64) -> Option<Window> {
        match raw {
            0 => return Some(Window::default()),
            1 => return Some(Window::ALL_TIME),
            _ => {}
        }
        let window = Window {
            length: Duration::from_millis(raw >> STEPS_BITS),
            steps: (raw & STEPS_MASK) as u32,
        };
        let is_short = window.step()? < Window::STEP_MIN;
        let fits = window.steps <= Window::STEPS_MAX && raw >> STEPS_BITS <= u64::from(u32::MAX);
        (fits && !is_short).then_some(window)
    }
}

const STEPS_BITS: u32 = 8;
const STEPS_MASK: u64 = (1 << STEPS_BITS) - 1;

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, steps) = (self.length, self.steps);
        if self.is_all_time() {
            return f.write_str("all time");
        }
        let seconds = length.as_secs();
        if length.subsec_nanos() != 0 {
            write!(f, "{length:?} in {steps} steps")
        } else if seconds.is_multiple_of(60) {
            write!(f, "{}m in {steps} steps", seconds / 60)
        } else {
            write!(f, "{seconds}s in {steps} steps")
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn window(milliseconds: u64, steps: u32) -> Window {
        Window {
            length: Duration::from_millis(milliseconds),
            steps,
        }
    }

    #[test]
    fn what_can_be_registered_comes_back_as_it_was() {
        let windows = [
            Window::default(),
            Window::ALL_TIME,
            window(100, 1),
            window(60_000, 60),
            window(u64::from(u32::MAX), 7),
        ];
        for window in windows {
            assert_eq!(Window::from_raw(window.to_raw()), Some(window), "{window}");
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let microseconds = Window {
            length: Duration::from_micros(1_000_100),
            steps: 1,
        };
        let far = window(1 << 32, 5);
        for window in [
            window(0, 1),
            window(60_000, 0),
            window(99, 1),
            window(60_000, 61),
            window(60_000, 256 + 6),
            microseconds,
            far,
        ] {
            assert!(!window.is_valid(), "{window:?}");
        }
        // Words that somebody else wrote.
        for raw in [2, 255, 1 << STEPS_BITS, 1 << 50 | 5, u64::MAX] {
            assert_eq!(Window::from_raw(raw), None, "{raw}");
        }
    }

    #[test]
    fn it_reads_as_one_would_say_it() {
        let texts = [window(1500, 3), window(90_000, 3), window(300_000, 5)];
        let texts = texts.map(|window| window.to_string());
        assert_eq!(
            texts,
            ["1.5s in 3 steps", "90s in 3 steps", "5m in 5 steps"]
        );
        assert_eq!(Window::ALL_TIME.to_string(), "all time");
    }
}
