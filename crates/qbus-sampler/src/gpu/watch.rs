//! What needs handles that outlive a read: errors that the driver reports as they happen (XID), and
//! the activity of the hardware between two of its own samples (GPM). A thread with a library of
//! its own has them; what it saw is there for each read to take.

use std::collections::{BTreeMap, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::struct_wrappers::event::EventData;
use nvml_wrapper::{Device, EventSet, GpmSample, Nvml};

use super::{REPROBE_PERIOD, device_count, load, named_device};
use crate::readings::Readings;
use crate::table::Reading;

/// Between two samples of activity, and the longest wait for an event.
const ROUND: Duration = Duration::from_secs(1);

/// Activity that is older is not known to hold.
const FRESH: Duration = Duration::from_secs(5);

/// How long a thread that ended is not started again, from its start on.
const RESTART: Duration = Duration::from_secs(30);

/// Errors that ask for a person or a reset: an alert on a counter needs it to be there before the
/// first. Memory: 48, 63, 64, 94, 95. NVLink: 74. Off the bus: 79. Firmware: 119, 120.
const XIDS_FROM_THE_START: [u64; 9] = [48, 63, 64, 74, 79, 94, 95, 119, 120];

/// What the driver calls an unknown error.
const XID_UNKNOWN: u64 = 999;

/// What is asked of GPM, and how many of what it says make a unit: percent, and MiB a second.
const ACTIVITY: [(GpmMetricId, Reading, f64); 12] = [
    (GpmMetricId::GraphicsUtil, Reading::GpuGraphicsActive, 0.01),
    (GpmMetricId::SmUtil, Reading::GpuSmActive, 0.01),
    (GpmMetricId::SmOccupancy, Reading::GpuSmOccupancy, 0.01),
    (GpmMetricId::AnyTensorUtil, Reading::GpuTensorActive, 0.01),
    (GpmMetricId::Fp64Util, Reading::GpuFp64Active, 0.01),
    (GpmMetricId::Fp32Util, Reading::GpuFp32Active, 0.01),
    (GpmMetricId::Fp16Util, Reading::GpuFp16Active, 0.01),
    (GpmMetricId::DramBwUtil, Reading::GpuDramActive, 0.01),
    (
        GpmMetricId::NvlinkTotalTxPerSec,
        Reading::GpuNvlinkTransmitRate,
        MIB,
    ),
    (
        GpmMetricId::NvlinkTotalRxPerSec,
        Reading::GpuNvlinkReceiveRate,
        MIB,
    ),
    (GpmMetricId::PcieTxPerSec, Reading::GpuPcieTransmitRate, MIB),
    (GpmMetricId::PcieRxPerSec, Reading::GpuPcieReceiveRate, MIB),
];

const MIB: f64 = (1 << 20) as f64;

/// What the thread saw, by the UUID of a GPU.
#[derive(Debug, Default)]
struct Seen {
    gpus: HashMap<String, Gpu>,
    activity_at: Option<Instant>,
    /// Why the thread ended.
    ended: Option<String>,
    /// Whether it ended since there is nothing to listen to.
    is_lacking: bool,
}

#[derive(Debug, Default)]
struct Gpu {
    /// Whether the thread receives its errors. The totals outlive the thread: they may not fall.
    is_heard: bool,
    xids: BTreeMap<u64, u64>,
    last_xid: u64,
    activity: Vec<(Reading, f64)>,
}

/// The thread, started when it is needed and again some time after it ended.
pub(super) struct Watch {
    library: Option<PathBuf>,
    gpm: bool,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
    started: Option<Instant>,
}

impl Watch {
    pub(super) fn new(library: Option<PathBuf>, gpm: bool) -> Watch {
        Watch {
            library,
            gpm,
            seen: Arc::default(),
            thread: None,
            started: None,
        }
    }

    /// Sees to it that somebody listens, and says why nobody does.
    pub(super) fn keep_up(&mut self, now: Instant, out: &mut Readings) {
        let pause = {
            let seen = lock(&self.seen);
            if let Some(why) = &seen.ended {
                out.still_fails("errors (XID)", || format!("listening to GPUs ended: {why}"));
            }
            // Each start loads the library.
            if seen.is_lacking {
                REPROBE_PERIOD
            } else {
                RESTART
            }
        };
        let is_up = self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        let is_early = |started: Instant| now.saturating_duration_since(started) < pause;
        if is_up || self.started.is_some_and(is_early) {
            return;
        }
        self.started = Some(now);
        let (library, gpm, seen) = (self.library.clone(), self.gpm, Arc::downgrade(&self.seen));
        let thread = thread::Builder::new().name("qbus-gpu-watch".to_owned());
        let started = thread.spawn(move || {
            let watched = panic::catch_unwind(AssertUnwindSafe(|| watch(library, gpm, &seen)));
            let Some(seen) = seen.upgrade() else { return };
            let mut seen = lock(&seen);
            seen.gpus.values_mut().for_each(|gpu| {
                gpu.is_heard = false;
                gpu.activity.clear();
            });
            // A machine whose driver has no such thing is a normal one.
            seen.is_lacking = matches!(&watched, Ok(Err(err)) if is_lacking(err));
            seen.ended = match watched {
                Ok(Err(err)) if !is_lacking(&err) => Some(err.to_string()),
                Ok(_) => None,
                Err(_) => Some("the library's wrapper panicked".to_owned()),
            };
        });
        match started {
            Ok(thread) => self.thread = Some(thread),
            Err(err) => out.fail_of("errors (XID)", || format!("no thread to listen: {err}")),
        }
    }

    /// Pushes what was seen of one GPU; of one that is not up, only its errors.
    pub(super) fn push(
        &self,
        uuid: &str,
        labels: &[(&'static str, &str)],
        is_up: bool,
        out: &mut Readings,
    ) {
        let seen = lock(&self.seen);
        let Some(gpu) = seen.gpus.get(uuid) else {
            return;
        };
        if gpu.is_heard || !gpu.xids.is_empty() {
            let mut xids: BTreeMap<u64, u64> = XIDS_FROM_THE_START.map(|xid| (xid, 0)).into();
            xids.extend(&gpu.xids);
            for (xid, errors) in xids {
                let xid = xid.to_string();
                let labels = [labels, &[("xid", xid.as_str())]].concat();
                out.push(Reading::GpuXidErrors, &labels, errors as f64);
            }
            out.push(Reading::GpuLastXid, labels, gpu.last_xid as f64);
        }
        let is_fresh = is_up && seen.activity_at.is_some_and(|at| at.elapsed() < FRESH);
        for (reading, value) in gpu.activity.iter().filter(|_| is_fresh) {
            out.push(*reading, labels, *value);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_lacking(err: &NvmlError) -> bool {
    matches!(
        err,
        NvmlError::NotSupported
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::LibloadingError(_)
            | NvmlError::DriverNotLoaded
    )
}

/// Listens until nobody wants to know any more.
///
/// # Errors
///
/// What ends it: a GPU that was lost, or a library that can't go on.
fn watch(library: Option<PathBuf>, gpm: bool, seen: &Weak<Mutex<Seen>>) -> Result<(), NvmlError> {
    let nvml = load(library.as_deref())?;
    let named = (0..device_count(&nvml)?).map(|index| named_device(&nvml, index));
    // A GPU that is lost, or not visible to this process, has no events to listen to.
    let devices: Vec<_> = named.filter_map(Result::ok).collect();
    let events = listen(&nvml, &devices, seen)?;
    let mut gauges: Vec<_> = devices
        .iter()
        .filter(|(device, _)| gpm && device.gpm_support().unwrap_or(false))
        .map(|(device, uuid)| (device, uuid.as_str(), None))
        .collect();
    // The wrapper would panic where it frees a sample.
    if nvml.lib().nvmlGpmSampleFree.is_err() {
        gauges.clear();
    }
    if events.is_none() && gauges.is_empty() {
        return Err(NvmlError::NotSupported);
    }
    let mut sampled = Instant::now();
    while seen.strong_count() > 0 {
        match &events {
            Some(events) => match events.wait(ROUND.as_millis() as u32) {
                Ok(event) => count(&event, seen),
                Err(NvmlError::Timeout) => {}
                Err(err) => return Err(err),
            },
            None => thread::sleep(ROUND),
        }
        if !gauges.is_empty() && sampled.elapsed() >= ROUND {
            sampled = Instant::now();
            for (device, uuid, before) in &mut gauges {
                let activity = activity(&nvml, device, before);
                if let Some(seen) = seen.upgrade() {
                    let mut seen = lock(&seen);
                    seen.activity_at = Some(sampled);
                    seen.gpus.entry((*uuid).to_owned()).or_default().activity = activity;
                }
            }
        }
    }
    Ok(())
}

/// Events of every GPU that has them; `None` where none has.
fn listen<'nvml>(
    nvml: &'nvml Nvml,
    devices: &[(Device<'nvml>, String)],
    seen: &Weak<Mutex<Seen>>,
) -> Result<Option<EventSet<'nvml>>, NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR;
    let speaks = |device: &Device<'_>| {
        let types = device.supported_event_types();
        types.is_ok_and(|types| types.contains(wanted))
    };
    // The wrapper would panic where it frees the set.
    if nvml.lib().nvmlEventSetFree.is_err() || !devices.iter().any(|(device, _)| speaks(device)) {
        return Ok(None);
    }
    let mut events = nvml.create_event_set()?;
    for (device, uuid) in devices.iter().filter(|(device, _)| speaks(device)) {
        let registered = device.register_events(wanted, events);
        events = registered.map_err(|err| err.error)?;
        if let Some(seen) = seen.upgrade() {
            let mut seen = lock(&seen);
            seen.ended = None;
            seen.gpus.entry(uuid.clone()).or_default().is_heard = true;
        }
    }
    Ok(Some(events))
}

fn count(event: &EventData<'_>, seen: &Weak<Mutex<Seen>>) {
    let xid = match event.event_data {
        Some(XidError::Value(xid)) => xid,
        Some(XidError::Unknown) => XID_UNKNOWN,
        None => return,
    };
    if let (Ok(uuid), Some(seen)) = (event.device.uuid(), seen.upgrade()) {
        let mut seen = lock(&seen);
        let gpu = seen.gpus.entry(uuid).or_default();
        *gpu.xids.entry(xid).or_default() += 1;
        gpu.last_xid = xid;
    }
}

/// The activity since the sample before; nothing at the first one.
fn activity<'nvml>(
    nvml: &'nvml Nvml,
    device: &Device<'nvml>,
    before: &mut Option<GpmSample<'nvml>>,
) -> Vec<(Reading, f64)> {
    let Ok(sample) = device.gpm_sample() else {
        *before = None;
        return Vec::new();
    };
    let Some(earlier) = before.replace(sample) else {
        return Vec::new();
    };
    let Some(later) = before else {
        return Vec::new();
    };
    let asked = ACTIVITY.map(|(metric, ..)| metric);
    let answers = gpm_metrics_get(nvml, &earlier, later, &asked).unwrap_or_default();
    let known = answers.into_iter().zip(ACTIVITY);
    known
        .filter_map(|(answer, (_, reading, unit))| Some((reading, answer.ok()?.value, unit)))
        .filter(|(_, value, unit)| {
            value.is_finite() && *value >= 0.0 && (*unit > 1.0 || *value <= 100.0)
        })
        .map(|(reading, value, unit)| (reading, value * unit))
        .collect()
}
