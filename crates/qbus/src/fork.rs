//! Tells a process that it is a forked child.
//!
//! Two means, since each misses something. A `pthread_atfork` handler runs in every child that
//! `fork` makes: it closes the inherited lock descriptors, so that a child that never emits does not
//! keep its dead parent looking alive. A word in a private MADV_WIPEONFORK page becomes 0 in every
//! child, also one made by a raw `clone`: a producer compares it with the generation that it was
//! made in, one load an emit.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use crate::clock;
use crate::sync::{Ordering, PrivatePtr, PrivateU64};

/// This process since it was forked: never 0, and different in parent and child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    pub(crate) fn word(self) -> u64 {
        self.0
    }
}

/// The page's word: the generation of the process that owns the page, or 0 in a fresh child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkWord(&'static PrivateU64);

impl ForkWord {
    /// Whether the process is still the one that `generation` names.
    #[inline]
    pub(crate) fn is(self, generation: Generation) -> bool {
        self.0.load(Ordering::Relaxed) == generation.0
    }
}

/// The page, for the handler, which must not wait for a lock.
static PAGE: PrivatePtr<PrivateU64> = PrivatePtr::new(ptr::null_mut());

/// The word, on a page made at the first call.
pub(crate) fn word() -> ForkWord {
    static WORD: OnceLock<ForkWord> = OnceLock::new();
    *WORD.get_or_init(|| {
        let word = wiped_word();
        PAGE.store(ptr::from_ref(word).cast_mut(), Ordering::Release);
        // SAFETY: the handler only stores to atomics and closes descriptors, which is
        // async-signal-safe, as a handler in a forked child must be.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        ForkWord(word)
    })
}

/// The present generation; makes one when the process is a fresh child.
pub(crate) fn generation() -> Generation {
    let word = word().0;
    let current = word.load(Ordering::Acquire);
    if current != 0 {
        return Generation(current);
    }
    // A child that a raw `clone` made: the handler has not run.
    close_inherited();
    let fresh = (clock::precise_ns() << 16) ^ u64::from(std::process::id()) | 1;
    match word.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Generation(fresh),
        Err(other) => Generation(other),
    }
}

/// A word that reads 0 in a forked child. Where the kernel cannot wipe, the handler stores the 0.
fn wiped_word() -> &'static PrivateU64 {
    let page = 4096;
    let (rw, private) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let address = unsafe { libc::mmap(ptr::null_mut(), page, rw, private, -1, 0) };
    if address == libc::MAP_FAILED {
        return Box::leak(Box::new(PrivateU64::new(0)));
    }
    // SAFETY: the mapping above is ours alone, and zero after a fork is what its word allows.
    unsafe { libc::madvise(address, page, libc::MADV_WIPEONFORK) };
    // SAFETY: the page is aligned, zeroed, never unmapped, and used as this one word only.
    unsafe { &*address.cast::<PrivateU64>() }
}

extern "C" fn in_child() {
    // SAFETY: null, or the page, which is never unmapped.
    if let Some(word) = unsafe { PAGE.load(Ordering::Acquire).as_ref() } {
        word.store(0, Ordering::Release);
    }
    close_inherited();
}

/// A descriptor that a forked child closes before it does anything else.
#[derive(Debug)]
pub(crate) struct ForkClosed {
    node: &'static Node,
    generation: Generation,
}

/// Nodes are never freed, only used again: the handler walks the list without a lock.
#[derive(Debug)]
struct Node {
    /// Descriptor + 1; 0 = free.
    fd: PrivateU64,
    next: *const Node,
}

// SAFETY: `next` is written before the node is published and never changes.
unsafe impl Sync for Node {}
// SAFETY: as for `Sync`; nothing in a node belongs to a thread.
unsafe impl Send for Node {}

static NODES: PrivatePtr<Node> = PrivatePtr::new(ptr::null_mut());

impl ForkClosed {
    pub(crate) fn new(fd: OwnedFd) -> ForkClosed {
        use std::os::fd::IntoRawFd;
        let generation = generation();
        let raw = fd.into_raw_fd();
        ForkClosed {
            node: enlist(raw as u64 + 1),
            generation,
        }
    }

    /// The descriptor; -1, which every call refuses, once a fork took it away.
    pub(crate) fn raw(&self) -> RawFd {
        if !word().is(self.generation) {
            return -1;
        }
        self.node.fd.load(Ordering::Acquire) as RawFd - 1
    }
}

impl AsRawFd for ForkClosed {
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}

impl Drop for ForkClosed {
    fn drop(&mut self) {
        // In a child the node may serve a descriptor of its own by now.
        if word().is(self.generation) {
            close_node(self.node);
        }
    }
}

fn enlist(value: u64) -> &'static Node {
    let mut cursor = NODES.load(Ordering::Acquire).cast_const();
    // SAFETY: nodes are leaked, so a pointer in the list is null or good for ever.
    while let Some(node) = unsafe { cursor.as_ref() } {
        if node
            .fd
            .compare_exchange(0, value, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            return node;
        }
        cursor = node.next;
    }
    let node = Box::leak(Box::new(Node {
        fd: PrivateU64::new(value),
        next: ptr::null(),
    }));
    let mut first = NODES.load(Ordering::Acquire);
    loop {
        node.next = first;
        match NODES.compare_exchange(first, node, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return node,
            Err(other) => first = other,
        }
    }
}

fn close_inherited() {
    let mut cursor = NODES.load(Ordering::Acquire).cast_const();
    // SAFETY: nodes are leaked, so a pointer in the list is null or good for ever.
    while let Some(node) = unsafe { cursor.as_ref() } {
        close_node(node);
        cursor = node.next;
    }
}

fn close_node(node: &Node) {
    let value = node.fd.swap(0, Ordering::AcqRel);
    if value != 0 {
        // SAFETY: the swap made this call the only one that closes the descriptor.
        unsafe { libc::close(value as RawFd - 1) };
    }
}
