//! Windows of summaries: of which observations their quantiles are.
//!
//! A summary counts all that it ever observed; its quantiles are of what it has beyond what came
//! before its window ([`crate::snapshot::window`]). So an observation costs nothing more, and only
//! when a step ends there is something to do: what came in it is put away as a step that is over,
//! and the oldest of those goes to what was before.
//!
//! Steps are counted on the aggregator's clock, which is neither set back nor ahead; each series
//! has its own, from its first observation on. A series that has nothing in its window is not
//! looked at. Of those whose step is over some are served before each round: what is drained then
//! counts in the next step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use qbus::{SeriesId, Window};

use super::{Fold, Writer};
use crate::counts::Counts;
use crate::snapshot::window::{Steps, WindowSpan};

/// So many series end a step in a fraction of a millisecond, ...
const ENDED_A_ROUND: usize = 32;
/// ... if what they put away has not more words than these.
const WORDS_A_ROUND: usize = 1 << 13;
/// Where there is no room for what is put away, it is tried again in so long.
const RETRY_NS: u64 = 1_000_000_000;

/// Which series have something in their windows, by the time at which the step of each is over.
#[derive(Debug, Default)]
pub(super) struct Windows(BinaryHeap<Reverse<(u64, SeriesId)>>);

impl Windows {
    /// A series whose step is over by then.
    fn next(&mut self, now_ns: u64) -> Option<SeriesId> {
        let is_over = self.is_behind(now_ns);
        let next = is_over.then(|| self.0.pop()).flatten();
        next.map(|Reverse((_, id))| id)
    }

    /// Whether there is one.
    pub(super) fn is_behind(&self, now_ns: u64) -> bool {
        let next = self.0.peek();
        next.is_some_and(|Reverse((over_ns, _))| *over_ns <= now_ns)
    }

    fn push(&mut self, id: SeriesId, over_ns: u64) {
        self.0.push(Reverse((over_ns, id)));
    }
}

/// The window of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slide {
    step_ns: u64,
    /// How many steps are kept that are over.
    kept: usize,
    /// Observations when the window was last found to have none of them.
    settled: u64,
}

impl Slide {
    /// `None` where quantiles are of all time.
    pub(super) fn new(window: Window) -> Option<Slide> {
        let step = window.step()?;
        Some(Slide {
            step_ns: (step.as_nanos() as u64).max(1),
            kept: window.steps as usize - 1,
            settled: 0,
        })
    }
}

impl Fold {
    /// Goes on with the windows of a predecessor.
    pub(super) fn resume_windows(&mut self, writer: &mut Writer) {
        let now_ns = self.monotonic_ns;
        for index in 0..self.series.len() {
            let id = self.series[index].id;
            let Some((slide, observed)) = self.series[index].sliding() else {
                continue;
            };
            let span = observed.window.get_or_insert_default();
            if span.began_ns == 0 {
                slide.settled = observed.count;
                continue;
            }
            // Else its clock was that of another boot, or of another time namespace.
            span.began_ns = span.began_ns.min(now_ns);
            let (began_ns, over_ns) = (span.began_ns, span.began_ns + slide.step_ns);
            if over_ns <= now_ns {
                // What it has came before its aggregator ended, and perhaps long ago.
                self.end_step(writer, index, began_ns);
            } else {
                self.windows.push(id, over_ns);
            }
        }
    }

    /// Ends steps that are over, of some series.
    pub(crate) fn end_steps(&mut self, writer: &mut Writer) {
        let (now_ns, mut words) = (self.monotonic_ns, 0);
        for _ in 0..ENDED_A_ROUND {
            if words > WORDS_A_ROUND {
                break;
            }
            let Some(id) = self.windows.next(now_ns) else {
                break;
            };
            let index = self.index_of(id);
            let series = self.series.get(index).filter(|series| series.id == id);
            // Else it was freed.
            if let Some(arrived_ns) = series.map(|series| series.arrived_ns) {
                words += self.end_step(writer, index, arrived_ns);
            }
        }
    }

    /// Begins the windows of summaries that had nothing in them, and were observed.
    pub(super) fn begin_windows(&mut self) {
        for &index in &self.touched {
            let series = &mut self.series[index as usize];
            let id = series.id;
            let Some((slide, observed)) = series.sliding() else {
                continue;
            };
            let span = observed.window.get_or_insert_default();
            if span.began_ns == 0 && observed.count != slide.settled {
                span.began_ns = self.monotonic_ns.max(1);
                self.windows.push(id, span.began_ns + slide.step_ns);
            }
        }
    }

    /// Ends the present step of a series, and those after it that are over as well. The last
    /// observation came at `arrived_ns`. How many words were put away.
    fn end_step(&mut self, writer: &mut Writer, index: usize, arrived_ns: u64) -> usize {
        let (now_ns, id) = (self.monotonic_ns, self.series[index].id);
        let Some((slide, observed)) = self.series[index].sliding() else {
            return 0;
        };
        let (Some(span), Some(all)) = (&mut observed.window, &observed.distribution) else {
            return 0;
        };
        let steps_since =
            |began_ns: u64, at_ns: u64| at_ns.saturating_sub(began_ns) / slide.step_ns;
        let ended = steps_since(span.began_ns, now_ns).max(1);
        // Where an aggregator was stopped; as a rule one step has ended, and what it has came in
        // it.
        let age = (ended - steps_since(span.began_ns, arrived_ns).min(ended)).max(1);
        let mut steps = Steps::decode(&writer.read_window(span.block));
        steps.end(&Counts::of(all), slide.kept, ended, age);
        let content = steps.encode();
        let Some(block) = writer.move_window(span.block, &content) else {
            self.windows.push(id, now_ns.saturating_add(RETRY_NS));
            return 0;
        };
        let is_empty = steps.over.is_empty();
        let began_ns = match is_empty {
            true => 0,
            false => span.began_ns + ended * slide.step_ns,
        };
        *span = WindowSpan { block, began_ns };
        slide.settled = observed.count;
        if !is_empty {
            self.windows.push(id, began_ns + slide.step_ns);
        }
        self.touch(index);
        content.len()
    }
}
