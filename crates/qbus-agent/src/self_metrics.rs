//! The bus's metrics of itself: `qbus_bus_…` and `qbus_sampler_…`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use qbus::{Bus, LaneView, OVERFLOW};
use qbus_aggregate::{Ledger, Reader};
use qbus_sampler::{Metric, Outcome, Sample, Trend};

/// Emits the samples of the metrics below.
struct Page<'a> {
    emit: &'a mut dyn FnMut(Sample<'_>),
}

impl Page<'_> {
    fn sample(&mut self, metric: &'static Metric, labels: &[(&str, &str)], value: f64) {
        (self.emit)(Sample {
            source: "self",
            metric,
            labels,
            value,
        });
    }

    fn ledger(&mut self, ledger: &Ledger) {
        self.sample(&RECORDS, &[], ledger.total.delivered as f64);
        for (cause, records) in ledger.losses() {
            self.sample(&LOST, &[("cause", cause)], records as f64);
        }
        self.sample(&VIOLATIONS, &[], ledger.violations as f64);
        self.sample(&REFUSED, &[], ledger.refused_series as f64);
        let alive = ledger.owners.iter().filter(|row| row.owner.alive).count();
        self.sample(&OWNERS, &[], alive as f64);
    }
}

impl Page<'_> {
    /// How large families are that have a limit, and what came to series beyond it.
    fn families(&mut self, bus: &Bus, reader: &mut Reader) {
        for id in bus.family_ids() {
            let size = bus.family_size(id);
            let Some((size, limit)) = size.and_then(|size| Some((size, size.limit?))) else {
                continue;
            };
            if let Some(family) = bus.family(id) {
                let labels = [("family", &*family.name)];
                self.sample(&FAMILY_SERIES, &labels, size.series as f64);
                self.sample(&FAMILY_LIMIT, &labels, limit as f64);
            }
        }
        let mut records: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (id, series) in bus.overflow_series() {
            if let (Some(family), Some(found)) =
                (bus.family(series.family), reader.series(id, false))
            {
                let labels = overflowing(&series.labels).join(",");
                *records.entry((family.name, labels)).or_default() += found.records;
            }
        }
        for ((family, label), records) in &records {
            let labels = [("family", &**family), ("label", &**label)];
            self.sample(&OVERFLOW_RECORDS, &labels, *records as f64);
        }
    }
}

macro_rules! metrics {
    ($($name:ident = $kind:ident $metric:literal $unit:literal $help:literal;)*) => {
        $(static $name: Metric = Metric {
            name: Cow::Borrowed($metric),
            trend: Trend::$kind,
            unit: Cow::Borrowed($unit),
            help: Cow::Borrowed($help),
        };)*
    };
}

metrics! {
    RECORDS = Counter "qbus_bus_records_total" "" "Records delivered to the aggregator.";
    LOST = Counter "qbus_bus_lost_records_total" ""
        "Records that were emitted and are on no page, by cause.";
    VIOLATIONS = Counter "qbus_bus_violations_total" ""
        "Slots, records and words of the region that made no sense.";
    LANES = Gauge "qbus_bus_lanes" "" "Lanes by state.";
    FILL = Gauge "qbus_bus_lane_fill_ratio" "ratio"
        "Part of the fullest lane that waits to be committed.";
    OWNERS = Gauge "qbus_bus_owners" "" "Processes that are attached.";
    JOINED = Counter "qbus_bus_owners_joined_total" "" "Processes that joined.";
    REAPED = Counter "qbus_bus_owners_reaped_total" "" "Owners that were found dead.";
    SERIES = Gauge "qbus_bus_series" "" "Series that are registered.";
    SERIES_CAPACITY = Gauge "qbus_bus_series_capacity" "" "Series that can be registered.";
    REGISTRY = Gauge "qbus_bus_registry_fill_ratio" "ratio"
        "Part of the room for definitions that is in use.";
    FAMILY_SERIES = Gauge "qbus_family_series" "" "Series of a metric that has a limit.";
    FAMILY_LIMIT = Gauge "qbus_family_limit" "" "Series that a metric may have.";
    OVERFLOW_RECORDS = Counter "qbus_overflow_records_total" ""
        "Records, and changes of cells, counted in series whose label stands for all values beyond \
         the metric's limit.";
    REFUSED = Counter "qbus_bus_refused_registrations_total" ""
        "Registrations that found the registry full.";
    STALE = Counter "qbus_bus_stale_records_total" ""
        "Records, and changes of cells, that came under the id of a series that was freed.";
    CUT_VALUES = Counter "qbus_bus_cut_label_values_total" ""
        "Label values longer than 1,024 bytes, of which the beginning was registered.";
    COMMITS = Counter "qbus_bus_commits_total" "" "Commits of the snapshot: its epoch.";
    COMMITTED = Gauge "qbus_bus_commit_timestamp_seconds" "seconds"
        "When the last commit was made, since 1970.";
    COMMIT_SECONDS = Counter "qbus_bus_commit_seconds_total" "seconds" "Time that commits took.";
    RESTARTS = Counter "qbus_bus_aggregator_restarts_total" ""
        "Times that an aggregator went on with the snapshot.";
    SNAPSHOT = Gauge "qbus_bus_snapshot_bytes" "bytes" "Size of the snapshot file.";
    SOURCE_SECONDS = Gauge "qbus_sampler_source_seconds" "seconds"
        "Time that the last read of a source took.";
    SOURCE_SUCCESS = Gauge "qbus_sampler_source_success" ""
        "1 where the last read of a source succeeded in everything.";
    SOURCE_SAMPLES = Gauge "qbus_sampler_source_samples" "" "Samples of a source in the last tick.";
    SOURCE_FAILURES = Counter "qbus_sampler_source_failures_total" ""
        "Failures of a source since the start.";
    SOURCE_SKIPPED = Gauge "qbus_sampler_source_skipped" ""
        "Things that a source left out on purpose.";
    SOURCE_HANGING = Gauge "qbus_sampler_source_hanging" ""
        "1 while a read of a source does not return.";
}

/// What the bus and its snapshot say of themselves.
pub(crate) fn of_bus(bus: &Bus, reader: &mut Reader, emit: &mut dyn FnMut(Sample<'_>)) {
    let mut page = Page { emit };
    let (counts, geometry, globals) = (bus.counts(), bus.geometry(), reader.globals());
    // Without it the page shows the last one: no loss ever looks undone.
    if let Ok(ledger) = Ledger::read(bus, Some(reader)) {
        page.ledger(&ledger);
    }

    let lanes = bus.lanes();
    let leased = lanes.iter().filter(|lane| lane.holder.is_some()).count();
    let shared = geometry.shared_lanes as usize;
    for (state, number) in [
        ("leased", leased),
        ("shared", shared),
        (
            "free",
            lanes.len() - shared - leased.min(lanes.len() - shared),
        ),
    ] {
        page.sample(&LANES, &[("state", state)], number as f64);
    }
    let fullest = lanes
        .iter()
        .map(|lane: &LaneView| lane.fill)
        .max()
        .unwrap_or(0);
    page.sample(&FILL, &[], fullest as f64 / geometry.slots as f64);

    page.sample(&JOINED, &[], counts.joined as f64);
    page.sample(&REAPED, &[], counts.reaped as f64);
    page.sample(&SERIES, &[], counts.series as f64);
    page.sample(&SERIES_CAPACITY, &[], geometry.series as f64);
    page.sample(
        &REGISTRY,
        &[],
        counts.arena_words as f64 / geometry.arena_words as f64,
    );

    page.sample(&STALE, &[], globals.stale as f64);
    page.sample(&CUT_VALUES, &[], counts.cut_values as f64);
    page.sample(&COMMITS, &[], reader.epoch() as f64);
    page.sample(&COMMITTED, &[], globals.unix_ns as f64 / 1e9);
    page.sample(&COMMIT_SECONDS, &[], globals.commit_ns as f64 / 1e9);
    page.sample(&RESTARTS, &[], globals.restarts as f64);
    page.sample(&SNAPSHOT, &[], reader.size_bytes() as f64);
    page.families(bus, reader);
}

/// How the sampler's sources fared.
pub(crate) fn of_sampler(outcomes: &[Outcome], emit: &mut dyn FnMut(Sample<'_>)) {
    let mut page = Page { emit };
    for outcome in outcomes {
        let labels = [("source", outcome.source)];
        page.sample(&SOURCE_SECONDS, &labels, outcome.took.as_secs_f64());
        page.sample(
            &SOURCE_SUCCESS,
            &labels,
            f64::from(u8::from(outcome.success)),
        );
        page.sample(&SOURCE_SAMPLES, &labels, outcome.samples as f64);
        page.sample(&SOURCE_FAILURES, &labels, outcome.failures as f64);
        page.sample(&SOURCE_SKIPPED, &labels, outcome.skipped as f64);
        page.sample(
            &SOURCE_HANGING,
            &labels,
            f64::from(u8::from(outcome.hanging)),
        );
    }
}

/// Names of the labels whose value stands for all values beyond a limit.
pub(crate) fn overflowing(labels: &[(String, String)]) -> Vec<&str> {
    let overflowing = labels.iter().filter(|(_, value)| value == OVERFLOW);
    overflowing.map(|(name, _)| &**name).collect()
}
