//! What is watched between calls: events, and samples of activity.

use std::ffi::{c_uint, c_ulonglong};
use std::thread;
use std::time::Duration;

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::{NOT_SUPPORTED, SUCCESS, answer, at, give, if_set, numbers, prefix, store, words};

const TIMEOUT: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_TIMEOUT;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> nvmlReturn_t {
    // SAFETY: the caller's pointer is valid.
    give(
        numbers(&format!("{}event_types", prefix(device))),
        |numbers| unsafe { store(types, at(&numbers, 0)) },
    )
}

/// A set is the number of events that it has delivered.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvml::nvmlEventSet_t) -> nvmlReturn_t {
    let delivered = Box::new(words("events").unwrap_or_default().len());
    // SAFETY: the caller's pointer is valid.
    unsafe { store(set, Box::into_raw(delivered).cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(set: nvml::nvmlEventSet_t) -> nvmlReturn_t {
    // SAFETY: it was made by `nvmlEventSetCreate`, and is freed once.
    drop(unsafe { Box::from_raw(set.cast::<usize>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    _types: c_ulonglong,
    _set: nvml::nvmlEventSet_t,
) -> nvmlReturn_t {
    answer(&format!("{}register", prefix(device))).map_or_else(if_set, |_| SUCCESS)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvml::nvmlEventSet_t,
    event: *mut nvml::nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    let delivered = set.cast::<usize>();
    // SAFETY: the set was made by `nvmlEventSetCreate`.
    let next = unsafe { *delivered };
    for _ in 0..=timeout_ms {
        let words = match words("events") {
            Err(code) if code != NOT_SUPPORTED => return code,
            words => words.unwrap_or_default(),
        };
        let parsed = words.get(next).and_then(|word| {
            let (index, xid) = word.split_once(':')?;
            Some((index.parse::<usize>().ok()?, xid.parse().ok()?))
        });
        if let Some((index, xid)) = parsed {
            let found = nvml::nvmlEventData_t {
                device: (index + 1) as nvmlDevice_t,
                eventType: c_ulonglong::from(nvml::nvmlEventTypeXidCriticalError),
                eventData: xid,
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            };
            // SAFETY: as above.
            unsafe { store(delivered, next + 1) };
            // SAFETY: the caller's pointer is valid.
            return unsafe { store(event, found) };
        }
        thread::sleep(Duration::from_millis(1));
    }
    TIMEOUT
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    device: nvmlDevice_t,
    support: *mut nvml::nvmlGpmSupport_t,
) -> nvmlReturn_t {
    let is_supported = answer(&format!("{}gpm", prefix(device))).is_ok();
    let found = nvml::nvmlGpmSupport_t {
        version: 1,
        isSupportedDevice: c_uint::from(is_supported),
    };
    // SAFETY: the caller's pointer is valid.
    unsafe { store(support, found) }
}

/// A sample is the handle of its device.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut nvml::nvmlGpmSample_t) -> nvmlReturn_t {
    // SAFETY: the caller's pointer is valid.
    unsafe { store(sample, Box::into_raw(Box::new(0_usize)).cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleFree(sample: nvml::nvmlGpmSample_t) -> nvmlReturn_t {
    // SAFETY: it was made by `nvmlGpmSampleAlloc`, and is freed once.
    drop(unsafe { Box::from_raw(sample.cast::<usize>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleGet(
    device: nvmlDevice_t,
    sample: nvml::nvmlGpmSample_t,
) -> nvmlReturn_t {
    // SAFETY: it was made by `nvmlGpmSampleAlloc`.
    unsafe { store(sample.cast::<usize>(), device as usize) }
}

/// `gpmMETRIC = VALUE`, the metric by its number.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMetricsGet(asked: *mut nvml::nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    // SAFETY: the caller's pointer is valid.
    let asked = unsafe { &mut *asked };
    // SAFETY: the sample was made by `nvmlGpmSampleAlloc`.
    let device = unsafe { *asked.sample2.cast::<usize>() };
    let prefix = prefix(device as nvmlDevice_t);
    for metric in &mut asked.metrics[..asked.numMetrics as usize] {
        match answer(&format!("{prefix}gpm{}", metric.metricId)) {
            Ok(value) => {
                metric.nvmlReturn = SUCCESS;
                metric.value = value.parse().unwrap_or(f64::NAN);
            }
            Err(code) => metric.nvmlReturn = code,
        }
    }
    SUCCESS
}
