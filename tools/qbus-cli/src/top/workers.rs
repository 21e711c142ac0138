//! The processes that emit: from the ledger, with what the sampler knows of them.

use std::collections::{HashMap, HashSet};

use qbus_agent::view::{Owner, Report, program};

use super::store::{FamilyView, Ring, SeriesView, Store};

/// A process, or, where nobody knows who is who, all of a role and command.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    /// Of its entry in the owner table; empty where it is not known.
    pub(crate) id: String,
    pub(crate) pid: Option<u64>,
    pub(crate) role: String,
    pub(crate) command: String,
    pub(crate) alive: bool,
    /// Records a second.
    pub(crate) rate: f64,
    pub(crate) ring: Option<Ring>,
    pub(crate) lost: u64,
    pub(crate) lane: f64,
    pub(crate) usage: Usage,
    pub(crate) owner: Option<Owner>,
}

/// What the sampler knows of it; NaN where it does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: f64,
    pub(crate) resident: f64,
    pub(crate) gpu_memory: f64,
    /// How many processes share a series of the sampler: then these are means.
    pub(crate) of: usize,
}

/// What each owner had delivered, and how fast it delivers.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    by_owner: HashMap<String, Rate>,
    tick: u64,
}

#[derive(Debug)]
struct Rate {
    delivered: u64,
    rate: f64,
    ring: Ring,
}

impl Rates {
    /// Takes a report over that was read so many seconds after the last one.
    pub(crate) fn take(&mut self, report: &Report, tick: u64, seconds: Option<f64>) {
        let owners = report.owners.as_deref().unwrap_or(&[]);
        let present: HashSet<&str> = owners.iter().map(|owner| owner.id.as_str()).collect();
        self.by_owner.retain(|id, _| present.contains(id.as_str()));
        for owner in owners {
            let known = self
                .by_owner
                .entry(owner.id.clone())
                .or_insert_with(|| Rate {
                    delivered: owner.delivered,
                    rate: f64::NAN,
                    ring: Ring::default(),
                });
            let more = owner.delivered.saturating_sub(known.delivered);
            known.rate = seconds.map_or(f64::NAN, |seconds| more as f64 / seconds);
            known.delivered = owner.delivered;
            known.ring.go_on(self.tick, tick, known.rate);
        }
        self.tick = tick;
    }
}

/// By what workers are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerSort {
    Rate,
    Lost,
    Cpu,
    Resident,
    Pid,
}

impl WorkerSort {
    pub(crate) const ALL: [(WorkerSort, &'static str); 5] = [
        (WorkerSort::Rate, "records/s"),
        (WorkerSort::Lost, "lost"),
        (WorkerSort::Cpu, "CPU"),
        (WorkerSort::Resident, "RSS"),
        (WorkerSort::Pid, "pid"),
    ];
}

/// All of them; those that are attached first. Of what is over, `is_over`, the last samples speak
/// of those that are gone.
pub(crate) fn of(
    store: &Store,
    report: Option<&Report>,
    rates: &Rates,
    is_over: bool,
    (sort, reversed): (WorkerSort, bool),
) -> Vec<Worker> {
    let owners = report.and_then(|report| report.owners.as_deref());
    let mut workers = match owners {
        Some(owners) => {
            let sampled = Sampled::of(store, owners, is_over);
            let worker = |owner| attached(owner, rates, &sampled);
            owners.iter().map(worker).collect()
        }
        None => sampled(store),
    };
    let key = |worker: &Worker| match sort {
        WorkerSort::Rate => worker.rate,
        WorkerSort::Lost => worker.lost as f64,
        WorkerSort::Cpu => worker.usage.cpu,
        WorkerSort::Resident => worker.usage.resident,
        WorkerSort::Pid => -(worker.pid.unwrap_or(0) as f64),
    };
    let rank = |worker: &Worker| {
        let key = key(worker);
        if key.is_nan() { f64::MIN } else { key }
    };
    workers.sort_by(|a: &Worker, b: &Worker| {
        let by_key = rank(b).total_cmp(&rank(a));
        let by_key = if reversed { by_key.reverse() } else { by_key };
        b.alive.cmp(&a.alive).then(by_key).then(a.pid.cmp(&b.pid))
    });
    workers
}

fn attached(owner: &Owner, rates: &Rates, sampled: &Sampled<'_>) -> Worker {
    let rate = rates.by_owner.get(&owner.id);
    let refused = owner.dropped.saturating_add(owner.torn);
    Worker {
        id: owner.id.clone(),
        pid: Some(owner.pid),
        role: owner.role.clone(),
        command: owner.command.clone(),
        alive: owner.alive,
        rate: rate.map_or(f64::NAN, |rate| rate.rate),
        ring: rate.map(|rate| rate.ring.clone()),
        lost: refused.saturating_add(owner.revoked),
        lane: match owner.lanes {
            0 => f64::NAN,
            _ => owner.fill_ratio,
        },
        usage: sampled.usage(owner),
        owner: Some(owner.clone()),
    }
}

/// Role and command, as the sampler names a process.
type Group<'a> = (&'a str, &'a str);

/// What the sampler knows of processes: by pid where it labels them with theirs, else by role and
/// command.
struct Sampled<'a> {
    by_metric: [Values<'a>; 3],
    /// Processes of a role and command.
    kin: HashMap<Group<'a>, usize>,
    is_over: bool,
}

/// The values of a metric.
#[derive(Default)]
struct Values<'a> {
    by_pid: HashMap<&'a str, f64>,
    by_group: HashMap<Group<'a>, f64>,
}

/// In the order of [`Usage`].
const METRICS: [&str; 3] = [
    "qbus_process_cpu_usage_ratio",
    "qbus_process_resident_memory_bytes",
    "qbus_gpu_process_memory_bytes",
];

impl<'a> Sampled<'a> {
    fn of(store: &'a Store, owners: &'a [Owner], is_over: bool) -> Sampled<'a> {
        let mut kin = HashMap::new();
        for owner in owners.iter().filter(|owner| owner.alive || is_over) {
            *kin.entry(group(owner)).or_insert(0) += 1;
        }
        let of_metric = |name| {
            let mut values = Values::default();
            let all = store.find(name).map_or(&[][..], |view| &view.series);
            for one in all.iter().filter(|one| !one.now.is_nan()) {
                // A process may use several GPUs.
                match label(one, "pid") {
                    "" => {
                        let group = (label(one, "role"), label(one, "command"));
                        *values.by_group.entry(group).or_insert(0.0) += one.now;
                    }
                    pid => *values.by_pid.entry(pid).or_insert(0.0) += one.now,
                }
            }
            values
        };
        Sampled {
            by_metric: METRICS.map(of_metric),
            kin,
            is_over,
        }
    }

    fn usage(&self, owner: &Owner) -> Usage {
        if !(owner.alive || self.is_over) {
            return Usage::from(([f64::NAN; 3], 1));
        }
        let (pid, group) = (owner.pid.to_string(), group(owner));
        let kin = self.kin.get(&group).copied().unwrap_or(1);
        let mut of = 1;
        let values = [0, 1, 2].map(|metric| {
            let Values { by_pid, by_group } = &self.by_metric[metric];
            match (by_pid.get(pid.as_str()), by_group.get(&group)) {
                (Some(value), _) => *value,
                (None, Some(sum)) => {
                    of = kin;
                    sum / kin as f64
                }
                (None, None) => f64::NAN,
            }
        });
        Usage::from((values, of))
    }
}

impl From<([f64; 3], usize)> for Usage {
    fn from(([cpu, resident, gpu_memory], of): ([f64; 3], usize)) -> Usage {
        Usage {
            cpu,
            resident,
            gpu_memory,
            of,
        }
    }
}

fn group(owner: &Owner) -> Group<'_> {
    (&owner.role, program(&owner.command))
}

/// A label's value; empty where there is none.
fn label<'a>(one: &'a SeriesView, name: &str) -> &'a str {
    let found = one.labels.iter().find(|(known, _)| known == name);
    found.map_or("", |(_, value)| value)
}

/// Who was sampled last, where the bus is gone: the snapshot does not know who is who.
fn sampled(store: &Store) -> Vec<Worker> {
    let of = |name| {
        store
            .find(name)
            .map_or(&[][..], |view: &FamilyView| &view.series)
    };
    let [cpu, resident, gpu_memory] = METRICS.map(of);
    let worker = |one: &SeriesView| {
        let named = ["role", "command", "pid"].map(|name| label(one, name));
        let is_mine = |other: &&SeriesView| {
            ["role", "command", "pid"].map(|name| label(other, name)) == named
        };
        let sum = |all: &[SeriesView]| {
            let mine = all.iter().filter(is_mine).map(|other| other.now);
            mine.reduce(|sum, now| sum + now).unwrap_or(f64::NAN)
        };
        let [role, command, pid] = named;
        Worker {
            id: String::new(),
            pid: pid.parse().ok(),
            role: role.to_owned(),
            command: command.to_owned(),
            alive: false,
            rate: f64::NAN,
            ring: None,
            lost: 0,
            lane: f64::NAN,
            usage: Usage::from(([sum(cpu), one.now, sum(gpu_memory)], 1)),
            owner: None,
        }
    };
    resident.iter().map(worker).collect()
}
