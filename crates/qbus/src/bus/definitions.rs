//! What is registered on a bus.

use std::time::{Duration, Instant};

use super::{Bus, MappedBus, may_be_handler};
use crate::clock::{self, Clock};
use crate::doorbell;
use crate::error::{JoinError, Largest, RegisterError, Registrant};
use crate::lane::count;
use crate::layout::OwnerEntry;
use crate::owner::OwnerId;
use crate::record::SeriesId;
use crate::registry::{
    self, FamilyDefinition, FamilyId, FamilySize, Merge, Refusal, SeriesDefinition,
};
use crate::sync::Ordering;

/// Between two looks at who filled the registry, which decode all of it.
const LOOK_NS: u64 = 1_000_000_000;

/// How long a registration waits for a family to be freed that is in its way.
const WAY_MADE: Duration = Duration::from_millis(250);

impl MappedBus {
    /// Labels of this process's own series of a gauge that is merged: with its pid, and in another
    /// pid namespace than somebody else who has the same one, with its place among the owners.
    fn own_labels(&self, labels: &[(String, String)]) -> Result<Vec<(String, String)>, ()> {
        if labels.iter().any(|(name, _)| name == Merge::PROCESS_LABEL) {
            return Err(());
        }
        let pid = std::process::id();
        let mut text = pid.to_string();
        if let Ok(attachment) = self.attachment() {
            let own = usize::from(attachment.owner.index);
            let is_namesake = |(index, entry): (usize, &OwnerEntry)| {
                index != own
                    && entry.is_occupied()
                    && entry.pid.load(Ordering::Relaxed) == u64::from(pid)
            };
            if self.owners().iter().enumerate().any(is_namesake) {
                text = format!("{pid}-{own}");
            }
        }
        let own = (Merge::PROCESS_LABEL.to_owned(), text);
        Ok(labels.iter().cloned().chain([own]).collect())
    }

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
            let mut largest = self.registry().largest();
            if let Some(registrant) = largest.as_mut().and_then(|it| it.registrant.as_mut()) {
                registrant.command = self.command_of(registrant.pid);
            }
            *known = Some((now_ns, largest));
        }
        known.as_ref()?.1.clone()
    }

    /// How a process was started that is attached, or was as the last in its entry; else nothing.
    fn command_of(&self, pid: u32) -> String {
        let is_it = |entry: &&OwnerEntry| entry.pid.load(Ordering::Relaxed) == u64::from(pid);
        let entry = self.owners().iter().find(is_it);
        entry.map_or(String::new(), |entry| entry.view(0, false).command)
    }
}

impl Bus {
    /// The id of a series, registered now if it was not. Handles do this for you.
    ///
    /// A gauge whose values are merged ([`Merge`](crate::Merge)) has a series for each process: its
    /// label `pid` is added here.
    ///
    /// An empty label value is the same as no such label; of one that is longer than 1,024 bytes
    /// the beginning is registered, with a `…`.
    ///
    /// Where the family has as many series as it may have
    /// ([`set_max_series`](Self::set_max_series)), this is the id of the series in which all others
    /// are counted: the label that had the most values is [`OVERFLOW`](crate::OVERFLOW) there. The
    /// last help text that is not empty counts.
    ///
    /// A family of another type, unit or buckets prevents a registration only while one of its
    /// series is not forgotten: else this waits for up to a quarter of a second until the
    /// aggregator, if there is one, has freed it.
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
        let own = family.merge.is_by_process().then(|| {
            let own = mapped.own_labels(labels);
            own.map_err(|()| RegisterError::Label {
                metric: family.name.clone(),
                found: Merge::PROCESS_LABEL.to_owned(),
                reason: "tells the processes apart whose values are merged",
            })
        });
        let own = own.transpose()?;
        let labels = own.as_deref().unwrap_or(labels);
        let mut interned = mapped.registry().intern(family, labels);
        if matches!(interned, Err(RegisterError::Conflict { .. })) && self.make_way(&family.name) {
            interned = mapped.registry().intern(family, labels);
        }
        if let (Ok(id), true) = (&interned, family.merge.is_live()) {
            // A process that cannot join emits nothing, and says so then.
            let _ = self.bind(*id);
        }
        let cut = registry::cut_values(labels);
        if cut > 0 {
            count(&self.mapped().header().cut_values, cut);
        }
        if let Err(RegisterError::Full { largest, .. }) = &mut interned {
            count(&mapped.header().refused_series, 1);
            *largest = mapped.largest().map(Box::new);
        }
        interned
    }

    /// Registers a series that was freed with the labels that it had: waits for nobody, and says
    /// nothing of why it cannot.
    pub fn register_again(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Option<SeriesId> {
        let registry = self.mapped().registry();
        match registry.intern_checked(family, labels) {
            // It needs memory, for the labels.
            Err(Refusal::Crowded(_)) if may_be_handler() => None,
            Err(Refusal::Crowded(id)) => registry.intern_overflowing(family, id, labels).ok(),
            interned => interned.ok(),
        }
    }

    /// Has a family have so many series at most, forgotten ones not counted; 0 is any number, as is
    /// what exceeds 262,142. What is registered beyond is counted in a series with the label value
    /// [`OVERFLOW`](crate::OVERFLOW); series that are there stay.
    pub fn set_max_series(&self, id: FamilyId, series: u64) {
        self.mapped().registry().set_limit(id, series);
    }

    /// Has all families that do not say so themselves have so many series at most; 0 is any number.
    pub fn set_max_series_per_family(&self, series: u64) {
        let limit = &self.mapped().header().family_limit;
        limit.store(series, Ordering::Relaxed);
    }

    /// How many series a family has, and may have; `None` when there is no family of that id.
    pub fn family_size(&self, id: FamilyId) -> Option<FamilySize> {
        self.mapped().registry().family_size(id)
    }

    /// The series that are there for those beyond the limit of their families, and what they are
    /// registered as.
    pub fn overflow_series(&self) -> Vec<(SeriesId, SeriesDefinition)> {
        self.mapped().registry().overflow_series()
    }

    /// The process that registered a series; `None` when there is no series of that id.
    pub fn registrant(&self, id: SeriesId) -> Option<Registrant> {
        let pid = self.mapped().registry().registrant(id)?;
        Some(Registrant {
            pid,
            command: self.mapped().command_of(pid),
            series: 1,
        })
    }

    /// What differs whenever the help text of a family was replaced.
    pub fn help_version(&self, id: FamilyId) -> u64 {
        self.mapped().registry().help_version(id)
    }

    /// Has a family freed all of whose series are forgotten; whether it was, within a quarter of a
    /// second. Nobody waits where no aggregator lives that could free it.
    fn make_way(&self, name: &str) -> bool {
        let registry = self.mapped().registry();
        let Some(family) = registry.yielding(name) else {
            return false;
        };
        if !self.aggregator().is_some_and(|found| found.alive) {
            return false;
        }
        doorbell::ring(&self.mapped().header().doorbell);
        let began = Instant::now();
        while began.elapsed() < WAY_MADE {
            if registry.family(family).is_none() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// The id of a series if it is registered.
    pub fn find(&self, name: &str, labels: &[(String, String)]) -> Option<SeriesId> {
        self.mapped().registry().find_series(name, labels)
    }

    /// Has the aggregator take a series off the page, whatever it counted so far; whether it is
    /// registered.
    ///
    /// It comes back when somebody registers it again or emits to it: a counter from where it
    /// stood, which is kept for a minute, unless its place is needed. What is emitted within some
    /// 20 ms, and without another registration, may count as what came before: then the next emit
    /// brings it back.
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
        let now_ns = Clock::Precise.now_ns();
        let is_registered = self.mapped().registry().forget(id, now_ns);
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
        // Rounded up: a time to live is not for ever because it is short.
        let ttl_us = ttl.as_nanos().div_ceil(1000);
        let ttl_us = u64::try_from(ttl_us).unwrap_or(u64::MAX);
        self.mapped().registry().set_ttl_us(id, ttl_us);
    }

    /// How long series of a family live to which nothing is emitted, in nanoseconds; `None` is for
    /// ever.
    pub fn ttl_ns(&self, id: FamilyId) -> Option<u64> {
        let ttl_us = self.mapped().registry().ttl_us(id);
        (ttl_us != 0).then(|| ttl_us.saturating_mul(1000))
    }

    /// Since when a series is forgotten, in nanoseconds since the Unix epoch; `None` when it is
    /// not.
    pub fn forgotten_ns(&self, id: SeriesId) -> Option<u64> {
        Some(self.mapped().registry().forgotten(id)?.0)
    }

    /// Whether somebody needs the place of a series that is forgotten, so that it has to be freed
    /// at once.
    pub fn is_to_be_freed(&self, id: SeriesId) -> bool {
        let forgotten = self.mapped().registry().forgotten(id);
        forgotten.is_some_and(|(_, at_once)| at_once)
    }

    /// Takes back that a series was forgotten at `since_ns`: something was emitted to it later.
    pub fn revive(&self, id: SeriesId, since_ns: u64) {
        self.mapped().registry().revive(id, since_ns);
    }

    /// The ids of all series.
    pub fn series_ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        let registry = self.mapped().registry();
        (0..registry.chains()).flat_map(move |chain| {
            let mut ids = Vec::new();
            registry.chain_ids(chain, &mut ids);
            ids
        })
    }

    /// The ids of all families.
    pub fn family_ids(&self) -> Vec<FamilyId> {
        self.mapped().registry().family_ids()
    }

    /// How many chains the series lie in: for [`chain_ids`](Self::chain_ids).
    pub fn chains(&self) -> usize {
        self.mapped().registry().chains()
    }

    /// Replaces `ids` by those of the series in a chain.
    pub fn chain_ids(&self, chain: usize, ids: &mut Vec<SeriesId>) {
        self.mapped().registry().chain_ids(chain, ids);
    }

    /// The family of a series.
    pub fn family_of(&self, id: SeriesId) -> Option<FamilyId> {
        self.mapped().registry().family_of(id)
    }

    /// Whether there is a series of that id.
    pub fn is_registered(&self, id: SeriesId) -> bool {
        registry::is_open(self.mapped().arena(), id)
    }

    /// Whether there was a series of that id, which was freed since.
    pub fn was_registered(&self, id: SeriesId) -> bool {
        self.mapped().registry().is_stale(id)
    }

    /// What differs whenever a series was registered, forgotten, or registered again.
    pub fn registry_version(&self) -> (u64, u64) {
        self.mapped().registry().version()
    }

    /// What a series is registered as; `None` if no series has that id.
    pub fn series(&self, id: SeriesId) -> Option<SeriesDefinition> {
        self.mapped().registry().series(id)
    }

    /// What a family is registered as; `None` if no family has that id.
    pub fn family(&self, id: FamilyId) -> Option<FamilyDefinition> {
        self.mapped().registry().family(id)
    }

    /// The id of the family of that name.
    pub fn family_id(&self, name: &str) -> Option<FamilyId> {
        self.mapped().registry().find_family(name)
    }

    /// What the family of that name is registered as.
    pub fn family_by_name(&self, name: &str) -> Option<FamilyDefinition> {
        self.mapped().registry().family_by_name(name)
    }
}
