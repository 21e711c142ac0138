//! The order of series: by name, then by labels.

use std::ops::Range;

/// What is sorted: little, so that it stays in the caches whatever the labels are.
#[derive(Debug)]
struct Entry {
    /// Which family; after [`Order::sorted`] has begun, the place of its name among all names.
    family: u32,
    index: u32,
    /// Where its key lies.
    start: u32,
    len: u32,
    /// The first bytes in which the keys of the family may differ.
    prefix: u128,
}

impl Entry {
    fn key(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// Sorts things by a name that many of them have, and a key.
#[derive(Debug)]
pub(crate) struct Order {
    entries: Vec<Entry>,
    keys: Vec<u8>,
}

impl Order {
    /// Of so many things.
    pub(crate) fn of(things: usize) -> Order {
        Order {
            entries: Vec::with_capacity(things),
            keys: Vec::new(),
        }
    }

    /// Adds a thing of a family; `write_key` appends its key.
    pub(crate) fn push(&mut self, index: usize, family: u32, write_key: impl FnOnce(&mut Vec<u8>)) {
        let start = self.keys.len();
        write_key(&mut self.keys);
        let len = (self.keys.len() - start) as u32;
        // Beyond 4 GiB of keys the name alone counts.
        let (start, len) = u32::try_from(self.keys.len()).map_or((0, 0), |_| (start as u32, len));
        self.entries.push(Entry {
            family,
            index: index as u32,
            start,
            len,
            prefix: 0,
        });
    }

    /// The indexes, in order; `names` are those of the families.
    pub(crate) fn sorted(mut self, names: &[&str]) -> impl Iterator<Item = usize> {
        self.rank(names);
        self.mark();
        let (mut entries, keys) = (self.entries, self.keys);
        entries.sort_unstable_by(|a, b| {
            let brief = |entry: &Entry| (entry.family, entry.prefix);
            let key = |entry: &Entry| &keys[entry.key()];
            brief(a)
                .cmp(&brief(b))
                .then_with(|| key(a).cmp(key(b)))
                .then(a.index.cmp(&b.index))
        });
        entries.into_iter().map(|entry| entry.index as usize)
    }

    /// Numbers the families by their names.
    fn rank(&mut self, names: &[&str]) {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        let rank = |name: &&str| sorted.partition_point(|earlier| earlier < name) as u32;
        let ranks: Vec<u32> = names.iter().map(rank).collect();
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
        for entry in &self.entries {
            let key = entry.key();
            let place = &mut common[entry.family as usize];
            let (first, len) = place.get_or_insert((key.clone(), key.len()));
            let pairs = self.keys[first.clone()].iter().zip(&self.keys[key]);
            *len = pairs.take(*len).take_while(|(a, b)| a == b).count();
        }
        for entry in &mut self.entries {
            let common = common[entry.family as usize].as_ref();
            let begin = entry.start as usize + common.map_or(0, |(_, len)| *len);
            let mut bytes = [0; 16];
            let rest = &self.keys[begin..entry.key().end];
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
            let (mut order, mut names) = (Order::of(things.len()), Vec::new());
            for (index, (name, key)) in things.iter().enumerate() {
                order.push(index, index as u32, |out| out.extend(key.as_bytes()));
                names.push(name.as_str());
            }
            let sorted: Vec<usize> = order.sorted(&names).collect();
            let mut expected: Vec<usize> = (0..things.len()).collect();
            expected.sort_by_key(|&index| &things[index]);
            prop_assert_eq!(sorted, expected);
        }
    }
}
