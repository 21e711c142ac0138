//! A cut: of each row the version that counts at one epoch.
//!
//! It is kept small, since a page is made of it: some 45 bytes a counter or gauge.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use super::packed::{pack, unpack};
use super::{Beyond, CUTS, FamilyKey, Listed, ReadOptions, Reader};
use crate::series::Family;
use crate::snapshot::layout::AT_COMMITTED;
use crate::snapshot::row::{BLOCK_BITS, HISTORY, Plain, TIMES, block_of, take_room};
use crate::snapshot::versioned::{Found, committed};
use crate::snapshot::writer::GLOBALS_ROW;

/// What a counter or a gauge packs to, as a rule.
const SHORT_BYTES: usize = 24;

/// So many families may be known that a cut did not come by: a reader of some of them goes on to
/// know the others.
const FAMILIES_SPARE: usize = 1024;

/// Versions of rows at one epoch.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) epoch: u64,
    pub(super) unix_ns: u64,
    pub(super) consistent: bool,
    pub(super) families: Vec<Arc<Family>>,
    pub(super) rows: Vec<CutRow>,
    /// The versions, packed.
    bytes: Vec<u8>,
    /// Times are kept as what they are before this one.
    now_ns: u64,
    pub(super) has_history: bool,
}

/// A row of a cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutRow {
    /// What the directory says of its place, but for the block: where its labels lie.
    word: u64,
    /// Where its version lies, and how many bytes it has.
    start: u32,
    len: u32,
    pub(super) place: u32,
    pub(super) family: u32,
}

impl CutRow {
    /// Where the labels lie. They stay there for as long as the series does.
    pub(super) fn labels(&self) -> usize {
        block_of(self.word)
    }

    /// To be compared with what the directory says later, by
    /// [`is_same_series`](crate::snapshot::row::is_same_series).
    pub(super) fn word(&self) -> u64 {
        self.word
    }
}

impl Cut {
    /// The version of a row; `room` is for that.
    pub(super) fn version<'a>(&self, row: &CutRow, room: &'a mut Vec<u64>) -> &'a [u64] {
        let (start, len) = (row.start as usize, row.len as usize);
        room.clear();
        unpack(self.bytes.get(start..start + len).unwrap_or_default(), room);
        self.turn_times(room);
        room
    }

    /// From times to what they are before that of the cut, or back.
    fn turn_times(&self, version: &mut [u64]) {
        for time in version.get_mut(TIMES).unwrap_or_default() {
            *time = self.now_ns.wrapping_sub(*time);
        }
    }

    /// Takes a version of a series, if that is on the page.
    fn take(&mut self, listed: &Listed, family: u32, version: &mut [u64]) {
        let on_page = Plain::decode(version).is_some_and(|plain| plain.retired_ns == 0);
        let (labels, start) = (listed.header.labels, self.bytes.len());
        let at = u32::try_from(start);
        let (Ok(start_at), true) = (at, on_page && labels >> BLOCK_BITS == 0) else {
            return;
        };
        if !self.has_history {
            version[HISTORY].fill(0);
        }
        self.turn_times(version);
        if self.bytes.capacity() - start < 9 * version.len() {
            // By a quarter: a page is made beside it.
            self.bytes.reserve_exact(start / 4 + 9 * version.len());
        }
        pack(version, &mut self.bytes);
        self.rows.push(CutRow {
            word: listed.word >> BLOCK_BITS << BLOCK_BITS | labels as u64,
            start: start_at,
            len: (self.bytes.len() - start) as u32,
            place: listed.place as u32,
            family,
        });
    }
}

impl Reader {
    /// A cut of all rows within the map whose families are wanted.
    pub(super) fn whole_cut(&mut self, options: &ReadOptions<'_>, beyond: &Beyond) -> Cut {
        let mut known = take(&mut self.families);
        let mut found = None;
        for attempt in 1..=CUTS {
            let cut = self.cut(options, attempt == CUTS, &mut known, beyond);
            if cut.is_some() || beyond.0.get() {
                // The last attempt takes every row.
                found = cut;
                break;
            }
            self.retries += 1;
        }
        let cut: Cut = found.unwrap_or_default();
        if known.len() > 2 * cut.families.len() + FAMILIES_SPARE {
            // Those that are gone since: names may come and go for ever.
            known.retain(|_, family| Arc::strong_count(family) > 1);
        }
        self.families = known;
        cut
    }

    /// Copies the version of each row that counts at one epoch; `None` when one was overtaken.
    fn cut(
        &self,
        options: &ReadOptions<'_>,
        take_newer: bool,
        known: &mut HashMap<FamilyKey, Arc<Family>>,
        beyond: &Beyond,
    ) -> Option<Cut> {
        let words = self.words();
        let mut cut = Cut {
            epoch: committed(words, AT_COMMITTED)?,
            has_history: options.history,
            now_ns: self.globals().unix_ns,
            ..Cut::default()
        };
        let newest = take_newer.then_some(AT_COMMITTED);
        let mut room = words.len();
        let places = self.places();
        cut.rows.reserve(places.len());
        cut.bytes.reserve_exact(places.len() * SHORT_BYTES);
        let mut version = Vec::new();
        let mut families = Families::new(options);
        for place in places {
            version.clear();
            let listed = self.read_listed(place, (cut.epoch, newest), &mut version, beyond);
            let Some((listed, found)) = listed else {
                continue;
            };
            if found == Found::Overtaken && !take_newer {
                return None;
            }
            // A series made after this epoch looks overtaken too.
            let is_found = found == Found::Version && take_room(&mut room, listed.header.len);
            let family = is_found.then(|| {
                families.number(self.family_key(&listed), &mut cut.families, || {
                    self.family_among(&listed, known)
                })
            });
            if let Some(family) = family.flatten() {
                cut.take(&listed, family, &mut version);
            }
        }
        version.clear();
        let found = GLOBALS_ROW.read(words, cut.epoch, newest, &mut version);
        cut.unix_ns = (found == Found::Version).then(|| version[0])?;
        // With newer rows among them the cut may be of several epochs.
        cut.consistent = !take_newer;
        cut.bytes.shrink_to_fit();
        cut.rows.shrink_to_fit();
        Some(cut)
    }

    /// The places that have a series, in the order of the file, which a processor fetches ahead.
    fn places(&self) -> Vec<usize> {
        let (words, directory) = (self.words(), self.shape.directory());
        let mut places: Vec<(usize, u64)> = Vec::with_capacity(self.series_count());
        places.extend((0..self.shape.series_places).filter_map(|place| {
            let word = words.get(directory + place)?;
            (word != 0).then_some((place, word))
        }));
        places.sort_unstable_by_key(|&(_, word)| block_of(word));
        places.into_iter().map(|(place, _)| place).collect()
    }
}

/// Which of the families that a cut came by are wanted, and their numbers.
struct Families<'a> {
    options: &'a ReadOptions<'a>,
    numbers: HashMap<FamilyKey, Option<u32>>,
    /// Neighbours are often of one family.
    last: Option<(FamilyKey, Option<u32>)>,
}

impl<'a> Families<'a> {
    fn new(options: &'a ReadOptions<'a>) -> Families<'a> {
        Families {
            options,
            numbers: HashMap::new(),
            last: None,
        }
    }

    /// The number of a family, if it is wanted; `find` finds it when it is met for the first time.
    fn number(
        &mut self,
        key: Option<FamilyKey>,
        families: &mut Vec<Arc<Family>>,
        find: impl FnOnce() -> Option<Arc<Family>>,
    ) -> Option<u32> {
        let key = key?;
        if let Some((last, number)) = self.last
            && last == key
        {
            return number;
        }
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                // What is no family may be one at the next series: it was freed meanwhile.
                let family = find()?;
                let wanted = self.options.matches;
                let number = wanted.is_none_or(|matches| matches(&family.name)).then(|| {
                    families.push(family);
                    families.len() as u32 - 1
                });
                self.numbers.insert(key, number);
                number
            }
        };
        self.last = Some((key, number));
        number
    }
}

// A page of a hundred thousand series is made of as many.
const _: () = assert!(size_of::<CutRow>() == 24);
