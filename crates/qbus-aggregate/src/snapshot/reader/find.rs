//! A series by its name: for who has no bus to ask for its id.

use qbus::{SeriesDefinition, SeriesId};

use super::super::layout::AT_COMMITTED;
use super::{Beyond, Reader};
use crate::series::Series;

impl Reader {
    /// The series of that name with those labels, in the order in which they were registered, at
    /// the newest commit; `None` when there is none. It looks through all of them: who has an id
    /// takes [`series`](Self::series).
    pub fn find(
        &mut self,
        name: &str,
        labels: &[(String, String)],
        history: bool,
    ) -> Option<Series> {
        let id = self.read_growing(|reader, beyond| reader.find_id(name, labels, beyond))?;
        self.series(id, history)
    }

    fn find_id(
        &mut self,
        name: &str,
        labels: &[(String, String)],
        beyond: &Beyond,
    ) -> Option<SeriesId> {
        let newest = (self.epoch(), Some(AT_COMMITTED));
        let mut version = Vec::new();
        (0..self.shape.series_places).find_map(|place| {
            version.clear();
            let (listed, _) = self.read_listed(place, newest, &mut version, beyond)?;
            let family = self.family(&listed)?;
            if family.name != name {
                return None;
            }
            let own = SeriesDefinition::decode(self.words(), listed.header.labels)?.labels;
            // What was freed meanwhile is another's by the id that it is read by next.
            (own == labels).then_some(listed.header.id)
        })
    }
}
