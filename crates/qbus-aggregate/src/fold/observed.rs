//! What an observation does to a histogram or a summary.

use qbus::{CellChange, bucket_of};

use crate::snapshot::row::Observed;
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
        if let Some(counts) = &mut self.buckets
            && let Some(bucket) = counts.get_mut(bucket_of(bounds, value))
        {
            *bucket = bucket.saturating_add(count);
        }
        if let Some(distribution) = &mut self.distribution {
            distribution.observe(value, count);
        }
    }

    /// Adds what came to a writer's cells; false for what no cell of such a series says. The bounds
    /// are a histogram's.
    pub(super) fn add_change(&mut self, bounds: &[f64], change: CellChange) -> bool {
        match change {
            CellChange::Sum(sum, residue) => self.sum.add_sum(Sum::from_parts(sum, residue)),
            CellChange::Residue(residue) => self.sum.add(residue),
            // `min` and `max` of NaN and a number are the number.
            CellChange::Min(value) => self.min = value.min(self.min),
            CellChange::Max(value) => self.max = value.max(self.max),
            CellChange::Last(_) => {}
            CellChange::Bucket(index, count) => {
                let index = index as usize;
                let counts = self.buckets.as_mut();
                let Some(bucket) = counts.and_then(|counts| counts.get_mut(index)) else {
                    return false;
                };
                *bucket = bucket.saturating_add(count);
                self.count = self.count.saturating_add(count);
                if let Some(distribution) = &mut self.distribution {
                    distribution.observe(middle(bounds, index), count);
                }
            }
            CellChange::Sparse(index, count) => {
                let distribution = self.distribution.as_mut();
                let Some(distribution) = distribution.filter(|_| self.buckets.is_none()) else {
                    return false;
                };
                distribution.observe_at(index, count);
                self.count = self.count.saturating_add(count);
            }
            _ => return false,
        }
        true
    }
}

/// The value that is assumed for all observations of a bucket: the geometric middle where the
/// bucket has one, else the end that it has.
fn middle(bounds: &[f64], bucket: usize) -> f64 {
    let low = bucket.checked_sub(1).and_then(|at| bounds.get(at)).copied();
    match (low, bounds.get(bucket).copied()) {
        (Some(low), Some(high)) if low > 0.0 => (low * high).sqrt(),
        (Some(low), Some(high)) if high < 0.0 => -(low * high).sqrt(),
        (Some(low), None) => low,
        (_, high) => high.unwrap_or(0.0),
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
                let mut observed =
                    Observed::new(MetricType::Histogram, bounds.len(), false).unwrap();
                observed.add(&bounds, value, 1);
                let counts = observed.buckets.expect("a histogram");
                let expected = bounds.partition_point(|bound| *bound < value);
                assert_eq!(counts.len(), bounds.len() + 1);
                assert_eq!(counts[expected], 1, "{value} among {len}");
                assert_eq!(observed.sum, value);
            }
        }
    }
}
