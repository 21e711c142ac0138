//! What came to a summary before its window.

use super::super::layout::AT_COMMITTED;
use super::super::row::{take_room, window_span};
use super::super::window::{self, Steps};
use super::{Beyond, CUTS, Reader};
use crate::counts::Counts;
use crate::series::Family;

impl Reader {
    /// Notes where the window of a series lies.
    pub(super) fn note_window(&self, family: &Family, version: &[u64], beyond: &Beyond) {
        let (words, block) = (self.words(), window_span(family.metric_type, version).block);
        if block >= self.shape.heap() && window::block_len(words, self.shape, block).is_none() {
            beyond.note(words, block, 1);
            let len = words.get(block).map_or(1, |len| len as usize);
            beyond.note(words, block, len);
        }
    }

    /// What came to a summary before its window; `None` when it is longer than the room that is
    /// left.
    pub(super) fn before_window(
        &self,
        family: &Family,
        place: usize,
        version: &[u64],
        room: &mut usize,
    ) -> Option<Counts> {
        let mut span = window_span(family.metric_type, version);
        for _ in 0..CUTS {
            if span.block == 0 {
                break;
            }
            let copied = window::copy(self.words(), self.shape, span.block);
            if !take_room(room, copied.len()) {
                return None;
            }
            // The words of a version that does not count any more may be another's.
            let (mut newest, epoch) = (Vec::new(), (self.epoch(), Some(AT_COMMITTED)));
            let found = self.read_listed(place, epoch, &mut newest, &Beyond::default());
            let now = window_span(family.metric_type, &newest);
            if found.is_none() || now == span {
                return Some(Steps::decode_before(&copied));
            }
            span = now;
        }
        Some(Counts::default())
    }
}
