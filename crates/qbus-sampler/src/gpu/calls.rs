//! What a GPU is asked, and in what range its answers make sense.

use std::ops::RangeInclusive;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PerformancePolicy, PerformanceState, TemperatureSensor,
};
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
    pub(super) labels: &'a [(&'static str, &'a str); 2],
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
        let [gpu, uuid] = *sink.labels;
        let name = device.name()?;
        let bus_id = device.pci_info().map(|pci| pci.bus_id).unwrap_or_default();
        let driver = device.nvml().sys_driver_version().unwrap_or_default();
        let more = [
            ("name", &*name),
            ("pci_bus_id", &*bus_id),
            ("driver_version", &*driver),
        ];
        sink.out.push(
            Reading::GpuInfo,
            &[gpu, uuid, more[0], more[1], more[2]],
            1.0,
        );
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

impl Sink<'_> {
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
        let [gpu, uuid] = *self.labels;
        if range.contains(&value) {
            self.out
                .push(reading, &[gpu, uuid, own_label], value / per_unit);
        } else {
            let name = self.name;
            self.out
                .fail(|| format!("GPU {}: {name}: {value} is out of range", gpu.1));
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

    pub(super) fn push_mig_memory(&mut self, mig: &str, memory: &MemoryInfo) {
        let readings = [
            (Reading::GpuMigMemoryTotal, memory.total),
            (Reading::GpuMigMemoryUsed, memory.used),
            (Reading::GpuMigMemoryFree, memory.free),
        ];
        self.push_memory_readings(("mig_uuid", mig), memory, &readings);
    }

    /// The parts must fit the whole, or none of it is to be believed.
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
    let [gpu, uuid] = *sink.labels;
    if TOTAL.contains(&errors) {
        let labels = [gpu, uuid, ("kind", kind), ("scope", scope)];
        sink.out.push(Reading::GpuEccErrors, &labels, errors);
    } else {
        sink.out
            .fail(|| format!("GPU {}: {errors} ECC errors are out of range", gpu.1));
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
