//! This process as an owner: it joins with its first producer or emit, anew after a fork and after
//! foreign code closed the descriptor of its lock, and leaves with the last handle.
//!
//! The first emit may come in a signal handler, which may have interrupted anything: a join takes
//! no lock but [`MappedBus::joining`], which its own thread never waits for, and allocates nothing.

use std::time::{Duration, Instant};

use crossbeam_utils::Backoff;

use super::MappedBus;
use crate::clock;
use crate::error::JoinError;
use crate::fork::{self, Generation};
use crate::lane::count;
use crate::liveness::{CREATE_BYTE, owner_byte};
use crate::owner::{Identity, OwnerId, OwnerPhase};
use crate::sync::Ordering;
use crate::testpoint;

/// Entries that are used before one is used again.
const REMEMBERED: usize = 64;
/// How long a process that could not join waits before it tries again.
const JOIN_RETRY_NS: u64 = 1_000_000_000;
/// How long a thread waits for another one that joins. That takes some 100 µs of a processor, for
/// which a machine with thousands of threads can have it wait.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks at it, once it was not over soon: so that it gets a processor.
const NAP: Duration = Duration::from_micros(200);

/// This process as an owner of a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) owner: OwnerId,
    pub(crate) generation: Generation,
}

impl Attachment {
    /// Tells an attachment from none.
    const SOME: u64 = 1 << OwnerId::BITS;

    fn word(self) -> u64 {
        self.generation
            .with(Self::SOME | u64::from(self.owner.pack()))
    }
}

impl MappedBus {
    /// This process as an owner; joins when it is not one yet, is a forked child of one, or was
    /// taken for dead.
    pub(crate) fn attachment(&self) -> Result<Attachment, JoinError> {
        let generation = fork::generation();
        let me = this_thread(generation);
        let (backoff, mut start) = (Backoff::new(), None);
        loop {
            if let Some(attachment) = self.living(generation) {
                return Ok(attachment);
            }
            let join = || match self.living(generation) {
                Some(attachment) => Ok(attachment),
                None => self.join(generation),
            };
            if let Some(joined) = self.while_joining(join) {
                return joined;
            }
            let joining = self.joining.load(Ordering::Acquire);
            let waited = start.get_or_insert_with(Instant::now).elapsed();
            // The frame that this very call interrupted joins, and would wait for ever.
            if joining == me || (joining != 0 && waited >= PATIENCE) {
                return Err(JoinError::Busy);
            }
            if backoff.is_completed() {
                std::thread::sleep(NAP);
            } else {
                backoff.snooze();
            }
        }
    }

    /// Does what only one thread of the process may do at a time, unless another one does.
    pub(super) fn while_joining<T>(&self, what: impl FnOnce() -> T) -> Option<T> {
        let generation = fork::generation();
        let joining = self.joining.load(Ordering::Acquire);
        // A parent's thread may have been joining at the fork: its generation is not ours.
        if joining != 0 && generation.of(joining).is_some() {
            return None;
        }
        let (me, order) = (this_thread(generation), Ordering::AcqRel);
        self.joining
            .compare_exchange(joining, me, order, Ordering::Relaxed)
            .ok()?;
        let done = what();
        self.joining.store(0, Ordering::Release);
        Some(done)
    }

    /// What this process joined as, if it did.
    pub(crate) fn attached_now(&self) -> Option<Attachment> {
        self.attached(fork::generation())
    }

    /// What this process joined as, if it did and nobody found it dead.
    fn living(&self, generation: Generation) -> Option<Attachment> {
        self.attached(generation).filter(|attachment| {
            self.entry(attachment.owner)
                .is_occupied_by(attachment.owner)
        })
    }

    fn attached(&self, generation: Generation) -> Option<Attachment> {
        let word = generation.of(self.attachment.load(Ordering::Acquire))?;
        (word & Attachment::SOME != 0).then(|| Attachment {
            owner: OwnerId::unpack(word as u32 & OwnerId::MASK),
            generation,
        })
    }

    /// As [`attachment`](Self::attachment), without an attempt soon after a failed one.
    pub(crate) fn attachment_or_wait(&self) -> Option<Attachment> {
        if let Some(attachment) = self.living(fork::generation()) {
            return Some(attachment);
        }
        let now_ns = clock::monotonic_ns();
        if now_ns < self.retry_ns.load(Ordering::Relaxed) {
            return None;
        }
        match self.attachment() {
            Ok(attachment) => Some(attachment),
            // Over in an instant.
            Err(JoinError::Busy) => None,
            Err(_) => {
                let retry_ns = now_ns + JOIN_RETRY_NS;
                self.retry_ns.store(retry_ns, Ordering::Relaxed);
                None
            }
        }
    }

    /// Takes a place in the owner table. The caller holds `joining`.
    fn join(&self, generation: Generation) -> Result<Attachment, JoinError> {
        if self.is_removed() {
            return Err(JoinError::Removed);
        }
        let reopened = self.locks.reopen(self.path(), self.region.id());
        if !reopened.map_err(JoinError::Io)? {
            self.is_replaced.store(1, Ordering::Relaxed);
            return Err(JoinError::Removed);
        }
        let joined = self.occupy(generation).and_then(|attachment| {
            // Who removed it may have had the byte until now.
            if self.is_removed() {
                self.entry(attachment.owner).vacate();
                return Err(JoinError::Removed);
            }
            Ok(attachment)
        });
        match joined {
            Ok(attachment) => self.attachment.store(attachment.word(), Ordering::Release),
            Err(_) => self.locks.close(),
        }
        joined
    }

    fn occupy(&self, generation: Generation) -> Result<Attachment, JoinError> {
        let role = self.role.get().map_or("", String::as_str);
        let mut command = [0; 256];
        let identity = Identity::of_this_process(role, &mut command);
        let entries = self.owners();
        // A few fresh entries first, so that `qbus stat` still knows the last who left; then those
        // that were left, so that one-shots do not fill the table; then dead ones that nobody
        // reaped.
        let order = |phases: &'static [OwnerPhase], within: std::ops::Range<usize>| {
            within.filter(move |&index| phases.contains(&entries[index].state().phase))
        };
        let few = entries.len().min(REMEMBERED);
        let candidates = order(&[OwnerPhase::Free], 0..few)
            .chain(order(&[OwnerPhase::Left], 0..entries.len()))
            .chain(order(&[OwnerPhase::Free], few..entries.len()))
            .chain(order(
                &[OwnerPhase::Joining, OwnerPhase::Active],
                0..entries.len(),
            ));
        for index in candidates {
            let locked = self.locks.try_lock(owner_byte(index));
            if !locked.map_err(JoinError::Io)? {
                continue;
            }
            testpoint!("byte");
            self.repair(index);
            let owner = entries[index].occupy(index, &identity);
            count(&self.header().joined, 1);
            testpoint!("joined");
            return Ok(Attachment { owner, generation });
        }
        // Who removes a bus that nobody uses holds all bytes, and before them this one.
        if self.locks.is_held(CREATE_BYTE).map_err(JoinError::Io)? {
            return Err(JoinError::Busy);
        }
        Err(JoinError::OwnersFull {
            owners: entries.len() as u64,
        })
    }

    /// Gives the process's place back. Nobody emits any more.
    pub(super) fn leave(&self) {
        let Some(attachment) = self.attached_now() else {
            // A forked child: the entry and the byte are its parent's.
            return;
        };
        self.attachment.store(0, Ordering::Release);
        // Whoever lost its lock may have lost its place to another.
        let entry = self.entry(attachment.owner);
        if self.locks.is_open() && entry.is_occupied_by(attachment.owner) {
            for lane in self.exclusive_lanes() {
                lane.take_back(attachment.owner);
            }
            entry.vacate();
            testpoint!("left");
        }
        self.locks.close();
    }
}

fn this_thread(generation: Generation) -> u64 {
    generation.with(rustix::thread::gettid().as_raw_nonzero().get() as u64)
}

impl Drop for MappedBus {
    fn drop(&mut self) {
        self.leave();
    }
}
