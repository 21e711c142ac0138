//! Chains: the definitions whose hashes begin alike, one behind the other.
//!
//! A chain's head is one word: its first block, and how often the chain changed. A registrant puts
//! its block first, by an exchange of the head that it searched from: so a key is never there
//! twice. The aggregator alone takes blocks out, changes the head too, and gives a block back only
//! then. Whoever searched a chain loads the head again: the same means that nothing came or went.
//!
//! * **E5 intern** `insert` exchanges the head (Release) → `search` loads it (Acquire): the
//!   definitions behind it are whole.

use super::Table;
use super::block::{Block, Blocks, Life, TRIES, Taken, is_tagged};
use crate::sync::{AtomicU64, Ordering, fence};

/// What a search found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The head that was searched from.
    pub(super) head: u64,
    pub(super) entry: Option<(Block, Life)>,
}

impl Table<'_> {
    pub(super) fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.heads.len() - 1)
    }

    /// Looks for an open entry of that hash that is `same`: by where its definition lies.
    pub(super) fn search(
        &self,
        blocks: &Blocks<'_>,
        hash: u64,
        same: &dyn Fn(usize) -> bool,
    ) -> Found {
        let head = &self.heads[self.bucket(hash)];
        let mut found = Found {
            head: 0,
            entry: None,
        };
        for _ in 0..TRIES {
            // E5 (acquire): pairs with the exchange in `insert`.
            found.head = head.load(Ordering::Acquire);
            found.entry = None;
            walk(blocks, (head, found.head), &mut |block, life, next| {
                let is_it = life.is_open() && is_tagged(next, hash) && same(block.definition());
                if is_it {
                    found.entry = Some((block, life));
                }
                is_it
            });
            // E7 (acquire): pairs with the fence in `Blocks::define`.
            fence(Ordering::Acquire);
            if head.load(Ordering::Relaxed) == found.head {
                return found;
            }
        }
        found.entry = None;
        found
    }

    /// Puts a block first, if the chain is as it was when it was searched.
    pub(super) fn insert(
        &self,
        blocks: &Blocks<'_>,
        hash: u64,
        searched: u64,
        taken: Taken,
    ) -> bool {
        blocks.chain(taken, searched as u32, hash);
        let head = &self.heads[self.bucket(hash)];
        // E5 (release): pairs with the load in `search`.
        let (order, relaxed) = (Ordering::Release, Ordering::Relaxed);
        let changed = changed(searched, taken.block.0);
        head.compare_exchange(searched, changed, order, relaxed)
            .is_ok()
    }

    /// Takes a closed block out of its chain: for the one aggregator.
    pub(super) fn unlink(&self, blocks: &Blocks<'_>, bucket: usize, block: Block) -> bool {
        let head = &self.heads[bucket];
        for _ in 0..TRIES {
            let found = head.load(Ordering::Acquire);
            let next = blocks.next(block) as u32;
            let mut before = None;
            let mut last = Block(0);
            walk(blocks, (head, found), &mut |at, _, next| {
                last = at;
                if next as u32 == block.0 {
                    before = Some((at, next));
                }
                before.is_some() || at == block
            });
            let first = match before {
                // Nobody else changes what follows a block that is in a chain.
                Some((before, rest)) => {
                    blocks.set_next(before, next, rest);
                    found as u32
                }
                None if last == block => next,
                // The walk ended early, or nothing leads to it.
                None if head.load(Ordering::Relaxed) != found => continue,
                None => return false,
            };
            // Release: who finds this head searches the chain without the block.
            let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            let changed = changed(found, first);
            if head
                .compare_exchange(found, changed, order, relaxed)
                .is_ok()
            {
                return true;
            }
            if before.is_some() {
                // Out already: what is left is to say that the chain changed.
                return self.change(head);
            }
        }
        false
    }

    fn change(&self, head: &AtomicU64) -> bool {
        let mut found = head.load(Ordering::Acquire);
        loop {
            let (order, acquire) = (Ordering::AcqRel, Ordering::Acquire);
            let changed = changed(found, found as u32);
            match head.compare_exchange(found, changed, order, acquire) {
                Ok(_) => return true,
                Err(other) => found = other,
            }
        }
    }

    /// All entries of a chain, as they were at one time: those that are open, or all.
    pub(super) fn entries(&self, blocks: &Blocks<'_>, bucket: usize, out: &mut Vec<(Block, Life)>) {
        let head = &self.heads[bucket];
        for _ in 0..TRIES {
            out.clear();
            let found = head.load(Ordering::Acquire);
            if found as u32 == 0 {
                return;
            }
            walk(blocks, (head, found), &mut |block, life, _| {
                out.push((block, life));
                false
            });
            fence(Ordering::Acquire);
            if head.load(Ordering::Relaxed) == found {
                return;
            }
        }
    }
}

/// Visits the blocks of a chain, from what its head said, until `visit` says that it is enough. Not
/// for ever, whatever they say: a block that was taken meanwhile may lead back to itself, and then
/// the head has changed.
fn walk(
    blocks: &Blocks<'_>,
    (head, found): (&AtomicU64, u64),
    visit: &mut dyn FnMut(Block, Life, u64) -> bool,
) {
    let mut block = Block(found as u32);
    for step in 1..=blocks.count() {
        if block.0 == 0 {
            return;
        }
        let Some(life) = blocks.life(block) else {
            return;
        };
        let life = Life(life.load(Ordering::Acquire));
        let next = blocks.next(block);
        if visit(block, life, next) {
            return;
        }
        if step % PATIENCE == 0 && head.load(Ordering::Relaxed) != found {
            return;
        }
        block = Block(next as u32);
    }
}

/// After so many blocks it is looked whether the chain is still the same.
const PATIENCE: usize = if cfg!(loom) { 4 } else { 64 };

/// A head that begins with a block, after one more change.
fn changed(head: u64, first: u32) -> u64 {
    (head >> 32).wrapping_add(1) << 32 | u64::from(first)
}
