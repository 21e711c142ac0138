//! What is registered on a bus.

use std::time::Duration;

use super::{Bus, MappedBus};
use crate::clock::{self, Clock};
use crate::doorbell;
use crate::error::{JoinError, Largest, RegisterError};
use crate::lane::count;
use crate::owner::OwnerId;
use crate::record::SeriesId;
use crate::registry::{self, FamilyDefinition, FamilyId, SeriesDefinition};
use crate::sync::Ordering;

/// Between two looks at who filled the registry, which decode all of it.
const LOOK_NS: u64 = 1_000_000_000;

impl MappedBus {
    /// The family with the most series, as of at most a second ago; `None` also while another
    /// thread looks.
    fn largest(&self) -> Option<Largest> {
        // Not `lock`: a thread that a fork left behind may have it for ever.
        let mut known = self.largest.try_lock().ok()?;
        let now_ns = clock::monotonic_ns();
        if known
            .as_ref()
            .is_none_or(|(seen_ns, _)| now_ns.saturating_sub(*seen_ns) >= LOOK_NS)
        {
            *known = Some((now_ns, self.registry().largest()));
        }
        known.as_ref()?.1.clone()
    }
}

impl Bus {
    /// The id of a series, registered now if it was not. Handles do this for you.
    ///
    /// An empty label value is the same as no such label; of one that is longer than 1,024 bytes
    /// the beginning is registered, with a `…`.
    ///
    /// # Errors
    ///
    /// An invalid name or label, a conflict with what is registered, or no room: see
    /// [`RegisterError`].
    pub fn intern(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Result<SeriesId, RegisterError> {
        let mapped = self.mapped();
        let mut interned = mapped.registry().intern(family, labels);
        let cut = registry::cut_values(labels);
        if cut > 0 {
            count(&self.mapped().header().cut_values, cut);
        }
        if let Err(RegisterError::Full { largest, .. }) = &mut interned {
            count(&mapped.header().refused_series, 1);
            *largest = mapped.largest();
        }
        interned
    }

    /// The id of a series if it is registered.
    pub fn find(&self, name: &str, labels: &[(String, String)]) -> Option<SeriesId> {
        self.mapped().registry().find_series(name, labels)
    }

    /// Has the aggregator take a series off the page, whatever it counted so far; whether it is
    /// registered.
    ///
    /// It comes back when somebody registers it again or emits to it, and goes on from where it
    /// stood.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-forget-{}", std::process::id()).parse()?;
    /// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
    /// let gone = bus.gauge("link_up").label("link", "eth7").register()?;
    /// assert!(bus.forget(gone.series()));
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn forget(&self, id: SeriesId) -> bool {
        let is_registered = self.mapped().registry().forget(id, Clock::Precise.now_ns());
        if is_registered {
            doorbell::ring(&self.mapped().header().doorbell);
        }
        is_registered
    }

    /// Binds a series to this process: when it ends, whether well or not, the series leaves the
    /// page.
    ///
    /// # Errors
    ///
    /// This process cannot join the bus.
    pub fn bind(&self, id: SeriesId) -> Result<(), JoinError> {
        let owner = self.mapped().attachment()?.owner;
        self.mapped().registry().bind(id, owner);
        Ok(())
    }

    /// The process that a series is bound to.
    pub fn bound(&self, id: SeriesId) -> Option<OwnerId> {
        self.mapped().registry().bound(id)
    }

    /// Forgets a series that is bound to a process, if that has left or died; whether it is still
    /// there.
    pub fn forget_with_owner(&self, id: SeriesId, owner: OwnerId) -> bool {
        let entry = self.mapped().owners().get(usize::from(owner.index));
        if entry.is_some_and(|entry| entry.is_occupied_by(owner)) {
            return true;
        }
        // Who emits to it from now on is somebody else, with whom it stays.
        if self.mapped().registry().unbind(id, owner) {
            self.forget(id);
        }
        false
    }

    /// Has series of a family leave the page when nothing was emitted to them for so long; zero is
    /// for ever. The next emit brings them back.
    pub fn set_ttl(&self, id: FamilyId, ttl: Duration) {
        if let Some(word) = self.mapped().registry().ttl(id) {
            let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
            word.store(ttl_ns, Ordering::Relaxed);
        }
    }

    /// How long series of a family live to which nothing is emitted, in nanoseconds; `None` is for
    /// ever.
    pub fn ttl_ns(&self, id: FamilyId) -> Option<u64> {
        let word = self.mapped().registry().ttl(id)?;
        Some(word.load(Ordering::Relaxed)).filter(|&ttl_ns| ttl_ns != 0)
    }

    /// Since when a series is forgotten, in nanoseconds since the Unix epoch; `None` when it is
    /// not.
    pub fn forgotten_ns(&self, id: SeriesId) -> Option<u64> {
        let word = self.mapped().registry().forgotten(id)?;
        Some(word.load(Ordering::Relaxed)).filter(|&since_ns| since_ns != 0)
    }

    /// Takes back that a series was forgotten at `since_ns`: something was emitted to it later.
    pub fn revive(&self, id: SeriesId, since_ns: u64) {
        if let Some(word) = self.mapped().registry().forgotten(id) {
            // Relaxed: whoever forgets it anew says so by `Registry::version`.
            let _ = word.compare_exchange(since_ns, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The ids of all series.
    pub fn series_ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        let ids = self.mapped().registry().ids() as u32;
        (0..ids).map(SeriesId).filter(|&id| self.is_registered(id))
    }

    /// Whether there is a series of that id.
    pub fn is_registered(&self, id: SeriesId) -> bool {
        self.mapped().registry().forgotten(id).is_some()
    }

    /// What differs whenever a series was registered, forgotten, or registered again.
    pub fn registry_version(&self) -> (u64, u64) {
        self.mapped().registry().version()
    }

    /// What a series is registered as; `None` when there is none of that id.
    pub fn series(&self, id: SeriesId) -> Option<SeriesDefinition> {
        self.mapped().registry().series(id)
    }

    /// What a family is registered as; `None` when there is none of that id.
    pub fn family(&self, id: FamilyId) -> Option<FamilyDefinition> {
        self.mapped().registry().family(id)
    }

    /// What the family of that name is registered as.
    pub fn family_by_name(&self, name: &str) -> Option<FamilyDefinition> {
        self.mapped().registry().family_by_name(name)
    }
}
