//! A bus as this process has it mapped.

use std::io;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use super::successor::Successor;
use crate::address::Address;
use crate::error::Largest;
use crate::fork;
use crate::lane::cell::Bank;
use crate::lane::{Lane, count};
use crate::layout::{Geometry, Header, OwnerEntry, Sections};
use crate::liveness::Locks;
use crate::owner::{OwnerId, OwnerPhase, State};
use crate::region::Region;
use crate::registry::{Arena, Registry, Table};
use crate::sync::{AtomicU64, Ordering, PrivatePtr, PrivateU64};
use crate::testpoint;
use crate::thread;

/// So many bytes take some 100 µs to map.
const POPULATED_MAX: usize = 1 << 20;

/// What all clones of a [`Bus`](super::Bus), its handles and its producers share.
#[derive(Debug)]
pub(crate) struct MappedBus {
    pub(crate) region: Region,
    pub(super) address: Address,
    pub(super) geometry: Geometry,
    pub(super) sections: Sections,
    /// Tells this bus from the others of the process.
    pub(crate) key: u64,
    /// Clones of the bus, handles included, and not the threads' producers.
    pub(super) users: PrivateU64,
    pub(super) role: OnceLock<String>,
    /// This process as an owner ([`super::Attachment`]); 0 until it joins.
    pub(super) attachment: PrivateU64,
    /// Holds the owner's byte.
    pub(super) locks: Locks,
    /// The thread that is joining right now, and its process's generation; 0 = none. A lock that
    /// neither a fork nor a signal handler can wedge.
    pub(super) joining: PrivateU64,
    /// When it was last looked who filled the registry, and what was found.
    pub(super) largest: Mutex<Option<(u64, Option<Largest>)>>,
    /// Whether the name means another file by now, as far as this process has seen.
    pub(super) is_replaced: PrivateU64,
    pub(super) successor: OnceLock<Successor>,
    /// No look at the file, and none for a successor, before these monotonic times.
    pub(super) look_ns: PrivateU64,
    pub(super) search_ns: PrivateU64,
    /// 1 while a reference waits to be dropped ([`super::bury`]), and which waits next.
    pub(super) is_buried: PrivateU64,
    pub(super) next_buried: PrivatePtr<MappedBus>,
    /// No attempt to join before this monotonic time.
    pub(super) retry_ns: PrivateU64,
}

impl MappedBus {
    pub(super) fn new(
        region: Region,
        address: &Address,
        geometry: Geometry,
        sections: Sections,
    ) -> MappedBus {
        static KEYS: PrivateU64 = PrivateU64::new(1);
        // Made now: a fork while another thread made it with the first emit would leave it half
        // made in the child.
        let _ = fork::word();
        thread::prepare();
        MappedBus {
            region,
            address: address.clone(),
            geometry,
            sections,
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            users: PrivateU64::new(1),
            role: OnceLock::new(),
            attachment: PrivateU64::new(0),
            locks: Locks::reserve(),
            joining: PrivateU64::new(0),
            largest: Mutex::new(None),
            is_replaced: PrivateU64::new(0),
            successor: OnceLock::new(),
            look_ns: PrivateU64::new(0),
            search_ns: PrivateU64::new(0),
            is_buried: PrivateU64::new(0),
            next_buried: PrivatePtr::default(),
            retry_ns: PrivateU64::new(0),
        }
    }

    pub(crate) fn header(&self) -> &Header {
        self.region.header()
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn is_open(&self) -> bool {
        self.users.load(Ordering::Acquire) != 0
    }

    pub(crate) fn owners(&self) -> &[OwnerEntry] {
        let owners = self
            .region
            .owners(self.sections.owners, self.geometry.owners as usize);
        owners.expect("the region has the size of its geometry")
    }

    pub(crate) fn entry(&self, owner: OwnerId) -> &OwnerEntry {
        &self.owners()[usize::from(owner.index)]
    }

    pub(crate) fn lane(&self, index: usize) -> Lane<'_> {
        let (lanes, slots) = (self.geometry.lanes as usize, self.geometry.slots as usize);
        let tails = self.region.tails(self.sections.tails, lanes);
        let heads = self.region.heads(self.sections.heads, lanes);
        let slots = self
            .region
            .slots(self.sections.slots + index * slots * 64, slots);
        let sized = "the region has the size of its geometry";
        Lane::new(
            &tails.expect(sized)[index],
            &heads.expect(sized)[index],
            slots.expect(sized),
        )
    }

    /// The cells of a lane.
    pub(crate) fn bank(&self, index: usize) -> Bank<'_> {
        let (lanes, cells) = (self.geometry.lanes as usize, self.geometry.cells as usize);
        let (region, sections) = (&self.region, &self.sections);
        let sized = "the region has the size of its geometry";
        let cell_heads = region.cell_heads(sections.cell_heads, lanes).expect(sized);
        let heads = region.heads(sections.heads, lanes).expect(sized);
        Bank::new(
            &cell_heads[index],
            region
                .cells(sections.cells + index * cells * 16, cells)
                .expect(sized),
            region
                .words(sections.seen + index * cells * 8, cells)
                .expect(sized),
            &heads[index],
        )
    }

    /// Has what a lessee of a lane writes to in its first lap mapped now: of large lanes the
    /// beginning.
    pub(crate) fn populate(&self, index: usize) {
        let (slots, cells) = (self.geometry.slots as usize, self.geometry.cells as usize);
        let sections = &self.sections;
        self.region.populate(
            sections.slots + index * slots * 64,
            (slots * 64).min(POPULATED_MAX),
        );
        self.region.populate(
            sections.cells + index * cells * 16,
            (cells * 16).min(POPULATED_MAX),
        );
    }

    pub(crate) fn shared_lanes(&self) -> impl Iterator<Item = Lane<'_>> {
        (0..self.geometry.shared_lanes as usize).map(|index| self.lane(index))
    }

    pub(crate) fn exclusive_lanes(&self) -> impl Iterator<Item = Lane<'_>> {
        let indexes = self.geometry.shared_lanes as usize..self.geometry.lanes as usize;
        indexes.map(|index| self.lane(index))
    }

    /// The words that definitions lie in.
    #[inline(always)]
    pub(crate) fn arena(&self) -> &[AtomicU64] {
        let words = self.geometry.arena_words as usize;
        let arena = self.region.words(self.sections.arena, words);
        arena.expect("the region has the size of its geometry")
    }

    /// Changes when a series was freed.
    pub(crate) fn freed_word(&self) -> &AtomicU64 {
        &self.header().series_freed
    }

    pub(crate) fn registry(&self) -> Registry<'_> {
        let header = self.header();
        let sized = "the region has the size of its geometry";
        let words = |offset, count| self.region.words(offset, count).expect(sized);
        let index = |offset, entries| words(offset, Geometry::index_words(entries));
        let families = Table {
            heads: index(self.sections.families, self.geometry.families),
            count: &header.family_count,
            capacity: self.geometry.families,
        };
        let series = Table {
            heads: index(self.sections.series, self.geometry.series),
            count: &header.series_count,
            capacity: self.geometry.series,
        };
        let arena = Arena {
            words: self.arena(),
            next: &header.arena_next,
            free: &header.free_blocks,
            changes: &header.series_changes,
            freed: &header.series_freed,
            family_limit: &header.family_limit,
        };
        Registry::new(families, series, &arena)
    }

    /// Removes the traces of a dead owner, whose byte the caller holds; whether there were any.
    pub(crate) fn repair(&self, index: usize) -> bool {
        let entry = &self.owners()[index];
        let repaired = entry.repair(index, self.shared_lanes(), self.exclusive_lanes());
        count(&self.header().reaped, u64::from(repaired));
        if repaired {
            testpoint!("reaped");
        }
        repaired
    }

    /// A new open of the bus file for locks; `None` once the bus was removed.
    pub(crate) fn locks(&self) -> io::Result<Option<Locks>> {
        Locks::open(self.path(), self.region.id())
    }

    pub(crate) fn path(&self) -> &Path {
        self.address.file()
    }

    /// Whether no living process can be that owner: its entry does not exist, is free, or is
    /// another occupant's, who found no traces of a predecessor, or removed them, before it joined.
    pub(crate) fn is_nobody(&self, owner: OwnerId) -> bool {
        let entry = self.owners().get(usize::from(owner.index));
        entry.is_none_or(|entry| {
            let State { generation, phase } = entry.state();
            generation != owner.generation || matches!(phase, OwnerPhase::Free | OwnerPhase::Left)
        })
    }
}
