//! Beginning anew with an empty snapshot while the lanes are drained.
//!
//! To make a snapshot takes milliseconds (its room is reserved, what is registered is looked up),
//! and so does giving one back. Both are done in other threads. Between two rounds the one takes
//! the place of the other: state, and file by a rename, so that whoever opens the snapshot finds
//! either.

use std::io;
use std::mem::swap;

use qbus::Bus;

use super::{Aggregator, AggregatorOptions, Now, SURVEY_PARTS};
use crate::fold::Fold;
use crate::snapshot::file::{self, SnapshotError};
use crate::snapshot::place::Place;
use crate::snapshot::writer::Writer;

/// A snapshot and its state that are not in use: empty ones for [`Aggregator::begin_anew`], and
/// those that it has replaced. To be made and dropped where that may take a while.
#[derive(Debug)]
pub struct Spare {
    writer: Writer,
    fold: Fold,
    /// The name of its file is its own: the file goes with it.
    has_name: bool,
}

impl Spare {
    /// Makes an empty one beside the snapshot that the aggregator of a bus has by these options.
    /// What is registered by now appears on its page when something is emitted to it.
    ///
    /// # Errors
    ///
    /// There is no room for two snapshots, or something has its name (`PATH.previous`).
    pub fn make(bus: &Bus, options: &AggregatorOptions) -> Result<Spare, SnapshotError> {
        let (history, recent) = (options.history, options.recent);
        let place = Place::of(bus.address(), options.snapshot.as_deref());
        let path = file::beside(place.path());
        let create = || {
            let mut writer = Writer::create(&path, bus, recent, history)?;
            let loaded = Fold::load(bus, &mut writer, history, recent, Now::read().monotonic_ns);
            let mut fold = loaded.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
            fold.pass_over();
            Ok(Spare {
                writer,
                fold,
                has_name: true,
            })
        };
        create().map_err(SnapshotError::Create)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if self.has_name {
            let _ = std::fs::remove_file(self.writer.path());
        }
    }
}

impl Aggregator {
    /// Goes on with a snapshot that was just made, and leaves in `spare` the one that it had: what
    /// was drained so far is counted there, and gone.
    ///
    /// # Errors
    ///
    /// The file could not be renamed: the aggregator goes on with what it has.
    pub fn begin_anew(&mut self, spare: &mut Spare) -> io::Result<()> {
        let path = self.writer.path().to_owned();
        let mut exchange = |aggregator: &mut Aggregator| {
            swap(&mut aggregator.writer, &mut spare.writer);
            swap(&mut aggregator.fold, &mut spare.fold);
        };
        exchange(self);
        // Before others find it: with an epoch, and with what owners have counted, as at the start.
        self.writer.sign(std::process::id(), Now::read().unix_ns);
        self.survey(SURVEY_PARTS);
        self.commit();
        let renamed = self.writer.rename(&path);
        match &renamed {
            Ok(()) => spare.has_name = false,
            Err(_) => exchange(self),
        }
        renamed
    }
}
