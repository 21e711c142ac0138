//! A bus with many series.

use qbus::{Bus, BusOptions, Geometry, Removal, SeriesId};
use qbus_benches::unused;

/// How many series are measured.
pub const COUNTS: [usize; 3] = [1_000, 10_000, 100_000];

/// Removed when it is dropped.
pub struct ManySeries {
    pub bus: Bus,
    /// Each series, and whether it is a counter.
    pub series: Vec<(SeriesId, bool)>,
}

impl ManySeries {
    /// A bus with so many series: half counters, half gauges, two labels each.
    pub fn create(name: &str, count: usize) -> ManySeries {
        let geometry = Geometry {
            series: (count as u64).max(16_384),
            ..Geometry::default()
        };
        let config = BusOptions {
            geometry: geometry.with_arena(),
            max_series_per_family: 0,
            ..BusOptions::default()
        };
        let bus = Bus::create(&unused(name), &config).expect("room in /dev/shm");
        let failed = "the bus is made for as many";
        let register = |at: usize| {
            let is_counter = at.is_multiple_of(2);
            let series = if is_counter {
                let counter = bus.counter("bench_requests_total").help("Requests.");
                counter
                    .labels(Self::labels(at))
                    .register()
                    .expect(failed)
                    .series()
            } else {
                let gauge = bus.gauge("bench_level").help("A level.");
                gauge
                    .labels(Self::labels(at))
                    .register()
                    .expect(failed)
                    .series()
            };
            (series, is_counter)
        };
        let series = (0..count).map(register).collect();
        ManySeries { bus, series }
    }

    pub fn labels(at: usize) -> [(&'static str, String); 2] {
        [
            ("service", "inference".to_owned()),
            ("instance", format!("worker-{}", at / 2)),
        ]
    }
}

impl Drop for ManySeries {
    fn drop(&mut self) {
        let _ = Bus::remove(self.bus.address(), Removal::Forced);
    }
}
