//! Words of a file that were given back, to be given away again.

use std::collections::{BTreeMap, BTreeSet};

/// Runs of free words, no two of which touch.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// Length by start.
    by_start: BTreeMap<usize, usize>,
    /// Length and start.
    by_len: BTreeSet<(usize, usize)>,
}

impl Gaps {
    /// What lies between `from` and `to` and in none of the runs that are in use.
    pub(super) fn between(from: usize, to: usize, mut used: Vec<(usize, usize)>) -> Gaps {
        let mut gaps = Gaps::default();
        used.sort_unstable();
        let mut at = from;
        for (start, len) in used {
            let start = start.clamp(from, to);
            if start > at {
                gaps.insert(at, start - at);
            }
            at = at.max(start.saturating_add(len)).min(to);
        }
        if to > at {
            gaps.insert(at, to - at);
        }
        gaps
    }

    /// Takes words from the shortest run that has as many.
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let &(found, start) = self.by_len.range((len, 0)..).next()?;
        self.remove(start, found);
        if found > len {
            self.insert(start + len, found - len);
        }
        Some(start)
    }

    /// Gives words back.
    pub(super) fn put(&mut self, mut start: usize, mut len: usize) {
        if len == 0 {
            return;
        }
        if let Some((&before, &its)) = self.by_start.range(..start).next_back()
            && before + its == start
        {
            self.remove(before, its);
            (start, len) = (before, its + len);
        }
        if let Some(&its) = self.by_start.get(&(start + len)) {
            self.remove(start + len, its);
            len += its;
        }
        self.insert(start, len);
    }

    fn insert(&mut self, start: usize, len: usize) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_in_use_is_no_gap() {
        // Some of it overlaps, and lies elsewhere, where a file is garbage.
        let used = vec![(12, 3), (10, 2), (13, 1), (0, 5), (90, 50), (20, 4)];
        let gaps = Gaps::between(10, 100, used);
        let runs: Vec<_> = gaps.by_start.into_iter().collect();
        assert_eq!(runs, [(15, 5), (24, 66)]);
    }

    proptest! {
        #[test]
        fn no_word_is_given_away_twice(
            steps in prop::collection::vec((1_usize..20, 0_usize..8), 1..200),
        ) {
            let mut gaps = Gaps::between(0, 500, Vec::new());
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (len, which) in steps {
                match gaps.take(len) {
                    Some(start) if which > 2 => {
                        prop_assert!(start + len <= 500);
                        let overlaps = |&(other, its): &(usize, usize)| {
                            start < other + its && other < start + len
                        };
                        prop_assert!(!taken.iter().any(overlaps));
                        taken.push((start, len));
                    }
                    Some(start) => gaps.put(start, len),
                    None => {}
                }
                if which == 7 && !taken.is_empty() {
                    let (start, len) = taken.swap_remove(len % taken.len());
                    gaps.put(start, len);
                }
            }
            for (start, len) in taken {
                gaps.put(start, len);
            }
            prop_assert_eq!(gaps.by_start.into_iter().collect::<Vec<_>>(), [(0, 500)]);
        }
    }
}
