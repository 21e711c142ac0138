//! What is open, chosen and filtered, and what keys do to it: all of `qbus top` but its terminal.

mod keys;

use std::collections::HashSet;
use std::time::Duration;

use qbus_agent::view::Report;
use qbus_aggregate::Snapshot;

use super::filter::Filter;
use super::rows::{self, Part, Row, Sort, Wanted};
use super::store::Store;
use super::text::Look;
use super::workers::{self, Rates, Worker, WorkerSort};

/// What is older than so many ticks is not what is now.
const OLD_TICKS: f64 = 3.0;

/// What one look at the bus found.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) snapshot: Snapshot,
    pub(crate) report: Report,
    /// When it was read, in nanoseconds since the Unix epoch.
    pub(crate) now_ns: u64,
}

/// The four views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Metrics,
    Workers,
    Machine,
    Bus,
}

impl View {
    pub(crate) const ALL: [(View, &'static str); 4] = [
        (View::Metrics, "metrics"),
        (View::Workers, "workers"),
        (View::Machine, "machine"),
        (View::Bus, "bus"),
    ];

    /// The families that it lists.
    pub(crate) fn part(self) -> Part {
        match self {
            View::Metrics => Part::Application,
            View::Workers => Part::Workers,
            View::Machine => Part::Machine,
            View::Bus => Part::Bus,
        }
    }

    /// Whether it has a list of workers beside that of families.
    fn has_workers(self) -> bool {
        matches!(self, View::Metrics | View::Workers)
    }
}

/// What the detail view shows: a metric, a series or a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// A family, by name: its series.
    Family(String),
    /// A series, by name and labels.
    Series(String, Vec<(String, String)>),
    /// A worker, by its entry in the owner table.
    Worker(String),
    /// The keys.
    Keys,
}

/// A page that is open, and where in its list one is.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) page: Page,
    pub(crate) list: Cursor,
}

/// The identity of a list's line, whatever its place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Family(String),
    Series(String, Vec<(String, String)>),
    Worker(String),
}

/// The chosen line of a list, and the first that is seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) at: usize,
    pub(crate) offset: usize,
    /// Lines that are seen; a page's worth of moving.
    pub(crate) height: usize,
    /// What was chosen; nothing until somebody moved: then the first line stays chosen.
    chosen: Option<Item>,
}

impl Cursor {
    /// Keeps the line within a list of that many, and in sight of so many lines.
    pub(crate) fn fit(&mut self, len: usize, height: usize) {
        self.height = height;
        self.at = self.at.min(len.saturating_sub(1));
        let last = len.saturating_sub(height);
        let lowest = (self.at + 1).saturating_sub(height);
        self.offset = self
            .offset
            .clamp(lowest.min(self.at), self.at)
            .min(last.max(lowest));
    }
}

/// What the loop is to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Draw,
    Quit,
    /// Stop, as a shell's ^Z does.
    Suspend,
}

/// Whether what is shown is what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    /// The aggregator lives, and has committed nothing for a while.
    Quiet,
    /// Nobody writes the snapshot any more.
    Over,
}

/// All that `qbus top` shows.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) look: Look,
    pub(crate) host: String,
    pub(crate) store: Store,
    pub(crate) report: Option<Report>,
    pub(crate) rates: Rates,
    /// Records a second, and records lost since the reading before.
    pub(crate) rate: f64,
    pub(crate) lost_now: u64,
    /// Why there is nothing new.
    pub(crate) down: Option<String>,
    pub(crate) view: View,
    /// Each over the one before.
    pub(crate) pages: Vec<Open>,
    pub(crate) filter: Filter,
    /// What is being typed.
    pub(crate) typing: Option<String>,
    pub(crate) sort: Sort,
    pub(crate) worker_sort: WorkerSort,
    pub(crate) reversed: bool,
    pub(crate) frozen: bool,
    pub(crate) totals: bool,
    pub(crate) expanded: HashSet<String>,
    /// Whether keys go to the workers of a view that has both lists.
    pub(crate) on_workers: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) workers: Vec<Worker>,
    /// Of the families of each view.
    lists: [Cursor; 4],
    pub(crate) worker_list: Cursor,
    /// Whether it is printed once, and takes no keys.
    pub(crate) once: bool,
    /// When the last reading was taken.
    read_ns: u64,
    /// The time that is shown.
    now_ns: u64,
}

impl Screen {
    pub(crate) fn new(look: Look, host: String, tick: Duration) -> Screen {
        let tick_ns = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
        Screen {
            look,
            host,
            store: Store::new(tick_ns),
            report: None,
            rates: Rates::default(),
            rate: f64::NAN,
            lost_now: 0,
            down: None,
            view: View::Metrics,
            pages: Vec::new(),
            filter: Filter::default(),
            typing: None,
            sort: Sort::Activity,
            worker_sort: WorkerSort::Rate,
            reversed: false,
            frozen: false,
            totals: false,
            expanded: HashSet::new(),
            on_workers: false,
            rows: Vec::new(),
            workers: Vec::new(),
            lists: Default::default(),
            worker_list: Cursor::default(),
            once: false,
            read_ns: 0,
            now_ns: 0,
        }
    }

    /// Opens another view.
    pub(crate) fn open(&mut self, view: View) {
        self.view = view;
        self.on_workers = view == View::Workers;
        self.pages.clear();
        self.arrange();
    }

    /// Takes a look at the bus over.
    pub(crate) fn take(&mut self, reading: Reading) {
        let Reading {
            snapshot,
            report,
            now_ns,
        } = reading;
        let follows = self.down.is_none() && now_ns > self.read_ns;
        let before = self.report.replace(report).filter(|_| follows);
        self.down = None;
        let seconds = (now_ns.saturating_sub(self.read_ns)) as f64 / 1e9;
        (self.read_ns, self.now_ns) = (now_ns, now_ns);
        let is_over = self.life() == Life::Over;
        let as_of = if is_over { snapshot.unix_ns } else { now_ns };
        self.store.take(snapshot, as_of);
        // Nothing follows from two looks at what is over.
        let seconds = before.is_some().then_some(seconds).filter(|_| !is_over);
        if let Some(report) = &self.report {
            self.rates.take(report, self.store.tick, seconds);
            (self.rate, self.lost_now) = (f64::NAN, 0);
            if let (Some(before), Some(seconds)) = (before, seconds) {
                let (before, after) = (&before.records, &report.records);
                self.rate = after.delivered.saturating_sub(before.delivered) as f64 / seconds;
                self.lost_now = after.lost().saturating_sub(before.lost());
            }
        }
        self.arrange();
    }

    /// There is nothing to look at any more.
    pub(crate) fn lose(&mut self, reason: String) {
        self.down = Some(reason);
        (self.rate, self.lost_now) = (f64::NAN, 0);
    }

    /// The time goes on without a reading.
    pub(crate) fn pass(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// How old what is shown is, in seconds.
    pub(crate) fn age(&self) -> f64 {
        // By the aggregator's clock when it was read, and by ours since then.
        let then = self
            .report
            .as_ref()
            .map_or(0.0, |report| report.age_seconds);
        then + self.now_ns.saturating_sub(self.read_ns) as f64 / 1e9
    }

    pub(crate) fn is_old(&self) -> bool {
        self.age() > OLD_TICKS * self.store.seconds().max(1.0)
    }

    pub(crate) fn life(&self) -> Life {
        let Some(report) = &self.report else {
            return Life::Over;
        };
        // By its own clock, which is that of the reading.
        let is_old = report.age_seconds > OLD_TICKS * self.store.seconds().max(1.0);
        match report.aggregator.alive {
            _ if self.down.is_some() => Life::Over,
            Some(false) => Life::Over,
            Some(true) if is_old => Life::Quiet,
            Some(true) => Life::Live,
            None if is_old => Life::Over,
            None => Life::Live,
        }
    }

    /// The families whose history has not been read yet, of at most so many series together:
    /// those that are listed first.
    pub(crate) fn unfilled(&self, series_max: usize) -> Vec<String> {
        /// Of more series than these nobody looks at each line.
        const SERIES_MAX: usize = 128;
        let mut left = series_max;
        let listed = self
            .rows
            .iter()
            .filter(|row| row.series.is_none())
            .map(|row| row.family);
        let all = listed.chain(0..self.store.families.len());
        let mut names = Vec::new();
        for view in all.map(|at| &self.store.families[at]) {
            let size = view.series.len();
            if view.is_filled || size > SERIES_MAX || names.contains(&view.family.name) {
                continue;
            }
            if size > left {
                break;
            }
            left -= size;
            names.push(view.family.name.clone());
        }
        names
    }

    /// The series that is shown in detail, of a family with too many for all of their histories.
    pub(crate) fn unfilled_series(&self) -> Option<(&str, &[(String, String)])> {
        let Some(Page::Series(name, labels)) = self.page() else {
            return None;
        };
        let view = self.store.find(name).filter(|view| !view.is_filled)?;
        let one = view.series.iter().find(|one| one.labels == *labels)?;
        (!one.is_filled).then_some((name, labels))
    }

    /// Fills the time before the first reading of these families.
    pub(crate) fn fill(&mut self, names: &[String], snapshot: Snapshot) {
        self.store.fill(names, snapshot);
        self.arrange();
    }

    /// Puts the lists in their order; what was chosen stays so wherever it goes.
    pub(crate) fn arrange(&mut self) {
        self.rows = rows::rows(
            &self.store,
            &Wanted {
                part: self.view.part(),
                filter: &self.filter,
                sort: self.sort,
                reversed: self.reversed,
                expanded: &self.expanded,
            },
        );
        let mut all = workers::of(
            &self.store,
            self.report.as_ref(),
            &self.rates,
            self.life() == Life::Over,
            (self.worker_sort, self.reversed),
        );
        all.retain(|worker| self.takes(worker));
        self.workers = all;
        if let Some(chosen) = self.list().chosen.clone() {
            let found = (0..self.rows.len()).find(|at| self.is_item(*at, &chosen));
            let list = self.list_mut();
            list.at = found.unwrap_or(list.at);
        }
        if let Some(Item::Worker(id)) = &self.worker_list.chosen {
            let found = self.workers.iter().position(|worker| worker.id == *id);
            self.worker_list.at = found.unwrap_or(self.worker_list.at);
        }
    }

    /// Whether a worker is listed: beside metrics those that live, or lost something; in their own
    /// view those that the filter takes.
    fn takes(&self, worker: &Worker) -> bool {
        if self.view != View::Workers {
            return worker.alive || worker.lost > 0 || self.life() == Life::Over;
        }
        let pid = worker.pid.map_or_else(String::new, |pid| pid.to_string());
        let labels = [
            ("pid".to_owned(), pid),
            ("role".to_owned(), worker.role.clone()),
        ];
        self.filter.takes(&worker.command, &labels)
    }

    pub(crate) fn list(&self) -> &Cursor {
        &self.lists[self.view as usize]
    }

    pub(crate) fn list_mut(&mut self) -> &mut Cursor {
        &mut self.lists[self.view as usize]
    }

    fn is_item(&self, at: usize, item: &Item) -> bool {
        let Row { family, series } = self.rows[at];
        let view = &self.store.families[family];
        match (item, series) {
            (Item::Family(name), None) => view.family.name == *name,
            (Item::Series(name, labels), Some(at)) => {
                view.family.name == *name && view.series[at].labels == *labels
            }
            _ => false,
        }
    }

    fn item(&self, at: usize) -> Option<Item> {
        let Row { family, series } = *self.rows.get(at)?;
        let view = &self.store.families[family];
        let name = view.family.name.clone();
        Some(match series {
            None => Item::Family(name),
            Some(at) => Item::Series(name, view.series[at].labels.clone()),
        })
    }

    /// The series that the page of a family lists: those that the filter takes, or else all.
    pub(crate) fn page_series(&self, name: &str) -> Vec<usize> {
        let Some(view) = self.store.find(name) else {
            return Vec::new();
        };
        let some = rows::series(&self.store, view, &self.filter, self.sort, self.reversed);
        match some.is_empty() {
            true => rows::series(
                &self.store,
                view,
                &Filter::default(),
                self.sort,
                self.reversed,
            ),
            false => some,
        }
    }
}
