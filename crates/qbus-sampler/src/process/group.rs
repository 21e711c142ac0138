//! Processes of one role and command, as one series.

use crate::readings::Readings;
use crate::table::Reading;

/// Roles and commands that are remembered; beyond these the empty ones are forgotten.
const GROUPS_MAX: usize = 1024;

/// Counters of a process, in the kernel's own units: sums of whole numbers do not depend on their
/// order, and so no end of a process lowers them by a last digit.
#[derive(Clone, Copy)]
pub(super) enum Count {
    UserTicks,
    SystemTicks,
    MinorFaults,
    MajorFaults,
    VoluntarySwitches,
    InvoluntarySwitches,
    ReadBytes,
    WrittenBytes,
}

/// In the order of [`Count`], with the label that tells the rows of one family apart.
const COUNTS: [(Reading, &str, &str); 8] = [
    (Reading::ProcessCpuSeconds, "mode", "user"),
    (Reading::ProcessCpuSeconds, "mode", "system"),
    (Reading::ProcessPageFaults, "kind", "minor"),
    (Reading::ProcessPageFaults, "kind", "major"),
    (Reading::ProcessContextSwitches, "kind", "voluntary"),
    (Reading::ProcessContextSwitches, "kind", "involuntary"),
    (Reading::ProcessReadBytes, "", ""),
    (Reading::ProcessWrittenBytes, "", ""),
];

/// Gauges of a process.
#[derive(Clone, Copy)]
pub(super) enum Level {
    CpuUsage,
    ResidentBytes,
    VirtualBytes,
    SwapBytes,
    Threads,
    OpenFds,
    MaxFds,
    StartSeconds,
}

/// In the order of [`Level`], with what several processes come to.
const LEVELS: [(Reading, Join); 8] = [
    (Reading::ProcessCpuUsage, sum),
    (Reading::ProcessResident, sum),
    (Reading::ProcessVirtual, sum),
    (Reading::ProcessSwap, sum),
    (Reading::ProcessThreads, sum),
    (Reading::ProcessOpenFds, sum),
    (Reading::ProcessMaxFds, f64::min),
    (Reading::ProcessStart, f64::min),
];

type Join = fn(f64, f64) -> f64;

fn sum(a: f64, b: f64) -> f64 {
    a + b
}

/// What one process used, as far as it could be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    counts: [Option<u64>; COUNTS.len()],
    levels: [Option<f64>; LEVELS.len()],
}

impl Totals {
    pub(super) fn count(&mut self, count: Count, total: u64) {
        self.counts[count as usize] = Some(total);
    }

    pub(super) fn level(&mut self, level: Level, value: Option<f64>) {
        self.levels[level as usize] = value;
    }

    fn add_counts(&mut self, other: &Totals) {
        for (total, more) in self.counts.iter_mut().zip(other.counts) {
            *total = joined(*total, more, u64::saturating_add);
        }
    }

    fn join_levels(&mut self, other: &Totals) {
        for ((level, more), (_, join)) in self.levels.iter_mut().zip(other.levels).zip(LEVELS) {
            *level = joined(*level, more, join);
        }
    }
}

/// What could not be read of one process doesn't hide what could of another.
fn joined<T>(a: Option<T>, b: Option<T>, join: fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(join(a, b)),
        (one, None) => one,
        (None, one) => one,
    }
}

/// Every role and command that has been seen.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Members know their place here, so that a forgotten group leaves a hole.
    groups: Vec<Option<Group>>,
}

#[derive(Debug, Default)]
struct Group {
    role: String,
    command: String,
    /// Empty unless pids are wanted.
    pid: String,
    /// The counts of members that are gone.
    retired: Totals,
}

/// One process, for [`Groups::push`].
pub(super) struct Member<'a> {
    pub(super) group: usize,
    pub(super) attached: bool,
    pub(super) totals: &'a Totals,
}

impl Groups {
    /// The place of the group of these labels, made if need be.
    pub(super) fn place(&mut self, role: &str, command: &str, pid: &str) -> usize {
        let same =
            |group: &Group| (&*group.role, &*group.command, &*group.pid) == (role, command, pid);
        if let Some(place) = self
            .groups
            .iter()
            .position(|group| group.as_ref().is_some_and(same))
        {
            return place;
        }
        let place = self
            .groups
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.groups.push(None);
                self.groups.len() - 1
            });
        self.groups[place] = Some(Group {
            role: role.to_owned(),
            command: command.to_owned(),
            pid: pid.to_owned(),
            retired: Totals::default(),
        });
        place
    }

    /// Keeps what a member counted that is gone for good.
    pub(super) fn retire(&mut self, place: usize, totals: &Totals) {
        if let Some(group) = &mut self.groups[place] {
            group.retired.add_counts(totals);
        }
    }

    /// Pushes the values of every group. A group that lost its last process keeps its counters and
    /// has no gauges but the number of its processes, which is zero.
    pub(super) fn push<'a>(
        &mut self,
        members: impl Iterator<Item = Member<'a>>,
        ticks_per_second: f64,
        out: &mut Readings,
    ) {
        let mut sums = vec![(0_u32, 0_u32, Totals::default()); self.groups.len()];
        for member in members {
            let (known, attached, totals) = &mut sums[member.group];
            *known += 1;
            totals.add_counts(member.totals);
            if member.attached {
                *attached += 1;
                totals.join_levels(member.totals);
            }
        }
        let mut groups = self.groups.iter().flatten().count();
        for (slot, (known, attached, mut totals)) in self.groups.iter_mut().zip(sums) {
            let Some(group) = slot else { continue };
            if known == 0 && (!group.pid.is_empty() || groups > GROUPS_MAX) {
                *slot = None;
                groups -= 1;
                continue;
            }
            totals.add_counts(&group.retired);
            group.push(attached, &totals, ticks_per_second, out);
        }
    }
}

impl Group {
    fn push(&self, attached: u32, totals: &Totals, ticks_per_second: f64, out: &mut Readings) {
        let labels = [
            ("role", &*self.role),
            ("command", &*self.command),
            ("pid", &*self.pid),
            ("", ""),
        ];
        out.push(Reading::ProcessInstances, &labels, f64::from(attached));
        for ((reading, name, value), count) in COUNTS.into_iter().zip(totals.counts) {
            if let Some(count) = count {
                let [role, command, pid, _] = labels;
                let unit = match reading {
                    Reading::ProcessCpuSeconds => ticks_per_second,
                    _ => 1.0,
                };
                let labels = [role, command, pid, (name, value)];
                out.push(reading, &labels, count as f64 / unit);
            }
        }
        for ((reading, _), level) in LEVELS.into_iter().zip(totals.levels) {
            if let Some(level) = level {
                out.push(reading, &labels, level);
            }
        }
    }
}
