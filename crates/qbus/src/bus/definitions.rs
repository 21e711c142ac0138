//! What is registered on a bus.

use super::Bus;
use crate::error::RegisterError;
use crate::lane::count;
use crate::record::SeriesId;
use crate::registry::{FamilyDefinition, FamilyId, SeriesDefinition};

impl Bus {
    /// The id of a series, registered now if it was not. Handles do this for you.
    ///
    /// # Errors
    ///
    /// A name that is none, a conflict with what is registered, or no room: see [`RegisterError`].
    pub fn intern(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Result<SeriesId, RegisterError> {
        let interned = self.mapped().registry().intern(family, labels);
        if matches!(interned, Err(RegisterError::Full { .. })) {
            count(&self.mapped().header().refused_series, 1);
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
