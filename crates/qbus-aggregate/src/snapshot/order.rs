//! The order of series: by name, then by labels.

use std::collections::HashMap;
use std::ops::Range;

/// What is sorted: little, so that it stays in the caches whatever the labels are.
#[derive(Debug)]
struct Entry {
    /// Which family; after [`Order::sorted`] has begun, the place of its name among all names.
    family: u32,
    index: u32,
    /// The first bytes in which the keys of the family may differ.
    prefix: u128,
    key: Range<usize>,
}

/// Sorts things by a name that many of them have, and a key.
#[derive(Debug, Default)]
pub(crate) struct Order<'a> {
    families: HashMap<&'a str, u32>,
    /// The family of what was added last: what lies together is often of one.
    last: Option<(&'a str, u32)>,
    entries: Vec<Entry>,
    keys: Vec<u8>,
}

impl<'a> Order<'a> {
    /// Adds a thing; `write_key` appends its key.
    pub(crate) fn push(
        &mut self,
        index: usize,
        name: &'a str,
        write_key: impl FnOnce(&mut Vec<u8>),
    ) {
        let family = match self.last {
            Some((last, family)) if last == name => family,
            _ => {
                let next = self.families.len() as u32;
                *self.families.entry(name).or_insert(next)
            }
        };
        self.last = Some((name, family));
        let start = self.keys.len();
        write_key(&mut self.keys);
        self.entries.push(Entry {
            family,
            index: index as u32,
            prefix: 0,
            key: start..self.keys.len(),
        });
    }

    /// The indexes, in order.
    pub(crate) fn sorted(mut self) -> impl Iterator<Item = usize> {
        self.rank();
        self.mark();
        let (mut entries, keys) = (self.entries, self.keys);
        entries.sort_unstable_by(|a, b| {
            let brief = |entry: &Entry| (entry.family, entry.prefix);
            let key = |entry: &Entry| &keys[entry.key.clone()];
            brief(a)
                .cmp(&brief(b))
                .then_with(|| key(a).cmp(key(b)))
                .then(a.index.cmp(&b.index))
        });
        entries.into_iter().map(|entry| entry.index as usize)
    }

    /// Numbers the families by their names.
    fn rank(&mut self) {
        let mut names: Vec<_> = self.families.drain().collect();
        names.sort_unstable();
        let mut ranks = vec![0; names.len()];
        for (rank, (_, family)) in names.into_iter().enumerate() {
            ranks[family as usize] = rank as u32;
        }
        for entry in &mut self.entries {
            entry.family = ranks[entry.family as usize];
        }
    }

    /// Finds what the keys of each family begin with, all of them, and marks each with what
    /// follows.
    fn mark(&mut self) {
        // By the place of the family's name.
        let families = self.entries.iter().map(|entry| entry.family as usize + 1);
        let mut common: Vec<Option<(Range<usize>, usize)>> =
            vec![None; families.max().unwrap_or(0)];
        for Entry { family, key, .. } in &self.entries {
            let place = &mut common[*family as usize];
            let (first, len) = place.get_or_insert((key.clone(), key.len()));
            let pairs = self.keys[first.clone()].iter().zip(&self.keys[key.clone()]);
            *len = pairs.take(*len).take_while(|(a, b)| a == b).count();
        }
        for entry in &mut self.entries {
            let common = common[entry.family as usize].as_ref();
            let begin = entry.key.start + common.map_or(0, |(_, len)| *len);
            let mut bytes = [0; 16];
            let rest = &self.keys[begin..entry.key.end];
            let known = rest.len().min(bytes.len());
            bytes[..known].copy_from_slice(&rest[..known]);
            // The first byte counts most, as in a comparison of the keys.
            entry.prefix = u128::from_be_bytes(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_that_of_names_and_keys(
            things in prop::collection::vec(("[abc]{1,2}", "(same_start_|)[ab\0]{0,20}"), 0..60)
        ) {
            let mut order = Order::default();
            for (index, (name, key)) in things.iter().enumerate() {
                order.push(index, name, |out| out.extend(key.as_bytes()));
            }
            let sorted: Vec<usize> = order.sorted().collect();
            let mut expected: Vec<usize> = (0..things.len()).collect();
            expected.sort_by_key(|&index| &things[index]);
            prop_assert_eq!(sorted, expected);
        }
    }
}
