//! A `libnvidia-ml` for tests: every call looks its answer up in a text file.
//!
//! The file is the one that the environment variable `FAKE_NVML_FILE` names, else `values.txt`
//! beside the library itself, so that tests in one process can have a copy and values each. It is
//! read anew at each call. A line is `KEY = ANSWER`; blank lines and lines with `#` are ignored:
//!
//! ```text
//! count = 2
//! 0.uuid = GPU-1111
//! 0.memory = 85899345920 1073741824 4294967296     # total, reserved, used
//! 0.temperature = error 15                         # any nvmlReturn_t
//! 0.power = hang                                   # until the file says something else
//! 0.mig0.uuid = MIG-2222
//! ```
//!
//! A key that is not there answers "not supported". `init` and `shutdown` succeed unless they are
//! there. The keys are the literals in this file; a device is `INDEX.`, its MIG device
//! `INDEX.migN.`.
//!
//! `events = 0:79 1:13` are the errors (XID) that ever happened, each `INDEX:XID`; a set of events
//! delivers each once, from those that were not there when it was made. A sample of activity (GPM)
//! is what the file says when it is asked for, not the difference of two.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

mod copy;
mod watched;

pub use copy::{copy, set};

const SUCCESS: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_SUCCESS;
const NOT_FOUND: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
const NOT_SUPPORTED: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const INVALID_ARGUMENT: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const INSUFFICIENT_SIZE: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;

/// Handles are numbers: the index plus one, and for MIG devices their own index plus one times
/// this.
const MIG: usize = 1000;

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    answer("init").map_or_else(if_set, |_| SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    answer("shutdown").map_or_else(if_set, |_| SUCCESS)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, size: c_uint) -> nvmlReturn_t {
    // SAFETY: the caller's buffer has that size.
    give(words("driver"), |words| unsafe {
        store_text(text, size, &words.join(" "))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: the caller's pointer is valid.
    give(numbers("count"), |numbers| unsafe {
        store(count, at(&numbers, 0) as c_uint)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    if let Err(code) = answer(&format!("{index}.handle"))
        && code != NOT_SUPPORTED
    {
        return code;
    }
    // SAFETY: the caller's pointer is valid.
    unsafe { store(device, (index as usize + 1) as nvmlDevice_t) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    mig: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    if answer(&format!("{}mig{index}.uuid", prefix(device))).is_err() {
        return NOT_FOUND;
    }
    let handle = device as usize + (index as usize + 1) * MIG;
    // SAFETY: the caller's pointer is valid.
    unsafe { store(mig, handle as nvmlDevice_t) }
}

macro_rules! texts {
    ($($function:ident $key:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            device: nvmlDevice_t,
            text: *mut c_char,
            size: c_uint,
        ) -> nvmlReturn_t {
            let words = words(&format!("{}{}", prefix(device), $key));
            // SAFETY: the caller's buffer has that size.
            give(words, |words| unsafe { store_text(text, size, &words.join(" ")) })
        }
    )*};
}

texts! {
    nvmlDeviceGetUUID "uuid";
    nvmlDeviceGetName "name";
}

/// Calls that give one number.
macro_rules! single {
    ($($function:ident $type:ty, $key:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(device: nvmlDevice_t, value: *mut $type) -> nvmlReturn_t {
            let numbers = numbers(&format!("{}{}", prefix(device), $key));
            // SAFETY: the caller's pointer is valid.
            give(numbers, |numbers| unsafe { store(value, at(&numbers, 0) as $type) })
        }
    )*};
}

single! {
    nvmlDeviceGetPowerUsage c_uint, "power";
    nvmlDeviceGetEnforcedPowerLimit c_uint, "power_limit";
    nvmlDeviceGetTotalEnergyConsumption c_ulonglong, "energy";
    nvmlDeviceGetNumFans c_uint, "fans";
    nvmlDeviceGetPerformanceState nvml::nvmlPstates_t, "performance_state";
    nvmlDeviceGetCurrentClocksThrottleReasons c_ulonglong, "throttle_reasons";
    nvmlDeviceGetMaxMigDeviceCount c_uint, "mig_max";
    nvmlDeviceGetMinorNumber c_uint, "minor";
    nvmlDeviceGetCurrPcieLinkGeneration c_uint, "pcie_generation";
    nvmlDeviceGetCurrPcieLinkWidth c_uint, "pcie_width";
    nvmlDeviceGetPcieReplayCounter c_uint, "pcie_replays";
}

/// Calls that give two numbers.
macro_rules! pairs {
    ($($function:ident $key:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            device: nvmlDevice_t,
            first: *mut c_uint,
            second: *mut c_uint,
        ) -> nvmlReturn_t {
            give(numbers(&format!("{}{}", prefix(device), $key)), |numbers| {
                // SAFETY: the caller's pointer is valid.
                unsafe { store(first, at(&numbers, 0) as c_uint) };
                // SAFETY: the caller's pointer is valid.
                unsafe { store(second, at(&numbers, 1) as c_uint) }
            })
        }
    )*};
}

pairs! {
    nvmlDeviceGetEncoderUtilization "encoder";
    nvmlDeviceGetDecoderUtilization "decoder";
    nvmlDeviceGetMigMode "mig_mode";
}

/// Calls that give one number for a number, which is part of the key.
macro_rules! chosen {
    ($($function:ident $choice:ty, $key:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            device: nvmlDevice_t,
            choice: $choice,
            value: *mut c_uint,
        ) -> nvmlReturn_t {
            let numbers = numbers(&format!("{}{}{choice}", prefix(device), $key));
            // SAFETY: the caller's pointer is valid.
            give(numbers, |numbers| unsafe { store(value, at(&numbers, 0) as c_uint) })
        }
    )*};
}

chosen! {
    nvmlDeviceGetTemperature nvml::nvmlTemperatureSensors_t, "temperature";
    nvmlDeviceGetClockInfo nvml::nvmlClockType_t, "clock";
    nvmlDeviceGetFanSpeed_v2 c_uint, "fan";
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    rates: *mut nvml::nvmlUtilization_t,
) -> nvmlReturn_t {
    give(
        numbers(&format!("{}utilization", prefix(device))),
        |numbers| {
            let found = nvml::nvmlUtilization_t {
                gpu: at(&numbers, 0) as c_uint,
                memory: at(&numbers, 1) as c_uint,
            };
            // SAFETY: the caller's pointer is valid.
            unsafe { store(rates, found) }
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    memory: *mut nvml::nvmlMemory_v2_t,
) -> nvmlReturn_t {
    give(numbers(&format!("{}memory", prefix(device))), |numbers| {
        let (total, reserved, used) = (at(&numbers, 0), at(&numbers, 1), at(&numbers, 2));
        let free = total.wrapping_sub(reserved).wrapping_sub(used);
        let found = nvml::nvmlMemory_v2_t {
            version: 2,
            total,
            reserved,
            free,
            used,
        };
        // SAFETY: the caller's pointer is valid.
        unsafe { store(memory, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: nvmlDevice_t,
    pci: *mut nvml::nvmlPciInfo_t,
) -> nvmlReturn_t {
    give(words(&format!("{}pci", prefix(device))), |words| {
        let mut found = nvml::nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: 0,
            device: 0,
            pciDeviceId: 0,
            pciSubSystemId: 0,
            busId: [0; 32],
        };
        let end = found.busId.len() - 1;
        for (place, byte) in found.busId[..end].iter_mut().zip(words.join(" ").bytes()) {
            *place = byte as c_char;
        }
        // SAFETY: the caller's pointer is valid.
        unsafe { store(pci, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    error: nvml::nvmlMemoryErrorType_t,
    counter: nvml::nvmlEccCounterType_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    let numbers = numbers(&format!("{}ecc{error}_{counter}", prefix(device)));
    // SAFETY: the caller's pointer is valid.
    give(numbers, |numbers| unsafe { store(count, at(&numbers, 0)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetViolationStatus(
    device: nvmlDevice_t,
    policy: nvml::nvmlPerfPolicyType_t,
    time: *mut nvml::nvmlViolationTime_t,
) -> nvmlReturn_t {
    give(
        numbers(&format!("{}violation{policy}", prefix(device))),
        |numbers| {
            let found = nvml::nvmlViolationTime_t {
                referenceTime: 0,
                violationTime: at(&numbers, 0),
            };
            // SAFETY: the caller's pointer is valid.
            unsafe { store(time, found) }
        },
    )
}

/// `FIELD = TYPE VALUE`, the type by its number; a field that is not there has its own error.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvml::nvmlFieldValue_t,
) -> nvmlReturn_t {
    // SAFETY: the caller's array has that many fields.
    let fields = unsafe { std::slice::from_raw_parts_mut(values, count.max(0) as usize) };
    for field in fields {
        match numbers(&format!("{}field{}", prefix(device), field.fieldId)) {
            Ok(numbers) => {
                field.nvmlReturn = SUCCESS;
                field.valueType = at(&numbers, 0) as nvml::nvmlValueType_t;
                field.value = nvml::nvmlValue_t {
                    ullVal: at(&numbers, 1),
                };
            }
            Err(code) => field.nvmlReturn = code,
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetAttributes_v2(
    device: nvmlDevice_t,
    attributes: *mut nvml::nvmlDeviceAttributes_t,
) -> nvmlReturn_t {
    give(
        numbers(&format!("{}attributes", prefix(device))),
        |numbers| {
            let found = nvml::nvmlDeviceAttributes_t {
                multiprocessorCount: 0,
                sharedCopyEngineCount: 0,
                sharedDecoderCount: 0,
                sharedEncoderCount: 0,
                sharedJpegCount: 0,
                sharedOfaCount: 0,
                gpuInstanceSliceCount: at(&numbers, 0) as c_uint,
                computeInstanceSliceCount: 0,
                memorySizeMB: at(&numbers, 1),
            };
            // SAFETY: the caller's pointer is valid.
            unsafe { store(attributes, found) }
        },
    )
}

/// `PID TIME SM MEMORY PID TIME SM MEMORY …`, of which those after `since` are given.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    samples: *mut nvml::nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    since: c_ulonglong,
) -> nvmlReturn_t {
    give(
        numbers(&format!("{}process_use", prefix(device))),
        |numbers| {
            let found: Vec<_> = numbers
                .chunks_exact(4)
                .filter(|sample| sample[1] > since)
                .collect();
            // SAFETY: the caller's pointer is valid.
            let room = unsafe { *count };
            // SAFETY: as above.
            unsafe { store(count, found.len() as c_uint) };
            if found.is_empty() {
                return NOT_FOUND;
            }
            if samples.is_null() || found.len() > room as usize {
                return INSUFFICIENT_SIZE;
            }
            for (place, sample) in found.into_iter().enumerate() {
                let sample = nvml::nvmlProcessUtilizationSample_t {
                    pid: sample[0] as c_uint,
                    timeStamp: sample[1],
                    smUtil: sample[2] as c_uint,
                    memUtil: sample[3] as c_uint,
                    encUtil: 0,
                    decUtil: 0,
                };
                // SAFETY: the caller's array has room for all that were found.
                let slot = unsafe { samples.add(place) };
                // SAFETY: as above.
                unsafe { store(slot, sample) };
            }
            SUCCESS
        },
    )
}

/// `linkN = STATE REPLAY RECOVERY CRC_FLIT CRC_DATA`
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    state: *mut nvml::nvmlEnableState_t,
) -> nvmlReturn_t {
    give(link_numbers(device, link), |numbers| {
        // SAFETY: the caller's pointer is valid.
        unsafe { store(state, at(&numbers, 0) as nvml::nvmlEnableState_t) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    link: c_uint,
    counter: nvml::nvmlNvLinkErrorCounter_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    give(link_numbers(device, link), |numbers| {
        // SAFETY: the caller's pointer is valid.
        unsafe { store(count, at(&numbers, counter as usize + 1)) }
    })
}

/// A link beyond the last one is a wrong argument.
fn link_numbers(device: nvmlDevice_t, link: c_uint) -> Result<Vec<u64>, nvmlReturn_t> {
    let first = format!("{}link0", prefix(device));
    match numbers(&format!("{}link{link}", prefix(device))) {
        Err(NOT_SUPPORTED) if answer(&first).is_ok() => Err(INVALID_ARGUMENT),
        found => found,
    }
}

/// `PID BYTES PID BYTES …`
macro_rules! processes {
    ($($function:ident $key:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            device: nvmlDevice_t,
            count: *mut c_uint,
            processes: *mut nvml::nvmlProcessInfo_t,
        ) -> nvmlReturn_t {
            give(numbers(&format!("{}{}", prefix(device), $key)), |numbers| {
                // SAFETY: the caller's pointer is valid.
                let room = unsafe { *count };
                let found = numbers.len() / 2;
                // SAFETY: as above.
                unsafe { store(count, found as c_uint) };
                if found > room as usize {
                    return INSUFFICIENT_SIZE;
                }
                for (place, process) in numbers.chunks_exact(2).enumerate() {
                    let info = nvml::nvmlProcessInfo_t {
                        pid: process[0] as c_uint,
                        usedGpuMemory: process[1],
                        gpuInstanceId: c_uint::MAX,
                        computeInstanceId: c_uint::MAX,
                    };
                    // SAFETY: the caller's array has room for all that were found.
                    let slot = unsafe { processes.add(place) };
                    // SAFETY: as above.
                    unsafe { store(slot, info) };
                }
                SUCCESS
            })
        }
    )*};
}

processes! {
    nvmlDeviceGetComputeRunningProcesses_v3 "compute_processes";
    nvmlDeviceGetGraphicsRunningProcesses_v3 "graphics_processes";
}

/// How the keys of a device begin.
fn prefix(device: nvmlDevice_t) -> String {
    let handle = device as usize;
    match handle / MIG {
        0 => format!("{}.", handle % MIG - 1),
        mig => format!("{}.mig{}.", handle % MIG - 1, mig - 1),
    }
}

/// The answer to a key, or the code of an error.
fn answer(key: &str) -> Result<String, nvmlReturn_t> {
    loop {
        let text = values_file()
            .and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default();
        let found = text.lines().find_map(|line| {
            let (found, answer) = line.split('#').next()?.split_once('=')?;
            (found.trim() == key).then(|| answer.trim().to_owned())
        });
        match found {
            None => return Err(NOT_SUPPORTED),
            Some(answer) if answer == "hang" => thread::sleep(Duration::from_millis(2)),
            Some(answer) => {
                let code = answer
                    .strip_prefix("error ")
                    .and_then(|code| code.parse().ok());
                return code.map_or(Ok(answer), Err);
            }
        }
    }
}

fn values_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FAKE_NVML_FILE") {
        return Some(path.into());
    }
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: any address may be asked about, and `info` is ours.
    let found = unsafe { libc::dladdr(values_file as *const c_void, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's name of this library ends with a zero and lives as long as it does.
    let library = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(library.to_bytes())).with_file_name("values.txt"))
}

fn words(key: &str) -> Result<Vec<String>, nvmlReturn_t> {
    Ok(answer(key)?
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect())
}

fn numbers(key: &str) -> Result<Vec<u64>, nvmlReturn_t> {
    Ok(words(key)?
        .iter()
        .map(|word| word.parse().unwrap_or(u64::MAX))
        .collect())
}

fn at(numbers: &[u64], place: usize) -> u64 {
    numbers.get(place).copied().unwrap_or_default()
}

fn give<T>(answer: Result<T, nvmlReturn_t>, store: impl FnOnce(T) -> nvmlReturn_t) -> nvmlReturn_t {
    answer.map_or_else(|code| code, store)
}

/// The code of a call that succeeds where the file says nothing of it.
fn if_set(code: nvmlReturn_t) -> nvmlReturn_t {
    if code == NOT_SUPPORTED { SUCCESS } else { code }
}

/// # Safety
///
/// `place` must be valid for writes.
unsafe fn store<T>(place: *mut T, value: T) -> nvmlReturn_t {
    // SAFETY: the caller's promise.
    unsafe { place.write(value) };
    SUCCESS
}

/// # Safety
///
/// `place` must have room for `size` bytes.
unsafe fn store_text(place: *mut c_char, size: c_uint, text: &str) -> nvmlReturn_t {
    if text.len() >= size as usize {
        return INSUFFICIENT_SIZE;
    }
    for (offset, byte) in text.bytes().chain([0]).enumerate() {
        // SAFETY: the text and its zero fit, as was just checked.
        let slot = unsafe { place.add(offset) };
        // SAFETY: as above.
        unsafe { slot.write(byte as c_char) };
    }
    SUCCESS
}
