//! A cut: of each row the version that counts at one epoch.
//!
//! It is kept small, since a page is made of it: 64 bytes a counter or gauge, where no histories
//! are asked for.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use super::{Beyond, CUTS, FamilyKey, Listed, ReadOptions, Reader};
use crate::series::Family;
use crate::snapshot::layout::{AT_COMMITTED, PLAIN_LEN};
use crate::snapshot::row::{ASIDE, BLOCK_BITS, Plain, block_of, take_room};
use crate::snapshot::versioned::{Found, committed};
use crate::snapshot::writer::GLOBALS_ROW;

/// Versions of rows at one epoch.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) epoch: u64,
    pub(super) unix_ns: u64,
    pub(super) consistent: bool,
    pub(super) families: Vec<Arc<Family>>,
    pub(super) rows: Vec<CutRow>,
    words: Vec<u64>,
    /// The words of a version are all there, those of [`ASIDE`] too.
    pub(super) has_history: bool,
}

/// A row of a cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutRow {
    /// What the directory says of its place, but for the block: where its labels lie.
    word: u64,
    /// Where its version lies, and how long that is.
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
    /// The version of a row, whole; `room` is for that.
    pub(super) fn version<'a>(&'a self, row: &CutRow, room: &'a mut Vec<u64>) -> &'a [u64] {
        let (start, len) = (row.start as usize, row.len as usize);
        let kept = self.words.get(start..start + len).unwrap_or_default();
        if self.has_history || len < ASIDE.start {
            return kept;
        }
        room.clear();
        room.extend_from_slice(&kept[..ASIDE.start]);
        room.extend(ASIDE.map(|_| 0));
        room.extend_from_slice(&kept[ASIDE.start..]);
        room
    }

    /// Takes the version that the words from `start` on are, of a series that is on the page.
    fn take(&mut self, listed: &Listed, family: u32, start: usize) {
        let on_page =
            Plain::decode(&self.words[start..]).is_some_and(|plain| plain.retired_ns == 0);
        let labels = listed.header.labels;
        let at = u32::try_from(start);
        let (Ok(at), true) = (at, on_page && labels >> BLOCK_BITS == 0) else {
            self.words.truncate(start);
            return;
        };
        if !self.has_history {
            self.words.drain(start + ASIDE.start..start + ASIDE.end);
        }
        self.rows.push(CutRow {
            word: listed.word >> BLOCK_BITS << BLOCK_BITS | labels as u64,
            start: at,
            len: (self.words.len() - start) as u32,
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
        self.families = known;
        found.unwrap_or_default()
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
            ..Cut::default()
        };
        let newest = take_newer.then_some(AT_COMMITTED);
        let mut room = words.len();
        let places = self.places();
        cut.rows.reserve(places.len());
        let aside = if options.history { 0 } else { ASIDE.len() };
        // The last one is cut short after it was read.
        cut.words
            .reserve((places.len() + 1) * (PLAIN_LEN - aside) + aside);
        let mut families = Families::new(options);
        for place in places {
            let start = cut.words.len();
            let epoch = (cut.epoch, newest);
            let listed = self.read_listed(place, epoch, &mut cut.words, beyond);
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
            match family.flatten() {
                Some(family) => cut.take(&listed, family, start),
                None => cut.words.truncate(start),
            }
        }
        let mut version = Vec::new();
        let found = GLOBALS_ROW.read(words, cut.epoch, newest, &mut version);
        cut.unix_ns = (found == Found::Version).then(|| version[0])?;
        // With newer rows among them the cut may be of several epochs.
        cut.consistent = !take_newer;
        Some(cut)
    }

    /// The places that have a series, in the order of the file, which a processor fetches ahead.
    fn places(&self) -> Vec<usize> {
        let (words, directory) = (self.words(), self.shape.directory());
        let mut places: Vec<(usize, u64)> = (0..self.shape.series_places)
            .filter_map(|place| Some((place, words.get(directory + place)?)))
            .filter(|&(_, word)| word != 0)
            .collect();
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
