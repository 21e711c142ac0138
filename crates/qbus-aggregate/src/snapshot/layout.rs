//! Where everything lies in a snapshot file, in words.
//!
//! | word   | what                                                              | written by     |
//! |--------|-------------------------------------------------------------------|----------------|
//! | 0      | magic, last                                                       | creator        |
//! | 1–10   | version, instance (2), lanes, owners, series places, series, arena| creator        |
//! |        | words, cells, created                                             |                |
//! | 11–43  | length of the bus's name, and the name                            | creator        |
//! | 48     | next free word of the heap                                        | aggregator     |
//! | 49     | next free word of the definitions                                 | aggregator     |
//! | 50     | words of the heap that histories took                             | aggregator     |
//! | 64     | `committed`: the epoch that counts                                | commit         |
//! | 80, 81 | the aggregator's pid and start                                    | aggregator     |
//! | 96     | globals, a row                                                    | commit         |
//! | 512    | lane heads, a row each                                            | commit         |
//! |        | owners, a row each                                                | commit         |
//! |        | cells, a row for each group of each lane: its pulse, and the      | commit         |
//! |        | value of each cell up to which it was folded                      |                |
//! |        | directory: where each series' block lies, by its place, and its   | aggregator     |
//! |        | id >> 8 from bit 40 on; 0 = nowhere                               |                |
//! |        | blocks: one for each series that can be registered                | fold, commit   |
//! |        | definitions of families and series, as the bus's arena has them   | aggregator     |
//! |        | heap: recent records, larger blocks, histories, exemplars,        | fold, commit   |
//! |        | windows                                                           |                |
//!
//! A series' block is a header and a row ([`super::row`]). Those of counters and gauges are of one
//! size, and there is a place for each of as many series as the bus can register: whatever else
//! runs out of room, a total does not. A histogram's or a summary's block lies in the heap. A ring
//! ([`super::ring`]) holds points.

use qbus::Geometry;

use super::versioned::row_words;

pub(crate) const CELL_GROUPS: usize = Geometry::CELL_GROUPS;

/// `qbussnap`, little end first. Stored last at creation.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"qbussnap");
/// Raised with every change of the layout.
pub(crate) const VERSION: u64 = 5;

pub(crate) const AT_MAGIC: usize = 0;
pub(crate) const AT_VERSION: usize = 1;
pub(crate) const AT_INSTANCE: usize = 2;
pub(crate) const AT_SHAPE: usize = 4;
pub(crate) const AT_CREATED: usize = AT_SHAPE + Shape::WORDS;
pub(crate) const AT_NAME: usize = 11;
pub(crate) const NAME_WORDS: usize = 32;
pub(crate) const AT_ALLOCATED: usize = 48;
pub(crate) const AT_DEFINED: usize = 49;
pub(crate) const AT_HISTORIES: usize = 50;
pub(crate) const AT_COMMITTED: usize = 64;
pub(crate) const AT_PID: usize = 80;
pub(crate) const AT_STARTED: usize = 81;
pub(crate) const AT_GLOBALS: usize = 96;
const SECTIONS: usize = 512;

/// Words of a version of the globals: see [`super::tally::Globals`].
pub(crate) const GLOBALS_LEN: usize = 10;
/// Words of a version of an owner's row: see [`super::tally::OwnerRow`].
pub(crate) const OWNER_LEN: usize = 17;
/// Words of a version of a counter's or a gauge's row: see [`super::row::Plain`].
pub(crate) const PLAIN_LEN: usize = 9;
/// Words of a series' block before its row: its id, where the definitions of its family and of
/// itself lie, where its exemplars lie, and the length of a version.
pub(crate) const BLOCK_HEADER: usize = 5;
/// Word of a block's header that leads to its family.
pub(crate) const AT_FAMILY: usize = 1;
/// Which of them says where its exemplars lie.
pub(crate) const AT_EXEMPLARS: usize = 3;
/// Words of a counter's or a gauge's block.
pub(crate) const BLOCK_WORDS: usize = BLOCK_HEADER + row_words(PLAIN_LEN);

const _: () = assert!(AT_CREATED < AT_NAME);
const _: () = assert!(AT_NAME + 1 + NAME_WORDS <= AT_ALLOCATED);
const _: () = assert!(AT_GLOBALS + row_words(GLOBALS_LEN) <= SECTIONS);

/// The numbers that the layout follows from. Fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) lanes: usize,
    pub(crate) owners: usize,
    /// Places of series: more than series.
    pub(crate) series_places: usize,
    /// Series that the bus can register.
    pub(crate) series: usize,
    /// Words for their definitions.
    pub(crate) arena_words: usize,
    /// Cells of each lane.
    pub(crate) cells: usize,
}

impl Shape {
    pub(crate) const WORDS: usize = 6;

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        let Shape {
            lanes,
            owners,
            series_places,
            series,
            arena_words,
            cells,
        } = self;
        [lanes, owners, series_places, series, arena_words, cells].map(|number| number as u64)
    }

    /// Decodes a shape that another process wrote; `None` when arithmetic with it could overflow.
    pub(crate) fn from_words(words: [u64; Self::WORDS]) -> Option<Shape> {
        if words.iter().any(|&number| number > 1 << 32) {
            return None;
        }
        let [lanes, owners, series_places, series, arena_words, cells] =
            words.map(|number| number as usize);
        Some(Shape {
            lanes,
            owners,
            series_places,
            series,
            arena_words,
            cells,
        })
    }

    /// Which bits of a series' id are its place.
    pub(crate) fn place_mask(self) -> u32 {
        let bits = usize::BITS - self.series_places.saturating_sub(1).leading_zeros();
        (1_u64 << bits.min(32)).wrapping_sub(1) as u32
    }

    pub(crate) fn heads(self) -> usize {
        SECTIONS
    }

    pub(crate) fn owner_rows(self) -> usize {
        self.heads() + self.lanes * row_words(1)
    }

    pub(crate) fn cell_rows(self) -> usize {
        self.owner_rows() + self.owners * row_words(OWNER_LEN)
    }

    /// Words of a version of a group of cells: its pulse, and a word for each.
    pub(crate) fn cells_len(self) -> usize {
        1 + self.cells / CELL_GROUPS
    }

    pub(crate) fn directory(self) -> usize {
        self.cell_rows() + self.lanes * CELL_GROUPS * row_words(self.cells_len())
    }

    pub(crate) fn blocks(self) -> usize {
        self.directory() + self.series_places
    }

    pub(crate) fn definitions(self) -> usize {
        self.blocks() + self.series * BLOCK_WORDS
    }

    pub(crate) fn heap(self) -> usize {
        self.definitions() + self.arena_words
    }
}
