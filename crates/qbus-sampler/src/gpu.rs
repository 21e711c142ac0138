//! NVIDIA GPUs, by way of their management library, NVML.
//!
//! The library is loaded when the source is first read. A machine that has none, or no driver, is
//! a normal machine: the source is absent, and is tried again after a while. NVML calls take a lock
//! that all its users share, and some take milliseconds, so the source has a thread of its own,
//! makes the slow calls seldom, and stops asking a GPU for what it doesn't have.

mod calls;
mod dcgm;
mod users;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::config::SamplerOptions;
use crate::metric::GpuNames;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;
use calls::{CALLS, Sink, Tier};
use users::Users;
use watch::Watch;

pub(crate) use dcgm::published;

/// How long a call is left out that a GPU said it does not support: a new driver might.
const REPROBE_PERIOD: Duration = Duration::from_secs(600);

/// How long a GPU is left alone that fell off the bus or needs a reset.
const DOWN_PERIOD: Duration = Duration::from_secs(30);

/// More GPUs than any machine has.
const GPUS_MAX: u32 = 512;

/// More MIG devices than any GPU is divided into.
const MIGS_MAX: u32 = 64;

/// Reads every GPU. They are known by their UUIDs: numbers change when one is lost.
pub(crate) struct Gpus {
    library: Option<PathBuf>,
    slow_period: Duration,
    names: GpuNames,
    users: Users,
    watch: Watch,
    nvml: Option<Nvml>,
    gpus: HashMap<String, Gpu>,
    /// The labels last seen at each number, for a GPU that can no longer say its own.
    labels: HashMap<u32, Labels>,
    /// Numbers of GPUs that are left alone, and until when.
    down: HashMap<u32, (Instant, String)>,
    /// What the slow calls brought, and when.
    slow: Readings,
    slow_read: Option<Instant>,
}

/// Which GPU a value is of: its number and its UUID, and under the names of dcgm-exporter what that
/// has.
type Labels = Vec<(&'static str, String)>;

/// What is known of one GPU.
#[derive(Default)]
struct Gpu {
    /// Under the names of dcgm-exporter: labels beside its number and its UUID.
    dcgm: Option<Labels>,
    /// When the use by its processes was last read.
    asked_us: u64,
    /// Calls that are left out, and until when.
    left_out: HashMap<&'static str, LeftOut>,
}

struct LeftOut {
    until: Instant,
    /// What was said of it, where that was to be said.
    why: Option<String>,
}

/// What an error says about what to ask next.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// This GPU does not have it.
    LeaveOut,
    /// It has, but not for us.
    Forbidden,
    /// Not now.
    Skip,
    /// The GPU is gone.
    Down,
    /// The library can't go on.
    Restart,
    /// It is merely counted.
    Count,
}

/// Ends the reading of one GPU, or of all.
enum Stop {
    Gpu(String),
    Library(String),
}

impl Verdict {
    fn of(err: &NvmlError) -> Verdict {
        match err {
            NvmlError::NotSupported
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound => Verdict::LeaveOut,
            NvmlError::NoPermission => Verdict::Forbidden,
            NvmlError::NoData
            | NvmlError::NotFound
            | NvmlError::Timeout
            | NvmlError::InsufficientSize(_) => Verdict::Skip,
            NvmlError::GpuLost | NvmlError::ResetRequired => Verdict::Down,
            NvmlError::Uninitialized
            | NvmlError::DriverNotLoaded
            | NvmlError::LibRmVersionMismatch => Verdict::Restart,
            _ => Verdict::Count,
        }
    }
}

impl Gpus {
    pub(crate) fn new(config: &SamplerOptions) -> Gpus {
        Gpus {
            library: config.nvml.clone(),
            slow_period: config.gpu_slow_period,
            names: config.gpu_names,
            users: Users::new(&config.roots.proc, config.pid_label),
            watch: Watch::new(config.nvml.clone(), config.gpm),
            nvml: None,
            gpus: HashMap::new(),
            labels: HashMap::new(),
            down: HashMap::new(),
            slow: Readings::default(),
            slow_read: None,
        }
    }

    fn read_or_load(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        // Taken out, so that a panic in the wrapper ends with a new start.
        let nvml = match self.nvml.take() {
            Some(nvml) => nvml,
            None => load(self.library.as_deref()).map_err(|err| not_loaded(&err, out))?,
        };
        match self.read_all(&nvml, tick, out) {
            Ok(()) => {
                self.nvml = Some(nvml);
                Ok(())
            }
            // A library that can't go on is loaded anew, but not in each tick.
            Err(Failure::Failed(message)) => {
                out.fail(|| message.clone());
                Err(Failure::Absent(message))
            }
            Err(absent) => Err(absent),
        }
    }

    fn read_all(
        &mut self,
        nvml: &Nvml,
        tick: &Tick<'_>,
        out: &mut Readings,
    ) -> Result<(), Failure> {
        let restart = |err: NvmlError| Failure::Failed(format!("NVML: {err}"));
        let count = device_count(nvml).map_err(restart)?;
        if count == 0 {
            return Err(Failure::Absent("no NVIDIA GPU".to_owned()));
        }
        self.watch.keep_up(tick.now, out);
        let fresh = |read| tick.now.saturating_duration_since(read) < self.slow_period;
        let slow = !self.slow_read.is_some_and(fresh);
        if slow {
            self.slow.clear();
            self.slow_read = Some(tick.now);
        }
        for index in 0..count {
            match self.read_gpu(nvml, index, slow, tick, out) {
                Ok(()) => {}
                Err(Stop::Gpu(message)) => {
                    let until = tick.now + DOWN_PERIOD;
                    self.down.insert(index, (until, message.clone()));
                    // What it said before is not known to hold.
                    if let Some((name, uuid)) = self.labels.get(&index).map(|labels| &labels[1]) {
                        self.slow.remove_labelled(name, uuid);
                        out.remove_labelled(name, uuid);
                    }
                    self.push_up(index, false, out);
                    let name = format!("GPU {index}");
                    out.fail_of(&name, || format!("{name}: {message}"));
                }
                Err(Stop::Library(message)) => {
                    return Err(Failure::Failed(format!("NVML: {message}")));
                }
            }
        }
        // A GPU that is lost may be missing from the count.
        let uuid = |labels: &Labels| labels[1].1.clone();
        let named: Vec<_> = (0..count)
            .filter_map(|index| self.labels.get(&index).map(uuid))
            .collect();
        for (&index, labels) in &self.labels {
            if index >= count && !named.contains(&uuid(labels)) {
                self.push_up(index, false, out);
            }
        }
        out.append(&mut self.slow);
        Ok(())
    }

    fn read_gpu(
        &mut self,
        nvml: &Nvml,
        index: u32,
        slow: bool,
        tick: &Tick<'_>,
        out: &mut Readings,
    ) -> Result<(), Stop> {
        let down = self.down.get(&index);
        if let Some((_, message)) = down.filter(|(until, _)| tick.now < *until) {
            let name = format!("GPU {index}");
            out.still_fails(&name, || format!("{name}: {message}"));
            self.push_up(index, false, out);
            return Ok(());
        }
        let (device, uuid) = match named_device(nvml, index) {
            Ok(named) => named,
            Err(err) => match Verdict::of(&err) {
                Verdict::Restart => return Err(Stop::Library(err.to_string())),
                Verdict::Down | Verdict::Count => return Err(Stop::Gpu(err.to_string())),
                // A container is shown the GPUs that it must not use, too.
                Verdict::LeaveOut | Verdict::Forbidden | Verdict::Skip => {
                    out.skip(1);
                    return Ok(());
                }
            },
        };
        self.down.remove(&index);
        let gpu = self.gpus.entry(uuid.clone()).or_default();
        let mut labels = vec![("gpu", index.to_string()), ("uuid", uuid)];
        if self.names == GpuNames::Dcgm {
            labels[1].0 = "UUID";
            let more = gpu.dcgm.take();
            // What it did not say once it may say now; what it said stays.
            let more = more.filter(|more| more.iter().all(|(_, value)| !value.is_empty()));
            let more = more.unwrap_or_else(|| dcgm::labels(nvml, &device, index));
            labels.extend(more.iter().cloned());
            gpu.dcgm = Some(more);
        }
        self.labels.insert(index, labels.clone());
        let labels = as_texts(&labels);
        for call in CALLS {
            let out = match call.tier {
                Tier::Fast => &mut *out,
                Tier::Slow if slow => &mut self.slow,
                Tier::Slow => continue,
            };
            gpu.attempt(call.name, tick.now, &labels, out, |sink| {
                (call.read)(&device, sink)
            })?;
        }
        let mut migs = Vec::new();
        gpu.attempt("MIG devices", tick.now, &labels, out, |sink| {
            migs = mig_devices(&device, sink)?;
            Ok(())
        })?;
        if slow {
            let parts = (&device, migs.as_slice());
            gpu.read_users(&self.users, parts, tick, &labels, &mut self.slow)?;
        }
        self.push_up(index, true, out);
        Ok(())
    }

    /// Pushes whether a GPU is up, and what was heard of it: an error that ends it is the one to
    /// see.
    fn push_up(&self, index: u32, up: bool, out: &mut Readings) {
        let unknown = || vec![("gpu", index.to_string()), ("uuid", String::new())];
        let labels = self.labels.get(&index).cloned().unwrap_or_else(unknown);
        let labels = as_texts(&labels);
        out.push(Reading::GpuUp, &labels, f64::from(u8::from(up)));
        self.watch.push(labels[1].1, &labels, up, out);
    }
}

impl Probe for Gpus {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let result = self.read_or_load(tick, out);
        if result.is_err() {
            self.gpus.clear();
            self.down.clear();
            self.slow_read = None;
            // What was read of some GPUs before the library gave up is not known to hold.
            out.clear_values();
            for &index in self.labels.keys() {
                self.push_up(index, false, out);
            }
        }
        result
    }
}

/// The library, begun.
fn load(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    let nvml = match library {
        Some(path) => Nvml::builder().lib_path(path.as_os_str()).init()?,
        None => Nvml::init()?,
    };
    if nvml.lib().nvmlShutdown.is_err() {
        // The wrapper would panic at the end; what was opened stays so.
        std::mem::forget(nvml);
        return Err(NvmlError::FailedToLoadSymbol("nvmlShutdown".to_owned()));
    }
    Ok(nvml)
}

fn as_texts(labels: &Labels) -> Vec<(&'static str, &str)> {
    labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

/// How many GPUs there are. More than any machine has are a fault of the library.
fn device_count(nvml: &Nvml) -> Result<u32, NvmlError> {
    match nvml.device_count()? {
        count if count > GPUS_MAX => Err(NvmlError::UnexpectedVariant(count)),
        count => Ok(count),
    }
}

/// A GPU and its UUID, without which it can't be told from others.
fn named_device(nvml: &Nvml, index: u32) -> Result<(Device<'_>, String), NvmlError> {
    let device = nvml.device_by_index(index)?;
    let uuid = device.uuid()?;
    Ok((device, uuid))
}

/// No library and no driver are no failure; a library that doesn't match its driver is.
fn not_loaded(err: &NvmlError, out: &mut Readings) -> Failure {
    let message = format!("NVML: {err}");
    if !matches!(
        err,
        NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded
    ) {
        out.fail(|| message.clone());
    }
    Failure::Absent(message)
}

impl Gpu {
    /// Asks who uses a GPU, or the MIG devices that it is divided into.
    fn read_users(
        &mut self,
        users: &Users,
        (device, migs): (&Device<'_>, &[(String, Device<'_>)]),
        tick: &Tick<'_>,
        labels: &[(&'static str, &str)],
        out: &mut Readings,
    ) -> Result<(), Stop> {
        let parts: Vec<(&str, &Device<'_>)> = match migs {
            [] => vec![("", device)],
            migs => migs
                .iter()
                .map(|(uuid, mig)| (uuid.as_str(), mig))
                .collect(),
        };
        self.attempt("processes", tick.now, labels, out, |sink| {
            users.read(&parts, tick.attached, sink)
        })?;
        // The driver does not tell this by MIG device.
        if migs.is_empty() {
            let mut asked_us = self.asked_us;
            self.attempt("use by processes", tick.now, labels, out, |sink| {
                users.read_use(device, &mut asked_us, tick.attached, sink)
            })?;
            self.asked_us = asked_us;
        }
        Ok(())
    }

    /// Makes a call, unless it is left out, and books what its error says.
    fn attempt(
        &mut self,
        name: &'static str,
        now: Instant,
        labels: &[(&'static str, &str)],
        out: &mut Readings,
        call: impl FnOnce(&mut Sink<'_>) -> Result<(), NvmlError>,
    ) -> Result<(), Stop> {
        if let Some(left_out) = self.left_out.get(name).filter(|left| now < left.until) {
            if let Some(why) = &left_out.why {
                out.still_fails(name, || why.clone());
            }
            return Ok(());
        }
        let Err(err) = call(&mut Sink { labels, name, out }) else {
            return Ok(());
        };
        let verdict = Verdict::of(&err);
        let message = || format!("GPU {}: {name}: {err}", labels[0].1);
        match verdict {
            Verdict::LeaveOut | Verdict::Forbidden => {
                // An old driver lacks what every GPU has; that a GPU lacks something is no fault.
                let is_old = matches!(
                    err,
                    NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound
                );
                let until = now + REPROBE_PERIOD;
                let why = (verdict == Verdict::Forbidden || is_old).then(message);
                if let Some(why) = &why {
                    out.fail_of(name, || why.clone());
                }
                self.left_out.insert(name, LeftOut { until, why });
            }
            Verdict::Skip => out.skip(1),
            Verdict::Down => return Err(Stop::Gpu(err.to_string())),
            Verdict::Restart => return Err(Stop::Library(err.to_string())),
            Verdict::Count => out.fail(message),
        }
        Ok(())
    }
}

/// The MIG devices that a GPU is divided into, with their UUIDs; none where MIG is off.
fn mig_devices<'nvml>(
    device: &Device<'nvml>,
    sink: &mut Sink<'_>,
) -> Result<Vec<(String, Device<'nvml>)>, NvmlError> {
    const ENABLED: u32 = 1;
    let mut devices = Vec::new();
    if device.mig_mode()?.current != ENABLED {
        return Ok(devices);
    }
    // The count is that of places, and any of them may be empty.
    for place in 0..device.mig_device_count()?.min(MIGS_MAX) {
        let mig = match device.mig_device_by_index(place) {
            Ok(mig) => mig,
            Err(NvmlError::NotFound) => continue,
            Err(err) => return Err(err),
        };
        let uuid = mig.uuid()?;
        sink.push_mig_info(place, &uuid, &mig);
        match mig.memory_info() {
            Ok(memory) => sink.push_mig_memory(&uuid, &memory),
            Err(err) if Verdict::of(&err) == Verdict::LeaveOut => {}
            Err(err) => return Err(err),
        }
        devices.push((uuid, mig));
    }
    Ok(devices)
}
