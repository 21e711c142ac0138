//! A bus that goes away with its test.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use qbus::{Address, Bus, BusOptions, Geometry, Removal};
use qbus_aggregate::Reader;
use tempfile::TempDir;

/// Where a bus lies. What holds for one place holds for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A POSIX segment.
    Named,
    /// A file in a folder of its own.
    Path,
}

impl Place {
    /// Both.
    pub const ALL: [Place; 2] = [Place::Named, Place::Path];
}

/// Owns the name of a bus: the bus and its snapshot are removed when it is dropped, also by a test
/// that fails.
#[derive(Debug)]
pub struct TestBus {
    address: Address,
    folder: Option<TempDir>,
}

impl TestBus {
    /// A name that no other test has, and nothing of that name yet.
    pub fn reserve(place: Place) -> TestBus {
        static NEXT: Mutex<u32> = Mutex::new(0);
        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        let name = format!("test-{}-{next}", std::process::id());
        let folder = match place {
            Place::Named => None,
            Place::Path => Some(TempDir::with_prefix(&name).expect("a temporary folder")),
        };
        let text = match &folder {
            None => name,
            Some(folder) => folder.path().join("bus").display().to_string(),
        };
        let address = text.parse().expect("a legal address");
        TestBus { address, folder }
    }

    /// A new bus of that geometry.
    pub fn create(place: Place, geometry: Geometry) -> TestBus {
        let bus = TestBus::reserve(place);
        bus.make(geometry);
        bus
    }

    /// A new bus of the default geometry, but small.
    pub fn small(place: Place) -> TestBus {
        Self::create(place, Self::small_geometry())
    }

    /// Eight lanes of 256 slots, one of them shared; room for 64 owners and 256 series.
    pub fn small_geometry() -> Geometry {
        Geometry {
            lanes: 8,
            shared_lanes: 1,
            slots: 256,
            owners: 64,
            families: 32,
            series: 256,
            arena_words: 0,
            cells: 256,
        }
        .with_arena()
    }

    /// The same without cells: all that is emitted goes through the rings.
    pub fn ring_geometry() -> Geometry {
        Geometry {
            cells: 0,
            ..Self::small_geometry()
        }
    }

    /// Makes the bus, for one that was reserved or removed.
    pub fn make(&self, geometry: Geometry) -> Bus {
        let config = BusOptions {
            geometry,
            // What is tested with thousands of series is of one metric as a rule.
            max_series_per_family: 0,
            ..BusOptions::default()
        };
        Bus::create(&self.address, &config).expect("a new bus")
    }

    /// How it is named.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Opens it in this process.
    pub fn open(&self) -> Bus {
        Bus::open(&self.address).expect("the bus opens")
    }

    /// Opens its snapshot.
    pub fn reader(&self) -> Reader {
        Reader::open(&self.address.snapshot()).expect("the snapshot opens")
    }

    /// Whether the process of that pid is its aggregator.
    pub fn is_aggregated(&self, pid: u64) -> bool {
        let bus = Bus::open(&self.address);
        let aggregator = bus.ok().and_then(|bus| bus.aggregator());
        aggregator.is_some_and(|aggregator| aggregator.alive && aggregator.pid == pid)
    }

    fn leftovers(&self) -> [PathBuf; 3] {
        let snapshot = self.address.snapshot_link();
        let mut previous = snapshot.clone().into_os_string();
        previous.push(".previous");
        [self.address.file().to_owned(), snapshot, previous.into()]
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        let _ = Bus::remove(&self.address, Removal::Forced);
        // Removing a bus leaves alone what the test planted or broke.
        if self.folder.is_none() {
            for path in self.leftovers() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
