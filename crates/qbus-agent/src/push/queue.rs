//! Requests that wait for their receiver: in order, bounded, in memory or on disk.
//!
//! On disk each request is a file, which is written under another name and then renamed: whoever
//! is killed leaves it whole, or not at all. It goes once the receiver has taken it; a kill between
//! the two has it sent again, which changes nothing: it says the same values of the same times.
//! Beside them lies what a successor has to know of what was said (see [`super::said`]).

mod store;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qbus_aggregate::Series;

use super::batch::Batch;
use super::said;
use store::Store;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
}

/// What became of the samples so far, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    /// The receiver refused their request.
    pub(super) failed: u64,
    /// The receiver took their request, but not them.
    pub(super) rejected: u64,
    /// There was no room for them.
    pub(super) dropped: u64,
    /// Requests that were tried again.
    pub(super) retries: u64,
    /// Requests that wait, their bytes, and the time of the oldest.
    pub(super) waiting: u64,
    pub(super) waiting_bytes: u64,
    pub(super) oldest_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    store: Option<Store>,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: u64,
    next: u64,
    /// The entry that is being sent.
    in_flight: Option<u64>,
    counts: Counts,
    /// From then on nobody waits any more.
    deadline: Option<Instant>,
    has_ended: bool,
    /// Whether the receiver has taken the first encoding of a request.
    is_proven: bool,
    /// A failure of the disk that was not told yet.
    trouble: Option<String>,
    /// The time of the newest request, of this process or of one before.
    newest_ms: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    time_ms: u64,
    samples: u64,
    bytes: u64,
    /// In memory; `None` if on disk.
    batch: Option<Batch>,
}

/// What the sender is to do.
#[derive(Debug)]
pub(super) enum Next {
    Send { number: u64, batch: Batch },
    End,
}

impl Queue {
    pub(super) fn in_memory(limits: Limits) -> Queue {
        Queue {
            limits,
            store: None,
            state: Mutex::default(),
            news: Condvar::new(),
        }
    }

    /// Goes on with what waits in a folder.
    pub(super) fn on_disk(folder: &Path, limits: Limits) -> io::Result<Queue> {
        let (store, found) = Store::open(folder)?;
        let last = found.waiting.last();
        let mut state = State {
            next: last.map_or(0, |last| last.number.saturating_add(1)),
            newest_ms: found.newest_ms,
            ..State::default()
        };
        for stored in found.waiting {
            state.bytes += stored.bytes;
            state.entries.push_back(Entry {
                number: stored.number,
                time_ms: stored.time_ms,
                samples: stored.samples,
                bytes: stored.bytes,
                batch: None,
            });
        }
        let queue = Queue {
            limits,
            store: Some(store),
            state: Mutex::new(state),
            news: Condvar::new(),
        };
        queue.make_room(&mut queue.lock());
        Ok(queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a request; the oldest give way, but never the one that is being sent.
    pub(super) fn push(&self, batch: Batch) {
        let mut state = self.lock();
        let number = state.next;
        state.next = number.saturating_add(1);
        state.newest_ms = state.newest_ms.max(batch.time_ms);
        let entry = Entry {
            number,
            time_ms: batch.time_ms,
            samples: batch.samples,
            bytes: batch.bytes(),
            batch: None,
        };
        let stored = self.store.as_ref().map(|store| store.write(number, &batch));
        let (bytes, batch) = match stored {
            Some(Ok(bytes)) => (bytes, None),
            Some(Err(error)) => {
                // Better in memory than nowhere.
                state.trouble = Some(format!("{error}; requests wait in memory meanwhile"));
                (entry.bytes, Some(batch))
            }
            None => (entry.bytes, Some(batch)),
        };
        let entry = Entry { bytes, ..entry };
        state.bytes += entry.bytes;
        state.entries.push_back(Entry { batch, ..entry });
        self.make_room(&mut state);
        drop(state);
        self.news.notify_all();
    }

    fn make_room(&self, state: &mut State) {
        while state.bytes > self.limits.bytes {
            let is_busy = |entry: &Entry| state.in_flight == Some(entry.number);
            let at = usize::from(state.entries.front().is_some_and(is_busy));
            let Some(entry) = state.entries.remove(at) else {
                return;
            };
            state.counts.dropped += entry.samples;
            self.forget(state, &entry);
        }
    }

    fn forget(&self, state: &mut State, entry: &Entry) {
        state.bytes -= entry.bytes;
        if let Some(store) = self.store.as_ref().filter(|_| entry.batch.is_none()) {
            store.remove(entry.number);
        }
    }

    /// Waits for the oldest request; the end, once the queue is closed and empty or out of time.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            let is_over = state.deadline.is_some_and(|end| Instant::now() >= end);
            if is_over || state.deadline.is_some() && state.entries.is_empty() {
                return Next::End;
            }
            let Some(first) = state.entries.front() else {
                let waited = self.news.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let number = first.number;
            let batch = match (&first.batch, &self.store) {
                (Some(batch), _) => Ok(batch.clone()),
                (None, Some(store)) => store.read(number),
                (None, None) => Err(io::ErrorKind::NotFound.into()),
            };
            match batch {
                Ok(batch) => {
                    state.in_flight = Some(number);
                    return Next::Send { number, batch };
                }
                Err(error) => {
                    state.trouble = Some(format!("a request that waited is lost: {error}"));
                    if let Some(entry) = state.entries.pop_front() {
                        state.counts.dropped += entry.samples;
                        self.forget(&mut state, &entry);
                    }
                }
            }
        }
    }

    /// Notes what became of the request that was sent, and takes it away; `count` gets its samples.
    pub(super) fn settle(&self, number: u64, count: impl FnOnce(&mut Counts, u64)) {
        let mut state = self.lock();
        state.in_flight = None;
        if state
            .entries
            .front()
            .is_some_and(|first| first.number == number)
            && let Some(entry) = state.entries.pop_front()
        {
            count(&mut state.counts, entry.samples);
            self.forget(&mut state, &entry);
        }
    }

    /// Waits before another attempt; whether there may be one.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        state.counts.retries += 1;
        loop {
            let now = Instant::now();
            // What there is no time for is not begun.
            if state.deadline.is_some_and(|end| end <= until.max(now)) {
                return false;
            }
            if now >= until {
                return true;
            }
            let waited = self.news.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no more, and waits for nothing after the deadline.
    pub(super) fn close(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
        self.news.notify_all();
    }

    /// How long a request may still take, where the queue is closed.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let deadline = self.lock().deadline;
        deadline.map(|end| end.saturating_duration_since(Instant::now()))
    }

    pub(super) fn note_end(&self) {
        self.lock().has_ended = true;
        self.news.notify_all();
    }

    /// Whether the sender has ended by then.
    pub(super) fn await_end(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.has_ended || left.is_zero() {
                return state.has_ended;
            }
            let waited = self.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn prove(&self, proven: bool) {
        self.lock().is_proven = proven;
    }

    pub(super) fn is_proven(&self) -> bool {
        self.lock().is_proven
    }

    /// What went wrong with the disk since the last call.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().trouble.take()
    }

    /// The time of the newest request, of this process or of one before.
    pub(super) fn newest_ms(&self) -> u64 {
        self.lock().newest_ms
    }

    /// What a process before this one told the receiver of, where the queue is on disk.
    pub(super) fn said(&self) -> Vec<Series> {
        let file = self.store.as_ref().map(Store::said);
        file.and_then(|file| said::decode(&file))
            .unwrap_or_default()
    }

    /// Keeps for a successor what the receiver is told of.
    pub(super) fn note_said<'a>(&self, series: impl IntoIterator<Item = &'a Series>) {
        if let Some(store) = &self.store
            && let Err(error) = store.note_said(&said::encode(series))
        {
            let why = format!("{error}; a successor does not know what has ended meanwhile");
            self.lock().trouble = Some(why);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            waiting: state.entries.len() as u64,
            waiting_bytes: state.bytes,
            oldest_ms: state.entries.front().map(|first| first.time_ms),
            ..state.counts
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use qbus::{FamilyDefinition, MetricType};

    use super::super::batch::{Body, Encoding};
    use super::*;

    fn batch(n: u64) -> Batch {
        Batch {
            time_ms: n,
            samples: 10,
            bodies: vec![Body {
                encoding: Encoding::Otlp,
                bytes: vec![n as u8; 100],
            }],
        }
    }

    fn next(queue: &Queue) -> (u64, Batch) {
        match queue.next() {
            Next::Send { number, batch } => (number, batch),
            Next::End => panic!("there is more"),
        }
    }

    /// Checks a queue that has room for four requests and a half, and how much one takes.
    fn both(check: impl Fn(Queue, u64)) {
        let folder = tempfile::tempdir().expect("a folder");
        check(Queue::in_memory(Limits { bytes: 450 }), 100);
        // A file takes a block, however little is in it.
        let limits = Limits {
            bytes: 4096 * 9 / 2,
        };
        let on_disk = Queue::on_disk(&folder.path().join("a"), limits);
        check(on_disk.expect("a queue"), 4096);
    }

    #[test]
    fn the_oldest_give_way_but_not_the_one_that_is_sent() {
        both(|queue, each| {
            queue.push(batch(0));
            let (number, first) = next(&queue);
            assert_eq!(first, batch(0));
            (1..7).for_each(|n| queue.push(batch(n)));
            queue.settle(number, |counts, samples| counts.sent += samples);
            let counts = queue.counts();
            assert_eq!((counts.sent, counts.dropped, counts.waiting), (10, 30, 3));
            assert_eq!(
                (counts.waiting_bytes, counts.oldest_ms),
                (3 * each, Some(4))
            );
            for n in 4..7 {
                let (number, found) = next(&queue);
                assert_eq!(found, batch(n));
                queue.settle(number, |counts, samples| counts.failed += samples);
            }
            assert_eq!(queue.counts().failed, 30);
            queue.close(Instant::now() + Duration::from_secs(60));
            assert!(matches!(queue.next(), Next::End));
        });
    }

    #[test]
    fn what_is_larger_than_the_queue_has_no_place_in_it() {
        both(|queue, each| {
            let mut large = batch(1);
            large.bodies[0].bytes = vec![1; 10 * each as usize];
            queue.push(large);
            assert_eq!((queue.counts().dropped, queue.counts().waiting), (10, 0));
            queue.push(batch(2));
            assert_eq!(next(&queue).1, batch(2));
        });
    }

    #[test]
    fn a_folder_is_gone_on_with_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits { bytes: 100_000 };
        let open = || Queue::on_disk(folder.path(), limits).expect("a queue");
        let queue = open();
        (0..12).for_each(|n| queue.push(batch(n)));
        let (number, _) = next(&queue);
        queue.settle(number, |_, _| {});
        drop(queue);
        // What a kill leaves of a write, and what a broken disk leaves of a file.
        std::fs::write(folder.path().join("00000000000000000099.tmp"), "half").expect("room");
        std::fs::write(folder.path().join("00000000000000000003.push"), "garbage").expect("room");
        std::fs::write(folder.path().join("README"), "not mine").expect("room");
        let queue = open();
        queue.push(batch(12));
        let mut found = Vec::new();
        while queue.counts().waiting > 0 {
            let (number, batch) = next(&queue);
            found.push(batch.time_ms);
            queue.settle(number, |_, _| {});
        }
        assert_eq!(found, [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let left = std::fs::read_dir(folder.path()).expect("a folder");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(
            left.len(),
            2,
            "the lock and what is not the queue's: {left:?}"
        );
    }

    #[test]
    fn a_successor_goes_on_from_the_time_of_the_newest_and_knows_what_was_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            let limits = Limits { bytes: 100_000 };
            Queue::on_disk(folder.path(), limits).expect("a queue")
        };
        let queue = open();
        assert_eq!((queue.newest_ms(), queue.said().len()), (0, 0));
        queue.push(batch(123_456));
        let (number, _) = next(&queue);
        queue.settle(number, |_, _| {});
        let family = FamilyDefinition {
            name: "jobs_total".to_owned(),
            metric_type: MetricType::Counter,
            help: String::new(),
            unit: String::new(),
            buckets: Vec::new(),
            native: false,
            merge: Default::default(),
            window: Default::default(),
        };
        let series = Series::named(Arc::new(family), Vec::new());
        queue.note_said([&series]);
        drop(queue);
        // Nothing waits any more.
        let queue = open();
        assert_eq!(queue.newest_ms(), 123_456);
        assert_eq!(queue.said(), [series]);
        drop(queue);
        std::fs::write(folder.path().join("lock"), "nonsense").expect("room");
        std::fs::write(folder.path().join("said"), "nonsense").expect("room");
        let queue = open();
        assert_eq!((queue.newest_ms(), queue.said().len()), (0, 0));
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told_of_and_costs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("queue");
        let queue = Queue::on_disk(&path, Limits { bytes: 100_000 }).expect("a queue");
        std::fs::remove_dir_all(&path).expect("it is empty");
        queue.push(batch(1));
        queue.note_said([]);
        assert!(
            queue
                .trouble()
                .is_some_and(|trouble| trouble.contains("No such file"))
        );
        let (number, found) = next(&queue);
        assert_eq!(found, batch(1));
        queue.settle(number, |counts, samples| counts.sent += samples);
        assert_eq!((queue.counts().sent, queue.counts().dropped), (10, 0));
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits { bytes: 100_000 };
        let first = Queue::on_disk(folder.path(), limits).expect("a queue");
        let second = Queue::on_disk(folder.path(), limits).expect_err("it is taken");
        assert!(second.to_string().contains("another"), "{second}");
        drop(first);
        Queue::on_disk(folder.path(), limits).expect("it is free again");
    }

    #[test]
    fn a_pause_ends_with_the_queue() {
        both(|queue, _| {
            queue.push(batch(1));
            assert!(queue.pause(Duration::from_millis(1)));
            queue.close(Instant::now());
            assert!(!queue.pause(Duration::from_secs(3600)));
            assert!(matches!(queue.next(), Next::End));
            assert_eq!(queue.counts().waiting, 1, "it is not lost");
        });
    }
}
