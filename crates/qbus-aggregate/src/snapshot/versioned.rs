//! Rows with two versions: what makes a commit atomic.
//!
//! A row is two versions of `len` words, each behind a tag: the epoch that it belongs to, or 0
//! while it is being written or was never. A commit writes the older version of each touched row
//! with tag e + 1, and then stores `committed` = e + 1, one word. Of each row the newest version
//! with a tag of at most `committed` counts.
//!
//! Edges:
//!
//! * **S1 commit** `commit` stores `committed` (Release) → `committed` loads it (Acquire): all rows
//!   of the epoch are whole.
//! * **S2 tag** `write` stores a tag (Release) → `read` loads it (then an Acquire fence): the words
//!   are that version's.
//! * **S3 overwrite** `write` stores tag 0, then (Release fence) the words → `read` loads the
//!   words, then (Acquire fence) the tag again: the same tag means that no word was of a later
//!   version.
//! * **S4 other version** `write` stores tag 0 (Release) → `read` loads it (then an Acquire fence):
//!   the other version's tag is there.
//!
//! | the writer dies           | a reader and a successor see                                    |
//! |---------------------------|-----------------------------------------------------------------|
//! | inside a version          | its tag is 0: the other version counts                          |
//! | after some tags of e + 1  | `committed` is e: the versions of e count. The successor erases |
//! |                           | the tags above e before it commits: else e + 1 would count with |
//! |                           | half of its rows                                                |
//! | after `committed` = e + 1 | the versions of e + 1 count                                     |

#[cfg(all(test, loom))]
mod model;

use qbus::{Words, testpoint};

/// Words of a row whose versions are `len` words long.
pub(crate) const fn row_words(len: usize) -> usize {
    2 * (len + 1)
}

/// A row: where it begins, and the length of a version without its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// What a reader found in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The version that counts at the reader's epoch.
    Version,
    /// Nothing was committed to this row yet.
    Nothing,
    /// Two further commits wrote to it: only newer versions are there.
    Overtaken,
}

impl Row {
    /// The tags' places.
    fn tags(self) -> [usize; 2] {
        [self.start, self.start + 1 + self.len]
    }

    /// Whether the whole row lies within `words`.
    pub(crate) fn fits(self, words: Words<'_>) -> bool {
        words.slice(self.start, row_words(self.len)).is_some()
    }

    /// Writes the older version. `payload` may be shorter than a version; it says itself how long
    /// it is. At most once an epoch.
    pub(crate) fn write(self, words: Words<'_>, epoch: u64, payload: &[u64]) {
        let [a, b] = self.tags();
        let tag = if words.load(a) <= words.load(b) { a } else { b };
        // S4 (release): pairs with the fence in `read`.
        words.publish(tag, 0);
        testpoint!("row-opened");
        // S3 (release): pairs with the second fence in `copy`.
        words.release();
        for (index, value) in payload.iter().enumerate() {
            words.store(tag + 1 + index, *value);
        }
        testpoint!("row-filled");
        // S2 (release): pairs with the first fence in `copy`.
        words.publish(tag, epoch);
        testpoint!("row-tagged");
    }

    /// Erases tags above `committed`: what a predecessor had begun to commit.
    pub(crate) fn erase(self, words: Words<'_>, committed: u64) {
        for tag in self.tags() {
            if words.load(tag) > committed {
                words.store(tag, 0);
                testpoint!("row-erased");
            }
        }
    }

    /// Appends the version that counts at `epoch` to `out`, or nothing. With `newest`, the place of
    /// the committed epoch, a row that was overtaken gives the version that counts by now; never
    /// one that is not committed yet, for its writer may die before it is.
    pub(crate) fn read(
        self,
        words: Words<'_>,
        mut epoch: u64,
        newest: Option<usize>,
        out: &mut Vec<u64>,
    ) -> Found {
        // A version is overwritten once in two commits: a reader that fails this often is hostile
        // memory's, or was overtaken.
        for attempt in 0..64 {
            let tags = self.tags().map(|tag| (words.load(tag), tag));
            let counts = |&&(tag, _): &&(u64, usize)| tag != 0 && tag <= epoch;
            let Some(&(tag, at)) = tags.iter().filter(counts).max() else {
                if tags.iter().any(|(tag, _)| *tag != 0) {
                    // S4 (acquire): what overtook the version was written after another commit.
                    words.acquire();
                    match newest.and_then(|at| committed(words, at)) {
                        Some(later) if later > epoch => epoch = later,
                        // Only in a copy that was made while commits went on: in the file itself S4
                        // shows a later epoch. The older of the two was committed long before.
                        Some(_) if tags.iter().all(|(tag, _)| *tag != 0) => {
                            epoch = tags.iter().map(|(tag, _)| *tag).min().unwrap_or(epoch);
                        }
                        _ => return Found::Overtaken,
                    }
                    continue;
                }
                // A version being written has tag 0 too, and the two tags are not loaded at once.
                // S4 (acquire): pairs with the store of a tag 0 in `write`.
                words.acquire();
                if attempt < 8 {
                    continue;
                }
                return Found::Nothing;
            };
            if self.copy(words, tag, at, out) {
                return Found::Version;
            }
        }
        Found::Overtaken
    }

    fn copy(self, words: Words<'_>, tag: u64, at: usize, out: &mut Vec<u64>) -> bool {
        let start = out.len();
        // S2 (acquire): pairs with the tag's store in `write`.
        words.acquire();
        out.extend((0..self.len).map(|index| words.load(at + 1 + index)));
        // S3 (acquire): pairs with the fence in `write`.
        words.acquire();
        let is_whole = words.load(at) == tag;
        if !is_whole {
            out.truncate(start);
        }
        is_whole
    }
}

/// Epochs beyond this (a century of a commit a nanosecond) are garbage.
pub(crate) const EPOCH_MAX: u64 = 1 << 62;

/// The epoch that counts.
pub(crate) fn committed(words: Words<'_>, at: usize) -> Option<u64> {
    let epoch = words.get(at)?;
    // S1 (acquire): pairs with the store in `commit`.
    words.acquire();
    Some(epoch)
}

/// Makes an epoch count.
pub(crate) fn commit(words: Words<'_>, at: usize, epoch: u64) {
    // S1 (release): pairs with the load in `committed`.
    words.publish(at, epoch);
    testpoint!("committed");
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use qbus::HeapWords;

    const COMMITTED: usize = 0;
    const ROW: Row = Row { start: 1, len: 2 };

    fn read(words: Words<'_>) -> (Found, Vec<u64>) {
        let mut out = Vec::new();
        let epoch = committed(words, COMMITTED).unwrap();
        let found = ROW.read(words, epoch, None, &mut out);
        (
            found,
            if found == Found::Version {
                out
            } else {
                Vec::new()
            },
        )
    }

    #[test]
    fn only_what_is_committed_counts() {
        let memory = HeapWords::new(1 + row_words(2));
        let words = memory.words();
        assert_eq!(read(words), (Found::Nothing, vec![]));
        ROW.write(words, 1, &[7, 8]);
        assert_eq!(read(words).0, Found::Overtaken);
        commit(words, COMMITTED, 1);
        assert_eq!(read(words), (Found::Version, vec![7, 8]));
        ROW.write(words, 2, &[9, 10]);
        assert_eq!(read(words), (Found::Version, vec![7, 8]));
        commit(words, COMMITTED, 2);
        assert_eq!(read(words), (Found::Version, vec![9, 10]));
    }

    #[test]
    fn a_row_that_was_overtaken_gives_nothing_uncommitted() {
        let memory = HeapWords::new(1 + row_words(2));
        let (words, mut out) = (memory.words(), Vec::new());
        for epoch in 1..=3 {
            ROW.write(words, epoch, &[epoch, epoch]);
            if epoch < 3 {
                commit(words, COMMITTED, epoch);
            }
        }
        assert_eq!(ROW.read(words, 1, None, &mut out), Found::Overtaken);
        let found = ROW.read(words, 1, Some(COMMITTED), &mut out);
        assert_eq!((found, out), (Found::Version, vec![2, 2]));
    }

    #[test]
    fn a_torn_copy_gives_the_older_of_two_later_versions() {
        let memory = HeapWords::new(1 + row_words(2));
        let (words, mut out) = (memory.words(), Vec::new());
        // The copy has the epoch of before, and the row of after two more commits.
        commit(words, COMMITTED, 1);
        ROW.write(words, 3, &[3, 3]);
        ROW.write(words, 4, &[4, 4]);
        let found = ROW.read(words, 1, Some(COMMITTED), &mut out);
        assert_eq!((found, out), (Found::Version, vec![3, 3]));
    }

    #[test]
    fn a_half_made_commit_never_comes_to_count() {
        let memory = HeapWords::new(1 + row_words(2));
        let words = memory.words();
        ROW.write(words, 1, &[7, 8]);
        commit(words, COMMITTED, 1);
        ROW.write(words, 2, &[9, 10]);
        ROW.erase(words, 1);
        // Another row's commit makes epoch 2 count; this row has no part in it.
        commit(words, COMMITTED, 2);
        assert_eq!(read(words), (Found::Version, vec![7, 8]));
    }
}
