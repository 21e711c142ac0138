//! A series by its name, for readers that have no bus to look its id up.

use qbus::{SeriesDefinition, SeriesId};

use super::super::layout::AT_COMMITTED;
use super::{Beyond, ReadOptions, Reader};
use crate::series::Series;
use crate::snapshot::merged::is_merged;

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
        match self.read_growing(|reader, beyond| reader.find_id(name, labels, beyond)) {
            Some(id) => self.series(id, history),
            None => self.find_merged(name, labels, history),
        }
    }

    /// The merged value of a gauge of which each process has its own
    /// ([`qbus::Merge`]), whatever the order of its labels.
    pub fn find_merged(
        &mut self,
        name: &str,
        labels: &[(String, String)],
        history: bool,
    ) -> Option<Series> {
        let options = ReadOptions {
            history,
            matches: Some(&|found| found == name),
        };
        let found = self.read(&options).ok()?.series.into_iter();
        let mut merged = found.filter(|series| is_merged(&series.family));
        let is_it = |series: &Series| {
            let has = |label| series.labels.contains(label);
            series.labels.len() == labels.len() && labels.iter().all(has)
        };
        merged.find(is_it)
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
