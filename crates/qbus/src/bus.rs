//! A bus: create, open, remove; join and leave.

mod attach;
mod flush;
mod view;

use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::clock;
use crate::consumer::Consumer;
use crate::error::{
    ConsumeError, CreateError, EmitError, JoinError, OpenError, OpenOrCreateError, RegisterError,
    RemoveError, creating,
};
use crate::fork;
use crate::handle::{Counter, Gauge, Histogram, Registration, Summary};
use crate::lane::{Lane, count};
use crate::layout::{Geometry, Header, MAGIC, OwnerEntry, Sections, VERSION};
use crate::liveness::{AGGREGATOR_BYTE, CREATE_BYTE, Locks, owner_byte};
use crate::owner::{OwnerId, OwnerView, Phase, State};
use crate::producer::Producer;
use crate::record::{MetricType, Record, SeriesId};
use crate::region::Region;
use crate::registry::{FamilyDefinition, FamilyId, Registry, SeriesDefinition, Table};
use crate::sync::{Ordering, PrivatePtr, PrivateU64};
use crate::testpoint;
use crate::thread;

/// How long an opener waits for a creator.
const CREATION_WAIT: Duration = Duration::from_secs(1);

pub(crate) use attach::Attachment;
pub use view::{AggregatorView, BusCounts, LaneView};

/// How to create a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusOptions {
    /// How large it is.
    pub geometry: Geometry,
    /// 0600 (one user) or 0660 (one group).
    pub mode: u32,
}

impl Default for BusOptions {
    fn default() -> BusOptions {
        BusOptions {
            geometry: Geometry::default(),
            mode: 0o600,
        }
    }
}

/// An open bus. Clones share everything; any thread may use it.
///
/// Opening does not join: the process becomes an owner with its first producer or emit.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let name = format!("doc-bus-{}", std::process::id());
/// let bus = qbus::Bus::open_or_create(&name.parse()?, &qbus::BusOptions::default())?;
/// let requests = bus.counter("requests_total").help("Requests.").label("endpoint", "/predict").register()?;
/// requests.inc();
/// # qbus::Bus::remove(&name.parse()?, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Bus {
    inner: Arc<Inner>,
}

impl Clone for Bus {
    fn clone(&self) -> Bus {
        self.inner.users.fetch_add(1, Ordering::Relaxed);
        Bus {
            inner: self.inner.clone(),
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        if self.inner.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Threads keep producers, and those the mapping: this one's goes now, the others' with
            // their threads.
            thread::forget(self.inner.key);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    region: Region,
    address: Address,
    geometry: Geometry,
    sections: Sections,
    /// Tells this bus from the others of the process.
    pub(crate) key: u64,
    /// Clones of the bus, handles included, and not the threads' producers.
    users: PrivateU64,
    role: std::sync::OnceLock<String>,
    /// This process as an owner; null until it joins. Replaced after a fork, and then leaked: the
    /// child must not touch what is its parent's.
    attachment: PrivatePtr<Attachment>,
    /// The generation that is joining right now; 0 = none. A lock that a fork cannot wedge.
    joining: PrivateU64,
    /// No attempt to join before this monotonic time.
    retry_ns: PrivateU64,
}

/// Whether a bus that is in use may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Only if nobody is attached.
    Unused,
    /// In any case, also half-made ones: attached processes learn it when they next meet a full lane.
    Forced,
}

impl Bus {
    /// Makes a new bus; all of its memory is reserved now.
    ///
    /// # Errors
    ///
    /// The name is taken, the geometry cannot be, the file system is full: nothing is left behind.
    pub fn create(address: &Address, config: &BusOptions) -> Result<Bus, CreateError> {
        config.geometry.check().map_err(CreateError::Geometry)?;
        let sections = Sections::of(&config.geometry);
        let region = Region::create(address, sections.size as u64, config.mode)?;
        let path = address.file();
        let locks =
            Locks::open(path, region.id()).map_err(|source| creating("lock", path, source))?;
        // From here on only the holder of the byte takes the name away.
        let locked = locks
            .as_ref()
            .map(|locks| locks.try_lock(CREATE_BYTE))
            .transpose();
        let replaced = || {
            creating(
                "create",
                path,
                io::Error::other("the name was taken away meanwhile"),
            )
        };
        if !locked
            .map_err(|source| creating("lock", path, source))?
            .unwrap_or(false)
        {
            return Err(replaced());
        }
        let header = region.header();
        let relaxed = Ordering::Relaxed;
        header.version.store(VERSION, relaxed);
        for (word, value) in header.instance.iter().zip(random_words()) {
            word.store(value, relaxed);
        }
        header.size.store(sections.size as u64, relaxed);
        for (word, value) in header.geometry.iter().zip(config.geometry.to_words()) {
            word.store(value, relaxed);
        }
        header.created_ns.store(clock::precise_ns(), relaxed);
        // E0 (release): pairs with the load in `await_magic`.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(Bus::new(region, address, config.geometry, sections))
    }

    /// Opens an existing bus, and waits a bounded second for one that is being made.
    ///
    /// # Errors
    ///
    /// There is none, or it is not one that this process should trust: see [`OpenError`].
    pub fn open(address: &Address) -> Result<Bus, OpenError> {
        let deadline = clock::monotonic_ns() + CREATION_WAIT.as_nanos() as u64;
        loop {
            match Self::open_now(address) {
                Err(OpenError::Unfinished { .. }) if clock::monotonic_ns() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => return opened,
            }
        }
    }

    /// Opens the bus, or makes it when there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(
        address: &Address,
        config: &BusOptions,
    ) -> Result<Bus, OpenOrCreateError> {
        loop {
            match Self::open(address) {
                Err(OpenError::Absent { .. }) => {}
                opened => return opened.map_err(OpenOrCreateError::Open),
            }
            match Self::create(address, config) {
                // Another process was faster: open what it made.
                Err(CreateError::Exists { .. }) => {}
                created => return created.map_err(OpenOrCreateError::Create),
            }
        }
    }

    fn open_now(address: &Address) -> Result<Bus, OpenError> {
        let region = Region::open(address)?;
        let path = || address.file().to_owned();
        let header = region.header();
        // E0 (acquire): pairs with the store in `create`. All below was written before.
        match header.magic.load(Ordering::Acquire) {
            MAGIC => {}
            0 => return Err(OpenError::Unfinished { path: path() }),
            found => {
                return Err(OpenError::NotOurs {
                    path: path(),
                    expected: "a bus",
                    found,
                });
            }
        }
        let version = header.version.load(Ordering::Relaxed);
        if version != VERSION {
            return Err(OpenError::Version {
                path: path(),
                found: version,
                expected: VERSION,
            });
        }
        // Only this copy is used from now on.
        let geometry = Geometry::from_words(std::array::from_fn(|i| {
            header.geometry[i].load(Ordering::Relaxed)
        }));
        geometry.check().map_err(|source| OpenError::Geometry {
            path: path(),
            source,
        })?;
        let sections = Sections::of(&geometry);
        let stated = header.size.load(Ordering::Relaxed);
        let expected = sections.size as u64;
        if region.len() as u64 != expected || stated != expected {
            return Err(OpenError::Size {
                path: path(),
                found: region.len() as u64,
                expected,
            });
        }
        Ok(Bus::new(region, address, geometry, sections))
    }

    fn new(region: Region, address: &Address, geometry: Geometry, sections: Sections) -> Bus {
        static KEYS: PrivateU64 = PrivateU64::new(1);
        // Made now: a fork while another thread made it with the first emit would leave it half made in
        // the child.
        let _ = fork::word();
        let inner = Inner {
            region,
            address: address.clone(),
            geometry,
            sections,
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            users: PrivateU64::new(1),
            role: std::sync::OnceLock::new(),
            attachment: PrivatePtr::default(),
            joining: PrivateU64::new(0),
            retry_ns: PrivateU64::new(0),
        };
        Bus {
            inner: Arc::new(inner),
        }
    }

    /// Takes the name of a bus away. Processes that have it open keep it; its memory goes with the last
    /// of them. The snapshot beside it is removed as well, and an earlier bus's that was moved
    /// aside.
    ///
    /// # Errors
    ///
    /// There is none, it is in use, or it is not one of ours.
    pub fn remove(address: &Address, removal: Removal) -> Result<(), RemoveError> {
        let region = Region::open(address);
        let region = match (region, removal) {
            // Too short for a header: a creator died at once.
            (Err(OpenError::Unfinished { path }), Removal::Forced) => {
                return rustix::fs::unlink(path).map_err(|errno| RemoveError::Io(errno.into()));
            }
            (region, _) => region.map_err(RemoveError::Open)?,
        };
        let magic = region.header().magic.load(Ordering::Acquire);
        if magic != MAGIC && magic != 0 {
            let path = address.file().to_owned();
            return Err(RemoveError::Open(OpenError::NotOurs {
                path,
                expected: "a bus",
                found: magic,
            }));
        }
        if removal == Removal::Unused {
            let bus = Self::open_now(address).map_err(RemoveError::Open)?;
            let pids = bus.living_pids();
            if !pids.is_empty() {
                return Err(RemoveError::InUse { pids });
            }
        }
        let locks = Locks::open(address.file(), region.id())
            .map_err(RemoveError::Io)?
            .ok_or(RemoveError::Replaced)?;
        if !locks.try_lock(CREATE_BYTE).map_err(RemoveError::Io)? && removal == Removal::Unused {
            return Err(RemoveError::Busy);
        }
        region.header().removed.store(1, Ordering::Release);
        // Only holders of the byte take the name away, so it still means this file.
        let _ = rustix::fs::unlink(address.snapshot());
        let _ = rustix::fs::unlink(address.previous_snapshot());
        rustix::fs::unlink(address.file()).map_err(|errno| RemoveError::Io(errno.into()))
    }

    fn living_pids(&self) -> Vec<u64> {
        let aggregator = self
            .aggregator()
            .filter(|aggregator| aggregator.alive)
            .map(|aggregator| aggregator.pid);
        let owners = self
            .owners()
            .unwrap_or_default()
            .into_iter()
            .filter(|owner| owner.alive)
            .map(|owner| owner.pid);
        let mut pids: Vec<u64> = aggregator.into_iter().chain(owners).collect();
        pids.dedup();
        pids
    }

    /// How the bus is named.
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    /// How large it is.
    pub fn geometry(&self) -> &Geometry {
        &self.inner.geometry
    }

    /// Two random words that tell this bus from any other of the same name.
    pub fn instance(&self) -> [u64; 2] {
        std::array::from_fn(|i| self.inner.header().instance[i].load(Ordering::Relaxed))
    }

    /// When it was created, in nanoseconds since the Unix epoch.
    pub fn created_ns(&self) -> u64 {
        self.inner.header().created_ns.load(Ordering::Relaxed)
    }

    /// Whether its name was taken away ([`remove`](Self::remove)).
    pub fn is_removed(&self) -> bool {
        self.inner.is_removed()
    }

    /// Says what this process does (`inference`, say), for people and for the labels of its process
    /// metrics. Counts only before the process joins.
    pub fn set_role(&self, role: &str) {
        let _ = self.inner.role.set(role.to_owned());
    }

    /// A counter of that name.
    pub fn counter(&self, name: &str) -> Registration<'_, Counter> {
        Registration::new(self, name, MetricType::Counter)
    }

    /// A gauge of that name.
    pub fn gauge(&self, name: &str) -> Registration<'_, Gauge> {
        Registration::new(self, name, MetricType::Gauge)
    }

    /// A histogram of that name.
    pub fn histogram(&self, name: &str) -> Registration<'_, Histogram> {
        Registration::new(self, name, MetricType::Histogram)
    }

    /// A summary of that name.
    pub fn summary(&self, name: &str) -> Registration<'_, Summary> {
        Registration::new(self, name, MetricType::Summary)
    }

    /// A producer with a lane of its own; with a share of a lane when all are leased.
    ///
    /// # Errors
    ///
    /// No place in the owner table, or no lane of either sort.
    pub fn producer(&self) -> Result<Producer, JoinError> {
        Producer::exclusive_or_shared(&self.inner)
    }

    /// A producer on a lane that any number of them share: for a one-shot, or a signal handler.
    ///
    /// # Errors
    ///
    /// No place in the owner table, or no shared lane.
    pub fn shared_producer(&self) -> Result<Producer, JoinError> {
        Producer::shared(&self.inner)
    }

    /// The consuming side: one process at a time, the aggregator.
    ///
    /// # Errors
    ///
    /// Another process is the aggregator; the error names its pid.
    pub fn consumer(&self) -> Result<Consumer, ConsumeError> {
        Consumer::new(self)
    }

    /// Writes one record through this thread's producer, as handles do. As [`Producer::emit`], but that the
    /// first record of a thread joins and leases a lane.
    ///
    /// # Errors
    ///
    /// As [`Producer::emit`]; or the process could not join.
    #[inline]
    pub fn emit(&self, record: Record) -> Result<(), EmitError> {
        thread::emit(&self.inner, record)
    }

    /// As [`emit`](Self::emit), and waits while the lane is full.
    ///
    /// # Errors
    ///
    /// As `emit`; the lane was full for all of `patience`, which counts as one drop.
    #[inline]
    pub fn emit_or_wait(&self, record: Record, patience: Duration) -> Result<(), EmitError> {
        thread::emit_or_wait(&self.inner, record, patience)
    }

    /// Whether this thread's next record finds room: in a lane of its own that answer holds.
    #[inline]
    pub fn has_room(&self) -> bool {
        thread::has_room(&self.inner)
    }

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
        let interned = self.inner.registry().intern(family, labels);
        if matches!(interned, Err(RegisterError::Full { .. })) {
            count(&self.inner.header().refused_series, 1);
        }
        interned
    }

    /// The id of a series if it is registered.
    pub fn find(&self, name: &str, labels: &[(String, String)]) -> Option<SeriesId> {
        self.inner.registry().find_series(name, labels)
    }

    /// What a series is registered as; `None` when there is none of that id.
    pub fn series(&self, id: SeriesId) -> Option<SeriesDefinition> {
        self.inner.registry().series(id)
    }

    /// What a family is registered as; `None` when there is none of that id.
    pub fn family(&self, id: FamilyId) -> Option<FamilyDefinition> {
        self.inner.registry().family(id)
    }

    /// What the family of that name is registered as.
    pub fn family_by_name(&self, name: &str) -> Option<FamilyDefinition> {
        self.inner.registry().family_by_name(name)
    }

    /// Everybody who is or was attached: entries never used are left out.
    ///
    /// # Errors
    ///
    /// The locks cannot be asked.
    pub fn owners(&self) -> io::Result<Vec<OwnerView>> {
        let locks = self.inner.locks()?;
        let mut owners = Vec::new();
        for (index, entry) in self.inner.owners().iter().enumerate() {
            if entry.state().phase != Phase::Free {
                let held = locks
                    .as_ref()
                    .map(|locks| locks.is_held(owner_byte(index)))
                    .transpose()?;
                owners.push(entry.view(index, held.unwrap_or(false)));
            }
        }
        Ok(owners)
    }

    /// The aggregator; `None` when there never was one.
    pub fn aggregator(&self) -> Option<AggregatorView> {
        let header = self.inner.header();
        let pid = header.aggregator_pid.load(Ordering::Acquire);
        let held = self
            .inner
            .locks()
            .ok()
            .flatten()
            .and_then(|locks| locks.is_held(AGGREGATOR_BYTE).ok());
        let started_ns = header.aggregator_started_ns.load(Ordering::Relaxed);
        (pid != 0).then(|| AggregatorView {
            pid,
            alive: held.unwrap_or(false),
            started_ns,
        })
    }

    /// All lanes, the shared ones first.
    pub fn lanes(&self) -> Vec<LaneView> {
        let shared = self.inner.geometry.shared_lanes as usize;
        let view = |index| {
            let lane = self.inner.lane(index);
            let fill = self
                .end(index)
                .saturating_sub(lane.head())
                .min(lane.capacity());
            LaneView {
                index,
                shared: index < shared,
                holder: lane.holder(),
                head: lane.head(),
                fill,
            }
        };
        (0..self.inner.geometry.lanes as usize).map(view).collect()
    }

    /// What the bus as a whole has counted.
    pub fn counts(&self) -> BusCounts {
        let header = self.inner.header();
        let relaxed = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed);
        BusCounts {
            families: relaxed(&header.family_count),
            series: relaxed(&header.series_count),
            arena_words: relaxed(&header.arena_next),
            dropped_unowned: relaxed(&header.dropped_unowned),
            refused_series: relaxed(&header.refused_series),
            violations: relaxed(&header.violations),
            joined: relaxed(&header.joined),
            reaped: relaxed(&header.reaped),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl FromStr for Bus {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    /// Opens the bus of that name or path.
    fn from_str(text: &str) -> Result<Bus, Self::Err> {
        Ok(Bus::open(&text.parse()?)?)
    }
}

impl Inner {
    pub(crate) fn header(&self) -> &Header {
        self.region.header()
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn is_open(&self) -> bool {
        self.users.load(Ordering::Acquire) != 0
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.header().removed.load(Ordering::Acquire) != 0
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

    pub(crate) fn shared_lanes(&self) -> Vec<Lane<'_>> {
        (0..self.geometry.shared_lanes as usize)
            .map(|index| self.lane(index))
            .collect()
    }

    pub(crate) fn exclusive_lanes(&self) -> Vec<Lane<'_>> {
        let indexes = self.geometry.shared_lanes as usize..self.geometry.lanes as usize;
        indexes.map(|index| self.lane(index)).collect()
    }

    pub(crate) fn registry(&self) -> Registry<'_> {
        let header = self.header();
        let sized = "the region has the size of its geometry";
        let words = |offset, count| self.region.words(offset, count).expect(sized);
        let index = |offset, entries| words(offset, Geometry::index_words(entries));
        let families = Table {
            index: index(self.sections.families, self.geometry.families),
            count: &header.family_count,
            capacity: self.geometry.families,
        };
        let series = Table {
            index: index(self.sections.series, self.geometry.series),
            count: &header.series_count,
            capacity: self.geometry.series,
        };
        let arena = words(self.sections.arena, self.geometry.arena_words as usize);
        Registry::new(families, series, arena, &header.arena_next)
    }

    /// Removes the traces of a dead owner, whose byte the caller holds; whether there were any.
    pub(crate) fn repair(&self, index: usize) -> bool {
        let entry = &self.owners()[index];
        let repaired = entry.repair(index, &self.shared_lanes(), &self.exclusive_lanes());
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

    /// Whether no living process can be that owner: its entry does not exist, is free, or is another
    /// occupant's, who found no traces of a predecessor, or removed them, before it joined.
    pub(crate) fn is_nobody(&self, owner: OwnerId) -> bool {
        let entry = self.owners().get(usize::from(owner.index));
        entry.is_none_or(|entry| {
            let State { generation, phase } = entry.state();
            generation != owner.generation || matches!(phase, Phase::Free | Phase::Left)
        })
    }
}

/// Random words from the kernel; see getrandom(2).
fn random_words() -> [u64; 2] {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is ours and as long as said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    let [mut low, mut high]: [u64; 2] = bytemuck::must_cast(bytes);
    if got != bytes.len() as isize {
        // An early boot: time and pid still tell two buses apart.
        (low, high) = (clock::precise_ns(), u64::from(std::process::id()));
    }
    [low, high]
}
