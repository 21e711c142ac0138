//! How long the aggregator rests between two rounds.
//!
//! A wake-up costs 10 to 25 µs of a virtual machine's processor, so an aggregator that followed its
//! producers record by record would spend most of its time on waking up. Towards the latency that
//! that it was given it sleeps, as long as no lane fills meanwhile at the rate of the last round.
//! Whoever is faster than foreseen, or waits for a commit, rings the doorbell.

use std::time::Duration;

use super::{BUDGET, Round};

/// So long records gather where a sleep would be too long: a quarter of what the fastest producer
/// needs to fill a default lane.
pub(super) const GATHER: Duration = Duration::from_micros(10);
/// A shorter sleep costs as much as none: the kernel's timers are late by as much.
const SHORTEST: Duration = Duration::from_micros(60);
/// A sleep may let the fastest lane fill by one part of so many: half of the quarter at which its
/// producer rings the doorbell.
const PARTS: u64 = 8;
/// A bus is idle when there was nothing to do for this long. From then on a nap is at most a
/// quarter of the time that nothing came.
const IDLE: Duration = Duration::from_millis(25);
/// The longest nap of an idle bus.
const IDLE_LONGEST: Duration = Duration::from_millis(20);

/// Cells cannot fill: where many are hot, a round is not repeated sooner than after so many times
/// what it took, nor later than after [`IDLE_LONGEST`]. The aggregator then takes some 2.5 % of a
/// core.
const PACE: u32 = 40;

/// What to do until the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing: there is more to drain.
    None,
    /// Let records gather for [`GATHER`].
    Gather,
    /// Sleep until the doorbell rings, at most for so long.
    Sleep(Duration),
}

/// Rests towards a latency.
#[derive(Debug)]
pub(super) struct Nap {
    latency: Duration,
    /// Slots of a lane.
    slots: u64,
    /// When the last round ended.
    last_ns: u64,
    /// What the rounds took since the last sleep.
    busy: Duration,
    /// How long nothing came, by the sleeps meanwhile, and how long the next one may be.
    slept: Duration,
    longest: Duration,
}

impl Nap {
    pub(super) fn new(latency: Duration, slots: u64) -> Nap {
        Nap {
            latency,
            slots,
            last_ns: 0,
            busy: Duration::ZERO,
            slept: Duration::ZERO,
            longest: latency,
        }
    }

    /// What to do after a round that ended at `now_ns`, on a clock that is never set back, and took
    /// so long.
    pub(super) fn after(&mut self, round: &Round, took: Duration, now_ns: u64) -> Rest {
        let passed_ns = now_ns.saturating_sub(self.last_ns).max(1);
        self.last_ns = now_ns;
        self.busy += took;
        if !round.is_whole {
            return Rest::None;
        }
        let busy = std::mem::take(&mut self.busy);
        if round.is_idle() {
            return Rest::Sleep(self.idle());
        }
        (self.slept, self.longest) = (Duration::ZERO, self.latency);
        if round.fullest >= BUDGET {
            return Rest::None;
        }
        let part = (self.slots / PARTS).max(1);
        let fill_ns = passed_ns.saturating_mul(part) / round.fullest.max(1);
        let mut latency = self.latency;
        if round.cells > round.drained {
            latency = latency.max((busy * PACE).min(IDLE_LONGEST));
        }
        let rest = latency.min(Duration::from_nanos(fill_ns));
        if rest >= SHORTEST {
            Rest::Sleep(rest)
        } else if round.drained < BUDGET / 2 {
            Rest::Gather
        } else {
            Rest::None
        }
    }

    /// How long to sleep while nothing comes.
    fn idle(&mut self) -> Duration {
        let next = self.longest.max(SHORTEST);
        self.slept += next;
        let limit = if self.slept < IDLE {
            self.latency.max(SHORTEST)
        } else {
            (self.slept / 4).min(IDLE_LONGEST).max(self.latency)
        };
        self.longest = (next * 5 / 4).min(limit);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_micros(1200);
    const TOOK: Duration = Duration::from_micros(10);

    fn round(drained: u64, fullest: u64) -> Round {
        Round {
            drained,
            cells: 0,
            fullest,
            is_whole: true,
            committed: drained > 0,
            is_waiting: false,
        }
    }

    fn nap() -> Nap {
        let mut nap = Nap::new(LATENCY, 4096);
        nap.after(&round(0, 0), TOOK, 1_000_000);
        nap
    }

    #[test]
    fn it_sleeps_towards_the_latency() {
        // 100,000 records/s of 8 workers: 15 a lane in 1.2 ms.
        let rest = nap().after(&round(120, 15), TOOK, 2_200_000);
        assert_eq!(rest, Rest::Sleep(LATENCY));
    }

    #[test]
    fn a_fast_lane_shortens_the_sleep() {
        // 256 slots in 0.3 ms: another 512 come in 0.6 ms.
        let rest = nap().after(&round(300, 256), TOOK, 1_300_000);
        assert_eq!(rest, Rest::Sleep(Duration::from_micros(600)));
        // At the full speed of a producer there is no time for a sleep.
        assert_eq!(nap().after(&round(400, 400), TOOK, 1_010_000), Rest::Gather);
        assert_eq!(nap().after(&round(1000, 1000), TOOK, 1_010_000), Rest::None);
        assert_eq!(
            nap().after(&round(BUDGET, BUDGET), TOOK, 9_000_000),
            Rest::None
        );
    }

    #[test]
    fn many_hot_cells_are_read_less_often() {
        let round = |drained| Round {
            cells: 6000,
            ..round(drained, drained)
        };
        let took = Duration::from_micros(300);
        let rest = nap().after(&round(0), took, 9_000_000);
        assert_eq!(rest, Rest::Sleep(took * PACE));
        let rest = nap().after(&round(0), Duration::from_millis(3), 9_000_000);
        assert_eq!(rest, Rest::Sleep(IDLE_LONGEST));
        // A ring that fills is another matter: 200 slots in 8 ms.
        let rest = nap().after(&round(200), took, 9_000_000);
        assert_eq!(rest, Rest::Sleep(took * PACE));
        let rest = nap().after(&round(1000), took, 9_000_000);
        assert_eq!(rest, Rest::Sleep(Duration::from_micros(4096)));
        // Few cells cost nothing, and show at once.
        let rest = nap().after(&round(0), TOOK, 9_000_000);
        assert_eq!(rest, Rest::Sleep(LATENCY));
    }

    #[test]
    fn an_idle_bus_is_looked_at_less_and_less_often() {
        let mut nap = nap();
        let sleeps: Vec<Rest> = (0..200)
            .map(|n| nap.after(&round(0, 0), TOOK, 2_000_000 + n))
            .collect();
        assert_eq!(sleeps[0], Rest::Sleep(LATENCY));
        assert_eq!(sleeps[199], Rest::Sleep(IDLE_LONGEST));
        // A record ends that.
        nap.after(&round(1, 1), TOOK, 9_000_000);
        assert_eq!(
            nap.after(&round(0, 0), TOOK, 9_100_000),
            Rest::Sleep(LATENCY)
        );
    }

    #[test]
    fn no_latency_is_no_sleep_while_records_come() {
        let mut nap = Nap::new(Duration::ZERO, 4096);
        assert_eq!(nap.after(&round(5, 5), TOOK, 1_000_000), Rest::Gather);
        assert_eq!(
            nap.after(&round(0, 0), TOOK, 2_000_000),
            Rest::Sleep(SHORTEST)
        );
    }
}
