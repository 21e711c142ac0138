//! The window of a summary in the snapshot: what came before it, and its steps that are over.
//!
//! It lies in the heap from the end of the first step on, where the version of the series' row
//! says: a word with how many words it has, this one too, then bytes ([`Counts::pack`]): how many
//! steps are over, the counts of all time before the window, and those of each step, the last one
//! first. What the present step has is what the row has beyond those. A step that ends is not
//! written to its place: the whole of it is written elsewhere, and counts with the row that refers
//! to it, as histories do that are moved.

use std::mem::take;

use qbus::{Window, Words};

use super::layout::Shape;
use crate::counts::{Counts, pack, unpack};

/// Blocks have multiples of so many words, so that one fits where another lay.
const GRAIN: usize = 4;
/// The longest: all buckets of all octaves in each step.
const LEN_MAX: usize = 1 << 20;

/// What a summary's row says of its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowSpan {
    /// Where what came before the present step lies; 0 = nowhere: nothing did.
    pub(crate) block: usize,
    /// When the present step began, on the aggregator's clock, which is never set back; 0 = there
    /// is nothing in the window.
    pub(crate) began_ns: u64,
}

/// What came before the present step of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// What came before the window.
    pub(crate) before: Counts,
    /// The steps that are over, the last one first.
    pub(crate) over: Vec<Counts>,
}

impl Steps {
    /// Ends the present step, and those after it that are over as well: `ended` of them. `all` is
    /// what was ever observed, and what is in the present step of it came `age` steps ago, 1 being
    /// the last of them. So many steps that are over are kept.
    pub(crate) fn end(&mut self, all: &Counts, kept: usize, ended: u64, age: u64) {
        let sum = |steps: &[Counts]| {
            steps
                .iter()
                .fold(Counts::default(), |sum, one| sum.plus(one))
        };
        let present = all.minus(&self.before.plus(&sum(&self.over)));
        let at = |age: u64| usize::try_from(age).unwrap_or(usize::MAX);
        let mut over = vec![Counts::default(); kept];
        for (before, counts) in take(&mut self.over).into_iter().enumerate() {
            if let Some(place) = over.get_mut(before.saturating_add(at(ended))) {
                *place = counts;
            }
        }
        if let Some(place) = over.get_mut(at(age.max(1)) - 1) {
            *place = place.plus(&present);
        }
        while over.pop_if(|counts| counts.is_empty()).is_some() {}
        // And not what was before, with what ended: buckets may have been put together.
        self.before = all.minus(&sum(&over));
        self.over = over;
    }

    pub(crate) fn encode(&self) -> Vec<u64> {
        let mut bytes = vec![0; size_of::<u64>()];
        pack(self.over.len() as u64, &mut bytes);
        self.before.pack(&mut bytes);
        self.over.iter().for_each(|counts| counts.pack(&mut bytes));
        bytes.resize(bytes.len().next_multiple_of(GRAIN * size_of::<u64>()), 0);
        let (chunks, _) = bytes.as_chunks();
        let mut words: Vec<u64> = chunks
            .iter()
            .map(|chunk| u64::from_le_bytes(*chunk))
            .collect();
        words[0] = words.len() as u64;
        words
    }

    /// Decodes words that another process wrote; nothing where they make no sense.
    pub(crate) fn decode(words: &[u64]) -> Steps {
        let bytes = bytes(words);
        let decode = |rest: &mut &[u8]| {
            let over = unpack(rest)?.min(Window::STEPS_MAX.into());
            let before = Counts::unpack(rest)?;
            let over = (0..over)
                .map(|_| Counts::unpack(rest))
                .collect::<Option<_>>()?;
            Some(Steps { before, over })
        };
        decode(&mut &bytes[..]).unwrap_or_default()
    }

    /// The same of what came before the window alone.
    pub(crate) fn decode_before(words: &[u64]) -> Counts {
        let bytes = bytes(words);
        let decode = |rest: &mut &[u8]| unpack(rest).and_then(|_| Counts::unpack(rest));
        decode(&mut &bytes[..]).unwrap_or_default()
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    let content = words.iter().skip(1);
    content.flat_map(|word| word.to_le_bytes()).collect()
}

/// How many words the block has that lies there; `None` when there is none that fits.
pub(crate) fn block_len(words: Words<'_>, shape: Shape, start: usize) -> Option<usize> {
    if start < shape.heap() {
        return None;
    }
    let len = usize::try_from(words.get(start)?).ok()?;
    (len <= LEN_MAX && words.slice(start, len).is_some()).then_some(len)
}

/// The words of the block that lies there, or none.
pub(crate) fn copy(words: Words<'_>, shape: Shape, start: usize) -> Vec<u64> {
    let len = block_len(words, shape, start).unwrap_or(0);
    (start..start + len).map(|at| words.load(at)).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::distribution::Distribution;

    fn counts(values: &[f64]) -> Counts {
        let mut distribution = Distribution::default();
        values
            .iter()
            .for_each(|&value| distribution.observe(value, 3));
        Counts::of(&distribution)
    }

    #[test]
    fn what_was_written_is_read() {
        let steps = Steps {
            before: counts(&[0.25, 0.26, 17.0, -3.0, 0.0]),
            over: vec![counts(&[0.25]), Counts::default(), counts(&[1e9, 0.0])],
        };
        let words = steps.encode();
        assert_eq!((words[0] as usize, words.len() % GRAIN), (words.len(), 0));
        assert_eq!(Steps::decode(&words), steps);
        assert_eq!(Steps::decode_before(&words), steps.before);
        // Some observations take some words.
        assert!(words.len() <= 6 * GRAIN, "{}", words.len());
    }

    proptest! {
        /// What is beyond `before` is what came in the steps that the window still has.
        #[test]
        fn a_step_leaves_the_window_when_it_is_too_old(
            each in vec((0_u32..4, 1_u64..4), 0..30),
            kept in 0_usize..6,
        ) {
            let (mut steps, mut all) = (Steps::default(), Distribution::default());
            // What came in each step, the present one last.
            let mut came: Vec<Counts> = vec![Counts::default()];
            for (bucket, ended) in each {
                all.observe(f64::from(bucket).exp2(), 1);
                let present = came.last_mut().expect("the present one");
                *present = present.plus(&counts_of(f64::from(bucket).exp2()));
                steps.end(&Counts::of(&all), kept, ended, ended);
                steps = Steps::decode(&steps.encode());
                came.extend((0..ended).map(|_| Counts::default()));
                let first = came.len().saturating_sub(kept + 1);
                let kept = came[first..].iter();
                let expected = kept.fold(Counts::default(), |sum, one| sum.plus(one));
                prop_assert_eq!(Counts::of(&all.without(&steps.before)), expected);
            }
        }
    }

    fn counts_of(value: f64) -> Counts {
        let mut distribution = Distribution::default();
        distribution.observe(value, 1);
        Counts::of(&distribution)
    }

    #[test]
    fn what_was_put_together_elsewhere_heals_within_a_window() {
        let (mut steps, mut all) = (Steps::default(), Distribution::default());
        [1.0, 3.0, 100.0]
            .iter()
            .for_each(|value| all.observe(*value, 5));
        steps.end(&Counts::of(&all), 2, 9, 9);
        assert_eq!(all.without(&steps.before).count(), 0);
        // The row had no room for so many octaves.
        all.shrink(1);
        assert!(all.without(&steps.before).count() > 0);
        steps.end(&Counts::of(&all), 2, 1, 1);
        steps.end(&Counts::of(&all), 2, 2, 2);
        assert_eq!(all.without(&steps.before).count(), 0);
    }

    #[test]
    fn garbage_is_nothing() {
        for garbage in [&[][..], &[8], &[8, u64::MAX, u64::MAX], &[1 << 60, 0x0101]] {
            let found = Steps::decode(garbage);
            assert!(
                found.before.is_empty() && found.over.is_empty(),
                "{garbage:?}"
            );
        }
    }
}
