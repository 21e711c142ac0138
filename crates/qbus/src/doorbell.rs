//! The aggregator's sleep, and how somebody who waits for it ends that.
//!
//! A futex in the header (futex(2), not private: it works across processes). Nothing depends on it:
//! whoever is not woken wakes when the time is over. So a ring that comes just before the sleep may
//! be lost, a bell of a dead aggregator is rung once in vain, and garbage in the word costs a
//! system call.

use std::time::Duration;

use rustix::thread::futex::{Flags, wait, wake};
use rustix::time::Timespec;

use crate::sync::{AtomicU64, Ordering, low_half};

const AWAKE: u64 = 0;
const ASLEEP: u64 = 1;

/// Sleeps until somebody rings, at most for `longest`.
pub(crate) fn sleep(bell: &AtomicU64, longest: Duration) {
    let timeout = Timespec {
        tv_sec: longest.as_secs() as i64,
        tv_nsec: i64::from(longest.subsec_nanos()),
    };
    // Relaxed, here and below: the word orders nothing, lanes have their own edges.
    bell.store(ASLEEP, Ordering::Relaxed);
    let rung = wait(
        low_half(bell),
        Flags::empty(),
        ASLEEP as u32,
        Some(&timeout),
    );
    bell.store(AWAKE, Ordering::Relaxed);
    if rung == Err(rustix::io::Errno::NOSYS) {
        std::thread::sleep(longest);
    }
}

/// Wakes the aggregator if it sleeps.
#[inline]
pub(crate) fn ring(bell: &AtomicU64) {
    if bell.load(Ordering::Relaxed) == ASLEEP && bell.swap(AWAKE, Ordering::Relaxed) == ASLEEP {
        let _ = wake(low_half(bell), Flags::empty(), 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_sleeper_is_woken_long_before_its_time() {
        let bell = Arc::new(AtomicU64::new(AWAKE));
        let sleeper = {
            let bell = bell.clone();
            std::thread::spawn(move || {
                let start = Instant::now();
                sleep(&bell, Duration::from_secs(600));
                start.elapsed()
            })
        };
        while !sleeper.is_finished() {
            ring(&bell);
            std::thread::yield_now();
        }
        assert!(sleeper.join().unwrap() < Duration::from_secs(600));
        assert_eq!(bell.load(Ordering::Relaxed), AWAKE);
    }

    #[test]
    fn a_sleep_that_nobody_ends_ends_by_itself() {
        let bell = AtomicU64::new(7);
        let start = Instant::now();
        sleep(&bell, Duration::from_millis(3));
        assert!(start.elapsed() >= Duration::from_millis(3));
    }
}
