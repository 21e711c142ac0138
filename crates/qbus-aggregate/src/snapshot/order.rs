//! The order of series that have one name: by their labels.

use std::ops::Range;

/// What is sorted: little, so that it stays in the caches whatever the labels are.
#[derive(Debug)]
struct Entry {
    index: u32,
    /// Where its key lies.
    start: u32,
    len: u32,
    /// The first bytes in which the keys may differ.
    prefix: u128,
}

impl Entry {
    fn key(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// Sorts things by a key.
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

    /// Adds the next thing; `write_key` appends its key.
    pub(crate) fn push(&mut self, write_key: impl FnOnce(&mut Vec<u8>)) {
        let start = self.keys.len();
        write_key(&mut self.keys);
        let len = (self.keys.len() - start) as u32;
        // Beyond 4 GiB of keys all are equal.
        let (start, len) = u32::try_from(self.keys.len()).map_or((0, 0), |_| (start as u32, len));
        self.entries.push(Entry {
            index: self.entries.len() as u32,
            start,
            len,
            prefix: 0,
        });
    }

    /// The indexes of the things, in order.
    pub(crate) fn sorted(mut self) -> impl Iterator<Item = usize> {
        self.mark();
        let (mut entries, keys) = (self.entries, self.keys);
        entries.sort_unstable_by(|a, b| {
            let key = |entry: &Entry| &keys[entry.key()];
            a.prefix
                .cmp(&b.prefix)
                .then_with(|| key(a).cmp(key(b)))
                .then(a.index.cmp(&b.index))
        });
        entries.into_iter().map(|entry| entry.index as usize)
    }

    /// Finds what all keys begin with, and marks each with what follows.
    fn mark(&mut self) {
        let Some(first) = self.entries.first().map(Entry::key) else {
            return;
        };
        let mut common = first.len();
        for entry in &self.entries {
            let pairs = self.keys[first.clone()].iter().zip(&self.keys[entry.key()]);
            common = pairs.take(common).take_while(|(a, b)| a == b).count();
        }
        for entry in &mut self.entries {
            let mut bytes = [0; 16];
            let rest = &self.keys[entry.key()][common..];
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
        fn it_is_that_of_the_keys(
            keys in prop::collection::vec("(same_start_|)[ab\0]{0,20}", 0..60),
        ) {
            let mut order = Order::of(keys.len());
            for key in &keys {
                order.push(|out| out.extend(key.as_bytes()));
            }
            let sorted: Vec<usize> = order.sorted().collect();
            let mut expected: Vec<usize> = (0..keys.len()).collect();
            expected.sort_by_key(|&index| &keys[index]);
            prop_assert_eq!(sorted, expected);
        }
    }
}
