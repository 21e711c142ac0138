//! What a GPU is asked, and in what range its answers make sense.

use std::ops::RangeInclusive;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PerformancePolicy, PerformanceState, TemperatureSensor,
};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::MemoryInfo;
use nvml_wrapper::structs::device::FieldId;

use crate::readings::Readings;
use crate::table::Reading;

/// How dear a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// Microseconds: made in each tick.
    Fast,
    /// Up to milliseconds, or of little news.
    Slow,
}

/// One question to a GPU.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) tier: Tier,
    pub(super) read: fn(&Device<'_>, &mut Sink<'_>) -> Result<(), NvmlError>,
}

/// Takes the answers to one call.
pub(super) struct Sink<'a> {
    /// Which GPU it is.
    pub(super) labels: &'a [(&'static str, &'a str)],
    pub(super) name: &'static str,
    pub(super) out: &'a mut Readings,
}

const NO_LABEL: (&str, &str) = ("", "");

// Beyond these an answer is a sentinel or a fault of the driver.
const MEMORY_BYTES: RangeInclusive<f64> = 0.0..=(1_u64 << 50) as f64;
const PERCENT: RangeInclusive<f64> = 0.0..=100.0;
/// A fan may run faster than its rated speed.
const FAN_PERCENT: RangeInclusive<f64> = 0.0..=200.0;
const CELSIUS: RangeInclusive<f64> = 0.0..=200.0;
const MILLIWATTS: RangeInclusive<f64> = 0.0..=1e8;
const HERTZ: RangeInclusive<f64> = 0.0..=1e11;
/// Up to where a float counts every integer.
const TOTAL: RangeInclusive<f64> = 0.0..=(1_u64 << 53) as f64;
const PCIE_LINK: RangeInclusive<f64> = 1.0..=64.0;

/// Numbers of the fields for PCIe traffic.
const PCIE_TRANSMIT: FieldId = FieldId(197);
const PCIE_RECEIVE: FieldId = FieldId(198);

/// What is a field and no call of its own: the number of the field, the reading, its label, the
/// greatest value that makes sense.
type Field = (u32, Reading, (&'static str, &'static str), f64);

const MEMORY_TEMPERATURE: [Field; 1] = [(82, Reading::GpuMemoryTemperature, NO_LABEL, 200.0)];

const REMAPPED_ROWS: [Field; 4] = [
    (142, Reading::GpuRemappedRows, ("kind", "correctable"), 1e9),
    (
        143,
        Reading::GpuRemappedRows,
        ("kind", "uncorrectable"),
        1e9,
    ),
    (144, Reading::GpuRemappingPending, NO_LABEL, 1.0),
    (145, Reading::GpuRemappingFailed, NO_LABEL, 1.0),
];

const RETIRED_PAGES: [Field; 3] = [
    (29, Reading::GpuRetiredPages, ("kind", "correctable"), 1e9),
    (30, Reading::GpuRetiredPages, ("kind", "uncorrectable"), 1e9),
    (31, Reading::GpuRetirementPending, NO_LABEL, 1.0),
];

/// More links than any GPU has.
const NVLINKS_MAX: u32 = 36;

/// Every call that answers for one GPU.
pub(super) const CALLS: &[Call] = &[
    fast("memory", |device, sink| {
        sink.push_memory(&device.memory_info()?);
        Ok(())
    }),
    fast("utilization", |device, sink| {
        let rates = device.utilization_rates()?;
        sink.push(Reading::GpuUtilization, NO_LABEL, rates.gpu, PERCENT, 100.0);
        sink.push(
            Reading::GpuMemoryUtilization,
            NO_LABEL,
            rates.memory,
            PERCENT,
            100.0,
        );
        Ok(())
    }),
    fast("temperature", |device, sink| {
        let celsius = device.temperature(TemperatureSensor::Gpu)?;
        sink.push(Reading::GpuTemperature, NO_LABEL, celsius, CELSIUS, 1.0);
        Ok(())
    }),
    fast("power", |device, sink| {
        sink.push(
            Reading::GpuPower,
            NO_LABEL,
            device.power_usage()?,
            MILLIWATTS,
            1e3,
        );
        Ok(())
    }),
    fast("energy", |device, sink| {
        let millijoules = device.total_energy_consumption()?;
        sink.push_total(Reading::GpuEnergy, NO_LABEL, millijoules, 1e3);
        Ok(())
    }),
    fast("graphics clock", |device, sink| {
        clock(device, sink, Clock::Graphics, "graphics")
    }),
    fast("SM clock", |device, sink| {
        clock(device, sink, Clock::SM, "sm")
    }),
    fast("memory clock", |device, sink| {
        clock(device, sink, Clock::Memory, "memory")
    }),
    fast("video clock", |device, sink| {
        clock(device, sink, Clock::Video, "video")
    }),
    fast("performance state", |device, sink| {
        match device.performance_state()? {
            PerformanceState::Unknown => sink.out.skip(1),
            state => sink.push(
                Reading::GpuPerformanceState,
                NO_LABEL,
                state.as_c(),
                0.0..=15.0,
                1.0,
            ),
        }
        Ok(())
    }),
    fast("throttle reasons", throttle_reasons),
    slow("power limit", |device, sink| {
        let milliwatts = device.enforced_power_limit()?;
        sink.push(
            Reading::GpuPowerLimit,
            NO_LABEL,
            milliwatts,
            MILLIWATTS,
            1e3,
        );
        Ok(())
    }),
    slow("encoder", |device, sink| {
        let percent = device.encoder_utilization()?.utilization;
        sink.push(
            Reading::GpuEncoderUtilization,
            NO_LABEL,
            percent,
            PERCENT,
            100.0,
        );
        Ok(())
    }),
    slow("decoder", |device, sink| {
        let percent = device.decoder_utilization()?.utilization;
        sink.push(
            Reading::GpuDecoderUtilization,
            NO_LABEL,
            percent,
            PERCENT,
            100.0,
        );
        Ok(())
    }),
    slow("fans", |device, sink| {
        for fan in 0..device.num_fans()?.min(16) {
            let percent = device.fan_speed(fan)?;
            sink.push(
                Reading::GpuFanSpeed,
                ("fan", &fan.to_string()),
                percent,
                FAN_PERCENT,
                100.0,
            );
        }
        Ok(())
    }),
    slow(
        "corrected ECC errors since the driver was loaded",
        |device, sink| {
            ecc(
                device,
                sink,
                (MemoryError::Corrected, "corrected"),
                (EccCounter::Volatile, "volatile"),
            )
        },
    ),
    slow(
        "uncorrected ECC errors since the driver was loaded",
        |device, sink| {
            ecc(
                device,
                sink,
                (MemoryError::Uncorrected, "uncorrected"),
                (EccCounter::Volatile, "volatile"),
            )
        },
    ),
    slow("corrected ECC errors", |device, sink| {
        ecc(
            device,
            sink,
            (MemoryError::Corrected, "corrected"),
            (EccCounter::Aggregate, "aggregate"),
        )
    }),
    slow("uncorrected ECC errors", |device, sink| {
        ecc(
            device,
            sink,
            (MemoryError::Uncorrected, "uncorrected"),
            (EccCounter::Aggregate, "aggregate"),
        )
    }),
    slow("time throttled for power", |device, sink| {
        throttled(device, sink, PerformancePolicy::Power, "power")
    }),
    slow("time throttled for heat", |device, sink| {
        throttled(device, sink, PerformancePolicy::Thermal, "thermal")
    }),
    slow("time throttled for synchronous boost", |device, sink| {
        throttled(device, sink, PerformancePolicy::SyncBoost, "sync_boost")
    }),
    slow("time throttled for the board", |device, sink| {
        throttled(device, sink, PerformancePolicy::BoardLimit, "board_limit")
    }),
    slow("time throttled for low utilization", |device, sink| {
        throttled(
            device,
            sink,
            PerformancePolicy::LowUtilization,
            "low_utilization",
        )
    }),
    slow("time throttled for reliability", |device, sink| {
        throttled(device, sink, PerformancePolicy::Reliability, "reliability")
    }),
    slow("PCIe traffic", pcie_traffic),
    fast("memory temperature", |device, sink| {
        fields(device, sink, &MEMORY_TEMPERATURE)
    }),
    slow("remapped rows", |device, sink| {
        fields(device, sink, &REMAPPED_ROWS)
    }),
    slow("retired pages", |device, sink| {
        fields(device, sink, &RETIRED_PAGES)
    }),
    slow("NVLink", nvlink),
    slow("PCIe generation", |device, sink| {
        let generation = device.current_pcie_link_gen()?;
        sink.push(
            Reading::GpuPcieGeneration,
            NO_LABEL,
            generation,
            PCIE_LINK,
            1.0,
        );
        Ok(())
    }),
    slow("PCIe width", |device, sink| {
        let lanes = device.current_pcie_link_width()?;
        sink.push(Reading::GpuPcieWidth, NO_LABEL, lanes, PCIE_LINK, 1.0);
        Ok(())
    }),
    slow("PCIe replays", |device, sink| {
        sink.push_total(
            Reading::GpuPcieReplays,
            NO_LABEL,
            device.pcie_replay_counter()?.into(),
            1.0,
        );
        Ok(())
    }),
    slow("name", |device, sink| {
        let name = device.name()?;
        let bus_id = device.pci_info().map(|pci| pci.bus_id).unwrap_or_default();
        let driver = device.nvml().sys_driver_version().unwrap_or_default();
        let labels = sink.labelled(&[
            ("name", &*name),
            ("pci_bus_id", &*bus_id),
            ("driver_version", &*driver),
        ]);
        sink.out.push(Reading::GpuInfo, &labels, 1.0);
        Ok(())
    }),
];

type Read = fn(&Device<'_>, &mut Sink<'_>) -> Result<(), NvmlError>;

const fn fast(name: &'static str, read: Read) -> Call {
    Call {
        name,
        tier: Tier::Fast,
        read,
    }
}

const fn slow(name: &'static str, read: Read) -> Call {
    Call {
        name,
        tier: Tier::Slow,
        read,
    }
}

impl<'a> Sink<'a> {
    /// The labels of the GPU, and more.
    pub(super) fn labelled<'b>(&self, more: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)>
    where
        'a: 'b,
    {
        let own: &[(&'b str, &'b str)] = self.labels;
        let more = more.iter().filter(|(_, value)| !value.is_empty());
        own.iter().chain(more).copied().collect()
    }

    /// Keeps a value, of which `per_unit` make a base unit, unless it is out of range: no value is
    /// better than a wrong one.
    fn push(
        &mut self,
        reading: Reading,
        own_label: (&'static str, &str),
        value: u32,
        range: RangeInclusive<f64>,
        per_unit: f64,
    ) {
        self.push_checked(reading, own_label, f64::from(value), range, per_unit);
    }

    fn push_total(
        &mut self,
        reading: Reading,
        own_label: (&'static str, &str),
        value: u64,
        per_unit: f64,
    ) {
        self.push_checked(reading, own_label, value as f64, TOTAL, per_unit);
    }

    fn push_checked(
        &mut self,
        reading: Reading,
        own_label: (&'static str, &str),
        value: f64,
        range: RangeInclusive<f64>,
        per_unit: f64,
    ) {
        if range.contains(&value) {
            let labels = self.labelled(&[own_label]);
            self.out.push(reading, &labels, value / per_unit);
        } else {
            let (name, gpu) = (self.name, self.labels[0].1);
            self.out
                .fail(|| format!("GPU {gpu}: {name}: {value} is out of range"));
        }
    }

    fn push_memory(&mut self, memory: &MemoryInfo) {
        let readings = [
            (Reading::GpuMemoryTotal, memory.total),
            (Reading::GpuMemoryUsed, memory.used),
            (Reading::GpuMemoryFree, memory.free),
            (Reading::GpuMemoryReserved, memory.reserved),
        ];
        self.push_memory_readings(NO_LABEL, memory, &readings);
    }

    /// What a MIG device is: its profile stands at the end of its name (`NVIDIA H100 MIG 1g.10gb`).
    pub(super) fn push_mig_info(&mut self, place: u32, uuid: &str, mig: &Device<'_>) {
        let name = mig.name().unwrap_or_default();
        let profile = match (name.rsplit_once(" MIG "), mig.attributes()) {
            (Some((_, profile)), _) => profile.to_owned(),
            (None, Ok(has)) => {
                let gibibytes = has.memory_size_mb.div_ceil(1024);
                format!("{}g.{gibibytes}gb", has.gpu_instance_slice_count)
            }
            (None, Err(_)) => String::new(),
        };
        let place = place.to_string();
        let labels = self.labelled(&[
            ("mig_uuid", uuid),
            ("mig_profile", &profile),
            ("mig_index", &place),
        ]);
        self.out.push(Reading::GpuMigInfo, &labels, 1.0);
    }

    pub(super) fn push_mig_memory(&mut self, mig: &str, memory: &MemoryInfo) {
        let readings = [
            (Reading::GpuMigMemoryTotal, memory.total),
            (Reading::GpuMigMemoryUsed, memory.used),
            (Reading::GpuMigMemoryFree, memory.free),
        ];
        self.push_memory_readings(("mig_uuid", mig), memory, &readings);
    }

    /// The parts must add up to the whole, or none of it is used.
    fn push_memory_readings(
        &mut self,
        own_label: (&'static str, &str),
        memory: &MemoryInfo,
        readings: &[(Reading, u64)],
    ) {
        let fits = memory.total > 0 && memory.used <= memory.total && memory.free <= memory.total;
        for (reading, bytes) in readings {
            let bytes = if fits { *bytes as f64 } else { -1.0 };
            self.push_checked(*reading, own_label, bytes, MEMORY_BYTES, 1.0);
        }
    }
}

fn clock(
    device: &Device<'_>,
    sink: &mut Sink<'_>,
    clock: Clock,
    label: &str,
) -> Result<(), NvmlError> {
    let hertz = f64::from(device.clock_info(clock)?) * 1e6;
    sink.push_checked(Reading::GpuClock, ("clock", label), hertz, HERTZ, 1.0);
    Ok(())
}

fn throttle_reasons(device: &Device<'_>, sink: &mut Sink<'_>) -> Result<(), NvmlError> {
    let reasons = device.current_throttle_reasons()?;
    let labels = [
        (ThrottleReasons::GPU_IDLE, "gpu_idle"),
        (
            ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
            "applications_clocks_setting",
        ),
        (ThrottleReasons::SW_POWER_CAP, "sw_power_cap"),
        (ThrottleReasons::HW_SLOWDOWN, "hw_slowdown"),
        (ThrottleReasons::SYNC_BOOST, "sync_boost"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "sw_thermal_slowdown"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hw_thermal_slowdown"),
        (
            ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN,
            "hw_power_brake_slowdown",
        ),
        (
            ThrottleReasons::DISPLAY_CLOCK_SETTING,
            "display_clock_setting",
        ),
    ];
    for (reason, label) in labels {
        let active = u32::from(reasons.contains(reason));
        sink.push(
            Reading::GpuThrottled,
            ("reason", label),
            active,
            0.0..=1.0,
            1.0,
        );
    }
    Ok(())
}

fn throttled(
    device: &Device<'_>,
    sink: &mut Sink<'_>,
    policy: PerformancePolicy,
    label: &str,
) -> Result<(), NvmlError> {
    let nanoseconds = device.violation_status(policy)?.violation_time;
    sink.push_total(
        Reading::GpuThrottledSeconds,
        ("reason", label),
        nanoseconds,
        1e9,
    );
    Ok(())
}

fn ecc(
    device: &Device<'_>,
    sink: &mut Sink<'_>,
    (error, kind): (MemoryError, &str),
    (counter, scope): (EccCounter, &str),
) -> Result<(), NvmlError> {
    let errors = device.total_ecc_errors(error, counter)? as f64;
    if TOTAL.contains(&errors) {
        let labels = sink.labelled(&[("kind", kind), ("scope", scope)]);
        sink.out.push(Reading::GpuEccErrors, &labels, errors);
    } else {
        let gpu = sink.labels[0].1;
        sink.out
            .fail(|| format!("GPU {gpu}: {errors} ECC errors are out of range"));
    }
    Ok(())
}

/// The counters are fields of their own. The wrapper cuts a field of type `unsigned long` off at 32
/// bits without saying so, so that only the longer type is a reading.
fn pcie_traffic(device: &Device<'_>, sink: &mut Sink<'_>) -> Result<(), NvmlError> {
    let fields = device.field_values_for(&[PCIE_TRANSMIT, PCIE_RECEIVE])?;
    let readings = [Reading::GpuPcieTransmitBytes, Reading::GpuPcieReceiveBytes];
    for (reading, field) in readings.into_iter().zip(fields) {
        match field?.value? {
            SampleValue::U64(bytes) => sink.push_total(reading, NO_LABEL, bytes, 1.0),
            _ => return Err(NvmlError::NotSupported),
        }
    }
    Ok(())
}

/// Fields of small numbers. One that a GPU lacks hides no other; where it lacks all, it lacks the
/// call.
fn fields(device: &Device<'_>, sink: &mut Sink<'_>, asked: &[Field]) -> Result<(), NvmlError> {
    let ids: Vec<FieldId> = asked.iter().map(|(id, ..)| FieldId(*id)).collect();
    let mut lacking = None;
    let answers = device.field_values_for(&ids)?;
    let pushed = sink.out.len();
    for (answer, (_, reading, label, max)) in answers.into_iter().zip(asked) {
        let value = match answer.and_then(|answer| answer.value) {
            Ok(SampleValue::U32(value)) => f64::from(value),
            Ok(SampleValue::U64(value)) => value as f64,
            Ok(SampleValue::I64(value)) => value as f64,
            Ok(SampleValue::F64(value)) => value,
            Err(err) => {
                lacking = Some(err);
                continue;
            }
        };
        sink.push_checked(*reading, *label, value, 0.0..=*max, 1.0);
    }
    match lacking {
        Some(err) if sink.out.len() == pushed => Err(err),
        _ => Ok(()),
    }
}

/// Links that are up, and the errors of all of them.
fn nvlink(device: &Device<'_>, sink: &mut Sink<'_>) -> Result<(), NvmlError> {
    const KINDS: [(ErrorCounter, &str); 4] = [
        (ErrorCounter::DlReplay, "replay"),
        (ErrorCounter::DlRecovery, "recovery"),
        (ErrorCounter::DlCrcFlit, "crc_flit"),
        (ErrorCounter::DlCrcData, "crc_data"),
    ];
    let (mut active, mut errors) = (0, [None; KINDS.len()]);
    for link in 0..NVLINKS_MAX {
        let link = device.link_wrapper_for(link);
        match link.is_active() {
            Ok(is_active) => active += u32::from(is_active),
            // Beyond the last one.
            Err(NvmlError::InvalidArg | NvmlError::NotSupported) if link.link() > 0 => break,
            Err(err) => return Err(err),
        }
        for ((counter, _), sum) in KINDS.into_iter().zip(&mut errors) {
            if let Ok(more) = link.error_counter(counter) {
                *sum = Some(sum.unwrap_or(0_u64).saturating_add(more));
            }
        }
    }
    sink.push(
        Reading::GpuNvlinks,
        NO_LABEL,
        active,
        0.0..=f64::from(NVLINKS_MAX),
        1.0,
    );
    for ((_, kind), sum) in KINDS.into_iter().zip(errors) {
        if let Some(errors) = sum {
            sink.push_total(Reading::GpuNvlinkErrors, ("kind", kind), errors, 1.0);
        }
    }
    Ok(())
}
