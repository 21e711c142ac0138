//! Where everything lies in the bus region.
//!
//! | section | each           | what                                                          |
//! |---------|----------------|---------------------------------------------------------------|
//! | header  | 4 KiB          | [`Header`]                                                    |
//! | owners  | 512 B          | [`OwnerEntry`] of each attached process                       |
//! | tails   | 128 B          | [`LaneTail`]: what producers write of a lane                  |
//! | heads   | 128 B          | [`LaneHead`]: what the consumer writes of a lane              |
//! | slots   | 64 B           | [`Slot`], lane after lane                                     |
//! | cell heads | 256 B       | [`CellHead`]: what writers of a lane's cells write beside them |
//! | cells   | 16 B           | [`Cell`], lane after lane                                     |
//! | seen    | 8 B            | of each cell the value that was committed; the consumer's     |
//! | families| 8 B            | heads of the families' chains ([`crate::registry`])           |
//! | series  | 8 B            | heads of the series' chains                                   |
//! | arena   | 8 B            | definitions of families and series, in blocks                 |
//!
//! Sections start on pages. All memory is zero at creation, and zero is a legal state of every
//! word.

#[cfg(all(test, not(loom)))]
mod format;

use std::fmt;

use crate::record::SeriesId;
use crate::registry::{FREE_STACKS, GRANULE, place_bits};
use crate::sync::AtomicU64;

/// `qbusbus1`, little end first. Stored last at creation.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"qbusbus1");
/// Raised with every change of the layout.
pub(crate) const VERSION: u64 = 7;

const PAGE: usize = 4096;
/// The most that any geometry may ask for: 64 GiB.
const SIZE_MAX: u64 = 1 << 36;

/// The first page of a bus.
///
/// | offset | field                            | written by                        |
/// |--------|----------------------------------|-----------------------------------|
/// |      0 | magic                            | creator, last                     |
/// |      8 | version                          | creator                           |
/// |     16 | instance (two words, random)     | creator                           |
/// |     32 | size in bytes                    | creator                           |
/// |     40 | geometry (eight words)           | creator                           |
/// |    104 | created, ns since the Unix epoch | creator                           |
/// |    128 | removed (0 or 1)                 | whoever removes                   |
/// |    256 | aggregator (pid, start, ns)      | aggregator                        |
/// |    384 | refusals                         | anyone, fetch_add                 |
/// |    512 | registry fill and changes        | registrants                       |
#[repr(C, align(128))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU64,
    pub(crate) instance: [AtomicU64; 2],
    pub(crate) size: AtomicU64,
    pub(crate) geometry: [AtomicU64; Geometry::WORDS],
    pub(crate) created_ns: AtomicU64,
    _pad0: [AtomicU64; 2],
    /// 1 once the name was taken away: producers that meet a full lane look here.
    pub(crate) removed: AtomicU64,
    _pad1: [AtomicU64; 15],
    pub(crate) aggregator_pid: AtomicU64,
    pub(crate) aggregator_started_ns: AtomicU64,
    /// 1 while the aggregator sleeps ([`crate::doorbell`]).
    pub(crate) doorbell: AtomicU64,
    _pad2: [AtomicU64; 13],
    /// Records of processes that found no place in the owner table.
    pub(crate) dropped_unowned: AtomicU64,
    /// Registrations that found the registry full.
    pub(crate) refused_series: AtomicU64,
    /// Registry entries and lane positions that made no sense, and were refused.
    pub(crate) violations: AtomicU64,
    /// Processes that joined.
    pub(crate) joined: AtomicU64,
    /// Owners that were found dead, and repaired.
    pub(crate) reaped: AtomicU64,
    /// Label values that were too long, and cut.
    pub(crate) cut_values: AtomicU64,
    _pad3: [AtomicU64; 10],
    pub(crate) family_count: AtomicU64,
    pub(crate) series_count: AtomicU64,
    /// Next free word of the arena.
    pub(crate) arena_next: AtomicU64,
    /// How often a series was forgotten, or registered again.
    pub(crate) series_changes: AtomicU64,
    /// Series that were freed.
    pub(crate) series_freed: AtomicU64,
    /// Stacks of free blocks of the arena, by size.
    pub(crate) free_blocks: [AtomicU64; FREE_STACKS],
    /// How many series a family may have that does not say so itself; 0 = any number.
    pub(crate) family_limit: AtomicU64,
    _pad4: [AtomicU64; 9],
}

/// An attached process. Held by whoever holds lock byte [`crate::liveness::owner_byte`] of the
/// file.
///
/// Counters are sums over all occupants of the entry and never go back; `*_base` is where they
/// stood when the present occupant joined.
#[repr(C, align(128))]
pub(crate) struct OwnerEntry {
    /// Generation and phase ([`crate::owner`]).
    pub(crate) state: AtomicU64,
    pub(crate) pid: AtomicU64,
    pub(crate) pid_start_ticks: AtomicU64,
    pub(crate) pid_namespace: AtomicU64,
    pub(crate) joined_ns: AtomicU64,
    pub(crate) dropped_full_base: AtomicU64,
    pub(crate) rejected_base: AtomicU64,
    pub(crate) shared_calls_base: AtomicU64,
    /// Text of at most 8 words, its length in bytes first.
    pub(crate) role: [AtomicU64; 9],
    /// Text of at most 14 words, its length in bytes first.
    pub(crate) command: [AtomicU64; 15],
    /// Records that met a full lane.
    pub(crate) dropped_full: AtomicU64,
    /// Records whose value their series cannot take.
    pub(crate) rejected: AtomicU64,
    /// Calls that wrote to the cells of a shared lane.
    pub(crate) shared_calls: AtomicU64,
    /// Records that met a full lane and were kept as state: their points are missing, and no sum.
    pub(crate) coalesced: AtomicU64,
    /// `dropped_full` by [`crate::MetricType`], and where it stood when the occupant joined.
    pub(crate) dropped_by_type: [AtomicU64; 4],
    pub(crate) dropped_by_type_base: [AtomicU64; 4],
    pub(crate) coalesced_base: AtomicU64,
    _pad1: [AtomicU64; 19],
}

/// What producers write of a lane.
#[repr(C, align(128))]
pub(crate) struct LaneTail {
    /// Position after the last record. Exclusive lane: written by the lessee alone. Shared lane: a
    /// hint that may lag.
    pub(crate) tail: AtomicU64,
    /// Who leases an exclusive lane ([`crate::lane::Lease`]); 0 = nobody.
    pub(crate) lease: AtomicU64,
    _pad: [AtomicU64; 14],
}

/// What the consumer writes of a lane.
#[repr(C, align(128))]
pub(crate) struct LaneHead {
    /// Position of the next record to drain; a producer's view may lag.
    pub(crate) head: AtomicU64,
    /// Of each group of cells the pulse whose calls are committed.
    pub(crate) seen_pulses: [AtomicU64; CELL_GROUPS],
    /// Of each group the pulse up to which it was read, where some of that waits for room in the
    /// snapshot.
    pub(crate) waiting_pulses: [AtomicU64; CELL_GROUPS],
    _pad: [AtomicU64; 15 - 2 * CELL_GROUPS],
}

/// Groups of cells of a lane, each with a pulse of its own.
pub(crate) const CELL_GROUPS: usize = 4;
/// Hand-overs of a lane's cells that are told apart until their calls are committed.
pub(crate) const HANDOVERS: usize = 8;

/// A word of state and whose it is ([`crate::lane::cell`]).
#[repr(C, align(16))]
pub(crate) struct Cell {
    pub(crate) key: AtomicU64,
    pub(crate) value: AtomicU64,
}

/// What writers of a lane's cells write beside them.
#[repr(C, align(128))]
pub(crate) struct CellHead {
    /// Calls that wrote to each group of cells. Never cleared.
    pub(crate) pulses: [AtomicU64; CELL_GROUPS],
    /// Cells below this were used; all others are as at creation.
    pub(crate) used: AtomicU64,
    /// Exclusive lane: the lease of its last writer, 0 before the first.
    pub(crate) writer: AtomicU64,
    /// How often the cells passed to another owner.
    pub(crate) handovers: AtomicU64,
    _pad: [AtomicU64; 9],
    /// The last hand-overs, a ring: the lease of who had written, and the sum of all pulses then.
    pub(crate) handover: [[AtomicU64; 2]; HANDOVERS],
}

/// A record and the word that says whose it is.
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) sequence: AtomicU64,
    pub(crate) payload: [AtomicU64; crate::record::PAYLOAD_WORDS],
}

#[cfg(test)]
mod zeroed {
    use super::*;

    fn words<const N: usize>() -> [AtomicU64; N] {
        std::array::from_fn(|_| AtomicU64::new(0))
    }

    impl LaneTail {
        pub(crate) fn zeroed() -> LaneTail {
            let [tail, lease] = words();
            LaneTail {
                tail,
                lease,
                _pad: words(),
            }
        }
    }

    impl LaneHead {
        pub(crate) fn zeroed() -> LaneHead {
            LaneHead {
                head: AtomicU64::new(0),
                seen_pulses: words(),
                waiting_pulses: words(),
                _pad: words(),
            }
        }
    }

    impl Cell {
        pub(crate) fn zeroed() -> Cell {
            let [key, value] = words();
            Cell { key, value }
        }
    }

    impl CellHead {
        pub(crate) fn zeroed() -> CellHead {
            let [used, writer, handovers] = words();
            CellHead {
                pulses: words(),
                used,
                writer,
                handovers,
                _pad: words(),
                handover: std::array::from_fn(|_| words()),
            }
        }
    }

    impl Slot {
        pub(crate) fn zeroed() -> Slot {
            Slot {
                sequence: AtomicU64::new(0),
                payload: words(),
            }
        }
    }
}

#[cfg(not(loom))]
mod drawing {
    use super::*;
    use std::mem::{offset_of, size_of};

    const _: () = assert!(offset_of!(Header, size) == 32);
    const _: () = assert!(offset_of!(Header, created_ns) == 104);
    const _: () = assert!(offset_of!(Header, removed) == 128);
    const _: () = assert!(offset_of!(Header, aggregator_pid) == 256);
    const _: () = assert!(offset_of!(Header, dropped_unowned) == 384);
    const _: () = assert!(offset_of!(Header, family_count) == 512);
    const _: () = assert!(size_of::<Header>() <= PAGE);
    const _: () = assert!(offset_of!(OwnerEntry, dropped_full) == 256);
    const _: () = assert!(size_of::<OwnerEntry>() == 512);
    const _: () = assert!(size_of::<LaneTail>() == 128);
    const _: () = assert!(size_of::<LaneHead>() == 128);
    const _: () = assert!(size_of::<Slot>() == 64);
    const _: () = assert!(size_of::<Cell>() == 16);
    const _: () = assert!(offset_of!(CellHead, handover) == 128);
    const _: () = assert!(size_of::<CellHead>() == 256);
}

/// How large a bus is. Fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Ring buffers, 1 to 4,096.
    pub lanes: u64,
    /// How many of them are shared by any number of producers; at most `lanes`.
    pub shared_lanes: u64,
    /// Slots of each lane: a power of two, 2 to 2^24.
    pub slots: u64,
    /// Processes that can be attached at once, 1 to 4,096.
    pub owners: u64,
    /// Metric families, 1 to 2^20.
    pub families: u64,
    /// Series, 1 to 2^24.
    pub series: u64,
    /// Words for the definitions of families and series.
    pub arena_words: u64,
    /// Cells of each lane, which hold the state of counters and histograms: a power of two, 16 to
    /// 2^15; 0 is none, and then all of it goes through the ring.
    pub cells: u64,
}

impl Default for Geometry {
    /// 64 lanes of 4,096 slots (16 MiB) and 2,048 cells (3 MiB), 4 of them shared; 1,024 owners;
    /// 2,048 families and 16,384 series in 5 MiB of definitions. A container's /dev/shm is 64 MiB
    /// by default.
    fn default() -> Self {
        Geometry {
            lanes: 64,
            shared_lanes: 4,
            slots: 4096,
            owners: 1024,
            families: 2048,
            series: 16384,
            arena_words: 0,
            cells: 2048,
        }
        .with_arena()
    }
}

/// A number of a geometry that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeometryError {
    /// Which number.
    pub field: &'static str,
    /// What it was.
    pub found: u64,
    /// What it can be.
    pub expected: String,
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, expected {}",
            self.field, self.found, self.expected
        )
    }
}

impl std::error::Error for GeometryError {}

impl Geometry {
    /// The same with an arena that holds definitions of 256 bytes a series, 512 a family.
    #[must_use]
    pub fn with_arena(self) -> Geometry {
        Geometry {
            arena_words: 64 + self.series * 32 + self.families * 64,
            ..self
        }
    }

    /// Groups of cells of each lane.
    pub const CELL_GROUPS: usize = CELL_GROUPS;

    /// Words that a geometry takes in the header.
    pub(crate) const WORDS: usize = 8;

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        let Geometry {
            lanes,
            shared_lanes,
            slots,
            owners,
            families,
            series,
            arena_words,
            cells,
        } = self;
        [
            lanes,
            shared_lanes,
            slots,
            owners,
            families,
            series,
            arena_words,
            cells,
        ]
    }

    pub(crate) fn from_words(words: [u64; Self::WORDS]) -> Geometry {
        let [
            lanes,
            shared_lanes,
            slots,
            owners,
            families,
            series,
            arena_words,
            cells,
        ] = words;
        Geometry {
            lanes,
            shared_lanes,
            slots,
            owners,
            families,
            series,
            arena_words,
            cells,
        }
    }

    /// Whether every number is within its bounds, so that arithmetic with them cannot overflow.
    ///
    /// # Errors
    ///
    /// The first number that is not.
    pub fn check(&self) -> Result<(), GeometryError> {
        let within = |field, found, low: u64, high: u64| {
            if (low..=high).contains(&found) {
                return Ok(());
            }
            Err(GeometryError {
                field,
                found,
                expected: format!("{low} to {high}"),
            })
        };
        let power_of_two = |field, found: u64| {
            if found.is_power_of_two() {
                return Ok(());
            }
            let expected = format!("a power of two, {} say", found.next_power_of_two());
            Err(GeometryError {
                field,
                found,
                expected,
            })
        };
        within("lanes", self.lanes, 1, 4096)?;
        within("shared lanes", self.shared_lanes, 0, self.lanes)?;
        within("slots", self.slots, 2, 1 << 24)?;
        power_of_two("slots", self.slots)?;
        within("owners", self.owners, 1, 4096)?;
        within("families", self.families, 1, 1 << 20)?;
        within("series", self.series, 1, 1 << 24)?;
        within("arena words", self.arena_words, 1, u64::from(u32::MAX))?;
        if self.cells != 0 {
            within("cells", self.cells, 16, 1 << 15)?;
            power_of_two("cells", self.cells)?;
        }
        within("size in bytes", Sections::of(self).size as u64, 0, SIZE_MAX)
    }

    /// Bytes of a bus of this geometry.
    pub fn size_bytes(&self) -> u64 {
        Sections::of(self).size as u64
    }

    /// Heads of the chains of so many entries.
    pub(crate) fn index_words(entries: u64) -> usize {
        (entries as usize * 2).next_power_of_two()
    }

    /// Places of series are below this: more than there are series.
    pub fn series_places(&self) -> usize {
        self.arena_words as usize / GRANULE + 1
    }

    /// The place of a series, in tables of all: no two series that are registered have the same.
    #[inline]
    pub fn place_of(&self, id: SeriesId) -> usize {
        (id.0 & self.place_mask()) as usize
    }

    /// Which bits of an id are the place of its series; the others tell it from those that had the
    /// place before.
    pub fn place_mask(&self) -> u32 {
        (1 << place_bits(self.arena_words as usize)) - 1
    }
}

/// Offsets of the sections in bytes, for a checked geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sections {
    pub(crate) owners: usize,
    pub(crate) tails: usize,
    pub(crate) heads: usize,
    pub(crate) slots: usize,
    pub(crate) cell_heads: usize,
    pub(crate) cells: usize,
    pub(crate) seen: usize,
    pub(crate) families: usize,
    pub(crate) series: usize,
    pub(crate) arena: usize,
    pub(crate) size: usize,
}

impl Sections {
    pub(crate) fn of(geometry: &Geometry) -> Sections {
        let after = |start: usize, count: u64, each: usize| {
            (start + count as usize * each).next_multiple_of(PAGE)
        };
        let owners = PAGE;
        let tails = after(owners, geometry.owners, 512);
        let heads = after(tails, geometry.lanes, 128);
        let slots = after(heads, geometry.lanes, 128);
        let cell_heads = after(slots, geometry.lanes * geometry.slots, 64);
        let cells = after(cell_heads, geometry.lanes, 256);
        let seen = after(cells, geometry.lanes * geometry.cells, 16);
        let families = after(seen, geometry.lanes * geometry.cells, 8);
        let series = after(families, Geometry::index_words(geometry.families) as u64, 8);
        let arena = after(series, Geometry::index_words(geometry.series) as u64, 8);
        let size = after(arena, geometry.arena_words, 8);
        Sections {
            owners,
            tails,
            heads,
            slots,
            cell_heads,
            cells,
            seen,
            families,
            series,
            arena,
            size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_fits_a_container() {
        let geometry = Geometry::default();
        assert_eq!(geometry.check(), Ok(()));
        assert!(
            geometry.size_bytes() <= 26 << 20,
            "{} bytes",
            geometry.size_bytes()
        );
    }

    #[test]
    fn wild_numbers_are_refused() {
        let wild = [u64::MAX; Geometry::WORDS];
        assert!(Geometry::from_words(wild).check().is_err());
        for field in 0..Geometry::WORDS {
            let mut words = Geometry::default().to_words();
            words[field] = u64::MAX;
            assert!(
                Geometry::from_words(words).check().is_err(),
                "field {field}"
            );
        }
        let odd = Geometry {
            slots: 4095,
            ..Geometry::default()
        };
        assert_eq!(
            odd.check().unwrap_err().to_string(),
            "slots is 4095, expected a power of two, 4096 say"
        );
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let largest = Geometry {
            lanes: 4096,
            shared_lanes: 0,
            slots: 1 << 24,
            owners: 4096,
            families: 1 << 20,
            series: 1 << 24,
            arena_words: u64::from(u32::MAX),
            cells: 1 << 15,
        };
        assert_eq!(largest.check().unwrap_err().field, "size in bytes");
    }
}
