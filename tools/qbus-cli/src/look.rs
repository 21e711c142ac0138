//! One look at a bus: what `qbus stat` shows and `qbus doctor` judges.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qbus::{
    Address, AggregatorView, Bus, BusCounts, Clock, Geometry, LaneView, OwnerId, OwnerView,
};
use qbus_aggregate::{Ledger, OwnerLedger, ReadError, Reader};
use rustix::fs::statvfs;

use crate::error::Error;

/// What aggregators call themselves among the owners.
const AGGREGATOR: &str = "aggregator";

/// A bus at one moment.
#[derive(Debug)]
pub(crate) struct Look {
    at: Instant,
    pub(crate) now_ns: u64,
    pub(crate) address: Address,
    pub(crate) created_ns: u64,
    pub(crate) is_removed: bool,
    pub(crate) geometry: Geometry,
    pub(crate) counts: BusCounts,
    /// Series without those that were forgotten, whose places others can have.
    pub(crate) living_series: u64,
    pub(crate) lanes: Vec<LaneView>,
    pub(crate) ledger: Ledger,
    pub(crate) aggregator: Option<AggregatorView>,
    pub(crate) page: Option<Page>,
    /// Why there is a snapshot and it is not read.
    pub(crate) no_page: Option<String>,
    /// The file system of the snapshot.
    pub(crate) room: Option<Room>,
}

/// What the snapshot says of itself.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) epoch: u64,
    pub(crate) committed_ns: u64,
    pub(crate) restarts: u64,
    pub(crate) size_bytes: u64,
    pub(crate) series: usize,
}

/// What a file system has left.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) folder: PathBuf,
    pub(crate) free_bytes: u64,
    pub(crate) size_bytes: u64,
}

impl Look {
    /// The processes that are attached now.
    pub(crate) fn living(&self) -> impl Iterator<Item = &OwnerLedger> {
        self.ledger.owners.iter().filter(|row| row.owner.alive)
    }

    /// Looks at a bus and its snapshot: the one beside it, unless told otherwise.
    pub(crate) fn at(bus: &Bus, snapshot: Option<&Path>) -> Result<Look, Error> {
        let path = snapshot.map_or_else(|| bus.address().snapshot(), qbus::snapshot_at);
        let (reader, no_page) = match Reader::open(&path) {
            Ok(reader) if reader.instance() == bus.instance() => (Some(reader), None),
            Ok(_) => (
                None,
                Some(format!("{} belongs to another bus", path.display())),
            ),
            // Nobody has aggregated so far, or somebody is about to.
            Err(error) if is_absent(&error) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let ledger = Ledger::read(bus, reader.as_ref());
        Ok(Look {
            at: Instant::now(),
            now_ns: Clock::Precise.now_ns(),
            address: bus.address().clone(),
            created_ns: bus.created_ns(),
            is_removed: bus.is_removed(),
            geometry: *bus.geometry(),
            counts: bus.counts(),
            living_series: living_series(bus),
            lanes: bus.lanes(),
            ledger: ledger.map_err(Error::failed)?,
            aggregator: bus.aggregator(),
            room: path.parent().and_then(Room::of),
            page: reader.map(|reader| Page::of(&reader, path)),
            no_page,
        })
    }

    /// Whether somebody aggregates the bus.
    pub(crate) fn is_aggregated(&self) -> bool {
        self.aggregator.is_some_and(|aggregator| aggregator.alive)
    }

    /// How long ago the last commit was made; `None` before the first.
    pub(crate) fn age(&self) -> Option<Duration> {
        let page = self.page.as_ref()?;
        let age_ns = self.now_ns.saturating_sub(page.committed_ns);
        Some(Duration::from_nanos(age_ns))
    }

    /// The living but the aggregator.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &OwnerLedger> {
        let owners = self.ledger.owners.iter();
        owners.filter(|row| row.owner.alive && row.owner.role != AGGREGATOR)
    }

    /// Lanes that an owner leases.
    pub(crate) fn lanes_of(&self, owner: OwnerId) -> impl Iterator<Item = &LaneView> {
        let lanes = self.lanes.iter();
        lanes.filter(move |lane| lane.holder == Some(owner))
    }

    /// Lanes that can be leased, and how many of them are.
    pub(crate) fn leases(&self) -> (u64, u64) {
        let leased = self
            .lanes
            .iter()
            .filter(|lane| lane.holder.is_some())
            .count();
        (
            leased as u64,
            self.geometry.lanes - self.geometry.shared_lanes,
        )
    }

    /// Slots of the fullest of some lanes that wait to be committed.
    pub(crate) fn fullest<'a>(lanes: impl Iterator<Item = &'a LaneView>) -> u64 {
        lanes.map(|lane| lane.fill).max().unwrap_or(0)
    }

    /// Records a second between an earlier look and this one.
    pub(crate) fn rates_since(&self, before: &Look) -> Rates {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds.max(1e-9);
        let of = |look: &Look| -> HashMap<OwnerId, u64> {
            let owners = look.ledger.owners.iter();
            owners
                .map(|row| (row.owner.id, row.tally.delivered))
                .collect()
        };
        let then = of(before);
        let rate = |(owner, now): (OwnerId, u64)| {
            // Who joined meanwhile began at nothing.
            (
                owner,
                per_second(now, then.get(&owner).copied().unwrap_or(0)),
            )
        };
        let (now, then) = (self.ledger.total.delivered, before.ledger.total.delivered);
        Rates {
            all: per_second(now, then),
            owners: of(self).into_iter().map(rate).collect(),
        }
    }

    /// The time between an earlier look and this one.
    pub(crate) fn since(&self, before: &Look) -> Duration {
        self.at.saturating_duration_since(before.at)
    }
}

/// Records a second.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub(crate) all: f64,
    owners: HashMap<OwnerId, f64>,
}

impl Rates {
    pub(crate) fn of(&self, owner: OwnerId) -> f64 {
        self.owners.get(&owner).copied().unwrap_or(0.0)
    }
}

impl Page {
    fn of(reader: &Reader, path: PathBuf) -> Page {
        let globals = reader.globals();
        Page {
            path,
            epoch: reader.epoch(),
            committed_ns: globals.unix_ns,
            restarts: globals.restarts,
            size_bytes: reader.size_bytes(),
            series: reader.series_count(),
        }
    }
}

impl Room {
    /// Of the file system that a folder is in; `None` where it has no size, or cannot be asked.
    pub(crate) fn of(folder: &Path) -> Option<Room> {
        let found = statvfs(folder).ok().filter(|found| found.f_blocks > 0)?;
        Some(Room {
            folder: folder.to_owned(),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

/// How many series a bus has that were not forgotten.
pub(crate) fn living_series(bus: &Bus) -> u64 {
    let ids = bus.series_ids();
    ids.filter(|&id| bus.forgotten_ns(id).is_none()).count() as u64
}

fn is_absent(error: &ReadError) -> bool {
    use qbus::OpenError::{Absent, Unfinished};
    matches!(
        error,
        ReadError::Open(Absent { .. } | Unfinished { .. }) | ReadError::Empty
    )
}

/// Who an owner is, in a few words: its role and the program that it runs.
pub(crate) fn named(owner: &OwnerView) -> String {
    let program = brief(&owner.command);
    let program = program.split(' ').next().unwrap_or_default();
    let words = [&*owner.pid.to_string(), &*owner.role, program].map(str::to_owned);
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// A command line without the folders of what it names: `python app.py`, not where both lie.
pub(crate) fn brief(command: &str) -> String {
    let word = |word: &str| match word.rsplit_once('/') {
        Some((_, last)) if word.starts_with(['/', '.']) && !last.is_empty() => last.to_owned(),
        _ => word.to_owned(),
    };
    command.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_without_its_folders() {
        let brief_of = [
            ("/opt/venv/bin/python /srv/app/main.py", "python main.py"),
            ("./bin/worker --port 80", "worker --port 80"),
            ("gunicorn app:app", "gunicorn app:app"),
            ("sh -c ls /", "sh -c ls /"),
            ("", ""),
        ];
        for (command, text) in brief_of {
            assert_eq!(brief(command), text);
        }
    }
}
