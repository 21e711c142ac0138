//! The bars: what was asked of qbus, and whether this run met it.

use serde_json::{Value, json};

use crate::report::{Section, figure, short};
use crate::{aggregator, dump, emit, others, pages, scrape, sustained, visible};

/// A figure and what it should be.
#[derive(Debug)]
pub struct Bar {
    what: &'static str,
    /// `None` when it was not measured.
    found: Option<f64>,
    bar: f64,
    is_met: fn(f64, f64) -> bool,
    unit: &'static str,
}

/// All of them.
pub fn bars(sections: &[Section]) -> Vec<Bar> {
    let emit = |name| figure(sections, "emit", name, "median");
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let counter = emit(emit::COUNTER);
    let kinds = ["counter", "gauge", "histogram", "summary"];
    let folds = kinds.map(|kind| figure(sections, "fold", kind, "median"));
    let slowest = folds.into_iter().reduce(|a, b| Some(a?.max(b?))).flatten();
    let scaling = |name| figure(sections, "scaling", name, "median");
    let dropped = figure(sections, "sustained", sustained::ONE_WAITS, "dropped %");
    let sustained = figure(sections, "sustained", sustained::ONE_WAITS, "median");
    let visible = |name| figure(sections, "visible", name, "p99");
    let dump = |name| figure(sections, "dump", name, "100k");
    let scraped = |name, column| figure(sections, "scrape", name, column);
    let footprint = |name| figure(sections, "footprint", name, "median");
    let most = |what, found, bar, unit| Bar {
        what,
        found,
        bar,
        is_met: |a, b| a <= b,
        unit,
    };
    let least = |what, found, bar, unit| Bar {
        what,
        found,
        bar,
        is_met: |a, b| a >= b,
        unit,
    };
    let (own, precise) = (emit(emit::OWN_LANE), emit(emit::OWN_LANE_PRECISE));
    let over_clock = precise
        .zip(emit(emit::CLOCK_PRECISE))
        .map(|(emit, clock)| emit - clock);
    let without_drops = sustained.filter(|_| dropped == Some(0.0));
    vec![
        most(
            "Counter::inc to prometheus-client's",
            over(counter, emit(others::PROMETHEUS_CLIENT)),
            0.6,
            "×",
        ),
        most("Counter::inc", counter, 2.5, "ns"),
        most(
            "Counter::add to prometheus-client's",
            over(emit(emit::COUNTER_ADD), emit(others::PROMETHEUS_CLIENT_ADD)),
            1.0,
            "×",
        ),
        most(
            "Histogram::observe to prometheus-client's",
            over(
                emit(emit::HISTOGRAM),
                emit(others::PROMETHEUS_CLIENT_OBSERVE),
            ),
            0.7,
            "×",
        ),
        most(
            "Counter::inc to an iceoryx2 publish",
            over(counter, emit(others::ICEORYX2)),
            0.1,
            "×",
        ),
        most("precise emit over the bare clock", over_clock, 5.0, "ns"),
        most(
            "own-lane emit to an rtrb push",
            over(own, emit(others::RTRB)),
            2.5,
            "×",
        ),
        least(
            "two producers on two lanes to one",
            over(scaling(sustained::TWO_LANES), scaling(sustained::ONE_LANE)),
            1.8,
            "×",
        ),
        least(
            "sustained, one producer, no drops",
            without_drops,
            100.0,
            "M/s",
        ),
        most("fold of the slowest kind", slowest, 10.0, "ns"),
        most(
            "p99 emit to visible, default",
            visible(visible::NAPPING),
            2000.0,
            "µs",
        ),
        most(
            "p99 emit to visible, --spin",
            visible(visible::SPINNING),
            50.0,
            "µs",
        ),
        most(
            "100k series as text to prometheus-client's",
            over(dump(dump::EXPORT), dump(dump::PROMETHEUS_CLIENT)),
            1.0,
            "×",
        ),
        most(
            "100k series, whole qbus dump",
            dump(dump::DUMP),
            100.0,
            "ms",
        ),
        most(
            "a scrape of 1k series to metrics-exporter's",
            over(scraped(scrape::QBUS, "1k"), scraped(scrape::METRICS, "1k")),
            1.0,
            "×",
        ),
        most(
            "a scrape of 10k",
            over(
                scraped(scrape::QBUS, "10k"),
                scraped(scrape::METRICS, "10k"),
            ),
            1.0,
            "×",
        ),
        most(
            "a scrape of 100k",
            over(
                scraped(scrape::QBUS, "100k"),
                scraped(scrape::METRICS, "100k"),
            ),
            1.0,
            "×",
        ),
        most(
            "p99 of 16 scrapers at once to one",
            over(
                scraped(scrape::QBUS, "p99 16"),
                scraped(scrape::QBUS, "p99 1"),
            ),
            2.0,
            "×",
        ),
        most(
            "memory of scrapes at its peak",
            pages::most(sections),
            2.0,
            "pages",
        ),
        most("idle aggregator", footprint(aggregator::IDLE), 0.5, "%"),
        most(
            "producer over an empty program",
            footprint(aggregator::PRODUCER),
            400.0,
            "KiB",
        ),
    ]
}

impl Bar {
    /// Whether this run has what it is about.
    pub fn is_measured(&self) -> bool {
        self.found.is_some()
    }

    fn verdict(&self) -> &'static str {
        match self.found {
            None => "not measured",
            Some(found) if (self.is_met)(found, self.bar) => "met",
            Some(_) => "not met",
        }
    }

    /// A line, within 80 columns.
    pub fn line(&self) -> String {
        let found = self.found.map_or("-".to_owned(), short);
        let is_most = (self.is_met)(0.0, self.bar);
        let bound = if is_most { "≤" } else { "≥" };
        format!(
            "  {:<12} {:<43} {found:>7}  {bound} {} {}",
            self.verdict(),
            self.what,
            short(self.bar),
            self.unit
        )
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({
            "what": self.what,
            "found": self.found,
            "bar": self.bar,
            "unit": self.unit,
            "verdict": self.verdict(),
        })
    }
}
