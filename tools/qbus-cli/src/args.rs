//! What was typed, and nothing derived from it.

mod dump;
mod emit;
mod health;
mod host;
mod install;
#[cfg(feature = "push")]
mod push;
mod stage;
#[cfg(feature = "statsd")]
mod statsd;
#[cfg(feature = "top")]
mod top;
#[cfg(feature = "http")]
mod web;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use qbus::{Address, BusOptions, Merge, MetricType, RegisterError, Window};
#[cfg(feature = "http")]
use qbus_agent::serve::Listen;
use qbus_aggregate::AggregatorOptions;
use qbus_aggregate::export::Format;
use qbus_sampler::{GpuNames, Names, Source};

use crate::log::Level;

pub(crate) use dump::Dump;
pub(crate) use emit::Emit;
pub(crate) use health::{Column, Doctor, Stat};
pub(crate) use host::Host;
use host::translated;
pub(crate) use install::{Completions, Man, Shell};
#[cfg(feature = "push")]
pub(crate) use push::Push;
pub(crate) use stage::{Bench, Demo, Load};
#[cfg(feature = "statsd")]
pub(crate) use statsd::Statsd;
#[cfg(feature = "top")]
pub(crate) use top::{Top, TopSort, TopView};
#[cfg(feature = "http")]
pub(crate) use web::{Serve, Web};

/// A lock-free shared-memory telemetry bus.
///
/// Workers emit; `qbus agg` aggregates beside its own host and GPU sampler; `qbus dump` exports.
#[derive(Debug, Parser)]
#[command(
    name = "qbus",
    version,
    max_term_width = 100,
    after_help = "Example:\n  qbus demo"
)]
pub(crate) struct Args {
    /// The bus: a name, or the path of a file (with a slash in it).
    #[arg(
        short,
        long,
        global = true,
        env = "QBUS",
        default_value = "default",
        value_name = "NAME|PATH",
        value_parser = OsStringValueParser::new().try_map(bus)
    )]
    pub(crate) bus: Address,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// What was typed, its program's name first.
    ///
    /// # Errors
    ///
    /// It cannot be, or only asks for help.
    pub(crate) fn of(typed: Vec<OsString>) -> Result<Args, clap::Error> {
        let mut command = Args::command();
        let matches = command.try_get_matches_from_mut(translated(typed))?;
        let is_typed = matches
            .subcommand()
            .is_some_and(|(_, found)| found.value_source("bus") == Some(ValueSource::CommandLine))
            || matches.value_source("bus") == Some(ValueSource::CommandLine);
        let args = Args::from_arg_matches(&matches)?;
        match (is_typed, args.command.without_bus()) {
            (true, Some(why)) => Err(command.error(ErrorKind::ArgumentConflict, why)),
            _ => Ok(args),
        }
    }
}

impl Command {
    /// Why a bus is of no use to the command; `None` where it is.
    fn without_bus(&self) -> Option<&'static str> {
        match self {
            Command::Sample(_) => {
                Some("`qbus sample` reads the machine, and no bus: leave --bus out")
            }
            Command::Bench(_) => Some(
                "`qbus bench` measures on a bus of its own: leave --bus out, or take `qbus load`",
            ),
            Command::Demo(Demo { worker: None, .. }) => {
                Some("`qbus demo` has a bus of its own: leave --bus out, or take `qbus load`")
            }
            Command::Completions(_) | Command::Man(_) => {
                Some("what a package has is the same for every bus: leave --bus out")
            }
            _ => None,
        }
    }
}

/// The bus of that name; what names none, and where it came from.
fn bus(text: OsString) -> Result<Address, String> {
    let is_inherited = env::var_os("QBUS").is_some_and(|inherited| inherited == text);
    // An empty one is none, as it is to collectors.
    let is_none = is_inherited && text.is_empty();
    let name = if is_none {
        OsStr::new("default")
    } else {
        &text
    };
    Address::try_from(name).map_err(|error| {
        let origin = if is_inherited {
            " (the environment's QBUS)"
        } else {
            ""
        };
        format!("{error}{origin}")
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(Create),
    Agg(Box<Agg>),
    Emit(Emit),
    Dump(Dump),
    Stat(Stat),
    #[cfg(feature = "top")]
    Top(Top),
    Doctor(Doctor),
    Sample(Box<Sample>),
    #[cfg(feature = "http")]
    Serve(Serve),
    Load(Load),
    Bench(Bench),
    Forget(Forget),
    Rm(Rm),
    Run(Run),
    Demo(Demo),
    Completions(Completions),
    Man(Man),
}

/// Run a Python program whose prometheus_client metrics go to the bus, unmodified.
///
/// All that it starts does so too: forks, spawned workers, gunicorn, celery. Aggregates the bus for
/// as long as the program runs, unless somebody does so already; ends with the program's exit code.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus run -b inference -- gunicorn -w 4 app:app")]
pub(crate) struct Run {
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<OsString>,
}

/// Create a bus; `qbus agg` does so too when there is none.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus create -b inference --lanes 128 --mode 0660")]
pub(crate) struct Create {
    /// Ring buffers: one for each producing thread, 316 KiB each with the default slots and cells,
    /// and the shared ones.
    #[arg(long, default_value_t = qbus::Geometry::default().lanes)]
    pub(crate) lanes: u64,
    /// Lanes, of those, that any number of producers share when the others are leased: 4, or a
    /// quarter of fewer than 16.
    #[arg(long)]
    pub(crate) shared_lanes: Option<u64>,
    /// Records that a lane holds until they are committed: a power of two.
    #[arg(long, default_value_t = qbus::Geometry::default().slots)]
    pub(crate) slots: u64,
    /// Cells of a lane, for the state of its thread's counters and histograms: one a counter, and 5
    /// and one for each bucket a histogram. A power of two; 0 is none.
    #[arg(long, default_value_t = qbus::Geometry::default().cells)]
    pub(crate) cells: u64,
    /// Processes that can be attached at once.
    #[arg(long, default_value_t = qbus::Geometry::default().owners)]
    pub(crate) max_owners: u64,
    /// Metric families (names) that can be registered.
    #[arg(long, default_value_t = qbus::Geometry::default().families)]
    pub(crate) max_families: u64,
    /// Series (names with labels) that can be registered.
    #[arg(long, default_value_t = qbus::Geometry::default().series)]
    pub(crate) max_series: u64,
    /// Series that a metric may have, unless it says so itself; 0 is any number. Beyond, the label
    /// with the most values stands for all of them, with the value __overflow__: sums stay exact.
    #[arg(long, default_value_t = BusOptions::default().max_series_per_family, value_name = "N")]
    pub(crate) max_series_per_family: u64,
    /// Who may attach: 0600 (this user) or 0660 (this user and group).
    #[arg(long, default_value = "0600", value_parser = parse_mode)]
    pub(crate) mode: u32,
    /// End well when there is a bus of that name already, however it was made.
    #[arg(long)]
    pub(crate) if_absent: bool,
}

/// Aggregate: drain the bus, sample host and GPU, write the snapshot; until SIGTERM or SIGINT.
///
/// It tells a service manager when it is ready, and within its watchdog's time that it works
/// (systemd's Type=notify and WatchdogSec=). SIGHUP ends it where its terminal hangs up, and
/// changes nothing elsewhere: what --web.config.file names is read again when it changes, all else
/// is arguments.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus agg -b inference --interval 5s --no-gpu")]
pub(crate) struct Agg {
    /// Fail when there is no bus, and do not create one.
    #[arg(long)]
    pub(crate) no_create: bool,
    /// Between two samples of host and GPU: 10 ms or more.
    #[arg(long, default_value = "1s", value_parser = parse_interval, value_name = "DURATION")]
    pub(crate) interval: Duration,
    /// Points of history that each series keeps.
    #[arg(long, default_value_t = AggregatorOptions::default().history)]
    pub(crate) history: usize,
    /// Last records of all series that are kept.
    #[arg(long, default_value_t = AggregatorOptions::default().recent)]
    pub(crate) recent: usize,
    /// Series that a metric may have, unless it says so itself; 0 is any number. Beyond, the label
    /// with the most values stands for all of them, with the value __overflow__: sums stay exact.
    /// Without it as the bus was created: 2000 as a rule.
    #[arg(long, value_name = "N")]
    pub(crate) max_series_per_family: Option<u64>,
    /// Where the snapshot goes instead of beside the bus; a link there leads to it, for all who
    /// read it and for the next aggregator.
    #[arg(long, value_name = "PATH")]
    pub(crate) snapshot: Option<PathBuf>,
    /// How long a record may wait for its commit on a bus in use: a shorter time costs more of a
    /// core. --spin is shorter than any.
    #[arg(long, default_value = "1.2ms", value_parser = parse_latency, value_name = "DURATION")]
    pub(crate) latency: Duration,
    /// Never nap: a core for the lowest latency.
    #[arg(long)]
    pub(crate) spin: bool,
    /// Do not sample the host, the processes and the control groups.
    #[arg(long)]
    pub(crate) no_host: bool,
    /// Do not sample GPUs.
    #[arg(long)]
    pub(crate) no_gpu: bool,
    /// Do not emit the metrics of the bus itself and of the sampler.
    #[arg(long)]
    pub(crate) no_self: bool,
    /// What is said on standard error.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub(crate) log_level: Level,
    /// A label for every series that is served or sent on (repeatable), `host=a7` say; one that has
    /// a label of the name keeps its own. What is sent on also has job, the bus, and instance, the
    /// host, unless given: service.name and service.instance.id in OTLP.
    #[arg(long = "label", value_parser = parse_static_label, value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Also serve /metrics and the dashboard on this address (repeatable); see `qbus serve`.
    #[cfg(feature = "http")]
    #[arg(long, alias = "web.listen-address", value_name = "ADDRESS")]
    pub(crate) listen: Vec<Listen>,
    #[cfg(feature = "http")]
    #[command(flatten)]
    pub(crate) web: Web,
    #[cfg(feature = "push")]
    #[command(flatten)]
    pub(crate) push: Push,
    #[cfg(feature = "statsd")]
    #[command(flatten)]
    pub(crate) statsd: Statsd,
}

/// What the sampler reads, and how it names it.
#[derive(Debug, Parser)]
pub(crate) struct Sources {
    /// Also sample this source (repeatable); `qbus sample --list` lists them.
    #[arg(long, value_parser = parse_source, value_name = "SOURCE")]
    pub(crate) collect: Vec<Source>,
    /// Do not sample this source (repeatable).
    #[arg(long, value_parser = parse_source, value_name = "SOURCE")]
    pub(crate) no_collect: Vec<Source>,
    /// How metrics are named; `node,dcgm` has the host and the GPUs as their exporters name them.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "qbus",
        value_name = "NAMES"
    )]
    names: Vec<NameSet>,
    /// A series for each CPU as well.
    #[arg(long)]
    pub(crate) per_cpu: bool,
    /// A series for each process, labelled with its pid.
    #[arg(long)]
    pub(crate) pid_label: bool,
    /// The NVML library to load, instead of the system's.
    #[arg(long, value_name = "PATH")]
    pub(crate) nvml: Option<PathBuf>,
    /// Also the activity of NVIDIA GPUs (SM, tensor, memory, NVLink; Hopper and later). Off by
    /// default: it may take counters of the hardware from a profiler.
    #[arg(long)]
    pub(crate) gpm: bool,
    #[command(flatten)]
    pub(crate) host: Host,
}

/// How sampled metrics are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NameSet {
    /// `qbus_host_…`, `qbus_process_…`, `qbus_cgroup_…`, `qbus_gpu_…`.
    Qbus,
    /// As node_exporter names them, for dashboards that exist.
    Node,
    /// As the Python module `centralized_metrics_collector` names them: `system_cpu_percent`
    /// and so on.
    Seed,
    /// NVIDIA GPUs as dcgm-exporter names them.
    Dcgm,
}

impl Sources {
    /// The names of all samples, and those of GPUs.
    pub(crate) fn names(&self) -> (Names, GpuNames) {
        let of_gpus = match self.names.contains(&NameSet::Dcgm) {
            true => GpuNames::Dcgm,
            false => GpuNames::Same,
        };
        let of_all = self.names.iter().rev().find_map(|names| match names {
            NameSet::Qbus => Some(Names::Qbus),
            NameSet::Node => Some(Names::Node),
            NameSet::Seed => Some(Names::Seed),
            NameSet::Dcgm => None,
        });
        (of_all.unwrap_or_default(), of_gpus)
    }
}

/// Print what the sampler reads now, without any bus.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus sample --no-collect gpu -f json")]
pub(crate) struct Sample {
    /// Sample once and not twice: at once, but without ratios over time.
    #[arg(long)]
    pub(crate) once: bool,
    /// The format: json, csv, prometheus, openmetrics or protobuf.
    #[arg(short, long, default_value = "prometheus", value_parser = parse_format)]
    pub(crate) format: Format,
    /// List the sources.
    #[arg(long)]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

/// Take series off the page, until something is emitted to them again.
///
/// What they have counted is kept: a counter that comes back goes on from where it stood. On a
/// terminal it asks first.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  qbus forget 'model_*' --label model=llama --dry-run\n  \
                  qbus forget qbus_process_resident_memory_bytes --label pid=4711"
)]
pub(crate) struct Forget {
    /// Metrics whose name matches the pattern (`*`, `?`, `[…]`).
    #[arg(value_name = "GLOB")]
    pub(crate) name: glob::Pattern,
    /// Only series with this label (repeatable: all of them).
    #[arg(long = "label", value_parser = parse_label, value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// List what would be forgotten, and forget nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ask nothing.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Remove a bus and its snapshot.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus rm -b inference")]
pub(crate) struct Rm {
    /// Also when processes are attached, or the bus was never finished.
    #[arg(long)]
    pub(crate) force: bool,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode @ (0o600 | 0o660)) => Ok(mode),
        _ => Err("expected 0600 (this user) or 0660 (this user and group)".to_owned()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a positive duration with its unit: 500ms, 1s, 2m".to_owned();
    let duration: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(duration)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(expected)
}

/// The shortest time between two rounds of something that a person or a scraper looks at.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// A time between two rounds: one so short that a core would be busy with it is a mistake.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < INTERVAL_MIN {
        return Err(format!("expected {INTERVAL_MIN:?} or more"));
    }
    Ok(interval)
}

/// The time that a record waits for its commit: less than a nap of the kernel takes is no nap.
fn parse_latency(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_micros(100), Duration::from_secs(10));
    let latency = parse_duration(text)?;
    if (least..=most).contains(&latency) {
        return Ok(latency);
    }
    Err(format!(
        "expected {least:?} to {most:?}; to never nap is --spin"
    ))
}

/// A number, NaN or an infinity by name. One too large for a number of 64 bits is not an infinity.
pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "expected a number, NaN, +Inf or -Inf".to_owned())?;
    let is_named = text.to_ascii_lowercase().contains("inf");
    if number.is_infinite() && !is_named {
        return Err("the number is out of range".to_owned());
    }
    Ok(number)
}

pub(crate) fn parse_trace_id(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16)
        .map_err(|_| "expected a trace id: up to 32 hexadecimal digits".to_owned())
}

pub(crate) fn parse_merge(text: &str) -> Result<Merge, String> {
    let names = Merge::ALL.map(Merge::as_str).join(", ");
    Merge::from_name(text).ok_or_else(|| format!("expected one of {names}"))
}

/// `all`, or a length and perhaps steps: `1m`, `1m/6`.
pub(crate) fn parse_window(text: &str) -> Result<Window, String> {
    if text == "all" {
        return Ok(Window::ALL_TIME);
    }
    let (length, steps) = text.split_once('/').unwrap_or((text, "5"));
    let window = parse_duration(length).ok().zip(steps.parse().ok());
    let window = window.map(|(length, steps)| Window { length, steps });
    window.filter(|window| window.is_valid()).ok_or_else(|| {
        let (most, least) = (Window::STEPS_MAX, Window::STEP_MIN);
        format!("expected all, or a duration and steps: 10m/5; at most {most} of {least:?} or more")
    })
}

pub(crate) fn parse_type(text: &str) -> Result<MetricType, String> {
    MetricType::from_name(text)
        .ok_or_else(|| "expected counter, gauge, histogram, summary or untyped".to_owned())
}

fn parse_format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|_| {
        format!(
            "expected one of {}",
            Format::ALL.map(Format::as_str).join(", ")
        )
    })
}

fn parse_source(text: &str) -> Result<Source, String> {
    let names = || {
        Source::ALL
            .iter()
            .map(|source| source.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    Source::from_name(text).ok_or_else(|| format!("expected one of {}", names()))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A label for series of all types: of names that no format needs itself.
fn parse_static_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = parse_label(text)?;
    for metric_type in MetricType::ALL {
        qbus::check_label("", metric_type, &name).map_err(|error| match error {
            RegisterError::Label { reason, .. } => format!("the name {name:?} {reason}"),
            error => error.to_string(),
        })?;
    }
    Ok((name, value))
}
