//! This process as an owner: it joins with its first producer or emit, anew after a fork, and leaves
//! with the last handle.

use crossbeam_utils::Backoff;

use super::MappedBus;
use crate::clock;
use crate::error::JoinError;
use crate::fork::{self, Generation};
use crate::lane::count;
use crate::liveness::{Locks, owner_byte};
use crate::owner::{Identity, OwnerId, OwnerPhase};
use crate::sync::Ordering;
use crate::testpoint;

/// Entries that are used before one is used again.
const REMEMBERED: usize = 64;
/// How long a process that could not join waits before it tries again.
const JOIN_RETRY_NS: u64 = 100_000_000;

/// This process as an owner of a bus.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) owner: OwnerId,
    pub(crate) generation: Generation,
    /// Holds the owner's byte.
    _locks: Locks,
}

impl MappedBus {
    /// This process as an owner; joins when it is not one yet, or is a forked child of one.
    pub(crate) fn attachment(&self) -> Result<&Attachment, JoinError> {
        let generation = fork::generation();
        let backoff = Backoff::new();
        loop {
            if let Some(attachment) = self.attached(generation) {
                return Ok(attachment);
            }
            let joining = self.joining.load(Ordering::Acquire);
            // A parent's thread may have been joining at the fork: its generation is not ours.
            if joining != generation.word()
                && self
                    .joining
                    .compare_exchange(
                        joining,
                        generation.word(),
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    )
                    .is_ok()
            {
                let joined = match self.attached(generation) {
                    Some(_) => Ok(()),
                    None => self.join(generation).map(|attachment| {
                        self.attachment
                            .store(Box::into_raw(Box::new(attachment)), Ordering::Release);
                    }),
                };
                self.joining.store(0, Ordering::Release);
                joined?;
            }
            backoff.snooze();
        }
    }

    fn attached(&self, generation: Generation) -> Option<&Attachment> {
        // SAFETY: null, or a box that only `drop` frees, which needs the bus alone.
        let attachment = unsafe { self.attachment.load(Ordering::Acquire).as_ref() };
        attachment.filter(|attachment| attachment.generation == generation)
    }

    /// As [`attachment`](Self::attachment), without an attempt soon after a failed one.
    pub(crate) fn attachment_or_wait(&self) -> Option<&Attachment> {
        if let Some(attachment) = self.attached(fork::generation()) {
            return Some(attachment);
        }
        let now_ns = clock::monotonic_ns();
        if now_ns < self.retry_ns.load(Ordering::Relaxed) {
            return None;
        }
        let joined = self.attachment().ok();
        if joined.is_none() {
            self.retry_ns
                .store(now_ns + JOIN_RETRY_NS, Ordering::Relaxed);
        }
        joined
    }

    fn join(&self, generation: Generation) -> Result<Attachment, JoinError> {
        if self.is_removed() {
            return Err(JoinError::Removed);
        }
        let locks = self
            .locks()
            .map_err(JoinError::Io)?
            .ok_or(JoinError::Removed)?;
        let role = self.role.get().map_or("", String::as_str);
        let identity = Identity::of_this_process(role);
        let entries = self.owners();
        // A few fresh entries first, so that `qbus stat` still knows the last who left; then those
        // that were left, so that one-shots do not fill the table; then dead ones that nobody reaped.
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
            if !locks.try_lock(owner_byte(index)).map_err(JoinError::Io)? {
                continue;
            }
            testpoint!("byte");
            self.repair(index);
            let owner = entries[index].occupy(index, &identity);
            count(&self.header().joined, 1);
            testpoint!("joined");
            return Ok(Attachment {
                owner,
                generation,
                _locks: locks,
            });
        }
        Err(JoinError::OwnersFull {
            owners: entries.len() as u64,
        })
    }
}

impl Drop for MappedBus {
    fn drop(&mut self) {
        let attachment = *self.attachment.get_mut();
        if attachment.is_null() {
            return;
        }
        // SAFETY: made by `Box::into_raw`, and this is the last user of the bus.
        let attachment = unsafe { Box::from_raw(attachment) };
        if fork::word().is(attachment.generation) {
            self.entry(attachment.owner).vacate();
            testpoint!("left");
            return;
        }
        // A forked child: the entry and the byte are its parent's.
        std::mem::forget(attachment);
    }
}
