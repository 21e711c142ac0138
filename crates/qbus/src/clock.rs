//! Clocks.
//!
//! CLOCK_REALTIME for records, since it is the one clock that all containers of a host share
//! (CLOCK_MONOTONIC differs between time namespaces); see clock_gettime(2).

use rustix::time::{ClockId, clock_gettime};

/// Which clock stamps the records of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// CLOCK_REALTIME_COARSE: about 4 ns to read, in steps of a kernel tick (1 to 10 ms). The
    /// default of counters, of which only the sum matters.
    Coarse,
    /// CLOCK_REALTIME: about 16 ns to read. The default of all else.
    Precise,
}

impl Clock {
    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub fn now_ns(self) -> u64 {
        match self {
            Clock::Coarse => nanoseconds(ClockId::RealtimeCoarse),
            Clock::Precise => precise_ns(),
        }
    }

    /// Nanoseconds on a clock that nobody sets, for lengths of time: since this machine started, as
    /// a rule, the time that it was suspended left out. All processes of a time namespace have the
    /// same.
    pub fn monotonic_ns() -> u64 {
        monotonic_ns()
    }
}

/// Nanoseconds since the Unix epoch, precise.
#[inline]
pub(crate) fn precise_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// Nanoseconds since some start, never set back.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

#[inline]
fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Before 1970 there were no buses.
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}
