//! What is registered on a bus.

use super::{Bus, MappedBus};
use crate::clock;
use crate::error::{Largest, RegisterError};
use crate::lane::count;
use crate::record::SeriesId;
use crate::registry::{FamilyDefinition, FamilyId, SeriesDefinition};

/// Between two looks at who filled the registry, which decode all of it.
const LOOK_NS: u64 = 1_000_000_000;

impl MappedBus {
    /// The family with the most series, as of at most a second ago; `None` also while another thread looks.
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
    /// # Errors
    ///
    /// An invalid name or label, a conflict with what is registered, or no room: see [`RegisterError`].
    pub fn intern(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Result<SeriesId, RegisterError> {
        let mut interned = self.mapped().registry().intern(family, labels);
        if let Err(RegisterError::Full { largest, .. }) = &mut interned {
            count(&self.mapped().header().refused_series, 1);
            *largest = self.mapped().largest();
        }
        interned
    }

    /// The id of a series if it is registered.
    pub fn find(&self, name: &str, labels: &[(String, String)]) -> Option<SeriesId> {
        self.mapped().registry().find_series(name, labels)
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
