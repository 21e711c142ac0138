//! Where everything lies in a snapshot file, in words.
//!
//! | word   | what                                                              | written by     |
//! |--------|-------------------------------------------------------------------|----------------|
//! | 0      | magic, last                                                       | creator        |
//! | 1–10   | version, instance (2), lanes, owners, series ids, longest history, | creator        |
//! |        | created, length of the bus's name                                 |                |
//! | 11–42  | the bus's name                                                    | creator        |
//! | 48     | next free word of the heap                                        | aggregator     |
//! | 64     | `committed`: the epoch that counts                                | aggregator     |
//! | 80, 81 | the aggregator's pid and start                                    | aggregator     |
//! | 96     | globals, a row                                                    | commit         |
//! | 512    | lane heads, a row each                                            | commit         |
//! |        | owners, a row each                                                | commit         |
//! |        | directory: where each series' block lies, 0 = nowhere             | aggregator     |
//! |        | heap: series blocks, definitions, histories, recent records       | fold, commit   |
//!
//! A series block is its type, where its two definitions lie, the length of a version, and a row. A
//! ring is its capacity, a claim, and the points: before a point is overwritten the claim says so, so
//! that a reader knows which of the points that it copied are still those of its epoch.

use super::versioned::row_words;

/// `qbussnap`, little end first. Stored last at creation.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"qbussnap");
/// Raised with every change of the layout.
pub(crate) const VERSION: u64 = 1;

pub(crate) const AT_MAGIC: usize = 0;
pub(crate) const AT_VERSION: usize = 1;
pub(crate) const AT_INSTANCE: usize = 2;
pub(crate) const AT_SHAPE: usize = 4;
pub(crate) const AT_CREATED: usize = 9;
pub(crate) const AT_NAME: usize = 10;
pub(crate) const NAME_WORDS: usize = 32;
pub(crate) const AT_ALLOCATED: usize = 48;
pub(crate) const AT_COMMITTED: usize = 64;
pub(crate) const AT_PID: usize = 80;
pub(crate) const AT_STARTED: usize = 81;
pub(crate) const AT_GLOBALS: usize = 96;
const SECTIONS: usize = 512;

/// Words of a version of the globals: see [`super::Globals`].
pub(crate) const GLOBALS_LEN: usize = 9;
/// Words of a version of an owner's row: see [`super::OwnerRow`].
pub(crate) const OWNER_LEN: usize = 13;
/// Words of a recent record: timestamp, series and kind, value, count.
pub(crate) const RECENT_WORDS: usize = 4;
/// Words of a history point: timestamp, value.
pub(crate) const POINT_WORDS: usize = 2;
/// Words of a ring before its points: capacity, claim.
pub(crate) const RING_HEADER: usize = 2;
/// Words of a series block before its row.
pub(crate) const BLOCK_HEADER: usize = 4;

const _: () = assert!(AT_NAME + 1 + NAME_WORDS <= AT_ALLOCATED);
const _: () = assert!(AT_GLOBALS + row_words(GLOBALS_LEN) <= SECTIONS);

/// The numbers that the layout follows from. Fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) lanes: usize,
    pub(crate) owners: usize,
    pub(crate) series_ids: usize,
    /// The most points of a series' history. Rings that are there already may be longer.
    pub(crate) history: usize,
}

impl Shape {
    pub(crate) const WORDS: usize = 4;

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        [self.lanes, self.owners, self.series_ids, self.history].map(|number| number as u64)
    }

    /// Decodes a shape that another process wrote; `None` when arithmetic with it could overflow.
    pub(crate) fn from_words(words: [u64; Self::WORDS]) -> Option<Shape> {
        if words.iter().any(|&number| number > 1 << 28) {
            return None;
        }
        let [lanes, owners, series_ids, history] = words.map(|number| number as usize);
        Some(Shape {
            lanes,
            owners,
            series_ids,
            history,
        })
    }

    /// Whether everything before the heap lies at the same places. Histories lie in the heap.
    pub(crate) fn is_laid_out_as(self, other: Shape) -> bool {
        Shape { history: 0, ..self }
            == Shape {
                history: 0,
                ..other
            }
    }

    pub(crate) fn heads(self) -> usize {
        SECTIONS
    }

    pub(crate) fn owner_rows(self) -> usize {
        self.heads() + self.lanes * row_words(1)
    }

    pub(crate) fn directory(self) -> usize {
        self.owner_rows() + self.owners * row_words(OWNER_LEN)
    }

    pub(crate) fn heap(self) -> usize {
        self.directory() + self.series_ids
    }
}
