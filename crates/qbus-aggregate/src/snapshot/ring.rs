//! Rings of points in the snapshot: a series' history, and the recent records of all.
//!
//! | word | what                                                                  |
//! |------|-----------------------------------------------------------------------|
//! | 0    | capacity, in points                                                   |
//! | 1    | the claim: places of points below it may be written                   |
//! | 2…   | the points: point n lies at n modulo the capacity                     |
//!
//! A point goes to a place that only a commit makes count: after a kill it is written again. Before
//! a place is written the ring's claim covers it, so that a reader knows which of the points that
//! it copied were still those of its epoch. Which points count, a row says ([`super::row`]).
//!
//! * **R1 claim** `claim` stores the claim, then (Release fence) the point → `copy` loads the
//!   points, then (Acquire fence) the claim: no point that it keeps was of a later lap.

#[cfg(all(test, loom))]
mod model;

use qbus::{Kind, Record, SeriesId, Words, testpoint};

use super::layout::Shape;
use super::row::Span;
use crate::series::Point;

/// Words of a ring before its points.
const HEADER: usize = 2;
/// More points are no ring's: they would not fit a file.
const CAPACITY_MAX: u64 = 1 << 40;

/// What a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Points {
    /// Of a history: timestamp, value.
    History,
    /// Recent records: timestamp, series and kind, value, count.
    Recent,
}

impl Points {
    /// Words of a point.
    pub(crate) const fn words(self) -> usize {
        match self {
            Points::History => 2,
            Points::Recent => 4,
        }
    }

    /// How many points are claimed at a time.
    const fn ahead(self) -> u64 {
        match self {
            Points::History => 1,
            Points::Recent => 64,
        }
    }

    /// Words of a ring of `capacity` points.
    pub(crate) const fn ring_words(self, capacity: usize) -> usize {
        HEADER + capacity * self.words()
    }
}

/// The words of a history's point.
#[inline(always)]
pub(crate) fn encode_point(timestamp_ns: u64, value: f64) -> [u64; Points::History.words()] {
    [timestamp_ns, value.to_bits()]
}

/// Reads the points of a history.
pub(crate) fn decode_points(words: &[u64]) -> Vec<Point> {
    let decode = |point: &[u64]| Point {
        timestamp_ns: point[0],
        value: f64::from_bits(point[1]),
    };
    words
        .chunks_exact(Points::History.words())
        .map(decode)
        .collect()
}

/// One of the last records of all series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecentRecord {
    /// When it was emitted, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Its series.
    pub series: SeriesId,
    /// What it did to its series.
    pub kind: Kind,
    /// Its value.
    pub value: f64,
    /// How many equal observations it stood for.
    pub count: u64,
}

/// The words of a recent record.
#[inline(always)]
pub(crate) fn encode_recent(record: &Record) -> [u64; Points::Recent.words()] {
    [
        record.timestamp_ns,
        u64::from(record.series.0) << 32 | u64::from(record.kind.to_raw()),
        record.value.to_bits(),
        record.count,
    ]
}

/// Reads recent records, without those of an unknown kind.
pub(crate) fn decode_recent(words: &[u64]) -> Vec<RecentRecord> {
    let decode = |point: &[u64]| {
        Some(RecentRecord {
            timestamp_ns: point[0],
            series: SeriesId((point[1] >> 32) as u32),
            kind: Kind::from_raw(u16::try_from(point[1] & 0xffff_ffff).ok()?)?,
            value: f64::from_bits(point[2]),
            count: point[3],
        })
    };
    words
        .chunks_exact(Points::Recent.words())
        .filter_map(decode)
        .collect()
}

/// The capacity of the ring that lies there; `None` when that is no place of the heap, or it does
/// not fit.
pub(crate) fn capacity(
    words: Words<'_>,
    shape: Shape,
    start: usize,
    points: Points,
) -> Option<usize> {
    if start < shape.heap() {
        return None;
    }
    let capacity = words.get(start)?;
    if capacity > CAPACITY_MAX {
        return None;
    }
    let capacity = capacity as usize;
    let len = points.ring_words(capacity);
    words.slice(start, len).is_some().then_some(capacity)
}

/// Copies those of the points of a ring of that capacity, which lies within `words`, that are still
/// those of the reader's epoch.
pub(crate) fn copy(words: Words<'_>, capacity: usize, points: Points, span: Span) -> Vec<u64> {
    let Span {
        ring: start,
        first,
        next,
    } = span;
    let each = points.words();
    let first = first.max(next.saturating_sub(capacity as u64)).min(next);
    if capacity == 0 || first == next {
        return Vec::new();
    }
    let mut copied = Vec::with_capacity((next - first) as usize * each);
    let mut place = (first % capacity as u64) as usize;
    for _ in first..next {
        let at = start + HEADER + place * each;
        copied.extend((at..at + each).map(|word| words.load(word)));
        place = if place + 1 == capacity { 0 } else { place + 1 };
    }
    // R1 (acquire): pairs with the fence in `claim`: if any copied word is of a later lap, the
    // claim that this loads says so.
    words.acquire();
    let overwritten = words.load(start + 1).saturating_sub(capacity as u64);
    let stale = overwritten.saturating_sub(first).min(next - first) as usize;
    copied.drain(..stale * each);
    copied
}

/// A ring, and where its writer stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    points: Points,
    pub(crate) start: usize,
    pub(crate) capacity: usize,
    /// Index of the next point: how many there were.
    pub(crate) next: u64,
    /// `next` modulo the capacity, without a division a record.
    place: usize,
    /// What the claim says: places of points below may be written.
    claimed: u64,
    /// A predecessor may have written that far beyond what it committed: no claim goes back below.
    inherited: u64,
}

impl Ring {
    /// A ring without places, which no point goes to.
    pub(crate) const fn without(points: Points, next: u64) -> Ring {
        Ring {
            points,
            start: 0,
            capacity: 0,
            next,
            place: 0,
            claimed: 0,
            inherited: 0,
        }
    }

    /// Goes on with a ring that lies within `words`.
    pub(crate) fn resume(
        words: Words<'_>,
        start: usize,
        capacity: usize,
        points: Points,
        next: u64,
    ) -> Ring {
        if capacity == 0 {
            return Ring::without(points, next);
        }
        // A claim that is higher, or garbage, says as much: no point is one of those that counted.
        let found = words.load(start + 1);
        let claimed = found.clamp(next, next.saturating_add(capacity as u64));
        if found > claimed {
            words.store(start + 1, claimed);
        }
        Ring {
            points,
            start,
            capacity,
            next,
            place: (next % capacity as u64) as usize,
            claimed,
            inherited: claimed,
        }
    }

    /// Copies the last points to a new ring that lies at `start`. This one is left as it was, for
    /// those who read it.
    pub(crate) fn copy_to(self, words: Words<'_>, start: usize, capacity: usize) -> Ring {
        words.store(start, capacity as u64);
        words.store(start + 1, self.next);
        let each = self.points.words();
        let kept = self.next.min(self.capacity.min(capacity) as u64);
        for index in self.next - kept..self.next {
            let place = |ring: usize, capacity: usize| {
                ring + HEADER + (index % capacity as u64) as usize * each
            };
            let (from, to) = (place(self.start, self.capacity), place(start, capacity));
            for word in 0..each {
                words.store(to + word, words.load(from + word));
            }
        }
        testpoint!("ring-moved");
        Ring::resume(words, start, capacity, self.points, self.next)
    }

    /// Adds a point, of as many words as the ring's are.
    #[inline(always)]
    pub(crate) fn push(&mut self, words: Words<'_>, point: &[u64]) {
        if self.capacity == 0 {
            return;
        }
        let at = self.take(words);
        words.store_all(at, point);
        testpoint!("point-written");
    }

    /// Takes the next place; where it lies. The claim then covers it.
    #[inline(always)]
    fn take(&mut self, words: Words<'_>) -> usize {
        let at = self.start + HEADER + self.place * self.points.words();
        if self.next >= self.claimed {
            self.claim(words, self.next + self.points.ahead());
        }
        self.next += 1;
        self.place += 1;
        if self.place == self.capacity {
            self.place = 0;
        }
        at
    }

    #[inline]
    fn claim(&mut self, words: Words<'_>, claimed: u64) {
        self.claimed = claimed;
        words.store(self.start + 1, claimed);
        // R1 (release): pairs with the fence in `copy`.
        words.release();
        testpoint!("point-claimed");
    }

    /// Releases the places that were claimed and not written: for readers their old points are
    /// whole.
    pub(crate) fn give_back(&mut self, words: Words<'_>) {
        let needed = self.next.max(self.inherited);
        if self.claimed > needed {
            self.claimed = needed;
            words.store(self.start + 1, needed);
        }
    }

    /// Where the last point lies, if there is one.
    #[inline]
    pub(crate) fn last(&self) -> Option<usize> {
        if self.next == 0 || self.capacity == 0 {
            return None;
        }
        let place = if self.place == 0 {
            self.capacity
        } else {
            self.place
        };
        Some(self.start + HEADER + (place - 1) * self.points.words())
    }

    /// Whether the next point overwrites one.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.next >= self.capacity as u64
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use qbus::HeapWords;

    const WORDS: usize = Points::Recent.ring_words(4);

    fn ring(words: Words<'_>, next: u64) -> Ring {
        Ring::resume(words, 0, 4, Points::Recent, next)
    }

    fn fill(ring: &mut Ring, words: Words<'_>, points: u64) {
        for _ in 0..points {
            ring.push(words, &[ring.next; 4]);
        }
    }

    fn firsts(words: &[u64]) -> Vec<u64> {
        words.chunks(4).map(|point| point[0]).collect()
    }

    #[test]
    fn claims_cover_what_is_written_and_go_back_to_what_was() {
        let memory = HeapWords::new(WORDS);
        let words = memory.words();
        let mut ring = ring(words, 0);
        assert_eq!(ring.last(), None);
        fill(&mut ring, words, 3);
        assert_eq!((words.load(1), ring.is_full()), (64, false));
        ring.give_back(words);
        assert_eq!(words.load(1), 3);
        fill(&mut ring, words, 7);
        assert_eq!((words.load(1), ring.is_full()), (67, true));
        assert_eq!(ring.last().map(|at| words.load(at)), Some(9));
    }

    #[test]
    fn what_a_predecessor_claimed_stays_claimed() {
        let memory = HeapWords::new(WORDS);
        let words = memory.words();
        let mut dead = ring(words, 0);
        fill(&mut dead, words, 6);
        dead.give_back(words);
        // It was killed before it committed more than two of them.
        let mut ring = ring(words, 2);
        ring.give_back(words);
        assert_eq!(words.load(1), 6);
        fill(&mut ring, words, 4);
        assert_eq!(words.load(1), 6);
        fill(&mut ring, words, 1);
        assert_eq!(words.load(1), 70);
        // Garbage hides the points that are there, and none that follow.
        words.store(1, u64::MAX);
        self::ring(words, 7);
        assert_eq!(words.load(1), 11);
    }

    #[test]
    fn a_copy_has_the_points_that_count_and_were_not_overwritten() {
        let memory = HeapWords::new(WORDS);
        let words = memory.words();
        let mut ring = ring(words, 0);
        fill(&mut ring, words, 3);
        ring.give_back(words);
        let copied = |first, next| {
            let span = Span {
                ring: 0,
                first,
                next,
            };
            firsts(&copy(words, 4, Points::Recent, span))
        };
        assert_eq!(copied(0, 3), [0, 1, 2]);
        assert_eq!(copied(1, 3), [1, 2]);
        assert!(copied(3, 3).is_empty());
        assert!(copied(9, 3).is_empty());
        fill(&mut ring, words, 3);
        ring.give_back(words);
        // Who read the row before them finds that two points are gone.
        assert_eq!(copied(0, 3), [2]);
        assert_eq!(copied(0, 6), [2, 3, 4, 5]);
    }

    #[test]
    fn a_longer_ring_has_the_points_of_the_shorter() {
        let memory = HeapWords::new(WORDS + Points::Recent.ring_words(9));
        let words = memory.words();
        let mut short = ring(words, 0);
        fill(&mut short, words, 6);
        let mut long = short.copy_to(words, WORDS, 9);
        fill(&mut long, words, 2);
        long.give_back(words);
        assert_eq!(words.load(WORDS), 9);
        let span = Span {
            ring: WORDS,
            first: 2,
            next: 8,
        };
        let copied = copy(words, 9, Points::Recent, span);
        assert_eq!(firsts(&copied), [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_recent_record_survives_its_words() {
        for kind in [
            Kind::Increment,
            Kind::Total,
            Kind::Set,
            Kind::Adjust,
            Kind::Observe,
        ] {
            let record = Record {
                count: 3,
                ..Record::new(5, SeriesId(7), kind, 0.125)
            };
            let [found] = decode_recent(&encode_recent(&record))[..] else {
                panic!("one record");
            };
            let RecentRecord {
                timestamp_ns,
                series,
                value,
                count,
                ..
            } = found;
            assert_eq!((found.kind, series), (kind, SeriesId(7)));
            assert_eq!((timestamp_ns, value, count), (5, 0.125, 3));
        }
        assert!(decode_recent(&[1, 99, 0, 0]).is_empty());
    }
}
