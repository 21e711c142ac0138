//! A bus: create, open, remove; join and leave.

mod attach;
mod definitions;
mod flush;
mod half_made;
mod mapped;
mod successor;
mod view;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::clock;
use crate::error::{CreateError, OpenError, OpenOrCreateError, RemoveError, creating};
use crate::layout::{Geometry, Header, MAGIC, Sections, VERSION};
use crate::liveness::{AGGREGATOR_BYTE, CREATE_BYTE, Locks};
use crate::region::{Access, MappedFile, Region};
use crate::sync::Ordering;
use crate::thread;

/// How long an opener waits for a creator.
const CREATION_WAIT: Duration = Duration::from_secs(1);

pub(crate) use attach::Attachment;
pub(crate) use mapped::MappedBus;
pub(crate) use successor::{LOOK_NS, bury, may_be_handler};
pub use view::{AggregatorView, BusCounts, LaneView};

/// How to create a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusOptions {
    /// How large it is.
    pub geometry: Geometry,
    /// 0600 (one user) or 0660 (one group).
    pub mode: u32,
    /// How many series a metric may have that does not say so itself; 0 is any number. What is
    /// registered beyond is counted in a series with the label value [`OVERFLOW`](crate::OVERFLOW).
    pub max_series_per_family: u64,
}

impl Default for BusOptions {
    fn default() -> BusOptions {
        BusOptions {
            geometry: Geometry::default(),
            mode: 0o600,
            max_series_per_family: 2000,
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
/// let requests = bus.counter("requests_total").help("Requests.");
/// let requests = requests.label("endpoint", "/predict").register()?;
/// requests.inc();
/// # qbus::Bus::remove(&name.parse()?, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Bus {
    mapped: Arc<MappedBus>,
}

impl Clone for Bus {
    fn clone(&self) -> Bus {
        self.mapped.users.fetch_add(1, Ordering::Relaxed);
        Bus {
            mapped: self.mapped.clone(),
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        if self.mapped.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            // This thread's producer goes now. Those of others keep the mapping until their threads
            // end or need the place; their lanes and the process's place in the owner table go with
            // `leave`.
            thread::forget(self.mapped.key);
            self.mapped.leave();
            successor::exhume();
        }
    }
}

/// Whether a bus that is in use may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Only if nobody is attached. Who joins meanwhile keeps the bus, or finds it removed.
    Unused,
    /// In any case, also half-made ones: attached processes learn it with their next emit.
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
        let locks = Locks::open(path, region.id()).and_then(|locks| match locks {
            Some(locks) => Ok(locks.try_lock(CREATE_BYTE)?.then_some(locks)),
            None => Ok(None),
        });
        // From here on only the holder of the byte takes the name away.
        let _locks = match locks {
            Ok(Some(locks)) => locks,
            Ok(None) => {
                let why = io::Error::other("the name was taken away meanwhile");
                return Err(creating("create", path, why));
            }
            Err(source) => {
                let _ = rustix::fs::unlink(path);
                return Err(creating("lock", path, source));
            }
        };
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
        header
            .family_limit
            .store(config.max_series_per_family, relaxed);
        // E0 (release): pairs with the load in `await_magic`.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(Bus::new(region, address, config.geometry, sections))
    }

    /// Opens an existing bus, and waits a bounded second for one that is being made. What a creator
    /// left that died seconds ago is removed, and there is none then.
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
                Err(OpenError::Unfinished { path }) if Self::remove_half_made(address) => {
                    return Err(OpenError::Absent { path });
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
        successor::exhume();
        Bus {
            mapped: Arc::new(MappedBus::new(region, address, geometry, sections)),
        }
    }

    /// Takes the name of a bus away. Processes that have it open keep it; its memory goes with the
    /// last of them. Its snapshot is removed as well, beside it or where a link there leads, and an
    /// earlier bus's that was moved aside.
    ///
    /// # Errors
    ///
    /// There is none, it is in use, or it is not one of ours.
    pub fn remove(address: &Address, removal: Removal) -> Result<(), RemoveError> {
        if Self::remove_half_made(address) {
            return Ok(());
        }
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
        let locks = Locks::open(address.file(), region.id())
            .map_err(RemoveError::Io)?
            .ok_or(RemoveError::Replaced)?;
        if removal == Removal::Unused {
            match Self::open_now(address) {
                Ok(bus) => {
                    let pids = bus.living_pids();
                    if !pids.is_empty() {
                        return Err(RemoveError::InUse { pids });
                    }
                }
                // Who holds its bytes cannot be told by name; nobody does as a rule.
                Err(OpenError::Version { .. })
                    if !locks
                        .is_any_held_from(AGGREGATOR_BYTE)
                        .map_err(RemoveError::Io)? => {}
                Err(error) => return Err(RemoveError::Open(error)),
            }
        }
        if !locks.try_lock(CREATE_BYTE).map_err(RemoveError::Io)? && removal == Removal::Unused {
            return Err(RemoveError::Busy);
        }
        // What was found above may have changed; from here on nobody joins.
        if removal == Removal::Unused
            && !locks
                .try_lock_from(AGGREGATOR_BYTE)
                .map_err(RemoveError::Io)?
        {
            return Err(RemoveError::Busy);
        }
        // Who removed it after it was opened above had the bytes until then.
        if locks.names() == Some(0) {
            return Err(RemoveError::Replaced);
        }
        match Self::open_now(address) {
            Ok(bus) if bus.mapped.region.id() == region.id() => bus.mapped.declare_removed(),
            Ok(_) => return Err(RemoveError::Replaced),
            // Half-made, or of another layout.
            Err(_) => region.header().removed.store(1, Ordering::Release),
        }
        // Only holders of the byte take the name away, so it still means this file.
        remove_elsewhere(address, region.header());
        let _ = rustix::fs::unlink(address.snapshot_link());
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
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// How the bus is named.
    pub fn address(&self) -> &Address {
        &self.mapped.address
    }

    /// How large it is.
    pub fn geometry(&self) -> &Geometry {
        &self.mapped.geometry
    }

    /// Two random words that tell this bus from any other of the same name.
    pub fn instance(&self) -> [u64; 2] {
        std::array::from_fn(|i| self.mapped.header().instance[i].load(Ordering::Relaxed))
    }

    /// When it was created, in nanoseconds since the Unix epoch.
    pub fn created_ns(&self) -> u64 {
        self.mapped.header().created_ns.load(Ordering::Relaxed)
    }

    /// Whether its name was taken away ([`remove`](Self::remove), or a plain `rm` of its file,
    /// which is noticed within about a second).
    pub fn is_removed(&self) -> bool {
        self.mapped.look_after();
        self.mapped.is_removed()
    }

    /// Says what this process does (`inference`, say), for people and for the labels of its process
    /// metrics. Counts only before the process joins.
    pub fn set_role(&self, role: &str) {
        let _ = self.mapped.role.set(role.to_owned());
    }

    pub(crate) fn mapped(&self) -> &Arc<MappedBus> {
        &self.mapped
    }
}

impl FromStr for Bus {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    /// Opens the bus of that name or path.
    fn from_str(text: &str) -> Result<Bus, Self::Err> {
        Ok(Bus::open(&text.parse()?)?)
    }
}

/// Removes the snapshot that a link beside the bus leads to. What is no file of this bus stays:
/// each has the bus's instance in its third and fourth words.
fn remove_elsewhere(address: &Address, header: &Header) {
    let (link, snapshot) = (address.snapshot_link(), address.snapshot());
    if snapshot == link {
        return;
    }
    let is_this_bus_s = MappedFile::open(&snapshot, Access::Read).is_ok_and(|file| {
        let words = header.instance.iter().zip(2..);
        words
            .into_iter()
            .all(|(word, at)| file.words().get(at) == Some(word.load(Ordering::Relaxed)))
    });
    if is_this_bus_s {
        let _ = rustix::fs::unlink(&snapshot);
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
