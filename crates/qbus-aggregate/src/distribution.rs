//! A summary's observations: a base-2 exponential histogram with 32 buckets an octave.
//!
//! Schema 5 of Prometheus native histograms and scale 5 of OpenTelemetry exponential histograms:
//! bucket i holds (2^((i−1)/32), 2^(i/32)], so that merging is exact and a quantile, taken at the
//! bucket's geometric middle, is within 2^(1/64) − 1 = 1.09 % of a value that was observed. The
//! bucket is found from the float's bits, without a logarithm.

use std::collections::BTreeMap;

use qbus::exponential::{self, OCTAVE, locate};

use crate::counts::Counts;

/// Schema 5 has 2^5 buckets an octave.
const SCHEMA: i32 = OCTAVE.trailing_zeros() as i32;
/// The coarsest schema that Prometheus knows.
const SCHEMA_MIN: i32 = -4;
/// The most octaves that one distribution keeps, of both signs: 2^128 from smallest to largest.
/// Beyond them an observation counts in the nearest octave of its sign that is kept, or as zero.
pub(crate) const OCTAVES_MAX: usize = 128;

/// The classic buckets of a summary end at these powers of four: from a microsecond to gibibytes.
pub(crate) const CLASSIC_POWERS: std::ops::RangeInclusive<i32> = -10..=16;
/// Where they end.
pub(crate) const CLASSIC_BOUNDS: [f64; 27] = {
    let mut bounds = [0.0; 27];
    let mut at = 0;
    while at < bounds.len() {
        // The exponent of a double lies above its 52 bits of mantissa.
        bounds[at] = f64::from_bits((1023 - 20 + 2 * at as u64) << 52);
        at += 1;
    }
    bounds
};

/// The populated buckets of a [`Distribution`], as Prometheus' native histograms number them: with
/// the schema s, bucket i holds (2^((i−1)/2^s), 2^(i/2^s)]. OpenTelemetry calls the same bucket i −
/// 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exponential {
    /// −4 to 5; OpenTelemetry's scale.
    pub schema: i32,
    /// Observations whose magnitude is below [`f64::MIN_POSITIVE`].
    pub zeros: u64,
    /// Index and count of each bucket of negative observations, by their magnitude, ascending.
    pub negative: Vec<(i32, u64)>,
    /// The same of positive ones.
    pub positive: Vec<(i32, u64)>,
}

impl Exponential {
    /// Puts each two buckets together; false where there is no coarser schema.
    pub(crate) fn coarsen(&mut self) -> bool {
        if self.schema <= SCHEMA_MIN {
            return false;
        }
        for side in [&mut self.negative, &mut self.positive] {
            let buckets = std::mem::take(side).into_iter().collect();
            *side = halved(&buckets).into_iter().collect();
        }
        self.schema -= 1;
        true
    }
}

/// Counts of the 32 buckets of one octave of one sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Octave {
    /// Sign (1 = negative) << 16 | exponent + 2^15.
    pub(crate) key: u64,
    pub(crate) counts: [u64; OCTAVE],
}

impl Octave {
    /// Saturating: a record may say any count.
    #[inline]
    fn add(&mut self, bucket: usize, count: u64) {
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    fn is_negative(&self) -> bool {
        is_negative(self.key)
    }
}

fn is_negative(key: u64) -> bool {
    key >> 16 & 1 == 1
}

/// How often which values were observed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Observations whose magnitude is 0 or subnormal.
    pub(crate) zeros: u64,
    /// In the order in which they were first needed.
    pub(crate) octaves: Vec<Octave>,
    places: Places,
}

/// Where octaves are likely to be found, by the last bits of their keys.
#[derive(Clone, Debug)]
struct Places([u8; 64]);

impl Default for Places {
    fn default() -> Places {
        Places([0; 64])
    }
}

/// They say nothing of what was observed.
impl PartialEq for Places {
    fn eq(&self, _: &Places) -> bool {
        true
    }
}

impl Places {
    #[inline(always)]
    fn of(&mut self, key: u64) -> &mut u8 {
        // The sign's bit falls on the highest of six.
        &mut self.0[(key ^ key >> 11) as usize % 64]
    }
}

const _: () = assert!(OCTAVES_MAX <= u8::MAX as usize);

impl Distribution {
    pub(crate) fn from_parts(zeros: u64, octaves: Vec<Octave>) -> Distribution {
        Distribution {
            zeros,
            octaves,
            places: Places::default(),
        }
    }

    /// Adds `count` observations in the bucket of that index ([`exponential::index`]).
    pub(crate) fn observe_at(&mut self, index: u32, count: u64) {
        self.add_in(exponential::place(index), count);
    }

    /// Adds `count` observations of a value that is not NaN.
    #[inline]
    pub fn observe(&mut self, value: f64, count: u64) {
        self.add_in(locate(value), count);
    }

    #[inline]
    pub(crate) fn add_in(&mut self, at: Option<(u64, usize)>, count: u64) {
        let Some((key, bucket)) = at else {
            self.zeros = self.zeros.saturating_add(count);
            return;
        };
        let place = usize::from(*self.places.of(key));
        match self.octaves.get_mut(place) {
            Some(octave) if octave.key == key => octave.add(bucket, count),
            _ => self.observe_elsewhere(key, bucket, count),
        }
    }

    #[cold]
    fn observe_elsewhere(&mut self, key: u64, bucket: usize, count: u64) {
        let known = self.octaves.iter().position(|octave| octave.key == key);
        let place = match known {
            Some(at) => at,
            None if self.octaves.len() < OCTAVES_MAX => {
                self.octaves.push(Octave {
                    key,
                    counts: [0; OCTAVE],
                });
                self.octaves.len() - 1
            }
            None => return self.observe_nearby(key, count),
        };
        *self.places.of(key) = place as u8;
        self.octaves[place].add(bucket, count);
    }

    /// Counts observations of an octave that is not kept with what lies nearest to them.
    fn observe_nearby(&mut self, key: u64, count: u64) {
        let nearest = self
            .octaves
            .iter_mut()
            .filter(|octave| octave.is_negative() == is_negative(key))
            .min_by_key(|octave| octave.key.abs_diff(key));
        match nearest {
            // Of one sign, the larger key is the larger magnitude.
            Some(octave) if octave.key < key => octave.add(OCTAVE - 1, count),
            Some(octave) => octave.add(0, count),
            // Zero lies between the signs.
            None => self.zeros = self.zeros.saturating_add(count),
        }
    }

    /// Puts the counts of all octaves after the first `octaves` together with the nearest of those.
    pub(crate) fn shrink(&mut self, octaves: usize) {
        for surplus in self.octaves.split_off(octaves.min(self.octaves.len())) {
            let count = surplus.counts.into_iter().fold(0, u64::saturating_add);
            self.observe_nearby(surplus.key, count);
        }
    }

    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.octaves
            .iter()
            .flat_map(|octave| octave.counts)
            .fold(self.zeros, u64::saturating_add)
    }

    /// Adds all observations of another distribution; exact.
    pub fn merge(&mut self, other: &Distribution) {
        self.zeros = self.zeros.saturating_add(other.zeros);
        for octave in &other.octaves {
            for (bucket, &count) in octave
                .counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count != 0)
            {
                self.observe_elsewhere(octave.key, bucket, count);
            }
        }
    }

    /// What is left of each bucket without counts that it had before.
    pub(crate) fn without(&self, before: &Counts) -> Distribution {
        let mut left = self.clone();
        let mut place = 0;
        for (at, count) in before.buckets() {
            let Some((key, bucket)) = at else {
                left.zeros = left.zeros.saturating_sub(count);
                continue;
            };
            // They are by octave.
            if left
                .octaves
                .get(place)
                .is_none_or(|octave| octave.key != key)
            {
                let known = left.octaves.iter().position(|octave| octave.key == key);
                let Some(known) = known else {
                    continue;
                };
                place = known;
            }
            let its = &mut left.octaves[place].counts[bucket];
            *its = its.saturating_sub(count);
        }
        left
    }

    /// Values at ascending quantiles (0 to 1), within 1.1 %, to four digits; NaN when there was no
    /// observation.
    ///
    /// `least` and `most` bound the result: the smallest and the largest observation.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut latencies = qbus_aggregate::Distribution::default();
    /// for millisecond in 1..=1000 {
    ///     latencies.observe(f64::from(millisecond) / 1000.0, 1);
    /// }
    /// let median = latencies.quantiles(&[0.5], 0.001, 1.0)[0];
    /// assert!((median / 0.5 - 1.0).abs() < 0.011);
    /// ```
    pub fn quantiles(&self, quantiles: &[f64], least: f64, most: f64) -> Vec<f64> {
        let total = self.count();
        if total == 0 {
            return vec![f64::NAN; quantiles.len()];
        }
        let mut buckets = self.sorted();
        let mut seen = 0;
        let mut current = f64::NAN;
        let value_at = |quantile: &f64| {
            // The smallest rank that covers the quantile, of at least one observation.
            let rank = ((quantile * total as f64).ceil() as u64).clamp(1, total);
            while seen < rank
                && let Some((middle, count)) = buckets.next()
            {
                (current, seen) = (middle, seen.saturating_add(count));
            }
            rounded(current).max(least).min(most)
        };
        quantiles.iter().map(value_at).collect()
    }

    /// The populated buckets, at most `buckets_max` of both signs together, in the finest schema in
    /// which they are so few (or in the coarsest: 160 always suffice). Exact: two buckets of a
    /// schema are one of the next coarser.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut sizes = qbus_aggregate::Distribution::default();
    /// sizes.observe(0.5, 3);
    /// let buckets = sizes.exponential(160);
    /// assert_eq!((buckets.schema, buckets.positive), (5, vec![(-32, 3)]));
    /// ```
    pub fn exponential(&self, buckets_max: usize) -> Exponential {
        let (mut negative, mut positive) = (BTreeMap::new(), BTreeMap::new());
        for octave in &self.octaves {
            let side = if octave.key >> 16 & 1 == 1 {
                &mut negative
            } else {
                &mut positive
            };
            let first = ((octave.key & 0xffff) as i32 - (1 << 15)) * OCTAVE as i32;
            for (bucket, &count) in (0..).zip(&octave.counts) {
                add_bucket(side, first + bucket, count);
            }
        }
        let mut schema = SCHEMA;
        while negative.len() + positive.len() > buckets_max && schema > SCHEMA_MIN {
            (negative, positive) = (halved(&negative), halved(&positive));
            schema -= 1;
        }
        Exponential {
            schema,
            zeros: self.zeros,
            negative: negative.into_iter().collect(),
            positive: positive.into_iter().collect(),
        }
    }

    /// Middles of the buckets and their counts, ascending.
    fn sorted(&self) -> impl Iterator<Item = (f64, u64)> {
        let of_octave = |octave: &Octave| {
            let counts = octave
                .counts
                .into_iter()
                .enumerate()
                .filter(|(_, count)| *count != 0);
            let key = octave.key;
            counts
                .map(move |(bucket, count)| (middle(key, bucket), count))
                .collect::<Vec<_>>()
        };
        let mut buckets: Vec<(f64, u64)> = self.octaves.iter().flat_map(of_octave).collect();
        if self.zeros != 0 {
            buckets.push((0.0, self.zeros));
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets.into_iter()
    }
}

fn add_bucket(side: &mut BTreeMap<i32, u64>, index: i32, count: u64) {
    if count != 0 {
        let sum = side.entry(index).or_default();
        *sum = sum.saturating_add(count);
    }
}

/// The buckets of the next coarser schema.
fn halved(side: &BTreeMap<i32, u64>) -> BTreeMap<i32, u64> {
    let mut coarser = BTreeMap::new();
    for (&index, &count) in side {
        // Rounded up: a bucket is closed above.
        add_bucket(&mut coarser, (index + 1) >> 1, count);
    }
    coarser
}

/// The geometric middle of a bucket.
fn middle(key: u64, bucket: usize) -> f64 {
    let exponent = (key & 0xffff) as f64 - f64::from(1 << 15);
    // Bucket i reaches from (i−1)/32 to i/32 octaves.
    let power = (exponent + (bucket as f64 - 0.5) / OCTAVE as f64).exp2();
    if is_negative(key) { -power } else { power }
}

/// A number to four significant digits: an estimate that is one percent wrong has no more.
fn rounded(value: f64) -> f64 {
    // Through its text: the nearest double, which prints as short.
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_one_point_one_percent() {
        let mut distribution = Distribution::default();
        let mut values: Vec<f64> = (0..20_000)
            .map(|i| ((i * 7919 % 20_000) as f64 / 500.0 - 20.0).exp())
            .collect();
        for &value in &values {
            distribution.observe(value, 1);
        }
        values.sort_by(f64::total_cmp);
        let wanted = [0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0];
        let found = distribution.quantiles(&wanted, values[0], values[values.len() - 1]);
        for (quantile, found) in wanted.iter().zip(found) {
            let exact = values[((quantile * values.len() as f64).ceil() as usize).max(1) - 1];
            assert!(
                (found / exact - 1.0).abs() < 0.011,
                "{quantile}: {found} for {exact}"
            );
        }
    }

    #[test]
    fn merging_is_the_same_as_observing_all() {
        let (mut left, mut right, mut all) = (
            Distribution::default(),
            Distribution::default(),
            Distribution::default(),
        );
        for i in 0..1000_u32 {
            let value = f64::from(i * 37 % 500) - 250.0;
            if i % 2 == 0 {
                left.observe(value, 1)
            } else {
                right.observe(value, 1)
            }
            all.observe(value, 1);
        }
        left.merge(&right);
        let quantiles = [0.0, 0.1, 0.5, 0.9, 1.0];
        assert_eq!(
            left.quantiles(&quantiles, -250.0, 249.0),
            all.quantiles(&quantiles, -250.0, 249.0)
        );
        assert_eq!(left.count(), 1000);
    }

    #[test]
    fn extremes_stay_bounded() {
        let mut distribution = Distribution::default();
        for exponent in -1022..=1023 {
            let value = f64::from(exponent).exp2();
            distribution.observe(value, 1);
            distribution.observe(-value, 1);
        }
        distribution.observe(0.0, 1);
        distribution.observe(f64::MIN_POSITIVE / 2.0, 1);
        assert_eq!(distribution.octaves.len(), OCTAVES_MAX);
        assert_eq!(distribution.count(), 2 * 2046 + 2);
    }

    /// Which bucket of a schema a value is in, by the definition.
    fn native_index(value: f64, schema: i32) -> i32 {
        (value.abs().log2() * f64::from(schema).exp2()).ceil() as i32
    }

    #[test]
    fn buckets_are_lowered_until_they_are_few_and_stay_exact() {
        let mut distribution = Distribution::default();
        let values: Vec<f64> = (0..4000)
            .map(|i| (f64::from(i) / 100.0 - 20.0).exp())
            .collect();
        for (i, value) in values.iter().enumerate() {
            distribution.observe(if i % 4 == 0 { -value } else { *value }, 1);
        }
        distribution.observe(0.0, 7);
        for most in [160, 20] {
            let found = distribution.exponential(most);
            assert!(
                found.negative.len() + found.positive.len() <= most,
                "{most}: {found:?}"
            );
            assert_eq!(found.zeros, 7);
            let mut exact = BTreeMap::new();
            for (_, value) in values.iter().enumerate().filter(|(i, _)| i % 4 != 0) {
                *exact.entry(native_index(*value, found.schema)).or_insert(0) += 1;
            }
            assert_eq!(found.positive, exact.into_iter().collect::<Vec<_>>());
            let negative: u64 = found.negative.iter().map(|(_, count)| count).sum();
            assert_eq!(negative, 1000);
        }
        // As fine as it can be: one schema more would be too much.
        assert_eq!(distribution.exponential(160).schema, 0);
        assert_eq!(distribution.exponential(usize::MAX).schema, 5);
    }

    #[test]
    fn the_coarsest_schema_is_the_last_word() {
        let mut wide = Distribution::default();
        for exponent in [-1000, -500, 0, 500, 1000] {
            wide.observe(f64::from(exponent).exp2(), 1);
        }
        assert_eq!(wide.exponential(0).schema, SCHEMA_MIN);
        assert_eq!(Distribution::default().exponential(160).positive, []);
    }

    #[test]
    fn what_is_not_kept_counts_on_its_side_of_zero() {
        let mut distribution = Distribution::default();
        for exponent in 0..OCTAVES_MAX as i32 {
            distribution.observe(f64::from(exponent).exp2() * 1.5, 1);
        }
        // No octave of its sign is kept: it is as good as 0, and no large positive value.
        distribution.observe(-7.0, 100);
        assert_eq!(distribution.quantiles(&[0.25], -7.0, 1e40), [0.0]);
        let mut distribution = Distribution::default();
        for exponent in 0..OCTAVES_MAX as i32 {
            distribution.observe(-f64::from(exponent).exp2() * 1.5, 1);
        }
        distribution.observe(-1e300, 1000);
        distribution.observe(1e300, 10_000);
        let [low, high] = distribution.quantiles(&[0.01, 0.9], -1e300, 1e300)[..] else {
            panic!("two quantiles");
        };
        assert!(low < -(127_f64.exp2()), "{low}");
        assert_eq!(high, 0.0);
        // Room for fewer octaves keeps the signs apart as well.
        distribution.observe(-1e-300, 1);
        distribution.shrink(1);
        assert_eq!((distribution.count(), distribution.zeros), (11_129, 10_000));
    }

    #[test]
    fn infinities_are_beyond_all_buckets() {
        let mut distribution = Distribution::default();
        for value in [f64::NEG_INFINITY, 1.0, f64::INFINITY] {
            distribution.observe(value, 1);
        }
        let found = distribution.quantiles(&[0.1, 1.0], f64::NEG_INFINITY, f64::INFINITY);
        assert_eq!(found, [f64::NEG_INFINITY, f64::INFINITY]);
    }

    #[test]
    fn nothing_observed_has_no_quantile() {
        assert!(Distribution::default().quantiles(&[0.5], f64::NAN, f64::NAN)[0].is_nan());
    }
}
