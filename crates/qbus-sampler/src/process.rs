//! Attached processes and this one.
//!
//! Processes of one role and command are one series, unless pids are wanted as a label: gauges are
//! added up, and so are counters, which keep what processes had counted that are gone.

mod group;
mod tasks;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::{Attached, SamplerOptions};
use crate::kernel_file::{KernelFile, read_once};
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use group::{Count, Groups, Level, Member, Totals};
use tasks::Tasks;

/// Processes whose files stay open between ticks. A descriptor table is not endless; beyond these
/// the files are opened for each read.
const KEPT_OPEN_MAX: usize = 64;

/// Processes that left the bus and live on: they may attach again, and then go on counting.
const DETACHED_MAX: usize = 256;

/// Reads the files of each process under `/proc`.
pub(crate) struct Processes {
    proc: PathBuf,
    own: Option<Attached>,
    own_namespace: Option<u64>,
    pid_label: bool,
    units: Units,
    /// By pid, with what was last read of each.
    known: HashMap<u32, Process>,
    groups: Groups,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Units {
    ticks_per_second: f64,
    page_bytes: f64,
    boot_time_seconds: Option<f64>,
}

struct Process {
    group: usize,
    /// The kernel's name of it, as last read.
    command: String,
    /// Whether its files stay open.
    keep_open: bool,
    started: u64,
    stat: KernelFile,
    status: KernelFile,
    io: Option<KernelFile>,
    directory: PathBuf,
    max_fds: Option<f64>,
    tasks: Tasks,
    totals: Totals,
    /// CPU seconds at the last read, and when that was.
    last_cpu: Option<(Instant, f64)>,
    attached: bool,
}

impl Processes {
    pub(crate) fn new(config: &SamplerOptions) -> Processes {
        let proc = config.roots.proc.clone();
        // `/proc/self` goes by the pid namespace of that `/proc`.
        let own_pid = fs::read_link(proc.join("self"))
            .ok()
            .and_then(|link| link.to_str()?.parse().ok())
            .unwrap_or_else(std::process::id);
        let own = config.own_role.clone().map(|role| Attached {
            pid: own_pid,
            role,
            ..Attached::default()
        });
        Processes {
            own_namespace: pid_namespace(&proc),
            proc,
            own,
            pid_label: config.pid_label,
            units: Units {
                ticks_per_second: rustix::param::clock_ticks_per_second() as f64,
                page_bytes: rustix::param::page_size() as f64,
                boot_time_seconds: None,
            },
            known: HashMap::new(),
            groups: Groups::default(),
            buffer: Vec::new(),
        }
    }
}

/// The inode of the sampler's own pid namespace.
pub(crate) fn pid_namespace(proc: &Path) -> Option<u64> {
    fs::metadata(proc.join("self/ns/pid"))
        .ok()
        .map(|namespace| namespace.ino())
}

impl Probe for Processes {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        if self.units.boot_time_seconds.is_none() {
            self.units.boot_time_seconds = boot_time(&self.proc, &mut self.buffer);
        }
        for process in self.known.values_mut() {
            process.attached = false;
        }
        let own = self.own.take();
        // This process may be attached as well, with a role that says more.
        for attached in tick.attached.iter().chain(&own) {
            match attached.pid_namespace {
                Some(namespace) if Some(namespace) != self.own_namespace => out.skip(1),
                _ => self.read_process(attached, tick.now, out),
            }
        }
        self.own = own;
        self.forget_detached();
        let members = self.known.values().map(|process| Member {
            group: process.group,
            attached: process.attached,
            totals: &process.totals,
        });
        self.groups.push(members, self.units.ticks_per_second, out);
        Ok(())
    }
}

impl Processes {
    fn read_process(&mut self, attached: &Attached, now: Instant, out: &mut Readings) {
        let pid = attached.pid;
        if self.known.get(&pid).is_some_and(|process| process.attached) {
            // Attached more than once: its owners share what it uses.
            return;
        }
        if let Some(process) = self.known.get_mut(&pid) {
            let same = attached
                .started
                .is_none_or(|started| started == process.started);
            if same
                && process
                    .refresh(now, self.units, &mut self.buffer, out)
                    .is_ok()
            {
                process.attached = true;
                // Its role can be set late, and its command changes when it executes another.
                let group = group_of(&mut self.groups, attached, &process.command, self.pid_label);
                let left = std::mem::replace(&mut process.group, group);
                if left != group {
                    self.groups.retire(left, &process.totals);
                }
                return;
            }
            self.retire(pid);
        }
        match self.open(attached, now, out) {
            Ok(process) => {
                self.known.insert(pid, process);
            }
            // It ended, and its owner has not been reaped yet.
            Err(err) if is_gone(&err) => out.skip(1),
            Err(err) => out.fail(|| format!("process {pid}: {err}")),
        }
    }

    fn open(
        &mut self,
        attached: &Attached,
        now: Instant,
        out: &mut Readings,
    ) -> io::Result<Process> {
        let directory = self.proc.join(attached.pid.to_string());
        let mut stat = KernelFile::new(directory.join("stat"));
        let parsed = Stat::parse(stat.read(&mut self.buffer)?)?;
        if attached
            .started
            .is_some_and(|started| started != parsed.started)
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut process = Process {
            group: group_of(&mut self.groups, attached, &parsed.command, self.pid_label),
            command: parsed.command,
            keep_open: self.known.len() < KEPT_OPEN_MAX,
            started: parsed.started,
            stat,
            status: KernelFile::new(directory.join("status")),
            io: Some(KernelFile::new(directory.join("io"))),
            max_fds: max_fds(&directory, &mut self.buffer),
            tasks: Tasks::new(&directory),
            directory,
            totals: Totals::default(),
            last_cpu: None,
            attached: true,
        };
        process.refresh(now, self.units, &mut self.buffer, out)?;

        Ok(process)
    }

    /// Keeps what a process counted that is gone.
    fn retire(&mut self, pid: u32) {
        if let Some(process) = self.known.remove(&pid) {
            self.groups.retire(process.group, &process.totals);
        }
    }

    /// Lets go of what left the bus: at once if it ended, else when there are too many.
    fn forget_detached(&mut self) {
        let mut detached = Vec::new();
        for (pid, process) in self
            .known
            .iter_mut()
            .filter(|(_, process)| !process.attached)
        {
            process.close();
            process.last_cpu = None;
            detached.push((process.directory.exists(), process.started, *pid));
        }
        // Those that ended come first, then the oldest.
        detached.sort_unstable();
        let excess = detached.len().saturating_sub(DETACHED_MAX);
        for (place, (lives, _, pid)) in detached.into_iter().enumerate() {
            if !lives || place < excess {
                self.retire(pid);
            }
        }
    }
}

impl Process {
    /// Reads everything anew.
    ///
    /// # Errors
    ///
    /// Of `stat` alone: without it there is no such process, or no longer.
    fn refresh(
        &mut self,
        now: Instant,
        units: Units,
        buffer: &mut Vec<u8>,
        out: &mut Readings,
    ) -> io::Result<()> {
        let stat = Stat::parse(self.stat.read(buffer)?)?;
        if stat.started != self.started {
            return Err(io::ErrorKind::NotFound.into());
        }
        let cpu_seconds = |ticks: u64| ticks as f64 / units.ticks_per_second;
        let cpu = cpu_seconds(stat.user_ticks.saturating_add(stat.system_ticks));
        let usage = self.last_cpu.and_then(|(then, before)| {
            let elapsed = now.saturating_duration_since(then).as_secs_f64();
            (elapsed > 0.0).then(|| (cpu - before).max(0.0) / elapsed)
        });
        self.last_cpu = Some((now, cpu));
        let start = units
            .boot_time_seconds
            .map(|boot| boot + cpu_seconds(self.started));
        let totals = &mut self.totals;
        totals.count(Count::UserTicks, stat.user_ticks);
        totals.count(Count::SystemTicks, stat.system_ticks);
        totals.count(Count::MinorFaults, stat.minor_faults);
        totals.count(Count::MajorFaults, stat.major_faults);
        totals.level(Level::CpuUsage, usage);
        totals.level(Level::VirtualBytes, Some(stat.virtual_bytes as f64));
        totals.level(
            Level::ResidentBytes,
            Some(stat.resident_pages as f64 * units.page_bytes),
        );
        totals.level(Level::Threads, Some(stat.threads as f64));
        totals.level(Level::OpenFds, open_fds(&self.directory));
        totals.level(Level::MaxFds, self.max_fds);
        totals.level(Level::StartSeconds, start);
        let swap = self
            .status
            .read(buffer)
            .ok()
            .and_then(|status| kibibytes(status, "VmSwap:"));
        totals.level(Level::SwapBytes, swap);
        if let Some((voluntary, involuntary)) = self.tasks.read(now, buffer) {
            totals.count(Count::VoluntarySwitches, voluntary);
            totals.count(Count::InvoluntarySwitches, involuntary);
        }
        self.read_io(buffer, out);
        self.command = stat.command;
        if !self.keep_open {
            self.close();
        }
        Ok(())
    }

    /// Another user's I/O cannot be read: that is reported once for each process.
    fn read_io(&mut self, buffer: &mut Vec<u8>, out: &mut Readings) {
        let Some(file) = &mut self.io else { return };
        match file.read(buffer) {
            Ok(text) => {
                let keys = [
                    ("read_bytes:", Count::ReadBytes),
                    ("write_bytes:", Count::WrittenBytes),
                ];
                for (key, count) in keys {
                    if let Some(Ok(bytes)) = value_of(text, key).map(str::parse::<u64>) {
                        self.totals.count(count, bytes);
                    }
                }
            }
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                out.fail(|| format!("{}: {err}", file.path().display()));
                self.io = None;
            }
            Err(_) => {}
        }
    }

    fn close(&mut self) {
        self.stat.close();
        self.status.close();
        if let Some(io) = &mut self.io {
            io.close();
        }
    }
}

fn group_of(groups: &mut Groups, attached: &Attached, command: &str, pid_label: bool) -> usize {
    let command = match attached.command.as_str() {
        "" => command,
        command => command,
    };
    let pid = if pid_label {
        attached.pid.to_string()
    } else {
        String::new()
    };
    groups.place(&attached.role, command, &pid)
}

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    command: String,
    minor_faults: u64,
    major_faults: u64,
    user_ticks: u64,
    system_ticks: u64,
    threads: u64,
    started: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> io::Result<Stat> {
        let parse = || {
            // The command may hold blanks and parentheses of its own: the last one closes it.
            let (head, tail) = text.rsplit_once(')')?;
            let (_, command) = head.split_once('(')?;
            let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
            // Numbered as in proc(5), where the state is field 3.
            let field = |number: usize| fields.get(number - 3)?.parse().ok();
            Some(Stat {
                command: command.to_owned(),
                minor_faults: field(10)?,
                major_faults: field(12)?,
                user_ticks: field(14)?,
                system_ticks: field(15)?,
                threads: field(20)?,
                started: field(22)?,
                virtual_bytes: field(23)?,
                resident_pages: field(24)?,
            })
        };
        parse()
            .ok_or_else(|| io::Error::other(format!("can't read its stat `{}`", text.trim_end())))
    }
}

/// What follows `key` on the line that starts with it.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::trim)
}

fn kibibytes(text: &str, key: &str) -> Option<f64> {
    let number: u64 = value_of(text, key)?.strip_suffix(" kB")?.parse().ok()?;
    Some(number as f64 * 1024.0)
}

/// The size of the directory is the number of descriptors; kernels before 6.2 say zero and make
/// us count them.
fn open_fds(directory: &Path) -> Option<f64> {
    let fd = directory.join("fd");
    match fs::metadata(&fd).ok()?.size() {
        0 => Some(fs::read_dir(&fd).ok()?.count() as f64),
        descriptors => Some(descriptors as f64),
    }
}

fn max_fds(directory: &Path, buffer: &mut Vec<u8>) -> Option<f64> {
    let limits = read_once(&directory.join("limits"), buffer).ok()?;
    let soft = value_of(limits, "Max open files")?
        .split_ascii_whitespace()
        .next()?;
    soft.parse::<u64>().ok().map(|limit| limit as f64)
}

fn boot_time(proc: &Path, buffer: &mut Vec<u8>) -> Option<f64> {
    let stat = read_once(&proc.join("stat"), buffer).ok()?;
    value_of(stat, "btime ")?
        .parse::<u64>()
        .ok()
        .map(|seconds| seconds as f64)
}

/// A process that ended between two reads says `ESRCH`.
fn is_gone(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::NotFound
        || err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_anything() {
        let numbers: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let line = format!("7 (a) b (c) S {}\n", numbers.join(" "));
        let stat = Stat {
            command: "a) b (c".into(),
            minor_faults: 10,
            major_faults: 12,
            user_ticks: 14,
            system_ticks: 15,
            threads: 20,
            started: 22,
            virtual_bytes: 23,
            resident_pages: 24,
        };
        assert_eq!(Stat::parse(&line).unwrap(), stat);
        assert!(Stat::parse("7 (a) S 1 2").is_err());
        assert!(Stat::parse("").is_err());
    }
}
