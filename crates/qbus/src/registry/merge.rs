//! What several processes make of a gauge.

use std::fmt;

/// How the values that several processes have of one gauge become one.
///
/// Each process has a value of its own; readers merge them. The names are those of
/// prometheus_client's `multiprocess_mode`. With `Live…` only processes that are there count: what
/// one said is gone when it ends, however it does.
///
/// # Examples
///
/// ```
/// use qbus::Merge;
/// assert_eq!(Merge::from_name("livesum"), Some(Merge::LiveSum));
/// assert_eq!(Merge::LiveSum.as_str(), "livesum");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Merge {
    /// There is one value, which all processes set and change; the last one counts.
    #[default]
    Last,
    /// The sum.
    Sum,
    /// The sum of those that live.
    LiveSum,
    /// The smallest.
    Min,
    /// The smallest of those that live.
    LiveMin,
    /// The largest.
    Max,
    /// The largest of those that live.
    LiveMax,
    /// No merging: a label `pid` says whose each is.
    All,
    /// The same of those that live.
    LiveAll,
    /// The one that was set last.
    MostRecent,
    /// The same of those that live.
    LiveMostRecent,
}

impl Merge {
    /// The label that tells the values of processes apart: their pids.
    pub const PROCESS_LABEL: &'static str = "pid";

    /// All of them.
    pub const ALL: [Merge; 11] = [
        Merge::Last,
        Merge::Sum,
        Merge::LiveSum,
        Merge::Min,
        Merge::LiveMin,
        Merge::Max,
        Merge::LiveMax,
        Merge::All,
        Merge::LiveAll,
        Merge::MostRecent,
        Merge::LiveMostRecent,
    ];

    /// Its name: `last`, or prometheus_client's.
    pub fn as_str(self) -> &'static str {
        match self {
            Merge::Last => "last",
            Merge::Sum => "sum",
            Merge::LiveSum => "livesum",
            Merge::Min => "min",
            Merge::LiveMin => "livemin",
            Merge::Max => "max",
            Merge::LiveMax => "livemax",
            Merge::All => "all",
            Merge::LiveAll => "liveall",
            Merge::MostRecent => "mostrecent",
            Merge::LiveMostRecent => "livemostrecent",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Merge> {
        Self::ALL.into_iter().find(|merge| merge.as_str() == name)
    }

    /// Whether each process has a value of its own: a series with a label `pid`.
    pub fn is_by_process(self) -> bool {
        self != Merge::Last
    }

    /// Whether what a process said is gone with it.
    pub fn is_live(self) -> bool {
        matches!(
            self,
            Merge::LiveSum
                | Merge::LiveMin
                | Merge::LiveMax
                | Merge::LiveAll
                | Merge::LiveMostRecent
        )
    }

    /// Its number in shared memory: its place among all.
    pub(super) fn to_raw(self) -> u64 {
        let place = Self::ALL.iter().position(|&merge| merge == self);
        place.unwrap_or(0) as u64
    }

    pub(super) fn from_raw(raw: u64) -> Option<Merge> {
        Self::ALL.get(usize::try_from(raw).ok()?).copied()
    }
}

impl fmt::Display for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
