//! CPU time by mode, and usage.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config::SamplerOptions;
use crate::host::cpu_features::Features;
use crate::kernel_file::SharedFile;
use crate::metric::Names;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// The first eight columns of a `cpu` line.
const MODES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];

/// The kernel takes back a little idle time now and then, and iowait time of any amount; more idle
/// time than these seconds is only taken back when a CPU was offline.
const IDLE_TAKEN_BACK_MAX_SECONDS: u64 = 3;

/// The place of the mode `idle`.
const IDLE: usize = 3;

/// Reads `/proc/stat`.
pub(crate) struct Cpu {
    stat: Arc<Mutex<SharedFile>>,
    per_cpu: bool,
    features: Features,
    ticks_per_second: u64,
    total: Times,
    cores: Vec<Core>,
}

struct Core {
    label: String,
    times: Times,
    seen: bool,
}

/// Clock ticks in each mode, and in the two guest columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    modes: [u64; 8],
    guest: [u64; 2],
}

impl Cpu {
    pub(crate) fn new(config: &SamplerOptions, stat: Arc<Mutex<SharedFile>>) -> Cpu {
        Cpu {
            stat,
            per_cpu: config.per_cpu || config.names == Names::Node,
            features: Features::new(config),
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            total: Times::default(),
            cores: Vec::new(),
        }
    }
}

impl Probe for Cpu {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let stat = Arc::clone(&self.stat);
        let mut stat = stat.lock().unwrap_or_else(PoisonError::into_inner);
        let text = stat.read(tick.now)?;
        let lines = text.lines().take_while(|line| line.starts_with("cpu"));
        for line in lines {
            let mut columns = line.split_ascii_whitespace();
            let name = columns.next().unwrap_or_default();
            let Some(times) = Times::parse(columns) else {
                out.fail(|| format!("/proc/stat: can't read the line `{line}`"));
                continue;
            };
            match name.strip_prefix("cpu") {
                Some("") => self.push_total(times, out),
                Some(label) => self.push_core(label, times, out),
                None => {}
            }
        }
        self.cores.retain(|core| core.seen);
        out.push(Reading::CpusOnline, &[], self.cores.len() as f64);
        self.features.read(tick.now, out);
        self.cores.iter_mut().for_each(|core| core.seen = false);
        Ok(())
    }
}

impl Cpu {
    fn push_total(&mut self, times: Times, out: &mut Readings) {
        let last = self.total.advance(times, self.ticks_per_second);
        if let Some(usage) = self.total.usage_since(&last) {
            out.push(Reading::CpuUsage, &[], usage);
        }
        let seconds = |ticks: u64| ticks as f64 / self.ticks_per_second as f64;
        for (mode, ticks) in MODES.iter().zip(self.total.modes) {
            out.push(Reading::CpuSeconds, &[("mode", mode)], seconds(ticks));
        }
        for (mode, ticks) in MODES.iter().zip(self.total.guest) {
            out.push(Reading::CpuGuestSeconds, &[("mode", mode)], seconds(ticks));
        }
    }

    fn push_core(&mut self, label: &str, times: Times, out: &mut Readings) {
        // CPUs come in the order of the last time, unless one came or went.
        let expected = self.cores.iter().take_while(|core| core.seen).count();
        let as_expected = self
            .cores
            .get(expected)
            .is_some_and(|core| core.label == label);
        let place = as_expected
            .then_some(expected)
            .or_else(|| self.cores.iter().position(|core| core.label == label))
            .unwrap_or_else(|| {
                self.cores.push(Core {
                    label: label.to_owned(),
                    times: Times::default(),
                    seen: true,
                });
                self.cores.len() - 1
            });
        let core = &mut self.cores[place];
        core.seen = true;
        let last = core.times.advance(times, self.ticks_per_second);
        if !self.per_cpu {
            return;
        }
        if let Some(usage) = core.times.usage_since(&last) {
            out.push(Reading::CpuCoreUsage, &[("cpu", label)], usage);
        }
        let seconds = |ticks: u64| ticks as f64 / self.ticks_per_second as f64;
        for (mode, ticks) in MODES.iter().zip(core.times.modes) {
            let labels = [("cpu", label), ("mode", mode)];
            out.push(Reading::CpuCoreSeconds, &labels, seconds(ticks));
        }
        for (mode, ticks) in MODES.iter().zip(core.times.guest) {
            let labels = [("cpu", label), ("mode", mode)];
            out.push(Reading::CpuCoreGuestSeconds, &labels, seconds(ticks));
        }
    }
}

impl Times {
    fn parse<'a>(columns: impl Iterator<Item = &'a str>) -> Option<Times> {
        let mut all = [0; 10];
        let mut known = 0;
        for (time, column) in all.iter_mut().zip(columns) {
            *time = column.parse().ok()?;
            known += 1;
        }
        let [
            user,
            nice,
            system,
            idle,
            iowait,
            irq,
            softirq,
            steal,
            guest @ ..,
        ] = all;
        let modes = [user, nice, system, idle, iowait, irq, softirq, steal];
        // Older kernels have fewer columns, never fewer than four.
        (known >= 4).then_some(Times { modes, guest })
    }

    /// Goes on to the times of now, none of which is less than before unless the CPU was offline,
    /// and says what they were.
    fn advance(&mut self, now: Times, ticks_per_second: u64) -> Times {
        let last = *self;
        let taken_back = self.modes[IDLE].saturating_sub(now.modes[IDLE]);
        if taken_back > IDLE_TAKEN_BACK_MAX_SECONDS * ticks_per_second {
            *self = now;
            return last;
        }
        let times = self.modes.iter_mut().chain(&mut self.guest);
        for (time, now) in times.zip(now.modes.into_iter().chain(now.guest)) {
            *time = now.max(*time);
        }
        last
    }

    /// The share of the time since `last` that was used; `None` without a last time.
    fn usage_since(&self, last: &Times) -> Option<f64> {
        // Whatever stands in the file: eight of the largest numbers fit.
        let all = |times: &Times| times.modes.map(u128::from).iter().sum::<u128>();
        let unused = |times: &Times| {
            let [.., idle, iowait, _, _, steal] = times.modes.map(u128::from);
            idle + iowait + steal
        };
        let elapsed = all(self).checked_sub(all(last))?;
        let unused = unused(self).checked_sub(unused(last))?;
        (all(last) > 0 && elapsed > 0)
            .then(|| elapsed.saturating_sub(unused) as f64 / elapsed as f64)
    }
}
