//! A bus that was removed, and the one that was made under its name since.
//!
//! Who removes a bus says so in its header and voids all leases, which every emit looks at. A file
//! that was taken away by other means (a plain `rm`) is noticed by the process that holds a lock on
//! it: once a second, when an emit has to look at more than its lane, and by the aggregator.

use std::ptr;
use std::sync::Arc;

use super::{Bus, MappedBus};
use crate::clock;
use crate::liveness::{FileId, owner_byte};
use crate::record::SeriesId;
use crate::sync::{Ordering, PrivatePtr, PrivateU64};

/// Between two looks at the file, and for a bus that has the name now.
pub(crate) const LOOK_NS: u64 = 1_000_000_000;
/// What no id was translated to yet.
const UNKNOWN: u64 = u64::MAX;

/// The bus that has the name now, and what the series of the old one are called there.
#[derive(Debug)]
pub(crate) struct Successor {
    bus: Bus,
    /// Id in the old bus (high half) and here; indexed by the old id.
    ids: Box<[PrivateU64]>,
}

impl Bus {
    /// The bus that was made under this one's name after it was removed: what handles and
    /// [`emit`](Self::emit) emit goes there. Looks for it at most once a second.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-successor-{}", std::process::id()).parse()?;
    /// # let options = qbus::BusOptions::default();
    /// let old = qbus::Bus::create(&address, &options)?;
    /// let requests = old.counter("requests_total").register()?;
    /// qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// let new = qbus::Bus::create(&address, &options)?;
    /// requests.inc();
    /// assert!(old.is_removed());
    /// assert_eq!(old.successor().map(|bus| bus.instance()), Some(new.instance()));
    /// assert!(new.find("requests_total", &[]).is_some());
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn successor(&self) -> Option<Bus> {
        let mut found: Option<Bus> = None;
        loop {
            let bus = found.as_ref().unwrap_or(self);
            match bus.mapped.successor() {
                Some(next) if bus.is_removed() => found = Some(next.bus.clone()),
                _ => return found,
            }
        }
    }
}

impl Bus {
    /// The bus that has the name now, as far as this process knows.
    pub(crate) fn present(&self) -> Bus {
        let successor = self.is_removed().then(|| self.successor());
        successor.flatten().unwrap_or_else(|| self.clone())
    }
}

impl Successor {
    pub(crate) fn mapped(&self) -> &Arc<MappedBus> {
        self.bus.mapped()
    }

    /// The id here of a series of the old bus; registered now if need be and possible.
    pub(crate) fn translate(&self, old: &MappedBus, series: SeriesId) -> Option<SeriesId> {
        let place = &self.ids[series.0 as usize % self.ids.len()];
        let word = place.load(Ordering::Relaxed);
        if word != UNKNOWN && word >> 32 == u64::from(series.0) {
            return Some(SeriesId(word as u32));
        }
        if may_be_handler() {
            return None;
        }
        let definition = old.registry().series(series)?;
        let family = old.registry().family(definition.family)?;
        let id = self.bus.intern(&family, &definition.labels).ok()?;
        place.store(
            u64::from(series.0) << 32 | u64::from(id.0),
            Ordering::Relaxed,
        );
        Some(id)
    }
}

impl MappedBus {
    /// Whether it was removed, or its name means another file by now.
    pub(crate) fn is_removed(&self) -> bool {
        self.header().removed.load(Ordering::Acquire) != 0
            || self.is_replaced.load(Ordering::Relaxed) != 0
    }

    /// Says to all who have the bus that it was removed: their leases are void.
    pub(crate) fn declare_removed(&self) {
        self.header().removed.store(1, Ordering::Release);
        for lane in self.shared_lanes().chain(self.exclusive_lanes()) {
            lane.void();
        }
    }

    /// Looks at most once a second whether the bus still has its name, and this process its lock.
    /// Never waits, and allocates nothing.
    pub(crate) fn look_after(&self) {
        if self.is_removed() || !self.is_due(&self.look_ns) {
            return;
        }
        if self.locks.names() == Some(0) {
            self.declare_removed();
            return;
        }
        // The path may be out of reach (chroot(2), another mount namespace): that alone says
        // nothing.
        let found = rustix::fs::lstat(self.path()).map(|stat| FileId::of(&stat));
        if found.is_ok_and(|found| found != self.region.id()) {
            self.is_replaced.store(1, Ordering::Relaxed);
            // Each process finds out by itself: this one's threads look no further than at their
            // leases.
            if let Some(attachment) = self.attached_now() {
                self.exclusive_lanes()
                    .for_each(|lane| lane.take_back(attachment.owner));
            }
            return;
        }
        self.mend_lock();
    }

    /// Takes the owner's byte again when foreign code closed the descriptor, and nobody found out
    /// yet.
    fn mend_lock(&self) {
        let (Some(attachment), false) = (self.attached_now(), self.locks.is_open()) else {
            return;
        };
        self.while_joining(|| {
            let id = self.region.id();
            let reopened = self.locks.reopen(self.path(), id).unwrap_or(false);
            let byte = owner_byte(usize::from(attachment.owner.index));
            // Else it is reaped right now, or was: the next emit finds its lane taken away.
            let _ = reopened && self.locks.try_lock(byte).unwrap_or(false);
        });
    }

    /// The bus that has the name now; opened at most once a second, and not where a signal handler
    /// may have interrupted the allocator.
    pub(crate) fn successor(&self) -> Option<&Successor> {
        if let Some(successor) = self.successor.get() {
            return Some(successor);
        }
        if !self.is_removed() || may_be_handler() || !self.is_due(&self.search_ns) {
            return None;
        }
        let bus = Bus::open_now(&self.address).ok()?;
        if bus.mapped.region.id() == self.region.id() {
            return None;
        }
        let ids = (0..self.geometry.series_places()).map(|_| PrivateU64::new(UNKNOWN));
        let successor = Successor {
            bus,
            ids: ids.collect(),
        };
        // Another thread may have been faster.
        let _ = self.successor.set(successor);
        self.successor.get()
    }

    /// Whether the time of something that is done once a second has come, for one thread.
    fn is_due(&self, next_ns: &PrivateU64) -> bool {
        let (now_ns, next) = (clock::monotonic_ns(), next_ns.load(Ordering::Relaxed));
        let (order, later) = (Ordering::Relaxed, now_ns + LOOK_NS);
        now_ns >= next && next_ns.compare_exchange(next, later, order, order).is_ok()
    }
}

/// Whether this may be a signal handler, which must not allocate: while one runs, its signal is
/// blocked. A thread that blocks signals by itself is taken for one too.
pub(crate) fn may_be_handler() -> bool {
    // SAFETY: a set of bits, of which zeros are a value.
    let mut blocked: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is changed; the set outlives the call.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut blocked) };
    // SAFETY: the set was filled in above.
    (1..=libc::SIGRTMAX())
        .any(|signal| unsafe { libc::sigismember(&raw const blocked, signal) } == 1)
}

/// References that nobody else may drop: where they were found, memory must not be freed.
static BURIED: PrivatePtr<MappedBus> = PrivatePtr::new(ptr::null_mut());

/// Keeps a reference until [`exhume`] drops it.
pub(crate) fn bury(mapped: Arc<MappedBus>) {
    if mapped.is_buried.swap(1, Ordering::AcqRel) != 0 {
        // Another reference to it lies there.
        return;
    }
    let raw = Arc::into_raw(mapped).cast_mut();
    let mut first = BURIED.load(Ordering::Acquire);
    loop {
        // SAFETY: the reference that was just given up keeps it.
        let buried = unsafe { &*raw };
        buried.next_buried.store(first, Ordering::Relaxed);
        match BURIED.compare_exchange(first, raw, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

/// Drops what was buried. To be called where one may allocate.
pub(super) fn exhume() {
    let mut cursor = BURIED.swap(ptr::null_mut(), Ordering::AcqRel).cast_const();
    while !cursor.is_null() {
        // SAFETY: `bury` gave this reference up, and the exchange made it this call's.
        let mapped = unsafe { Arc::from_raw(cursor) };
        cursor = mapped.next_buried.load(Ordering::Relaxed).cast_const();
        mapped.is_buried.store(0, Ordering::Release);
    }
}
