//! The processes that emit: from the ledger, with what the sampler knows of them.

use std::collections::HashMap;

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
        self.by_owner
            .retain(|id, _| owners.iter().any(|owner| owner.id == *id));
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

/// All of them; those that are attached first.
pub(crate) fn of(
    store: &Store,
    report: Option<&Report>,
    rates: &Rates,
    sort: WorkerSort,
    reversed: bool,
) -> Vec<Worker> {
    let owners = report.and_then(|report| report.owners.as_deref());
    let mut workers = match owners {
        Some(owners) => owners
            .iter()
            .map(|owner| attached(store, owners, owner, rates))
            .collect(),
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
        if key(worker).is_nan() {
            f64::MIN
        } else {
            key(worker)
        }
    };
    workers.sort_by(|a: &Worker, b: &Worker| {
        let by_key = rank(b).total_cmp(&rank(a));
        let by_key = if reversed { by_key.reverse() } else { by_key };
        b.alive.cmp(&a.alive).then(by_key).then(a.pid.cmp(&b.pid))
    });
    workers
}

fn attached(store: &Store, owners: &[Owner], owner: &Owner, rates: &Rates) -> Worker {
    let rate = rates.by_owner.get(&owner.id);
    let is_kin = |other: &&Owner| {
        other.alive
            && other.role == owner.role
            && program(&other.command) == program(&owner.command)
    };
    Worker {
        id: owner.id.clone(),
        pid: Some(owner.pid),
        role: owner.role.clone(),
        command: owner.command.clone(),
        alive: owner.alive,
        rate: rate.map_or(f64::NAN, |rate| rate.rate),
        ring: rate.map(|rate| rate.ring.clone()),
        lost: owner
            .dropped
            .saturating_add(owner.torn)
            .saturating_add(owner.revoked),
        lane: if owner.lanes > 0 {
            owner.fill_ratio
        } else {
            f64::NAN
        },
        usage: match owner.alive {
            true => usage(store, owner, owners.iter().filter(is_kin).count()),
            false => Usage::unknown(),
        },
        owner: Some(owner.clone()),
    }
}

impl Usage {
    fn unknown() -> Usage {
        Usage {
            cpu: f64::NAN,
            resident: f64::NAN,
            gpu_memory: f64::NAN,
            of: 1,
        }
    }
}

fn has(one: &SeriesView, name: &str, value: &str) -> bool {
    one.labels
        .iter()
        .any(|(label, known)| label == name && known == value)
}

/// What the sampler knows of a process, or of all that have its role and command.
fn usage(store: &Store, owner: &Owner, kin: usize) -> Usage {
    let pid = owner.pid.to_string();
    let mut of = 1;
    let mut value = |names: &[&str], factor: f64| {
        let Some(view) = names.iter().find_map(|name| store.find(name)) else {
            return f64::NAN;
        };
        let of_pid: Vec<&SeriesView> = view
            .series
            .iter()
            .filter(|one| has(one, "pid", &pid))
            .collect();
        if !of_pid.is_empty() {
            return sum(of_pid.into_iter()) * factor;
        }
        let is_of_group = |one: &&SeriesView| {
            has(one, "role", &owner.role) && has(one, "command", program(&owner.command))
        };
        let all = sum(view.series.iter().filter(is_of_group));
        of = kin.max(1);
        all * factor / of as f64
    };
    Usage {
        cpu: value(&["qbus_process_cpu_usage_ratio"], 1.0),
        resident: value(&["qbus_process_resident_memory_bytes"], 1.0),
        gpu_memory: value(&["qbus_gpu_process_memory_bytes"], 1.0),
        of,
    }
}

fn sum<'a>(series: impl Iterator<Item = &'a SeriesView>) -> f64 {
    let known = series.map(|one| one.now).filter(|now| !now.is_nan());
    known.fold(
        f64::NAN,
        |sum, now| if sum.is_nan() { now } else { sum + now },
    )
}

/// Who was sampled last, where the bus is gone: the snapshot does not know who is who.
fn sampled(store: &Store) -> Vec<Worker> {
    let empty: &[SeriesView] = &[];
    let of = |name| {
        store
            .find(name)
            .map_or(empty, |view: &FamilyView| &view.series)
    };
    let label = |one: &SeriesView, name: &str| {
        let found = one.labels.iter().find(|(known, _)| known == name);
        found.map_or_else(String::new, |(_, value)| value.clone())
    };
    let same = |a: &SeriesView, b: &SeriesView| a.labels == b.labels;
    let value = |name, one: &SeriesView| {
        of(name)
            .iter()
            .find(|other| same(one, other))
            .map_or(f64::NAN, |other| other.now)
    };
    let worker = |one: &SeriesView| {
        let (role, command, pid) = (label(one, "role"), label(one, "command"), label(one, "pid"));
        let on_gpus = of("qbus_gpu_process_memory_bytes").iter();
        let is_mine = |other: &&SeriesView| {
            has(other, "role", &role)
                && has(other, "command", &command)
                && (pid.is_empty() || has(other, "pid", &pid))
        };
        Worker {
            id: String::new(),
            pid: pid.parse().ok(),
            alive: false,
            rate: f64::NAN,
            ring: None,
            lost: 0,
            lane: f64::NAN,
            usage: Usage {
                cpu: value("qbus_process_cpu_usage_ratio", one),
                resident: one.now,
                gpu_memory: sum(on_gpus.filter(is_mine)),
                of: 1,
            },
            owner: None,
            role,
            command,
        }
    };
    of("qbus_process_resident_memory_bytes")
        .iter()
        .map(worker)
        .collect()
}
