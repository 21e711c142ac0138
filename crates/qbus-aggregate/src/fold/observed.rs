//! What an observation does to a histogram or a summary.

use qbus::{CellChange, bucket_of};

use crate::snapshot::row::{Body, Observed};
use crate::sum::Sum;

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
                if let Some(bucket) = counts.get_mut(bucket_of(bounds, value)) {
                    *bucket = bucket.saturating_add(count);
                }
            }
            Body::Distribution(distribution) => distribution.observe(value, count),
        }
    }

    /// Adds what came to a writer's cells; false for what no cell of such a series says.
    pub(super) fn add_change(&mut self, change: CellChange) -> bool {
        match (change, &mut self.body) {
            (CellChange::Sum(sum, residue), _) => self.sum.add_sum(Sum::from_parts(sum, residue)),
            (CellChange::Residue(residue), _) => self.sum.add(residue),
            // `min` and `max` of NaN and a number are the number.
            (CellChange::Min(value), _) => self.min = value.min(self.min),
            (CellChange::Max(value), _) => self.max = value.max(self.max),
            (CellChange::Last(_), _) => {}
            (CellChange::Bucket(index, count), Body::Buckets(counts)) => {
                let Some(bucket) = counts.get_mut(index as usize) else {
                    return false;
                };
                *bucket = bucket.saturating_add(count);
                self.count = self.count.saturating_add(count);
            }
            (CellChange::Sparse(index, count), Body::Distribution(distribution)) => {
                distribution.observe_at(index, count);
                self.count = self.count.saturating_add(count);
            }
            _ => return false,
        }
        true
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
