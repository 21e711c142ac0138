//! Help texts that came later: the last registration's counts.
//!
//! A family's definition has the help text of its first registration. A later one lies in a block
//! of its own, which a word of the family's block leads to: who replaces it writes the text to a
//! block that he took, exchanges the word, and gives the block back that it led to before. The word
//! counts its changes, so that the same word before and after reading means the same text (E7).

use super::Registry;
use super::block::{Block, HELP, Life, TRIES, class_of};
use super::definition::{FamilyDefinition, FamilyId, HELP_MAX, Sink};
use crate::sync::{Ordering, fence};
use crate::testpoint;
use crate::words::{Cursor, pack_text};

/// Above the block in the word, which has 48 bits.
const CHANGES_SHIFT: u32 = 32;

impl Registry<'_> {
    /// Has a family described by that text, unless it is, or the text is empty. Where there is no
    /// room for it, the earlier one stays.
    pub(super) fn renew_help(&self, id: FamilyId, help: &str) {
        let Some(found) = self.blocks.find(id.0) else {
            return;
        };
        if help.is_empty() || help.len() > HELP_MAX || self.is_help(found, help) {
            return;
        }
        let encode = |out: &mut Sink<'_>| {
            out(help.len() as u64);
            pack_text(help, out);
        };
        let Some(taken) = self.blocks.take(1 + help.len().div_ceil(8)) else {
            return;
        };
        self.blocks.hold(taken, &encode);
        let earlier = self.blocks.change(found, HELP, |word| {
            let changes = (word >> CHANGES_SHIFT).wrapping_add(1) & 0xffff;
            Some(changes << CHANGES_SHIFT | u64::from(taken.block.0))
        });
        testpoint!("help-told");
        match earlier {
            Some(earlier) => {
                self.give_help_back(earlier);
                // Release: who sees the change sees the text.
                self.changes.fetch_add(1, Ordering::Release);
            }
            None => self.blocks.give_back_taken(taken),
        }
    }

    /// What changes whenever a family's help text is replaced.
    pub(crate) fn help_version(&self, id: FamilyId) -> u64 {
        let found = self.blocks.find(id.0);
        found.map_or(0, |(block, life)| self.blocks.load(block, HELP, life))
    }

    /// The help text that replaced the first one.
    pub(super) fn later_help(&self, id: FamilyId) -> Option<String> {
        for _ in 0..TRIES {
            let word = self.help_version(id);
            if word == 0 {
                return None;
            }
            let found = self.text(word).and_then(|(len, mut text)| text.text(len));
            // E7 (acquire): pairs with the fence in `Blocks::write`.
            fence(Ordering::Acquire);
            if self.help_version(id) == word {
                return found;
            }
        }
        None
    }

    /// Whether a family's help text is that one.
    fn is_help(&self, (block, life): (Block, Life), help: &str) -> bool {
        let word = self.blocks.load(block, HELP, life);
        if word == 0 {
            return FamilyDefinition::is_described(self.words(), block.definition(), help);
        }
        let is_it = |(len, mut text): (usize, Cursor<'_>)| {
            len == help.len() && text.is_text(help.bytes()) == Some(true)
        };
        let is_it = self.text(word).is_some_and(is_it);
        fence(Ordering::Acquire);
        is_it && self.blocks.load(block, HELP, life) == word
    }

    /// Where a text that such a word leads to lies, and how long it is.
    fn text(&self, word: u64) -> Option<(usize, Cursor<'_>)> {
        let mut cursor = Cursor::new(self.words(), Block(word as u32).definition());
        let len = usize::try_from(cursor.word()?).ok()?;
        (len <= HELP_MAX).then_some((len, cursor))
    }

    /// Frees the block of the help text of a family that was closed.
    pub(super) fn drop_help(&self, block: Block, closed: Life) {
        let word = self.blocks.clear_said(block, closed);
        self.give_help_back(word);
    }

    fn give_help_back(&self, word: u64) {
        let block = Block(word as u32);
        // A block of garbage would be offered to everybody.
        if block.0 != 0 && self.blocks.is_held(block) {
            self.blocks
                .give_back(block, class_of(self.blocks.next(block)));
        }
    }
}
