//! The files of one group.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::pressure::stalled_seconds;
use crate::kernel_file::KernelFile;
use crate::readings::Readings;
use crate::table::Reading;

/// A file that is missing, since its controller is off or this is the root, is looked for again.
const MISSING_PERIOD: Duration = Duration::from_secs(60);

const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// A key, what its number is, a label of its own (or none), and how many make a base unit.
type Key = (&'static str, Reading, (&'static str, &'static str), f64);

const NO_LABEL: (&str, &str) = ("", "");

/// What a file holds.
enum Content {
    /// One number, or `max`, which is no reading.
    Number(Reading),
    Keys(&'static [Key]),
    /// Lines `some` and `full`.
    Pressure(Reading, Reading),
    /// A line of `key=number` for each block device.
    Io,
}

const MEMORY_STAT: &[Key] = &[
    ("anon", Reading::CgroupMemoryAnon, NO_LABEL, 1.0),
    ("file", Reading::CgroupMemoryFile, NO_LABEL, 1.0),
    ("kernel", Reading::CgroupMemoryKernel, NO_LABEL, 1.0),
    ("shmem", Reading::CgroupMemoryShmem, NO_LABEL, 1.0),
    ("pgfault", Reading::CgroupPageFaults, NO_LABEL, 1.0),
    ("pgmajfault", Reading::CgroupMajorPageFaults, NO_LABEL, 1.0),
];

const MEMORY_EVENTS: &[Key] = &[
    ("low", Reading::CgroupMemoryEvents, ("event", "low"), 1.0),
    ("high", Reading::CgroupMemoryEvents, ("event", "high"), 1.0),
    ("max", Reading::CgroupMemoryEvents, ("event", "max"), 1.0),
    ("oom", Reading::CgroupMemoryEvents, ("event", "oom"), 1.0),
    (
        "oom_kill",
        Reading::CgroupMemoryEvents,
        ("event", "oom_kill"),
        1.0,
    ),
    (
        "oom_group_kill",
        Reading::CgroupMemoryEvents,
        ("event", "oom_group_kill"),
        1.0,
    ),
];

const CPU_STAT: &[Key] = &[
    (
        "user_usec",
        Reading::CgroupCpuSeconds,
        ("mode", "user"),
        MICROSECONDS_PER_SECOND,
    ),
    (
        "system_usec",
        Reading::CgroupCpuSeconds,
        ("mode", "system"),
        MICROSECONDS_PER_SECOND,
    ),
    ("nr_periods", Reading::CgroupCpuPeriods, NO_LABEL, 1.0),
    (
        "nr_throttled",
        Reading::CgroupCpuThrottledPeriods,
        NO_LABEL,
        1.0,
    ),
    (
        "throttled_usec",
        Reading::CgroupCpuThrottledSeconds,
        NO_LABEL,
        MICROSECONDS_PER_SECOND,
    ),
];

/// The keys of `io.stat`.
const IO_STAT: [(&str, Reading); 6] = [
    ("rbytes", Reading::CgroupIoReadBytes),
    ("wbytes", Reading::CgroupIoWrittenBytes),
    ("rios", Reading::CgroupIoReads),
    ("wios", Reading::CgroupIoWrites),
    ("dbytes", Reading::CgroupIoDiscardedBytes),
    ("dios", Reading::CgroupIoDiscards),
];

/// `memory.current` stands before `memory.stat`, since the working set needs both.
static FILES: [(&str, Content); 14] = [
    (
        "memory.current",
        Content::Number(Reading::CgroupMemoryUsage),
    ),
    ("memory.stat", Content::Keys(MEMORY_STAT)),
    ("memory.peak", Content::Number(Reading::CgroupMemoryPeak)),
    ("memory.high", Content::Number(Reading::CgroupMemoryHigh)),
    (
        "memory.swap.current",
        Content::Number(Reading::CgroupSwapUsage),
    ),
    ("memory.swap.max", Content::Number(Reading::CgroupSwapLimit)),
    ("memory.events", Content::Keys(MEMORY_EVENTS)),
    ("cpu.stat", Content::Keys(CPU_STAT)),
    ("io.stat", Content::Io),
    ("pids.current", Content::Number(Reading::CgroupPids)),
    ("pids.max", Content::Number(Reading::CgroupPidsLimit)),
    (
        "cpu.pressure",
        Content::Pressure(
            Reading::CgroupPressureCpuWaiting,
            Reading::CgroupPressureCpuStalled,
        ),
    ),
    (
        "memory.pressure",
        Content::Pressure(
            Reading::CgroupPressureMemoryWaiting,
            Reading::CgroupPressureMemoryStalled,
        ),
    ),
    (
        "io.pressure",
        Content::Pressure(
            Reading::CgroupPressureIoWaiting,
            Reading::CgroupPressureIoStalled,
        ),
    ),
];

/// The files of one group, open once they have been read.
pub(super) struct Files {
    files: Vec<File>,
}

struct File {
    file: KernelFile,
    content: &'static Content,
    missing: Option<Instant>,
}

impl Files {
    pub(super) fn new(directory: &Path) -> Files {
        let file = |(name, content): &'static (&str, Content)| File {
            file: KernelFile::new(directory.join(name)),
            content,
            missing: None,
        };
        Files {
            files: FILES.iter().map(file).collect(),
        }
    }

    /// Pushes what each file says; `device` names a block device by its numbers.
    pub(super) fn read(
        &mut self,
        path: &str,
        now: Instant,
        device: &mut dyn FnMut(&str) -> String,
        buffer: &mut Vec<u8>,
        out: &mut Readings,
    ) {
        let label = ("cgroup", path);
        let mut memory_bytes = None;
        for File {
            file,
            content,
            missing,
        } in &mut self.files
        {
            let waits = |since: Instant| now.saturating_duration_since(since) < MISSING_PERIOD;
            if missing.is_some_and(waits) {
                continue;
            }
            let text = match file.read(buffer) {
                Ok(text) => text,
                Err(err) => {
                    *missing = Some(now);
                    if !is_absence(&err) {
                        out.fail(|| format!("{}: {err}", file.path().display()));
                    }
                    continue;
                }
            };
            match content {
                Content::Number(reading) => {
                    let number = text.trim().parse::<u64>().ok().map(|number| number as f64);
                    if let Some(number) = number {
                        out.push(*reading, &[label], number);
                    }
                    if *reading == Reading::CgroupMemoryUsage {
                        memory_bytes = number;
                    }
                }
                Content::Keys(keys) => {
                    if let Some(bytes) = memory_bytes.take() {
                        push_working_set(text, bytes, label, out);
                    }
                    push_keys(text, keys, label, out);
                }
                Content::Pressure(waiting, stalled) => {
                    for (reading, line) in [(*waiting, "some "), (*stalled, "full ")] {
                        if let Some(seconds) = stalled_seconds(text, line) {
                            out.push(reading, &[label], seconds);
                        }
                    }
                }
                Content::Io => push_io(text, label, device, out),
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.files.iter_mut().for_each(|file| file.file.close());
    }
}

/// `ENODEV` says that the group is gone; its processes have another now, or are gone as well.
fn is_absence(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported
    ) || err.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

type Label<'a> = (&'static str, &'a str);

fn push_keys(text: &str, keys: &[Key], label: Label<'_>, out: &mut Readings) {
    for (key, number) in text.lines().filter_map(|line| line.split_once(' ')) {
        let known = keys.iter().find(|(known, ..)| *known == key);
        if let (Some((_, reading, own_label, per_unit)), Ok(number)) =
            (known, number.parse::<u64>())
        {
            out.push(*reading, &[label, *own_label], number as f64 / per_unit);
        }
    }
}

/// What can't be reclaimed without writing something: the inactive page cache can.
fn push_working_set(text: &str, memory_bytes: f64, label: Label<'_>, out: &mut Readings) {
    let inactive = text
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "));
    if let Some(Ok(inactive)) = inactive.map(str::parse::<u64>) {
        let bytes = (memory_bytes - inactive as f64).max(0.0);
        out.push(Reading::CgroupMemoryWorkingSet, &[label], bytes);
    }
}

fn push_io(
    text: &str,
    label: Label<'_>,
    device: &mut dyn FnMut(&str) -> String,
    out: &mut Readings,
) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(numbers) = words.next() else {
            continue;
        };
        let device = device(numbers);
        for (key, number) in words.filter_map(|word| word.split_once('=')) {
            let known = IO_STAT.iter().find(|(known, _)| *known == key);
            if let (Some((_, reading)), Ok(number)) = (known, number.parse::<u64>()) {
                out.push(*reading, &[label, ("device", &device)], number as f64);
            }
        }
    }
}
