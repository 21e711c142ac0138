//! How many may be connected, and who has to go when there are too many.
//!
//! A connection that nobody uses costs a descriptor, and descriptors are few. So the number is
//! bounded, and a new client takes the place of the one that has been idle longest: a thousand that
//! connect and say nothing keep nobody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Well below the 1,024 descriptors that a process has as a rule.
const CONNECTIONS_MAX: usize = 256;

/// All connections of a server.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// When its last answer was made, or it began; none while one is being made or streamed.
    idle_since: Option<Instant>,
    evicted: Arc<Notify>,
}

impl Connections {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; none when all are busy.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        if table.open.len() >= CONNECTIONS_MAX {
            let idle = table
                .open
                .iter()
                .filter_map(|(id, open)| Some((open.idle_since?, *id)));
            let (_, longest) = idle.min()?;
            if let Some(open) = table.open.remove(&longest) {
                open.evicted.notify_one();
            }
        }
        let id = table.next;
        table.next += 1;
        let evicted = Arc::new(Notify::new());
        let open = Open {
            idle_since: Some(Instant::now()),
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
    /// An answer is being made, or streamed.
    pub(super) fn busy(&self) {
        self.set(None);
    }

    /// An answer was made. A client that does not read it is as good as idle.
    pub(super) fn idle(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, idle_since: Option<Instant>) {
        if let Some(open) = self.connections.table().open.get_mut(&self.id) {
            open.idle_since = idle_since;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_makes_room_and_the_busy_stay() {
        let connections = Arc::new(Connections::default());
        let mut places: Vec<Place> = (0..CONNECTIONS_MAX)
            .map(|_| connections.admit().expect("room"))
            .collect();
        places[0].busy();
        places.push(connections.admit().expect("another goes"));
        let is_open = |id: u64| connections.table().open.contains_key(&id);
        assert!(is_open(0) && !is_open(1) && is_open(2));
        for place in &places {
            place.busy();
        }
        assert!(connections.admit().is_none());
        places[5].idle();
        assert!(connections.admit().is_some());
        drop(places);
        assert!(connections.table().open.is_empty());
    }
}
