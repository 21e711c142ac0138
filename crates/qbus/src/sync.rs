//! The only file that names atomics, so that a model checks the code that runs.
//!
//! Every shared word is an [`AtomicU64`], loaded and stored as such and in no other way.

#![allow(clippy::disallowed_types)]

#[cfg(not(loom))]
mod imp {
    pub(crate) type AtomicU64 = std::sync::atomic::AtomicU64;
    pub(crate) use std::sync::atomic::fence;
}

#[cfg(loom)]
mod faulty;

#[cfg(loom)]
mod imp {
    pub use super::faulty::Fault;
    pub(crate) use super::faulty::{AtomicU64, cut_after, drop_fences, fence};
}

#[cfg(loom)]
pub use imp::Fault;
#[cfg(loom)]
pub(crate) use imp::{cut_after, drop_fences};

pub(crate) use imp::{AtomicU64, fence};
pub(crate) use std::sync::atomic::Ordering;

/// A private word of this process that no model looks at.
pub(crate) type PrivateU64 = std::sync::atomic::AtomicU64;
/// A private pointer of this process that no model looks at.
pub(crate) type PrivatePtr<T> = std::sync::atomic::AtomicPtr<T>;

/// The half of a word that the kernel compares in futex(2). For the kernel alone: nobody loads or
/// stores it through this reference.
#[cfg(not(loom))]
pub(crate) fn low_half(word: &AtomicU64) -> &std::sync::atomic::AtomicU32 {
    let halves: *const std::sync::atomic::AtomicU32 = std::ptr::from_ref(word).cast();
    let low = if cfg!(target_endian = "big") {
        halves.wrapping_add(1)
    } else {
        halves
    };
    // SAFETY: it lies inside the word, is aligned as it must be, and lives as long.
    unsafe { &*low }
}
