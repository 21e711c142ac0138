//! What is open, chosen and filtered, and what keys do to it: all of `qbus top` but its terminal.

use std::collections::HashSet;
use std::time::Duration;

use qbus_agent::view::Report;
use qbus_aggregate::Snapshot;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

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

/// What is looked at more closely than a view does.
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

/// What a line of a list stands for, whatever place it has.
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
        self.now_ns.saturating_sub(self.store.unix_ns) as f64 / 1e9
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

    /// The families whose history is still to be asked for, of at most so many series together:
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
            self.worker_sort,
            self.reversed,
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

    /// What a key does.
    pub(crate) fn key(&mut self, key: KeyEvent) -> After {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return self.control(key.code);
        }
        if self.typing.is_some() {
            self.type_key(key.code);
            return After::Draw;
        }
        if self.page() == Some(&Page::Keys) {
            self.pages.pop();
            return if key.code == KeyCode::Char('q') {
                After::Quit
            } else {
                After::Draw
            };
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::F(10) => return After::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.push(Page::Keys),
            KeyCode::Char('/' | '\\') | KeyCode::F(3 | 4) => {
                self.typing = Some(self.filter.text().to_owned());
            }
            KeyCode::Char('p' | 'Z') => self.frozen = !self.frozen,
            KeyCode::Char('s') | KeyCode::F(6) => self.sort_by_next(),
            KeyCode::Char('r' | 'I') => self.reversed = !self.reversed,
            KeyCode::Char('t') => self.totals = !self.totals,
            KeyCode::Char(digit @ '1'..='4') => {
                let (view, _) = View::ALL[digit as usize - '1' as usize];
                self.open(view);
            }
            KeyCode::Tab | KeyCode::BackTab => {
                self.on_workers = self.view.has_workers() && !self.on_workers;
            }
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Char(' ' | '+' | '-' | 'e') | KeyCode::Right | KeyCode::Left => {
                self.expand(key.code);
            }
            code => self.go(code),
        }
        self.arrange();
        After::Draw
    }

    fn control(&mut self, code: KeyCode) -> After {
        match code {
            KeyCode::Char('c') => return After::Quit,
            KeyCode::Char('z') => return After::Suspend,
            KeyCode::Char('d') => self.go(KeyCode::PageDown),
            KeyCode::Char('u') => self.go(KeyCode::PageUp),
            _ => {}
        }
        After::Draw
    }

    /// A key of a filter that is being typed; it counts at once.
    fn type_key(&mut self, code: KeyCode) {
        let Some(text) = &mut self.typing else { return };
        match code {
            KeyCode::Char(character) if text.len() < 256 => text.push(character),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Esc => {
                text.clear();
                self.filter = Filter::default();
                self.typing = None;
            }
            KeyCode::Enter => self.typing = None,
            _ => {}
        }
        // Half a regular expression takes what was taken before.
        if let Some(Ok(filter)) = self.typing.as_deref().map(str::parse) {
            self.filter = filter;
        }
        self.arrange();
    }

    fn sort_by_next(&mut self) {
        if self.on_workers {
            let at = WorkerSort::ALL
                .iter()
                .position(|(sort, _)| *sort == self.worker_sort);
            self.worker_sort = WorkerSort::ALL[(at.unwrap_or(0) + 1) % WorkerSort::ALL.len()].0;
        } else {
            let at = Sort::ALL.iter().position(|(sort, _)| *sort == self.sort);
            self.sort = Sort::ALL[(at.unwrap_or(0) + 1) % Sort::ALL.len()].0;
        }
    }

    /// From what is chosen to what it is made of.
    fn enter(&mut self) {
        let page = match self.page() {
            Some(Page::Family(name)) => self.series_of_page(name),
            Some(_) => None,
            None if self.on_workers => {
                let worker = self.workers.get(self.worker_list.at);
                worker
                    .filter(|worker| !worker.id.is_empty())
                    .map(|worker| Page::Worker(worker.id.clone()))
            }
            None => match self.item(self.list().at) {
                // One series needs no list.
                Some(Item::Family(name)) => {
                    match self.store.find(&name).map(|view| view.series.as_slice()) {
                        Some([one]) => Some(Page::Series(name, one.labels.clone())),
                        _ => Some(Page::Family(name)),
                    }
                }
                Some(Item::Series(name, labels)) => Some(Page::Series(name, labels)),
                _ => None,
            },
        };
        if let Some(page) = page {
            self.push(page);
        }
    }

    /// The page that is seen.
    fn page(&self) -> Option<&Page> {
        self.pages.last().map(|open| &open.page)
    }

    fn push(&mut self, page: Page) {
        self.pages.push(Open {
            page,
            list: Cursor::default(),
        });
    }

    fn series_of_page(&self, name: &str) -> Option<Page> {
        let view = self.store.find(name)?;
        let at = *self.page_series(name).get(self.pages.last()?.list.at)?;
        Some(Page::Series(
            name.to_owned(),
            view.series[at].labels.clone(),
        ))
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

    fn back(&mut self) {
        if self.pages.pop().is_none() {
            self.filter = Filter::default();
        }
    }

    fn expand(&mut self, code: KeyCode) {
        if !self.pages.is_empty() || self.on_workers {
            return;
        }
        let name = match self.item(self.list().at) {
            Some(Item::Family(name)) => name,
            // On a series: its family is closed, and chosen.
            Some(Item::Series(name, _))
                if matches!(code, KeyCode::Char(' ' | '-') | KeyCode::Left) =>
            {
                self.list_mut().chosen = Some(Item::Family(name.clone()));
                name
            }
            _ => return,
        };
        let is_open = self.expanded.contains(&name);
        match code {
            KeyCode::Char('+') | KeyCode::Right => self.expanded.insert(name),
            KeyCode::Char('-') | KeyCode::Left => self.expanded.remove(&name),
            _ if is_open => self.expanded.remove(&name),
            _ => self.expanded.insert(name),
        };
    }

    /// Moves within the list that keys go to.
    fn go(&mut self, code: KeyCode) {
        let on_page = !self.pages.is_empty();
        let len = match self.page() {
            Some(Page::Family(name)) => self.page_series(name).len(),
            Some(_) => usize::MAX,
            None if self.on_workers => self.workers.len(),
            None => self.rows.len(),
        };
        let on_workers = self.on_workers;
        let view = self.view as usize;
        let list = match self.pages.last_mut() {
            Some(open) => &mut open.list,
            None if on_workers => &mut self.worker_list,
            None => &mut self.lists[view],
        };
        let page = list.height.max(2) - 1;
        list.at = match code {
            KeyCode::Up | KeyCode::Char('k') => list.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => list.at.saturating_add(1),
            KeyCode::PageUp => list.at.saturating_sub(page),
            KeyCode::PageDown => list.at.saturating_add(page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => len,
            _ => return,
        };
        list.at = list.at.min(len.saturating_sub(1));
        let at = list.at;
        if on_page {
        } else if on_workers {
            let chosen = self
                .workers
                .get(at)
                .map(|worker| Item::Worker(worker.id.clone()));
            self.worker_list.chosen = chosen.filter(|_| at > 0);
        } else {
            let chosen = self.item(at).filter(|_| at > 0);
            self.list_mut().chosen = chosen;
        }
    }
}
