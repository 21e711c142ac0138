//! The tick: every source in turn, none at the mercy of another.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Attached, SamplerOptions};
use crate::family::{Names, Sample};
use crate::host;
use crate::readings::Readings;
use crate::worker::{Answer, Worker};

/// Distinct messages that are reported for one source; all further failures are only counted.
const REPORTS_MAX: usize = 16;

/// What a source is told.
#[derive(Clone, Copy, Debug)]
pub struct Tick<'a> {
    /// The time of the tick that asked.
    pub now: Instant,
    /// The processes attached at that time.
    pub attached: &'a [Attached],
}

/// Reads one subject.
pub trait Reader: Send {
    /// Pushes what it reads; what was pushed before an error counts.
    ///
    /// # Errors
    ///
    /// Only what leaves nothing more to read; [`Readings::fail`] is for the rest.
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure>;
}

/// Why a source had nothing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This machine lacks the subject, which is no fault: tried again after [`SamplerOptions::retry`].
    Absent(String),
    /// Reading failed: tried again when the source is due again.
    Failed(String),
}

impl Failure {
    pub(crate) fn io(path: &Path, err: &io::Error) -> Failure {
        let message = format!("{}: {err}", path.display());
        match err.kind() {
            // PSI that is compiled in but switched off says `Unsupported`.
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported => Failure::Absent(message),
            _ => Failure::Failed(message),
        }
    }
}

/// Something to tell an operator; each message of a source comes once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The machine lacks the subject of the source.
    Absent(String),
    /// The source failed, wholly or in part.
    Failed(String),
    /// A source that had been reported works again.
    Recovered,
}

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
    /// What has not been reported yet.
    pub news: Option<News>,
}

/// Reads all sources, tick by tick.
pub struct Sampler {
    entries: Vec<Entry>,
    outcomes: Vec<Outcome>,
    names: Names,
    patience: Duration,
    keep: Duration,
    retry: Duration,
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
    reported: Vec<String>,
    in_trouble: bool,
    news: Option<News>,
}

enum Run {
    Inline(Box<dyn Reader>),
    /// The thread is started at the first tick.
    Unstarted(Option<Box<dyn Reader>>),
    Thread(Worker, Readings),
}

impl Sampler {
    /// A sampler of the sources that `config` names. Nothing is opened before the first tick.
    pub fn new(config: SamplerOptions) -> Sampler {
        let mut sampler = Sampler {
            entries: Vec::new(),
            outcomes: Vec::new(),
            names: config.names,
            patience: config.patience,
            keep: config.keep,
            retry: config.retry,
        };
        host::add_sources(&mut sampler, &config);
        sampler
    }

    /// Adds a source of the caller's: read at most once in `period`, and on a thread of its own
    /// where it may hang.
    pub fn add(
        &mut self,
        source: &'static str,
        period: Duration,
        may_hang: bool,
        reader: Box<dyn Reader>,
    ) {
        let run = if may_hang {
            Run::Unstarted(Some(reader))
        } else {
            Run::Inline(reader)
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
            reported: Vec::new(),
            in_trouble: false,
            news: None,
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
            entry.collect(now, deadline, self.retry, self.keep);
        }
        self.outcomes.clear();
        for entry in &mut self.entries {
            let samples = entry.kept.emit(self.names, emit);
            self.outcomes.push(entry.outcome(now, samples));
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
        if let Run::Unstarted(reader) = &mut self.run {
            let Some(reader) = reader.take() else { return };
            match Worker::start(self.source, reader) {
                Ok(worker) => self.run = Run::Thread(worker, Readings::default()),
                Err(err) => self.trouble(1, Some(format!("no thread for it: {err}"))),
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
        let Run::Inline(reader) = &mut self.run else {
            return;
        };
        let start = Instant::now();
        self.kept.clear();
        let result = read_guarded(reader.as_mut(), tick, &mut self.kept);
        self.took = start.elapsed();
        self.kept_from = Some(tick.now);
        self.settle(tick.now, result, retry);
    }

    /// Takes the answer of a source with a thread of its own, or bears with its silence.
    fn collect(&mut self, now: Instant, deadline: Instant, retry: Duration, keep: Duration) {
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
                self.trouble(1, Some(format!("no answer within {keep:?}")));
            }
            None => {}
        }
        if self
            .kept_from
            .is_some_and(|from| now.saturating_duration_since(from) > keep + self.period)
        {
            self.kept.clear();
        }
    }

    /// Books the result of a read that `asked` began.
    fn settle(&mut self, asked: Instant, result: Result<(), Failure>, retry: Duration) {
        let trouble = self.kept.take_trouble();
        self.skipped = trouble.skipped;
        self.due = Some(asked + self.period);
        match result {
            Ok(()) if trouble.failures == 0 => {
                if self.in_trouble {
                    self.in_trouble = false;
                    self.news = Some(News::Recovered);
                }
            }
            Ok(()) => self.trouble(trouble.failures, trouble.first),
            Err(Failure::Failed(message)) => self.trouble(trouble.failures + 1, Some(message)),
            Err(Failure::Absent(message)) => {
                self.failures += trouble.failures;
                self.due = Some(asked + retry.max(self.period));
                self.report(message, News::Absent);
            }
        }
    }

    fn trouble(&mut self, failures: u64, message: Option<String>) {
        self.failures += failures;
        self.report(message.unwrap_or_default(), News::Failed);
    }

    fn report(&mut self, message: String, news: fn(String) -> News) {
        if self.reported.len() < REPORTS_MAX && !self.reported.contains(&message) {
            self.reported.push(message.clone());
            self.in_trouble = true;
            self.news = Some(news(message));
        }
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
            hanging,
            news: self.news.take(),
        }
    }
}

/// Reads, and takes a panic for a failure of that source alone.
pub(crate) fn read_guarded(
    reader: &mut dyn Reader,
    tick: &Tick<'_>,
    out: &mut Readings,
) -> Result<(), Failure> {
    panic::catch_unwind(AssertUnwindSafe(|| reader.read(tick, out))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("for an unknown reason");
        Err(Failure::Failed(format!("panicked: {text}")))
    })
}
