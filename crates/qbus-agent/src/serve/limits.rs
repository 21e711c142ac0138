//! How many may be connected, and who has to go when there are too many.
//!
//! A connection that nobody uses costs a descriptor, and descriptors are few. So the number is
//! bounded, and a new client takes the place of the one that has been idle longest: a thousand that
//! connect and say nothing keep nobody out. An answer that nobody reads costs a page, so the number
//! of answers that are made or sent at once is bounded as well: who has been reading longest has to
//! go then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Well below the 1,024 descriptors that a process has as a rule.
const CONNECTIONS_MAX: usize = 256;

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    table: Mutex<Table>,
    /// Answers that may be made or sent at once; 0 is no limit.
    answers_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// When its last answer was made, or it began; none while one is being made or streamed.
    idle_since: Option<Instant>,
    /// Whether an answer is being made, or has not been sent.
    has_answer: bool,
    evicted: Arc<Notify>,
}

impl Table {
    /// Ends the one that has been idle longest of those that it takes; whether there was one.
    fn evict(&mut self, takes: impl Fn(&Open) -> bool) -> bool {
        let taken = self.open.iter().filter(|(_, open)| takes(open));
        let idle = taken.filter_map(|(id, open)| Some((open.idle_since?, *id)));
        let evicted = idle
            .min()
            .and_then(|(_, longest)| self.open.remove(&longest));
        evicted.is_some_and(|open| {
            open.evicted.notify_one();
            true
        })
    }
}

impl Connections {
    pub(super) fn new(answers_max: usize) -> Connections {
        Connections {
            table: Mutex::default(),
            answers_max,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; none when all are busy.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        if table.open.len() >= CONNECTIONS_MAX && !table.evict(|_| true) {
            return None;
        }
        let id = table.next;
        table.next += 1;
        let evicted = Arc::new(Notify::new());
        let open = Open {
            idle_since: Some(Instant::now()),
            has_answer: false,
            evicted: evicted.clone(),
        };
        table.open.insert(id, open);
        Some(Place {
            id,
            connections: self.clone(),
            evicted,
        })
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    connections: Arc<Connections>,
    evicted: Arc<Notify>,
}

impl Place {
    /// Whether another answer may be made now.
    pub(super) fn begin(&self) -> bool {
        let (mut table, most) = (self.connections.table(), self.connections.answers_max);
        let answers = table.open.values().filter(|open| open.has_answer).count();
        if most > 0 && answers >= most && !table.evict(|open| open.has_answer) {
            return false;
        }
        if let Some(open) = table.open.get_mut(&self.id) {
            (open.idle_since, open.has_answer) = (None, true);
        }
        true
    }

    /// The answer was made. A client that does not read it is as good as idle.
    pub(super) fn made(self: Arc<Self>) -> Unsent {
        self.set(|open| open.idle_since = Some(Instant::now()));
        Unsent(self)
    }

    /// The answer has no end.
    pub(super) fn streams(&self) {
        self.set(|open| open.has_answer = false);
    }

    fn set(&self, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.connections.table().open.get_mut(&self.id) {
            change(open);
        }
    }

    /// Waits until the place is needed by another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.id);
    }
}

/// An answer, until it was sent.
#[derive(Debug)]
pub(super) struct Unsent(Arc<Place>);

impl Drop for Unsent {
    fn drop(&mut self) {
        self.0.set(|open| open.has_answer = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_makes_room_and_the_busy_stay() {
        let connections = Arc::new(Connections::new(0));
        let admit = || Arc::new(connections.admit().expect("room"));
        let mut places: Vec<Arc<Place>> = (0..CONNECTIONS_MAX).map(|_| admit()).collect();
        assert!(places[0].begin());
        places.push(admit());
        let is_open = |id: u64| connections.table().open.contains_key(&id);
        assert!(is_open(0) && !is_open(1) && is_open(2));
        for place in &places {
            assert!(place.begin());
        }
        assert!(connections.admit().is_none());
        let sent = places[5].clone().made();
        assert!(connections.admit().is_some());
        drop(sent);
        drop(places);
        assert!(connections.table().open.is_empty());
    }

    #[test]
    fn who_reads_longest_makes_room_for_another_answer() {
        let connections = Arc::new(Connections::new(2));
        let admit = || Arc::new(connections.admit().expect("room"));
        let places: Vec<Arc<Place>> = (0..4).map(|_| admit()).collect();
        assert!(places[0].begin() && places[1].begin());
        // Both are being made: another has to come again.
        assert!(!places[2].begin());
        let first = places[1].clone().made();
        assert!(places[2].begin());
        let is_open = |id: u64| connections.table().open.contains_key(&id);
        assert!(is_open(0) && !is_open(1) && is_open(2));
        // What was sent, and what streams, counts no more.
        drop(first);
        drop(places[0].clone().made());
        assert!(places[3].begin());
        places[3].streams();
        assert!(places[0].begin());
        assert!((0..4).filter(|id| is_open(*id)).eq([0, 2, 3]));
    }
}
