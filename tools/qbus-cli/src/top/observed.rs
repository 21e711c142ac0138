//! Recent observations: the buckets of histograms and summaries, and quantiles from them.

use qbus_aggregate::{Distribution, Family, Value};

/// How much of what was observed a tick ago still counts: after ten ticks a third.
const KEPT_PART: f64 = 0.9;
/// What was observed longer ago says nothing of now.
const TICKS_MAX: u64 = 30;
/// Buckets of a summary are numbered from here, those of negative observations below.
const MIDDLE: i64 = 1 << 20;
/// Buckets of a summary in an octave.
const OCTAVE: f64 = 32.0;

/// Number and count of each bucket that is not empty, ascending.
pub(crate) type Buckets<C> = Vec<(i64, C)>;

/// The buckets of a value; none of a counter or a gauge.
pub(crate) fn buckets(value: &Value) -> Buckets<u64> {
    match value {
        Value::Counter(_) | Value::Gauge(_) => Vec::new(),
        Value::Histogram(value) => {
            let mut below = 0;
            let counts = (0..).zip(&value.cumulative).map(|(place, &cumulative)| {
                let count = cumulative.saturating_sub(below);
                below = cumulative;
                (place, count)
            });
            counts.filter(|(_, count)| *count > 0).collect()
        }
        Value::Summary(value) => of_distribution(&value.distribution),
    }
}

fn of_distribution(distribution: &Distribution) -> Buckets<u64> {
    let found = distribution.exponential(usize::MAX);
    let negative = found.negative.iter().rev();
    let mut buckets: Buckets<u64> = negative
        .map(|(index, count)| (-MIDDLE - i64::from(*index), *count))
        .collect();
    if found.zeros > 0 {
        buckets.push((0, found.zeros));
    }
    let positive = found.positive.iter();
    buckets.extend(positive.map(|(index, count)| (MIDDLE + i64::from(*index), *count)));
    buckets
}

/// The upper end of a bucket.
pub(crate) fn upper(family: &Family, bucket: i64) -> f64 {
    let bounds = &family.buckets;
    if is_counted_by_bounds(family) {
        let place = usize::try_from(bucket).unwrap_or(usize::MAX);
        return bounds.get(place).copied().unwrap_or(f64::INFINITY);
    }
    match bucket {
        0 => 0.0,
        1.. => ((bucket - MIDDLE) as f64 / OCTAVE).exp2(),
        // Its magnitudes end below at this.
        _ => -((-bucket - MIDDLE - 1) as f64 / OCTAVE).exp2(),
    }
}

fn lower(family: &Family, bucket: i64) -> f64 {
    let end = upper(family, bucket);
    if is_counted_by_bounds(family) {
        return if bucket > 0 {
            upper(family, bucket - 1)
        } else {
            end.min(0.0)
        };
    }
    match bucket {
        0 => 0.0,
        1.. => upper(family, bucket - 1),
        _ => -((-bucket - MIDDLE) as f64 / OCTAVE).exp2(),
    }
}

fn is_counted_by_bounds(family: &Family) -> bool {
    family.metric_type == qbus::MetricType::Histogram
}

/// What one has more than another, which came before it.
pub(crate) fn more(before: &Buckets<u64>, after: &Buckets<u64>) -> Buckets<u64> {
    let mut known = before.iter().peekable();
    let grown = after.iter().filter_map(|&(bucket, count)| {
        while known.next_if(|(other, _)| *other < bucket).is_some() {}
        let was = known
            .next_if(|(other, _)| *other == bucket)
            .map_or(0, |(_, count)| *count);
        (count > was).then(|| (bucket, count - was))
    });
    grown.collect()
}

/// The observations of the last ticks, the more recent the heavier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sliding {
    counts: Buckets<f64>,
    /// The tick of the last one.
    last: u64,
}

impl Sliding {
    pub(crate) fn add(&mut self, tick: u64, observed: &Buckets<u64>) {
        let age = tick.saturating_sub(self.last);
        self.last = tick;
        let part = KEPT_PART.powf(age as f64);
        let mut merged = Vec::with_capacity(self.counts.len().max(observed.len()));
        let mut old = self
            .counts
            .iter()
            .map(|(bucket, count)| (*bucket, count * part))
            .peekable();
        for &(bucket, count) in observed {
            while let Some(one) = old.next_if(|(other, _)| *other < bucket) {
                merged.push(one);
            }
            let was = old
                .next_if(|(other, _)| *other == bucket)
                .map_or(0.0, |one| one.1);
            merged.push((bucket, was + count as f64));
        }
        merged.extend(old);
        // What counts less than a thousandth of one observation is over.
        merged.retain(|(_, count)| *count >= 1e-3);
        self.counts = merged;
    }

    /// The value below which that part of them lies; NaN where there were no recent ones.
    pub(crate) fn quantile(&self, family: &Family, part: f64, now: u64) -> f64 {
        if now.saturating_sub(self.last) > TICKS_MAX {
            return f64::NAN;
        }
        quantile(family, &self.counts, part)
    }
}

/// The value below which that part of the observations lies, interpolated in its bucket.
pub(crate) fn quantile(family: &Family, counts: &Buckets<f64>, part: f64) -> f64 {
    let total: f64 = counts.iter().map(|(_, count)| count).sum();
    let mut seen = 0.0;
    for &(bucket, count) in counts {
        if seen + count >= part * total && count > 0.0 {
            let (low, high) = (lower(family, bucket), upper(family, bucket));
            // What lies above the last bound is at least that bound; more is not known.
            if high.is_infinite() {
                return low;
            }
            return low + (high - low) * ((part * total - seen) / count).clamp(0.0, 1.0);
        }
        seen += count;
    }
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;
    use qbus::MetricType;
    use qbus_aggregate::{Sum, SummaryValue};

    fn family(metric_type: MetricType, buckets: &[f64]) -> Family {
        Family {
            buckets: buckets.to_vec(),
            ..Family::new("x", metric_type)
        }
    }

    #[test]
    fn a_quantile_is_that_of_the_last_ticks() {
        let family = family(MetricType::Histogram, &[1.0, 2.0, 4.0]);
        let mut window = Sliding::default();
        window.add(1, &vec![(0, 100)]);
        assert_eq!(window.quantile(&family, 0.5, 1), 0.5);
        // A hundred ticks later nothing is left of it.
        window.add(101, &vec![(1, 1), (2, 1)]);
        assert!((window.quantile(&family, 0.5, 101) - 2.0).abs() < 0.01);
        assert!((window.quantile(&family, 0.99, 101) - 3.96).abs() < 0.01);
        assert!(window.quantile(&family, 0.5, 200).is_nan());
        window.add(200, &vec![(3, 5)]);
        assert_eq!(window.quantile(&family, 0.5, 200), 4.0);
    }

    #[test]
    fn a_summary_has_negative_buckets_as_well() {
        let mut distribution = Distribution::default();
        for (value, count) in [(-4.0, 1), (-1.0, 1), (0.0, 1), (1.0, 2), (1024.0, 1)] {
            distribution.observe(value, count);
        }
        let value = |distribution: Distribution| {
            Value::Summary(SummaryValue {
                last: 0.0,
                count: distribution.count(),
                sum: Sum::default(),
                min: -4.0,
                max: 1024.0,
                quantiles: Vec::new(),
                distribution,
            })
        };
        let before = buckets(&value(distribution.clone()));
        assert!(before.is_sorted());
        assert_eq!(before.iter().map(|(_, count)| count).sum::<u64>(), 6);
        let family = family(MetricType::Summary, &[]);
        let uppers: Vec<f64> = before
            .iter()
            .map(|(bucket, _)| upper(&family, *bucket))
            .collect();
        let near = |a: f64, b: f64| (a - b).abs() <= 0.03 * b.abs();
        assert!(
            uppers
                .iter()
                .zip([-4.0, -1.0, 0.0, 1.0, 1024.0])
                .all(|(a, b)| near(*a, b)),
            "{uppers:?}"
        );
        distribution.observe(7.0, 3);
        let grown = more(&before, &buckets(&value(distribution)));
        assert_eq!(grown.len(), 1);
        assert!(near(upper(&family, grown[0].0), 7.0) && grown[0].1 == 3);
    }
}
