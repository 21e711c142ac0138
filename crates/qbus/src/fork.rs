//! Tells a process that it is a forked child, and takes its parent's locks away from it.
//!
//! Two means, since each misses something. A `pthread_atfork` handler runs in every child that
//! `fork` makes: it closes the inherited lock descriptors, so that a child that never emits does
//! not keep its dead parent looking alive. A word in a private MADV_WIPEONFORK page becomes 0 in
//! every child, also one made by a raw `clone`: a producer compares it with the generation that it
//! was made in, one load an emit.
//!
//! All that is done to a descriptor can be interrupted by a fork of another thread, or of a signal
//! handler:
//!
//! | a fork comes                   | its child                                             |
//! |--------------------------------|-------------------------------------------------------|
//! | between open and enlisting     | has a copy without a lock: [`FORKS`] tells the        |
//! |                                | parent, which opens anew                              |
//! | between enlisting and locking, | closes its copy in the handler                        |
//! | or later                       |                                                       |
//! | between delisting and close    | has a copy of what was unlocked before                |
//!
//! Foreign code may close what it does not know, and open something else under the same number. So
//! a descriptor is used and closed only while it is what was opened: the file, and opened for
//! appending, which nobody else does with a bus.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use crate::liveness::FileId;
use crate::sync::{Ordering, PrivatePtr, PrivateU64};
use crate::testpoint;

/// This process since it was forked: never 0, larger than that of all its ancestors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// Generations are below 2 to this: with something small they fit into one word.
    pub(crate) const BITS: u32 = 39;

    /// A word that holds the generation above `low`, which has fewer than 25 bits.
    pub(crate) fn with(self, low: u64) -> u64 {
        self.0 << (64 - Self::BITS) | low
    }

    /// As a word, which [`ForkWord::is_word`] compares.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// What was stored beside the generation, if it was this one.
    pub(crate) fn of(self, word: u64) -> Option<u64> {
        let shift = 64 - Self::BITS;
        (word >> shift == self.0).then_some(word & ((1 << shift) - 1))
    }
}

/// The page's word: the generation of the process that owns the page, or 0 in a fresh child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkWord(&'static PrivateU64);

impl ForkWord {
    /// The same of a generation's [word](Generation::word).
    #[inline(always)]
    pub(crate) fn is_word(self, word: u64) -> bool {
        self.0.load(Ordering::Relaxed) == word
    }

    /// Whether the process is still the one that `generation` names.
    #[inline(always)]
    pub(crate) fn is(self, generation: Generation) -> bool {
        self.0.load(Ordering::Relaxed) == generation.0
    }
}

/// The page, for the handler, which must not wait for a lock.
static PAGE: PrivatePtr<PrivateU64> = PrivatePtr::new(ptr::null_mut());
/// The largest generation that this process or an ancestor had: inherited, unlike the page.
static LAST: PrivateU64 = PrivateU64::new(0);
/// Forks that this process has begun.
static FORKS: PrivateU64 = PrivateU64::new(0);

/// The word, on a page made at the first call.
pub(crate) fn word() -> ForkWord {
    static WORD: OnceLock<ForkWord> = OnceLock::new();
    *WORD.get_or_init(|| {
        let word = wiped_word();
        PAGE.store(ptr::from_ref(word).cast_mut(), Ordering::Release);
        // SAFETY: the handlers only use atomics, look at descriptors and close them, which is
        // async-signal-safe, as a handler in a forked child must be.
        unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) };
        ForkWord(word)
    })
}

/// The present generation; makes one when the process is a fresh child. Takes no lock, allocates
/// nothing.
pub(crate) fn generation() -> Generation {
    settle(word().0)
}

fn settle(word: &PrivateU64) -> Generation {
    let current = word.load(Ordering::Acquire);
    if current != 0 {
        return Generation(current);
    }
    // Counted before it is used: a child forked in between must not use it again.
    let fresh = LAST.fetch_add(1, Ordering::AcqRel) + 1;
    match word.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // Only now: what another thread opens from here on is of this generation, and stays.
            close_inherited(Generation(fresh));
            Generation(fresh)
        }
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

extern "C" fn before_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn in_child() {
    // SAFETY: null, or the page, which is never unmapped.
    if let Some(word) = unsafe { PAGE.load(Ordering::Acquire).as_ref() } {
        // Where the kernel could not wipe.
        word.store(0, Ordering::Release);
        settle(word);
    }
}

/// A place for a descriptor that a forked child closes before it does anything else.
#[derive(Debug)]
pub(crate) struct ForkClosed(&'static Node);

/// Nodes are never freed, only used again: the handler walks the list without a lock.
#[derive(Debug)]
struct Node {
    /// 1 while a [`ForkClosed`] has it, in this process or, after a fork, in both.
    taken: PrivateU64,
    /// Descriptor + 1, and the generation that opened it; 0 = none.
    open: PrivateU64,
    device: PrivateU64,
    inode: PrivateU64,
    next: *const Node,
}

// SAFETY: `next` is written before the node is published and never changes.
unsafe impl Sync for Node {}
// SAFETY: as for `Sync`; nothing in a node belongs to a thread.
unsafe impl Send for Node {}

static NODES: PrivatePtr<Node> = PrivatePtr::new(ptr::null_mut());

/// Descriptors that a node can hold: no process has more than 2^20 unless root says so.
const FD_MAX: RawFd = (1 << 24) - 2;
/// How often an open is tried again because a fork came in between, which takes much longer than an
/// open.
const ATTEMPTS: usize = 64;

impl ForkClosed {
    /// A place without a descriptor. May allocate; all else does not.
    pub(crate) fn reserve() -> ForkClosed {
        let free = nodes().find(|node| {
            let (free, taken, order) = (0, 1, Ordering::AcqRel);
            node.taken
                .compare_exchange(free, taken, order, Ordering::Relaxed)
                .is_ok()
        });
        ForkClosed(free.unwrap_or_else(enlist))
    }

    /// Keeps what `open` opens for appending instead of what it kept; false when that is not the
    /// file `id`. One thread at a time.
    pub(crate) fn open(
        &self,
        id: FileId,
        open: impl Fn() -> rustix::io::Result<OwnedFd>,
    ) -> io::Result<bool> {
        self.close();
        for _ in 0..ATTEMPTS {
            let generation = generation();
            let forks = FORKS.load(Ordering::SeqCst);
            let file = beyond_stdio(open()?)?;
            testpoint!("lock-opened");
            if FileId::of(&rustix::fs::fstat(&file)?) != id {
                return Ok(false);
            }
            let raw = file.as_raw_fd();
            if raw > FD_MAX {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            let word = generation.with(raw as u64 + 1);
            // The kernel gave the number away, so whoever had it has lost it.
            for node in nodes() {
                let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
                let _ = node.open.compare_exchange(word, 0, order, failed);
            }
            self.0.device.store(id.device, Ordering::Relaxed);
            self.0.inode.store(id.inode, Ordering::Relaxed);
            let _ = file.into_raw_fd();
            // SeqCst, as the loads of `FORKS`: a fork that is not seen below sees this.
            self.0.open.store(word, Ordering::SeqCst);
            testpoint!("lock-enlisted");
            if FORKS.load(Ordering::SeqCst) == forks && word_is(generation) {
                return Ok(true);
            }
            self.close();
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// The descriptor; `None` once a fork or foreign code took it away.
    pub(crate) fn raw(&self) -> Option<RawFd> {
        let open = generation().of(self.0.open.load(Ordering::Acquire))?;
        let raw = open.checked_sub(1)? as RawFd;
        self.0.is_kept(raw).then_some(raw)
    }

    /// Closes the descriptor, if it is still what was opened.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl Drop for ForkClosed {
    fn drop(&mut self) {
        self.0.close();
        self.0.taken.store(0, Ordering::Release);
    }
}

impl Node {
    /// Whether the descriptor is still what was opened under this number.
    fn is_kept(&self, raw: RawFd) -> bool {
        let id = FileId {
            device: self.device.load(Ordering::Relaxed),
            inode: self.inode.load(Ordering::Relaxed),
        };
        // SAFETY: plain integers, of which zeros are a value.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` outlives the call; a number that is no descriptor is refused.
        if unsafe { libc::fstat(raw, &raw mut stat) } != 0 {
            return false;
        }
        // SAFETY: no memory is passed.
        let flags = unsafe { libc::fcntl(raw, libc::F_GETFL) };
        (stat.st_dev, stat.st_ino) == (id.device, id.inode)
            && flags >= 0
            && flags & libc::O_APPEND != 0
    }

    fn close(&self) {
        self.close_opened(self.open.load(Ordering::Acquire));
    }

    /// Closes what `open` says, unless somebody else did, or opened anew.
    fn close_opened(&self, open: u64) {
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        if self.open.compare_exchange(open, 0, order, failed).is_err() {
            return;
        }
        let Some(raw) = ((open & ((1 << (64 - Generation::BITS)) - 1)) as RawFd).checked_sub(1)
        else {
            return;
        };
        if raw >= 0 && self.is_kept(raw) {
            testpoint!("lock-delisted");
            // SAFETY: the exchange made this call the only one that closes it, and it is what was
            // opened.
            unsafe { libc::close(raw) };
        }
    }
}

fn word_is(generation: Generation) -> bool {
    word().is(generation)
}

/// The same under a number that is none of standard input, output and error: what a program prints
/// there must never go to a bus.
fn beyond_stdio(file: OwnedFd) -> io::Result<OwnedFd> {
    if file.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(file);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(
        &file,
        libc::STDERR_FILENO + 1,
    )?)
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    let mut cursor = NODES.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: nodes are leaked, so a pointer in the list is null or good for ever.
        let node = unsafe { cursor.as_ref() }?;
        cursor = node.next;
        Some(node)
    })
}

/// A new node, which the caller has.
fn enlist() -> &'static Node {
    let node = Box::leak(Box::new(Node {
        taken: PrivateU64::new(1),
        open: PrivateU64::new(0),
        device: PrivateU64::new(0),
        inode: PrivateU64::new(0),
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

fn close_inherited(generation: Generation) {
    for node in nodes() {
        let open = node.open.load(Ordering::Acquire);
        if open != 0 && generation.of(open).is_none() {
            node.close_opened(open);
        }
    }
}
