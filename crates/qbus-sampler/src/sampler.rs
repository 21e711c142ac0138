//! The tick: every source in turn, none at the mercy of another.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Attached, SamplerOptions, Source};
use crate::metric::{GpuNames, Names, Sample};
use crate::news::{Episodes, News};
use crate::probe::{Failure, Probe, Tick, read_guarded};
use crate::probe_thread::{Answer, ProbeThread};
use crate::readings::{Readings, Trouble};
use crate::scrape::Scrape;
use crate::sources;

/// How long the values of GPUs outlive their last answer: after that they are down.
const GPU_KEEP: Duration = Duration::from_secs(5);

/// How one source fared in a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The name of the source.
    pub source: &'static str,
    /// How long its last read took.
    pub took: Duration,
    /// Samples that were handed over in this tick.
    pub samples: usize,
    /// How old they are, by the times of the ticks.
    pub age: Duration,
    /// Failures since the sampler was made.
    pub failures: u64,
    /// Things that the last read left out on purpose, such as processes of other pid namespaces.
    pub skipped: u64,
    /// Whether a read that an earlier tick asked for is still going on.
    pub hanging: bool,
    /// Whether the last read succeeded in everything that it tried.
    pub success: bool,
    /// What has not been reported yet.
    pub news: Vec<News>,
}

/// Reads all sources, tick by tick.
pub struct Sampler {
    entries: Vec<Entry>,
    outcomes: Vec<Outcome>,
    names: Names,
    gpu_names: GpuNames,
    patience: Duration,
    keep: Duration,
    retry: Duration,
    scrape: Option<Scrape>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.entries.iter().map(|entry| entry.source).collect();
        f.debug_struct("Sampler")
            .field("sources", &sources)
            .finish_non_exhaustive()
    }
}

struct Entry {
    source: &'static str,
    period: Duration,
    run: Run,
    /// What the last read brought, and the tick that asked for it.
    kept: Readings,
    kept_from: Option<Instant>,
    due: Option<Instant>,
    took: Duration,
    failures: u64,
    skipped: u64,
    /// Whether the hang under way has been counted.
    hang_counted: bool,
    success: bool,
    keep: Duration,
    episodes: Episodes,
    news: Vec<News>,
}

enum Run {
    Inline(Box<dyn Probe>),
    /// The thread is started at the first tick.
    Unstarted(Option<Box<dyn Probe>>),
    Thread(ProbeThread, Readings),
}

impl Sampler {
    /// A sampler of the sources that `config` names. Nothing is opened before the first tick.
    pub fn new(config: SamplerOptions) -> Sampler {
        let mut sampler = Sampler {
            entries: Vec::new(),
            outcomes: Vec::new(),
            names: config.names,
            gpu_names: config.gpu_names,
            patience: config.patience,
            keep: config.keep,
            retry: config.retry,
            scrape: (config.names == Names::Node).then(Scrape::default),
        };
        for ready in sources::ready(&config) {
            let name = ready.source.name();
            sampler.add(name, ready.period, ready.may_hang, ready.probe);
            if ready.source == Source::Gpu
                && let Some(entry) = sampler.entries.last_mut()
            {
                entry.keep = config.keep.min(GPU_KEEP);
            }
        }
        sampler
    }

    /// Adds a source of the caller's: read at most once in `period`, and on a thread of its own
    /// where it may hang.
    pub fn add(
        &mut self,
        source: &'static str,
        period: Duration,
        may_hang: bool,
        probe: Box<dyn Probe>,
    ) {
        let run = if may_hang {
            Run::Unstarted(Some(probe))
        } else {
            Run::Inline(probe)
        };
        self.entries.push(Entry {
            source,
            period,
            run,
            kept: Readings::default(),
            kept_from: None,
            due: None,
            took: Duration::ZERO,
            failures: 0,
            skipped: 0,
            hang_counted: false,
            success: true,
            keep: self.keep,
            episodes: Episodes::default(),
            news: Vec::new(),
        });
    }

    /// Reads every source that is due and hands all values over, with those that sources of a
    /// longer period read before.
    ///
    /// Rates, such as the CPU usage, need a second tick. `now` must not go backwards.
    pub fn sample(
        &mut self,
        now: Instant,
        attached: &Arc<[Attached]>,
        emit: &mut dyn FnMut(Sample<'_>),
    ) -> &[Outcome] {
        for entry in &mut self.entries {
            entry.ask(now, attached);
        }
        let tick = Tick { now, attached };
        for entry in &mut self.entries {
            entry.read_inline(&tick, self.retry);
        }
        let deadline = Instant::now() + self.patience;
        for entry in &mut self.entries {
            entry.collect(now, deadline, self.retry);
        }
        self.outcomes.clear();
        for entry in &mut self.entries {
            let names = (self.names, self.gpu_names);
            let samples = entry.kept.emit(entry.source, names, emit);
            self.outcomes.push(entry.outcome(now, samples));
        }
        if let Some(scrape) = &self.scrape {
            scrape.emit(&self.outcomes, emit);
        }
        &self.outcomes
    }
}

impl Entry {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// Sets a source with a thread of its own to work.
    fn ask(&mut self, now: Instant, attached: &Arc<[Attached]>) {
        if !self.is_due(now) {
            return;
        }
        if let Run::Unstarted(probe) = &mut self.run {
            let Some(probe) = probe.take() else { return };
            match ProbeThread::start(self.source, probe) {
                Ok(worker) => self.run = Run::Thread(worker, Readings::default()),
                Err(err) => self.trouble(now, format!("no thread for it: {err}")),
            }
        }
        if let Run::Thread(worker, spare) = &mut self.run
            && worker.asked.is_none()
        {
            worker.ask(now, attached, std::mem::take(spare));
        }
    }

    fn read_inline(&mut self, tick: &Tick<'_>, retry: Duration) {
        if !self.is_due(tick.now) {
            return;
        }
        let Run::Inline(probe) = &mut self.run else {
            return;
        };
        let start = Instant::now();
        self.kept.clear();
        let result = read_guarded(probe.as_mut(), tick, &mut self.kept);
        self.took = start.elapsed();
        self.kept_from = Some(tick.now);
        self.settle(tick.now, result, retry);
    }

    /// Takes the answer of a source with a thread of its own, or bears with its silence.
    fn collect(&mut self, now: Instant, deadline: Instant, retry: Duration) {
        let keep = self.keep;
        let Run::Thread(worker, spare) = &mut self.run else {
            return;
        };
        let Some(asked) = worker.asked else { return };
        let patience = match asked == now {
            true => deadline.saturating_duration_since(Instant::now()),
            false => Duration::ZERO,
        };
        match worker.answer(patience) {
            Some(Answer {
                asked,
                readings,
                result,
                took,
            }) => {
                *spare = std::mem::replace(&mut self.kept, readings);
                self.kept_from = Some(asked);
                self.took = took;
                self.hang_counted = false;
                self.settle(asked, result, retry);
            }
            None if now.saturating_duration_since(asked) > keep && !self.hang_counted => {
                self.hang_counted = true;
                self.trouble(now, format!("no answer within {keep:?}"));
            }
            None => {}
        }
        if self
            .kept_from
            .is_some_and(|from| now.saturating_duration_since(from) > keep + self.period)
        {
            self.kept.keep_only_down();
        }
    }

    /// Books the result of a read that `asked` began.
    fn settle(&mut self, asked: Instant, result: Result<(), Failure>, retry: Duration) {
        let mut trouble = self.kept.take_trouble();
        self.skipped = trouble.skipped;
        self.failures += trouble.failures;
        self.due = Some(asked + self.period);
        let mut absence = None;
        match result {
            Ok(()) => {}
            Err(Failure::Failed(message)) => {
                self.failures += 1;
                let thing = String::new();
                trouble.things.push(Trouble { thing, message });
            }
            Err(Failure::Absent(message)) => {
                self.due = Some(asked + retry.max(self.period));
                absence = Some(message);
            }
        }
        self.success = absence.is_none() && trouble.things.is_empty();
        match absence {
            Some(message) if trouble.things.is_empty() => {
                self.episodes.absent(message, &mut self.news);
            }
            // It can't go on since something failed: that is the news.
            Some(_) => {
                for thing in trouble.things {
                    self.episodes.fail(asked, thing, &mut self.news);
                }
            }
            None => {
                let news = &mut self.news;
                self.episodes.settle(asked, trouble.things, news);
            }
        }
    }

    /// Books a failure of the whole source outside of a read.
    fn trouble(&mut self, now: Instant, message: String) {
        self.failures += 1;
        self.success = false;
        let thing = String::new();
        let trouble = Trouble { thing, message };
        self.episodes.fail(now, trouble, &mut self.news);
    }

    fn outcome(&mut self, now: Instant, samples: usize) -> Outcome {
        let hanging = match &self.run {
            Run::Thread(worker, _) => worker.asked.is_some_and(|asked| asked < now),
            Run::Inline(_) | Run::Unstarted(_) => false,
        };
        Outcome {
            source: self.source,
            took: self.took,
            samples,
            age: self
                .kept_from
                .map_or(Duration::ZERO, |from| now.saturating_duration_since(from)),
            failures: self.failures,
            skipped: self.skipped,
            success: self.success && !hanging,
            hanging,
            news: std::mem::take(&mut self.news),
        }
    }
}
