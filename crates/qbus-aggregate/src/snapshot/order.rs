//! The order of series that have one name: by their labels.
//!
//! Keys are longer than what they belong to, and there are as many as series. So they are not kept:
//! of each stay the first bytes in which it may differ from the others, and where those do not
//! decide it is read again.

use crate::scratch::Scratch;

/// Bytes of a key that are compared at once.
const PREFIX: usize = 11;
/// Of an entry: where it says how many they are, and where its thing's index lies.
const LEN: usize = PREFIX;
const INDEX: usize = LEN + 1;

/// What is sorted: little, so that it stays in the caches whatever the keys are, and of bytes that
/// are in the order of the entries.
///
/// First stand the bytes of the key behind those in which all agree, and zeros where it ends. Then
/// how many they are, one more where the key goes on: one that ends comes before one that goes on,
/// be it with zeros. Then the index.
type Entry = [u8; 16];

/// Has an entry take the bytes that follow.
fn mark(entry: &mut Entry, rest: &[u8]) {
    let known = rest.len().min(PREFIX);
    entry[..PREFIX].fill(0);
    entry[..known].copy_from_slice(&rest[..known]);
    entry[LEN] = rest.len().min(PREFIX + 1) as u8;
}

/// Has it take some bytes before those that it has.
fn precede(entry: &mut Entry, before: &[u8]) {
    let known = before.len().min(PREFIX);
    entry.copy_within(..PREFIX - known, known);
    entry[..known].copy_from_slice(&before[..known]);
    entry[LEN] = (before.len() + usize::from(entry[LEN])).min(PREFIX + 1) as u8;
}

fn index(entry: &Entry) -> usize {
    let [.., a, b, c, d] = *entry;
    u32::from_be_bytes([a, b, c, d]) as usize
}

fn set_index(entry: &mut Entry, index: usize) {
    entry[INDEX..].copy_from_slice(&(index as u32).to_be_bytes());
}

/// Sorts things by their keys, which `write_key` appends, whenever it is asked to. Of things with
/// equal keys the order stays.
pub(crate) fn sort_by_keys<T: Copy>(things: &mut [T], mut write_key: impl FnMut(&T, &mut Vec<u8>)) {
    if things.len() < 2 {
        return;
    }
    let mut scratch = Scratch::of(size_of::<Entry>() * things.len());
    let (entries, _) = scratch.bytes_mut().as_chunks_mut();
    for (at, entry) in entries.iter_mut().enumerate() {
        set_index(entry, at);
    }
    // Parts whose keys are to be compared, and so many of their first bytes are the same.
    let mut parts = vec![(0..entries.len(), 0)];
    while let Some((part, same)) = parts.pop() {
        let some = &mut entries[part.clone()];
        let same = mark_all(some, same, |index, key| write_key(&things[index], key));
        some.sort_unstable_by_key(|entry| u128::from_be_bytes(*entry));
        let mut start = part.start;
        for equal in some.chunk_by(|a, b| a[..INDEX] == b[..INDEX]) {
            if equal.len() > 1 && usize::from(equal[0][LEN]) > PREFIX {
                parts.push((start..start + equal.len(), same + PREFIX));
            }
            start += equal.len();
        }
    }
    put(things, entries);
}

/// Marks each with what follows the bytes in which the keys of all agree; how many those are. So
/// many are known to be the same.
fn mark_all(
    entries: &mut [Entry],
    known: usize,
    mut read: impl FnMut(usize, &mut Vec<u8>),
) -> usize {
    let (mut first, mut key) = (Vec::new(), Vec::new());
    let Some(entry) = entries.first() else {
        return known;
    };
    read(index(entry), &mut first);
    let mut same = first.len().max(known);
    // From which entry on how many were found to be the same.
    let mut found = Vec::new();
    for (at, entry) in entries.iter_mut().enumerate() {
        key.clear();
        read(index(entry), &mut key);
        let pairs = first.iter().zip(&key).skip(known);
        let agreed = known + pairs.take(same - known).take_while(|(a, b)| a == b).count();
        if agreed < same || at == 0 {
            same = agreed;
            found.push((at, same));
        }
        mark(entry, key.get(same..).unwrap_or_default());
    }
    for (nth, &(start, then)) in found.iter().enumerate() {
        let end = found.get(nth + 1).map_or(entries.len(), |next| next.0);
        let between = first.get(same..then).unwrap_or_default();
        for entry in entries[start..end]
            .iter_mut()
            .filter(|_| !between.is_empty())
        {
            precede(entry, between);
        }
    }
    same
}

/// Puts things where their entries are.
fn put<T: Copy>(things: &mut [T], entries: &mut [Entry]) {
    for start in 0..things.len() {
        let moved = things[start];
        let mut to = start;
        loop {
            let from = index(&entries[to]);
            // One that is where it belongs names itself.
            set_index(&mut entries[to], to);
            if from == start {
                things[to] = moved;
                break;
            }
            things[to] = things[from];
            to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_that_of_the_keys(keys in prop::collection::vec(
            "(same_start_|same_start_that_is_longer_than_a_prefix|)[ab\0]{0,20}(and_the_same_end|)",
            0..60,
        )) {
            let mut order: Vec<usize> = (0..keys.len()).collect();
            sort_by_keys(&mut order, |&index, out| out.extend(keys[index].as_bytes()));
            let mut expected: Vec<usize> = (0..keys.len()).collect();
            expected.sort_by_key(|&index| &keys[index]);
            prop_assert_eq!(order, expected);
        }
    }
}
