//! What an observation does to a histogram or a summary.

use crate::snapshot::row::{Body, Observed};

/// With no more bounds than this, comparing with all of them beats a search, each step of which
/// waits for the one before.
const FEW_BOUNDS: usize = 64;

impl Observed {
    /// Adds `count` observations of a value that is not NaN. The bounds are a histogram's.
    #[inline(always)]
    pub(super) fn add(&mut self, bounds: &[f64], value: f64, count: u64) {
        // Saturating: a record may say any count.
        self.count = self.count.saturating_add(count);
        self.sum.add_times(value, count);
        // Branches, which are foreseen: else each record would wait for the one before.
        if value < self.min || self.min.is_nan() {
            self.min = value;
        }
        if value > self.max || self.max.is_nan() {
            self.max = value;
        }
        match &mut self.body {
            Body::Buckets(counts) => {
                if let Some(bucket) = counts.get_mut(bucket(bounds, value)) {
                    *bucket = bucket.saturating_add(count);
                }
            }
            Body::Distribution(distribution) => distribution.observe(value, count),
        }
    }
}

/// The first bucket whose bound is not below `value`; behind the last there is `+Inf`.
#[inline(always)]
fn bucket(bounds: &[f64], value: f64) -> usize {
    if bounds.len() > FEW_BOUNDS {
        bounds.partition_point(|bound| *bound < value)
    } else {
        bounds.iter().filter(|bound| **bound < value).count()
    }
}

#[cfg(test)]
mod tests {
    use qbus::MetricType;

    use super::*;

    #[test]
    fn a_value_goes_to_the_first_bucket_that_is_not_below_it() {
        let values = [-1.0, 0.0, 0.5, 1.0, 7.0, 10.5, 63.0, 63.5, 64.0, 199.0, 1e9];
        let extremes = [f64::NEG_INFINITY, f64::INFINITY];
        for len in [0, 1, 7, 8, 11, 64, 65, 200] {
            let bounds: Vec<f64> = (0..len).map(f64::from).collect();
            for value in values.into_iter().chain(extremes) {
                let mut observed = Observed::new(MetricType::Histogram, bounds.len()).unwrap();
                observed.add(&bounds, value, 1);
                let Body::Buckets(counts) = observed.body else {
                    panic!("a histogram");
                };
                let expected = bounds.partition_point(|bound| *bound < value);
                assert_eq!(counts.len(), bounds.len() + 1);
                assert_eq!(counts[expected], 1, "{value} among {len}");
                assert_eq!(observed.sum, value);
            }
        }
    }
}
