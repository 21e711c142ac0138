//! What became of the requests, as metrics on the bus itself.

use std::sync::Arc;

use qbus::{Bus, Clock};

use super::queue::{Counts, Queue};
use crate::by_name::{Emitter, Metric};

/// Emits how queues fare.
#[derive(Debug)]
pub(super) struct Metrics {
    emitter: Emitter,
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    shown: String,
    queue: Arc<Queue>,
    emitted: Counts,
}

const SAMPLES: &str = "qbus_push_samples_total";
const SAMPLES_HELP: &str = "Samples sent on, by what became of them.";

impl Metrics {
    pub(super) fn new(bus: &Bus, queues: Vec<(String, Arc<Queue>)>) -> Metrics {
        let route = |(shown, queue)| Route {
            shown,
            queue,
            emitted: Counts::default(),
        };
        Metrics {
            emitter: Emitter::new(bus),
            routes: queues.into_iter().map(route).collect(),
        }
    }

    pub(super) fn emit(&mut self) {
        for route in &mut self.routes {
            let counts = route.queue.counts();
            let before = std::mem::replace(&mut route.emitted, counts);
            let increments = [
                ("sent", counts.sent - before.sent),
                ("failed", counts.failed - before.failed),
                ("rejected", counts.rejected - before.rejected),
                ("dropped", counts.dropped - before.dropped),
            ];
            let destination = ("destination", route.shown.as_str());
            for (outcome, increment) in increments {
                let labels = [destination, ("outcome", outcome)];
                let metric = Metric::counter(SAMPLES, increment as f64);
                emit(&self.emitter, metric, SAMPLES_HELP, &labels);
            }
            let retries = (counts.retries - before.retries) as f64;
            let retries = Metric::counter("qbus_push_retries_total", retries);
            emit(
                &self.emitter,
                retries,
                "Attempts that were not the first.",
                &[destination],
            );
            let now_ms = Clock::Precise.now_ns() / 1_000_000;
            let lag_ms = counts
                .oldest_ms
                .map_or(0, |oldest| now_ms.saturating_sub(oldest));
            let levels = [
                (
                    "qbus_push_queue_requests",
                    "Requests that wait.",
                    "",
                    counts.waiting as f64,
                ),
                (
                    "qbus_push_queue_bytes",
                    "Bytes of the requests that wait.",
                    "bytes",
                    counts.waiting_bytes as f64,
                ),
                (
                    "qbus_push_lag_seconds",
                    "Age of the oldest request that waits.",
                    "seconds",
                    lag_ms as f64 / 1e3,
                ),
            ];
            for (name, help, unit, value) in levels {
                let metric = Metric {
                    unit,
                    ..Metric::gauge(name, value)
                };
                emit(&self.emitter, metric, help, &[destination]);
            }
        }
    }
}

fn emit(emitter: &Emitter, metric: Metric<'_>, description: &str, labels: &[(&str, &str)]) {
    // What is refused is in the ledger; the requests themselves go on.
    let _ = emitter.emit(&Metric {
        labels,
        description,
        ..metric
    });
}
