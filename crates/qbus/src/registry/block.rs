//! Blocks: where definitions lie, and who each belongs to.
//!
//! The arena is cut into blocks of a few sizes. A block begins with five words:
//!
//! | word | series                             | family                               |
//! |------|------------------------------------|--------------------------------------|
//! | 0    | [`Life`]                           | the same                             |
//! | 1    | since when it is forgotten, in ns  | time to live                         |
//! | 2    | the owner that it is bound to      | its [`limit`](super::limit)          |
//! | 3    | next block of its chain, size class, tag | the same                       |
//! | 4    | the process that registered it     | its later [`help`](super::help) text |
//!
//! and the definition follows. Words 1 of a family, 2 and 4 carry the block's generation below what
//! they say. A block that was freed lies on the stack of its class until somebody
//! takes it. It is at the same place for ever, so that its `Life` tells a later series that lies
//! there from an earlier one: an id names a block and a generation of it.
//!
//! * **E7 reuse** who frees a block changes what led to it, then pushes it (Release); who takes it
//!   (Acquire) puts a Release fence before what it writes → who reads a definition loads, after an
//!   Acquire fence, what led there once more: the same means that it read what it was led to.

use super::definition::Sink;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::testpoint;

/// Blocks begin at multiples of so many words.
pub(crate) const GRANULE: usize = 16;
/// Words of a block before its definition.
pub(super) const HEADER: usize = 5;
const LIFE: usize = 0;
/// Since when a series is forgotten, in nanoseconds since the Unix epoch; a family's time to live.
pub(super) const SINCE: usize = 1;
pub(super) const TTL: usize = 1;
/// The owner that a series is bound to; how many series a family has.
pub(super) const OWNER: usize = 2;
pub(super) const POPULATION: usize = 2;
const NEXT: usize = 3;
/// The process that registered a series; where a family's help text lies if it was replaced.
pub(super) const REGISTRANT: usize = 4;
pub(super) const HELP: usize = 4;

/// Sizes of blocks, in granules. The last one holds the longest definition.
const CLASSES: [usize; FREE_STACKS] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384,
];
/// How many there are: a stack of free blocks for each.
pub(crate) const FREE_STACKS: usize = 17;

const CLASS_SHIFT: u32 = 32;
const TAG_SHIFT: u32 = 40;

/// How often something that others changed meanwhile is tried again: each time somebody else got
/// ahead, unless memory is garbage.
pub(super) const TRIES: usize = if cfg!(loom) { 8 } else { 1000 };

/// A block's first word: generation (16 bits), flags, and how often the series was forgotten or
/// remembered (32 bits), so that no exchange takes a later state for an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(pub(super) u64);

impl Life {
    /// What is defined here counts.
    const OPEN: u64 = 1 << 16;
    /// The aggregator is to take it off the page.
    const FORGOTTEN: u64 = 1 << 17;
    /// And is to free it at once: somebody wants its family's name.
    const AT_ONCE: u64 = 1 << 18;
    /// A family that is about to be freed unless somebody registers a series.
    const CLOSING: u64 = 1 << 19;
    /// It lies on the stack of its class, or is about to.
    const OFFERED: u64 = 1 << 20;
    const CHANGE: u64 = 1 << 32;
    const GENERATION: u64 = 0xffff;

    pub(super) fn generation(self) -> u64 {
        self.0 & Self::GENERATION
    }

    pub(super) fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    pub(super) fn is_forgotten(self) -> bool {
        self.0 & Self::FORGOTTEN != 0
    }

    pub(super) fn is_at_once(self) -> bool {
        self.0 & Self::AT_ONCE != 0
    }

    pub(super) fn is_closing(self) -> bool {
        self.0 & Self::CLOSING != 0
    }

    fn is_offered(self) -> bool {
        self.0 & Self::OFFERED != 0
    }

    /// Who takes the block goes on with its generation.
    fn opened(self) -> Life {
        Life(self.generation() | Self::OPEN)
    }

    /// Nobody is led to it by an id.
    fn held(self) -> Life {
        Life(self.generation())
    }

    fn offered(self) -> Life {
        Life(self.generation() | Self::OFFERED)
    }

    pub(super) fn closed(self) -> Life {
        Life((self.generation() + 1) & Self::GENERATION)
    }

    pub(super) fn forgotten(self) -> Life {
        Life((self.0 | Self::FORGOTTEN).wrapping_add(Self::CHANGE))
    }

    pub(super) fn at_once(self) -> Life {
        Life((self.0 | Self::AT_ONCE).wrapping_add(Self::CHANGE))
    }

    pub(super) fn remembered(self) -> Life {
        Life((self.0 & !(Self::FORGOTTEN | Self::AT_ONCE)).wrapping_add(Self::CHANGE))
    }

    pub(super) fn closing(self) -> Life {
        Life(self.0 | Self::CLOSING)
    }

    pub(super) fn not_closing(self) -> Life {
        // Another value than before it was: who would close it does not.
        Life((self.0 & !Self::CLOSING).wrapping_add(Self::CHANGE))
    }
}

/// A block, by its number: it begins at so many granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block(pub(super) u32);

impl Block {
    fn start(self) -> usize {
        self.0 as usize * GRANULE
    }

    /// Where its definition lies.
    pub(super) fn definition(self) -> usize {
        self.start() + HEADER
    }
}

/// A block that was taken, and nobody knows yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) block: Block,
    pub(super) class: usize,
}

/// The arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks<'a> {
    pub(super) arena: &'a [AtomicU64],
    /// Next word that was never taken.
    next: &'a AtomicU64,
    /// Of each class the block that was freed last, and a count of changes above it.
    free: &'a [AtomicU64; FREE_STACKS],
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        arena: &'a [AtomicU64],
        next: &'a AtomicU64,
        free: &'a [AtomicU64; FREE_STACKS],
    ) -> Blocks<'a> {
        Blocks { arena, next, free }
    }

    /// How many blocks there can be: no chain is longer.
    pub(super) fn count(&self) -> usize {
        self.arena.len() / GRANULE
    }

    /// What names a block in that life.
    pub(super) fn id(&self, block: Block, life: Life) -> u32 {
        id(self.arena.len(), block, life)
    }

    /// The block that an id names, and its life, if that is the one; `None` also for garbage.
    pub(super) fn find(&self, id: u32) -> Option<(Block, Life)> {
        find(self.arena, id)
    }

    /// Whether the block that an id names was freed in the life that it names.
    pub(super) fn is_later(&self, id: u32) -> bool {
        let block = Block(id & ((1 << place_bits(self.arena.len())) - 1));
        let life = self
            .life(block)
            .map_or(0, |life| life.load(Ordering::Relaxed));
        block.0 != 0 && life != 0 && self.id(block, Life(life)) != id
    }

    fn word(&self, block: Block, word: usize) -> Option<&'a AtomicU64> {
        self.arena.get(block.start() + word)
    }

    pub(super) fn life(&self, block: Block) -> Option<&'a AtomicU64> {
        self.word(block, LIFE)
    }

    pub(super) fn since(&self, block: Block) -> Option<&'a AtomicU64> {
        self.word(block, SINCE)
    }

    /// A word that carries the generation of its block in its low 16 bits.
    fn guarded(&self, block: Block, at: usize, life: Life) -> Option<(&'a AtomicU64, u64)> {
        let word = self.word(block, at)?;
        // Acquire: it may lead to a text.
        let found = word.load(Ordering::Acquire);
        (Life(found).generation() == life.generation()).then_some((word, found))
    }

    /// What such a word says of a block in that life; 48 bits.
    pub(super) fn load(&self, block: Block, at: usize, life: Life) -> u64 {
        self.guarded(block, at, life)
            .map_or(0, |(_, found)| found >> 16)
    }

    /// Changes what such a word says, unless the block is another's by now; what it said before, if
    /// it did.
    pub(super) fn change(
        &self,
        (block, life): (Block, Life),
        at: usize,
        change: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        for _ in 0..TRIES {
            let (word, found) = self.guarded(block, at, life)?;
            let said = found >> 16;
            let value = change(said).filter(|&value| value != said)?;
            let value = value << 16 | life.generation();
            // Release: who reads it reads what was written before.
            let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            if word.compare_exchange(found, value, order, relaxed).is_ok() {
                return Some(said);
            }
        }
        None
    }

    pub(super) fn next(&self, block: Block) -> u64 {
        let next = self.word(block, NEXT);
        // Acquire: pairs with the aggregator's store in `set_next`.
        next.map_or(0, |next| next.load(Ordering::Acquire))
    }

    /// Has a block of a chain, or a stack, followed by another.
    pub(super) fn set_next(&self, block: Block, next: u32, rest: u64) {
        if let Some(word) = self.word(block, NEXT) {
            let rest = rest >> CLASS_SHIFT << CLASS_SHIFT;
            word.store(rest | u64::from(next), Ordering::Release);
        }
    }

    /// Takes a block with room for a definition of so many words; `None` when there is none.
    pub(super) fn take(&self, words: usize) -> Option<Taken> {
        let needed = (HEADER + words).div_ceil(GRANULE);
        let class = CLASSES.iter().position(|&granules| granules >= needed)?;
        let fresh = || {
            let block = self.cut(CLASSES[class] * GRANULE)?;
            Some(Taken { block, class })
        };
        let larger = || {
            let mut classes = class + 1..FREE_STACKS;
            classes.find_map(|class| self.pop(class))
        };
        let taken = self.pop(class).or_else(fresh).or_else(larger)?;
        testpoint!("arena-taken");
        Some(taken)
    }

    /// Takes words that nobody ever had.
    fn cut(&self, words: usize) -> Option<Block> {
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            // No block has the number 0, which ends a chain.
            let start = next
                .max(GRANULE as u64)
                .checked_next_multiple_of(GRANULE as u64)?;
            let end = start.checked_add(words as u64)?;
            if end > self.arena.len() as u64 {
                return None;
            }
            // Relaxed: the words between belong to nobody else; E5 publishes them.
            let order = Ordering::Relaxed;
            match self.next.compare_exchange(next, end, order, order) {
                Ok(_) => return Some(Block((start / GRANULE as u64) as u32)),
                Err(moved) => next = moved,
            }
        }
    }

    /// Takes the block of a class that was freed last.
    fn pop(&self, class: usize) -> Option<Taken> {
        for _ in 0..TRIES {
            let top = self.free[class].load(Ordering::Acquire);
            let block = Block(top as u32);
            if block.0 == 0 {
                return None;
            }
            // Of a block that somebody else has taken meanwhile it is anything: the exchange fails.
            let next = self.next(block) as u32;
            if self.swap(class, top, next) {
                let is_free = self.life(block).is_some_and(|life| {
                    let life = Life(life.load(Ordering::Relaxed));
                    life.is_offered() && !life.is_open()
                });
                // Else the stack is garbage.
                return is_free.then_some(Taken { block, class });
            }
        }
        None
    }

    fn swap(&self, class: usize, top: u64, next: u32) -> bool {
        // A count of changes in the upper half: a block that was taken and freed again is another
        // top.
        let changed = (top >> 32).wrapping_add(1) << 32 | u64::from(next);
        let (order, acquire) = (Ordering::AcqRel, Ordering::Acquire);
        let swapped = self.free[class].compare_exchange(top, changed, order, acquire);
        swapped.is_ok()
    }

    /// Writes a definition to a block that was taken, with what word 4 says of it.
    pub(super) fn define(&self, taken: Taken, said: u64, encode: &dyn Fn(&mut Sink<'_>)) {
        self.write(taken, encode);
        if let Some(word) = self.life(taken.block) {
            let opened = Life(word.load(Ordering::Relaxed)).opened();
            // Relaxed: E5 publishes both.
            word.store(opened.0, Ordering::Relaxed);
            if let Some(word) = self.word(taken.block, REGISTRANT) {
                word.store(said << 16 | opened.generation(), Ordering::Relaxed);
            }
        }
        testpoint!("defined");
    }

    /// Writes to a block that was taken, to which no id is to lead.
    pub(super) fn hold(&self, taken: Taken, encode: &dyn Fn(&mut Sink<'_>)) {
        self.write(taken, encode);
        if let Some(word) = self.life(taken.block) {
            let held = Life(word.load(Ordering::Relaxed)).held();
            word.store(held.0, Ordering::Relaxed);
        }
        self.set_next(taken.block, 0, (taken.class as u64) << CLASS_SHIFT);
    }

    fn write(&self, taken: Taken, encode: &dyn Fn(&mut Sink<'_>)) {
        // E7 (release): pairs with the fences of who reads definitions.
        fence(Ordering::Release);
        let mut at = taken.block.definition();
        encode(&mut |word: u64| {
            if let Some(place) = self.arena.get(at) {
                place.store(word, Ordering::Relaxed);
            }
            at += 1;
        });
    }

    /// What names a block that was defined and is not given back.
    pub(super) fn id_of_taken(&self, taken: Taken) -> u32 {
        let life = self.life(taken.block);
        let life = life.map_or(0, |life| life.load(Ordering::Relaxed));
        self.id(taken.block, Life(life))
    }

    /// Begins what is said of a block anew, in its next life.
    pub(super) fn clear(&self, block: Block, life: Life) {
        for word in [TTL, OWNER]
            .into_iter()
            .filter_map(|at| self.word(block, at))
        {
            word.store(life.generation(), Ordering::Relaxed);
        }
    }

    /// The same for what word 4 says, which is returned.
    pub(super) fn clear_said(&self, block: Block, life: Life) -> u64 {
        let Some(word) = self.word(block, HELP) else {
            return 0;
        };
        for _ in 0..TRIES {
            let found = word.load(Ordering::Acquire);
            let (cleared, order) = (life.generation(), Ordering::AcqRel);
            let swapped = word.compare_exchange(found, cleared, order, Ordering::Relaxed);
            if swapped.is_ok() {
                return found >> 16;
            }
        }
        0
    }

    /// What follows a block in a chain, when it is put before `next`.
    pub(super) fn chain(&self, taken: Taken, next: u32, hash: u64) {
        let rest = (taken.class as u64) << CLASS_SHIFT | tag(hash) << TAG_SHIFT;
        self.set_next(taken.block, next, rest);
    }

    /// Whether a block is in use and no id leads to it.
    pub(super) fn is_held(&self, block: Block) -> bool {
        self.life(block).is_some_and(|life| {
            let life = Life(life.load(Ordering::Relaxed));
            !life.is_open() && !life.is_offered()
        })
    }

    /// Gives a block back: one that nobody else knows, or to which nothing leads any more.
    pub(super) fn give_back(&self, block: Block, class: usize) {
        let Some(word) = self.life(block) else {
            return;
        };
        if class >= FREE_STACKS {
            return;
        }
        // First: who dies in between must not have a successor give it back twice.
        let offered = Life(word.load(Ordering::Relaxed)).offered();
        word.store(offered.0, Ordering::Relaxed);
        testpoint!("offered");
        for _ in 0..TRIES {
            let top = self.free[class].load(Ordering::Acquire);
            self.set_next(block, top as u32, (class as u64) << CLASS_SHIFT);
            // E7 (release): what led to the block was changed before.
            if self.swap(class, top, block.0) {
                return;
            }
        }
    }

    /// Returns a block that was taken and not used.
    pub(super) fn give_back_taken(&self, taken: Taken) {
        self.give_back(taken.block, taken.class);
    }

    /// Words that are neither in use nor lost, as far as they were never taken.
    pub(super) fn is_nearly_full(&self) -> bool {
        let used = self.next.load(Ordering::Relaxed);
        used.saturating_mul(8) > self.arena.len() as u64 * 7
    }
}

fn id(arena_words: usize, block: Block, life: Life) -> u32 {
    let bits = place_bits(arena_words);
    let generation = u64::from(u32::MAX >> bits) & life.generation();
    (generation << bits) as u32 | block.0
}

/// The block of an arena that an id names, and its life, if that is the one; `None` also for
/// garbage.
#[inline(always)]
pub(super) fn find(arena: &[AtomicU64], found: u32) -> Option<(Block, Life)> {
    let block = Block(found & ((1 << place_bits(arena.len())) - 1));
    let life = Life(arena.get(block.start() + LIFE)?.load(Ordering::Acquire));
    let is_it = block.0 != 0 && life.is_open() && id(arena.len(), block, life) == found;
    is_it.then_some((block, life))
}

/// Bits that number the blocks of an arena of so many words.
#[inline(always)]
pub(crate) fn place_bits(arena_words: usize) -> u32 {
    usize::BITS - (arena_words / GRANULE).leading_zeros()
}

pub(super) fn class_of(next: u64) -> usize {
    (next >> CLASS_SHIFT & 0xff) as usize
}

pub(super) fn is_tagged(next: u64, hash: u64) -> bool {
    next >> TAG_SHIFT == tag(hash)
}

/// A part of a key's hash that each block of a chain has, so that few keys have to be compared.
fn tag(hash: u64) -> u64 {
    hash >> TAG_SHIFT
}
