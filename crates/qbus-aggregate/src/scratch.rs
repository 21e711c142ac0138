//! Memory that is needed for a moment.

use memmap2::MmapMut;

/// What is shorter comes from the heap.
const SMALL_BYTES: usize = 64 * 1024;

/// Bytes, zeros at first, that go back to the system when they are dropped: an allocator would keep
/// what is much for the next time, while a page is made beside it.
#[derive(Debug)]
pub(crate) enum Scratch {
    Mapped(MmapMut),
    /// Where they are few, or the system gives none.
    Heap(Vec<u8>),
}

impl Scratch {
    pub(crate) fn of(bytes: usize) -> Scratch {
        let map = (bytes >= SMALL_BYTES).then(|| MmapMut::map_anon(bytes).ok());
        map.flatten()
            .map_or_else(|| Scratch::Heap(vec![0; bytes]), Scratch::Mapped)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Scratch::Mapped(map) => map,
            Scratch::Heap(bytes) => bytes,
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Scratch::Mapped(map) => map,
            Scratch::Heap(bytes) => bytes,
        }
    }
}
