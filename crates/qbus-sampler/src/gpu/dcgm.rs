//! The names of dcgm-exporter, for dashboards that exist: those of its default counters, and of the
//! ones that it has switched off for which there is a reading. What it has no name for keeps its
//! qbus name.

use std::borrow::Cow;

use nvml_wrapper::{Device, Nvml};

use super::Labels;
use crate::metric::{Metric, Trend};
use crate::table::Reading;

/// A reading, the label that dcgm-exporter's name implies, that name, and how many of its units
/// make ours.
type Row = (Reading, (&'static str, &'static str), Metric, f64);

const NO_LABEL: (&str, &str) = ("", "");

macro_rules! rows {
    ($(
        $reading:ident $label:tt $kind:ident $name:literal $factor:literal $unit:literal
            $help:literal;
    )*) => {
        static ROWS: &[Row] = &[$((Reading::$reading, $label, Metric {
            name: Cow::Borrowed(concat!("DCGM_FI_", $name)),
            trend: Trend::$kind,
            unit: Cow::Borrowed($unit),
            help: Cow::Borrowed($help),
        }, $factor),)*];
    };
}

// One row, one line, or two.
#[rustfmt::skip]
rows! {
    GpuClock ("clock", "sm") Gauge "DEV_SM_CLOCK" 1e-6 "megahertz" "Clock of the SMs.";
    GpuClock ("clock", "memory") Gauge "DEV_MEM_CLOCK" 1e-6 "megahertz" "Clock of the memory.";
    GpuMemoryTemperature ("", "") Gauge "DEV_MEMORY_TEMP" 1.0 "celsius"
        "Temperature of the memory.";
    GpuTemperature ("", "") Gauge "DEV_GPU_TEMP" 1.0 "celsius" "Temperature of the GPU.";
    GpuPower ("", "") Gauge "DEV_POWER_USAGE" 1.0 "watts" "Power that the GPU draws.";
    GpuEnergy ("", "") Counter "DEV_TOTAL_ENERGY_CONSUMPTION" 1e3 "millijoules"
        "Energy used since the driver was loaded.";
    GpuPcieReplays ("", "") Counter "DEV_PCIE_REPLAY_COUNTER" 1.0 ""
        "Packets that were sent over PCIe again.";
    GpuUtilization ("", "") Gauge "DEV_GPU_UTIL" 100.0 "percent"
        "Share of time in which at least one kernel ran.";
    GpuMemoryUtilization ("", "") Gauge "DEV_MEM_COPY_UTIL" 100.0 "percent"
        "Share of time in which memory was read or written.";
    GpuEncoderUtilization ("", "") Gauge "DEV_ENC_UTIL" 100.0 "percent"
        "Share of time in which the encoder ran.";
    GpuDecoderUtilization ("", "") Gauge "DEV_DEC_UTIL" 100.0 "percent"
        "Share of time in which the decoder ran.";
    GpuLastXid ("", "") Gauge "DEV_XID_ERRORS" 1.0 "" "Number of the last error (XID).";
    GpuMemoryFree ("", "") Gauge "DEV_FB_FREE" 9.5367431640625e-7 "mebibytes"
        "Memory that is free.";
    GpuMemoryUsed ("", "") Gauge "DEV_FB_USED" 9.5367431640625e-7 "mebibytes"
        "Memory that is allocated.";
    GpuMemoryReserved ("", "") Gauge "DEV_FB_RESERVED" 9.5367431640625e-7 "mebibytes"
        "Memory that driver and firmware keep.";
    GpuRemappedRows ("kind", "uncorrectable") Counter "DEV_UNCORRECTABLE_REMAPPED_ROWS" 1.0 ""
        "Rows replaced for uncorrectable errors.";
    GpuRemappedRows ("kind", "correctable") Counter "DEV_CORRECTABLE_REMAPPED_ROWS" 1.0 ""
        "Rows replaced for correctable errors.";
    GpuRemappingFailed ("", "") Gauge "DEV_ROW_REMAP_FAILURE" 1.0 ""
        "Whether a row could not be replaced (1).";
    GpuRetiredPages ("kind", "correctable") Counter "DEV_RETIRED_SBE" 1.0 ""
        "Pages retired for single-bit errors.";
    GpuRetiredPages ("kind", "uncorrectable") Counter "DEV_RETIRED_DBE" 1.0 ""
        "Pages retired for double-bit errors.";
    GpuRetirementPending ("", "") Gauge "DEV_RETIRED_PENDING" 1.0 ""
        "Whether pages wait to be retired (1).";
    GpuNvlinkErrors ("kind", "crc_flit") Counter "DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL" 1.0 ""
        "Flow control errors of all NVLinks.";
    GpuNvlinkErrors ("kind", "crc_data") Counter "DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL" 1.0 ""
        "Data errors of all NVLinks.";
    GpuNvlinkErrors ("kind", "replay") Counter "DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL" 1.0 ""
        "Replays of all NVLinks.";
    GpuNvlinkErrors ("kind", "recovery") Counter "DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL" 1.0 ""
        "Recoveries of all NVLinks.";
    GpuThrottledSeconds ("reason", "power") Counter "DEV_POWER_VIOLATION" 1e9
        "nanoseconds" "Time slowed down for power.";
    GpuThrottledSeconds ("reason", "thermal") Counter "DEV_THERMAL_VIOLATION" 1e9
        "nanoseconds" "Time slowed down for heat.";
    GpuThrottledSeconds ("reason", "sync_boost") Counter "DEV_SYNC_BOOST_VIOLATION" 1e9
        "nanoseconds" "Time slowed down for synchronous boost.";
    GpuThrottledSeconds ("reason", "board_limit") Counter "DEV_BOARD_LIMIT_VIOLATION" 1e9
        "nanoseconds" "Time slowed down for the board.";
    GpuThrottledSeconds ("reason", "low_utilization") Counter "DEV_LOW_UTIL_VIOLATION" 1e9
        "nanoseconds" "Time slowed down for low utilization.";
    GpuThrottledSeconds ("reason", "reliability") Counter "DEV_RELIABILITY_VIOLATION" 1e9
        "nanoseconds" "Time slowed down for reliability.";
    GpuGraphicsActive ("", "") Gauge "PROF_GR_ENGINE_ACTIVE" 1.0 "ratio"
        "Share of time in which any warp was active.";
    GpuSmActive ("", "") Gauge "PROF_SM_ACTIVE" 1.0 "ratio"
        "Share of time in which an SM had a warp.";
    GpuSmOccupancy ("", "") Gauge "PROF_SM_OCCUPANCY" 1.0 "ratio"
        "Active warps by the most that there can be.";
    GpuTensorActive ("", "") Gauge "PROF_PIPE_TENSOR_ACTIVE" 1.0 "ratio"
        "Share of time in which SMs did tensor operations.";
    GpuDramActive ("", "") Gauge "PROF_DRAM_ACTIVE" 1.0 "ratio"
        "Share of the bandwidth of the memory in use.";
    GpuFp64Active ("", "") Gauge "PROF_PIPE_FP64_ACTIVE" 1.0 "ratio"
        "Share of time with operations of 64-bit floats.";
    GpuFp32Active ("", "") Gauge "PROF_PIPE_FP32_ACTIVE" 1.0 "ratio"
        "Share of time with operations of 32-bit floats.";
    GpuFp16Active ("", "") Gauge "PROF_PIPE_FP16_ACTIVE" 1.0 "ratio"
        "Share of time with operations of 16-bit floats.";
    GpuPcieTransmitRate ("", "") Gauge "PROF_PCIE_TX_BYTES" 1.0 "" "Bytes a second sent over PCIe.";
    GpuPcieReceiveRate ("", "") Gauge "PROF_PCIE_RX_BYTES" 1.0 ""
        "Bytes a second received over PCIe.";
    GpuNvlinkTransmitRate ("", "") Gauge "PROF_NVLINK_TX_BYTES" 1.0 ""
        "Bytes a second sent over NVLink.";
    GpuNvlinkReceiveRate ("", "") Gauge "PROF_NVLINK_RX_BYTES" 1.0 ""
        "Bytes a second received over NVLink.";
}

/// The metric of a reading there, with the factor of its values and the label that its name stands
/// for.
pub(crate) fn published<'a>(
    reading: Reading,
    labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Option<(&'static Metric, f64, &'static str)> {
    let (_, (label, _), metric, factor) = ROWS.iter().find(|(of, label, ..)| {
        *of == reading && (*label == NO_LABEL || labels.clone().any(|found| found == *label))
    })?;
    Some((metric, *factor, label))
}

/// What dcgm-exporter labels its values with beside the number and the UUID of a GPU.
pub(super) fn labels(nvml: &Nvml, device: &Device<'_>, index: u32) -> Labels {
    let uname = rustix::system::uname();
    vec![
        (
            "pci_bus_id",
            device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
        ),
        (
            "device",
            format!("nvidia{}", device.minor_number().unwrap_or(index)),
        ),
        ("modelName", device.name().unwrap_or_default()),
        ("hostname", uname.nodename().to_string_lossy().into_owned()),
        (
            "DCGM_FI_DRIVER_VERSION",
            nvml.sys_driver_version().unwrap_or_default(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let names: HashSet<_> = ROWS.iter().map(|(.., metric, _)| &metric.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
