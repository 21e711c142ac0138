//! A cut: of each row the version that counts at one epoch.
//!
//! It is kept small, since a page is made beside it: some 28 bytes a counter or gauge, and 40 with
//! its times.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use super::packed::{pack, push_small, take_small, unpack};
use super::{Beyond, CUTS, FamilyKey, Listed, ReadOptions, Reader};
use crate::export::Format;
use crate::scratch::Scratch;
use crate::series::Family;
use crate::snapshot::layout::AT_COMMITTED;
use crate::snapshot::merged::is_merged;
use crate::snapshot::row::{
    BLOCK_BITS, FIRST_TIME, HISTORY, LAST_TIME, Plain, RECORDS, TIMES, block_of, take_room,
};
use crate::snapshot::versioned::{Found, committed};
use crate::snapshot::writer::GLOBALS_ROW;

/// What a counter or a gauge packs to, as a rule, and what each of its times does.
const SHORT_BYTES: usize = 12;
const TIME_BYTES: usize = 7;

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
    /// Of each row the number of its family, the length of its version, and that, packed.
    bytes: Vec<u8>,
    /// Times are kept as what they are before this one.
    now_ns: u64,
    pub(super) kept: Kept,
}

/// What is kept of a version beside its values. What is not is 0, and times are that of the commit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// Where its history lies.
    pub(super) history: bool,
    /// Since when it counts.
    start: bool,
    /// When it was emitted last, and how often.
    last: bool,
}

impl Kept {
    /// All of it, or what a page of that format says.
    pub(super) fn of(options: &ReadOptions<'_>, format: Option<Format>) -> Kept {
        let is_text = matches!(format, Some(Format::Prometheus | Format::OpenMetrics));
        Kept {
            history: options.history,
            start: !is_text,
            last: !is_text && format != Some(Format::Protobuf),
        }
    }

    fn strip(self, version: &mut [u64]) {
        if !self.history {
            version[HISTORY].fill(0);
        }
        if !self.start {
            version[FIRST_TIME] = 0;
        }
        if !self.last {
            version[LAST_TIME] = 0;
            // Whether there are any says whether a gauge has a value.
            version[RECORDS] = version[RECORDS].min(1);
        }
    }
}

/// A row of a cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutRow {
    /// What the directory says of its place, but for the block: where its labels lie. The low half
    /// and the high one.
    word: [u32; 2],
    /// Where its version lies.
    start: u32,
    pub(super) place: u32,
}

impl CutRow {
    /// Where the labels lie. They stay there for as long as the series does.
    pub(super) fn labels(&self) -> usize {
        block_of(self.word())
    }

    /// To be compared with what the directory says later, by
    /// [`is_same_series`](crate::snapshot::row::is_same_series).
    pub(super) fn word(&self) -> u64 {
        let [low, high] = self.word.map(u64::from);
        high << 32 | low
    }
}

impl Cut {
    /// What is kept of a row.
    fn of(&self, row: &CutRow) -> &[u8] {
        self.bytes.get(row.start as usize..).unwrap_or_default()
    }

    /// The number of a row's family.
    pub(super) fn family_number(&self, row: &CutRow) -> usize {
        take_small(&mut self.of(row)) as usize
    }

    /// The family of a row.
    pub(super) fn family(&self, row: &CutRow) -> &Arc<Family> {
        &self.families[self.family_number(row)]
    }

    /// The version of a row; `room` is for that.
    pub(super) fn version<'a>(&self, row: &CutRow, room: &'a mut Vec<u64>) -> &'a [u64] {
        let mut bytes = self.of(row);
        take_small(&mut bytes);
        let len = take_small(&mut bytes) as usize;
        room.clear();
        unpack(bytes.get(..len).unwrap_or_default(), room);
        self.turn_times(room);
        room
    }

    /// From times to what they are before that of the cut, or back.
    fn turn_times(&self, version: &mut [u64]) {
        for time in version.get_mut(TIMES).unwrap_or_default() {
            *time = self.now_ns.wrapping_sub(*time);
        }
    }

    /// Takes a version of a series, if that is on the page; `packed` is for that.
    fn take(&mut self, listed: &Listed, family: u32, version: &mut [u64], packed: &mut Vec<u8>) {
        let on_page = Plain::decode(version).is_some_and(|plain| plain.retired_ns == 0);
        let (labels, start) = (listed.header.labels, self.bytes.len());
        let at = u32::try_from(start);
        let (Ok(at), true) = (at, on_page && labels >> BLOCK_BITS == 0) else {
            return;
        };
        self.turn_times(version);
        // Of several values of a process the last one counts.
        let is_merged = is_merged(&self.families[family as usize]);
        let kept = Kept {
            last: self.kept.last || is_merged,
            ..self.kept
        };
        kept.strip(version);
        packed.clear();
        pack(version, packed);
        let room = packed.len() + 2 * size_of::<u64>();
        if self.bytes.capacity() - start < room {
            // By a quarter: a page is made beside it.
            self.bytes.reserve_exact(start / 4 + room);
        }
        push_small(family, &mut self.bytes);
        push_small(packed.len() as u32, &mut self.bytes);
        self.bytes.extend_from_slice(packed);
        let word = listed.word >> BLOCK_BITS << BLOCK_BITS | labels as u64;
        self.rows.push(CutRow {
            word: [word as u32, (word >> 32) as u32],
            start: at,
            place: listed.place as u32,
        });
    }
}

impl Reader {
    /// A cut of all rows within the map whose families are wanted.
    pub(super) fn whole_cut(
        &mut self,
        options: &ReadOptions<'_>,
        kept: Kept,
        beyond: &Beyond,
    ) -> Cut {
        let mut known = take(&mut self.families);
        let mut found = None;
        for attempt in 1..=CUTS {
            let cut = self.cut((options, kept), attempt == CUTS, &mut known, beyond);
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
        (options, kept): (&ReadOptions<'_>, Kept),
        take_newer: bool,
        known: &mut HashMap<FamilyKey, Arc<Family>>,
        beyond: &Beyond,
    ) -> Option<Cut> {
        let words = self.words();
        let mut cut = Cut {
            epoch: committed(words, AT_COMMITTED)?,
            kept,
            now_ns: self.globals().unix_ns,
            ..Cut::default()
        };
        let newest = take_newer.then_some(AT_COMMITTED);
        let mut room = words.len();
        let (places, len) = self.places();
        let (places, _) = places.bytes().as_chunks();
        cut.rows.reserve_exact(len);
        let times = [kept.start, kept.last].map(usize::from);
        let packed = SHORT_BYTES + times.iter().sum::<usize>() * TIME_BYTES;
        cut.bytes.reserve_exact(len * packed);
        let (mut version, mut packed) = (Vec::new(), Vec::new());
        let mut families = Families::new(options);
        for place in &places[..len] {
            let place = u128::from_be_bytes(*place) as u64 as usize;
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
                cut.take(&listed, family, &mut version, &mut packed);
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

    /// The places that have a series, in the order of the file, which a processor fetches ahead;
    /// and how many they are.
    fn places(&self) -> (Scratch, usize) {
        let (words, directory) = (self.words(), self.shape.directory());
        // What is not written to takes no memory.
        let mut scratch = Scratch::of(self.shape.series_places * size_of::<Place>());
        let (places, _) = scratch.bytes_mut().as_chunks_mut();
        let mut len = 0;
        for place in 0..self.shape.series_places {
            let word = words.get(directory + place).unwrap_or(0);
            if word != 0 {
                places[len] = ((block_of(word) as u128) << 64 | place as u128).to_be_bytes();
                len += 1;
            }
        }
        places[..len].sort_unstable_by_key(|place| u128::from_be_bytes(*place));
        (scratch, len)
    }
}

/// Block and place of a series.
type Place = [u8; 16];

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
const _: () = assert!(size_of::<CutRow>() == 16);
