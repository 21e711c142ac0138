//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{After, Cursor, Item, Open, Page, Screen, View};
use crate::top::filter::Filter;
use crate::top::rows::Sort;
use crate::top::workers::WorkerSort;

impl Screen {
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
    pub(super) fn page(&self) -> Option<&Page> {
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
