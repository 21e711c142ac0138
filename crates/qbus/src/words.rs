//! Shared memory as a run of words.

use std::fmt;

use crate::sync::{AtomicU64, Ordering, fence};

/// A run of shared words that other processes may be writing.
///
/// All loads are Relaxed, which is also what a read-only mapping allows; [`acquire`](Self::acquire)
/// orders what was loaded before it against what is loaded after.
///
/// # Panics
///
/// `load`, `store` and `store_all` panic when `index` is out of range: check an index that was
/// itself read from shared memory with [`get`](Self::get) or [`slice`](Self::slice).
#[derive(Clone, Copy)]
pub struct Words<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Words<'a> {
    pub(crate) fn new(words: &'a [AtomicU64]) -> Words<'a> {
        Words { words }
    }

    /// How many words there are.
    pub fn len(self) -> usize {
        self.words.len()
    }

    /// Whether there is no word.
    pub fn is_empty(self) -> bool {
        self.words.is_empty()
    }

    /// Words `start..start + len`, or `None` when they do not all exist.
    pub fn slice(self, start: usize, len: usize) -> Option<Words<'a>> {
        let words = self.words.get(start..start.checked_add(len)?)?;
        Some(Words { words })
    }

    /// The word at `index`, or `None` when there is none.
    pub fn get(self, index: usize) -> Option<u64> {
        Some(self.words.get(index)?.load(Ordering::Relaxed))
    }

    /// The word at `index`, unordered.
    #[inline]
    pub fn load(self, index: usize) -> u64 {
        self.words[index].load(Ordering::Relaxed)
    }

    /// Stores a word, unordered.
    #[inline]
    pub fn store(self, index: usize, value: u64) {
        self.words[index].store(value, Ordering::Relaxed);
    }

    /// Stores words one after the other, unordered.
    #[inline]
    pub fn store_all(self, start: usize, values: &[u64]) {
        for (word, value) in self.words[start..][..values.len()].iter().zip(values) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// Stores a word after everything that this thread stored before.
    #[inline]
    pub fn publish(self, index: usize, value: u64) {
        self.words[index].store(value, Ordering::Release);
    }

    /// What was loaded before this call was loaded before what is loaded after it.
    #[inline]
    pub fn acquire(self) {
        fence(Ordering::Acquire);
    }

    /// What was stored before this call is stored before what is stored after it.
    #[inline]
    pub fn release(self) {
        fence(Ordering::Release);
    }
}

/// Zeroed words of this process, for tests and models of what otherwise lies in a file.
#[doc(hidden)]
#[derive(Debug)]
pub struct HeapWords(Vec<AtomicU64>);

impl HeapWords {
    /// So many words, all 0.
    pub fn new(len: usize) -> HeapWords {
        HeapWords((0..len).map(|_| AtomicU64::new(0)).collect())
    }

    /// The words.
    pub fn words(&self) -> Words<'_> {
        Words::new(&self.0)
    }

    /// Breaks a word.
    #[cfg(loom)]
    pub fn inject(&self, index: usize, fault: crate::Fault) {
        self.0[index].inject(fault);
    }

    /// Lets readers [`peek`](Self::peek) at a word.
    #[cfg(loom)]
    pub fn watch(&self, index: usize) {
        self.0[index].watch();
    }

    /// A reader is to come before every change of a watched word, and after every one.
    #[cfg(loom)]
    pub fn peek(&self, index: usize) {
        self.0[index].peek();
    }

    /// From now on fences do nothing, in this execution.
    #[cfg(loom)]
    pub fn drop_fences(&self) {
        crate::sync::drop_fences(true);
    }

    /// So many more stores reach memory: the writer was killed after them.
    #[cfg(loom)]
    pub fn cut_after(&self, stores: u64) {
        crate::sync::cut_after(stores);
    }
}

impl fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("len", &self.len()).finish()
    }
}

/// A read position in shared words that may hold anything.
///
/// Every read is checked; what does not fit is `None`, and the caller counts and refuses it.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    words: Words<'a>,
    next: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(words: Words<'a>, start: usize) -> Cursor<'a> {
        Cursor { words, next: start }
    }

    pub(crate) fn word(&mut self) -> Option<u64> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    /// Text of `len` bytes, packed eight to a word, little end first.
    pub(crate) fn text(&mut self, len: usize) -> Option<String> {
        // No room for what is not there.
        let words = self.words.slice(self.next, len.div_ceil(8))?;
        let mut bytes = Vec::with_capacity(words.len() * 8);
        self.bytes(len, &mut bytes)?;
        String::from_utf8(bytes).ok()
    }

    /// Whether the text that follows, of as many bytes, is that one; it is passed by.
    pub(crate) fn is_text(&mut self, mut text: impl Iterator<Item = u8>) -> Option<bool> {
        let mut is_it = true;
        loop {
            let mut bytes = [0; 8];
            let mut len = 0;
            for (place, byte) in bytes.iter_mut().zip(text.by_ref()) {
                (*place, len) = (byte, len + 1);
            }
            if len > 0 {
                is_it &= self.word()? == u64::from_le_bytes(bytes);
            }
            if len < 8 {
                return Some(is_it);
            }
        }
    }

    pub(crate) fn skip(&mut self, words: usize) {
        self.next = self.next.saturating_add(words);
    }

    /// Appends `len` bytes, packed likewise.
    pub(crate) fn bytes(&mut self, len: usize, out: &mut Vec<u8>) -> Option<()> {
        let words = self.words.slice(self.next, len.div_ceil(8))?;
        self.next += words.len();
        let end = out.len() + len;
        for index in 0..words.len() {
            out.extend_from_slice(&words.load(index).to_le_bytes());
        }
        out.truncate(end);
        Some(())
    }
}

/// Appends text, packed eight bytes to a word, little end first, zero padded.
pub(crate) fn pack_text(text: &str, out: &mut dyn FnMut(u64)) {
    for chunk in text.as_bytes().chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        out(u64::from_le_bytes(bytes));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn text_survives_packing() {
        for text in ["", "a", "12345678", "123456789", "größer"] {
            let mut packed = Vec::new();
            pack_text(text, &mut |word| packed.push(word));
            let shared: Vec<AtomicU64> = packed.into_iter().map(AtomicU64::new).collect();
            let mut cursor = Cursor::new(Words::new(&shared), 0);
            assert_eq!(cursor.text(text.len()).as_deref(), Some(text));
        }
    }

    #[test]
    fn text_beyond_the_end_or_not_utf8_is_refused() {
        let shared = [AtomicU64::new(u64::MAX)];
        assert_eq!(Cursor::new(Words::new(&shared), 0).text(9), None);
        assert_eq!(Cursor::new(Words::new(&shared), 0).text(8), None);
        assert_eq!(Cursor::new(Words::new(&shared), 0).text(usize::MAX), None);
    }
}
