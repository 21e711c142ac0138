//! Sums that lose nothing that a person could see.

use std::fmt;

/// From here on not every integer is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Both halves of a smaller sum of integers are integers that an `i128` holds.
const INTEGRAL_MAX: f64 = 8.0e31;

/// A sum as two doubles: the nearest double to it, and what is missing.
///
/// Integers are added exactly up to 2^105, also where a single double would no longer count by one
/// (from 2^53), and fractions with an error that stays far below the last digit of a double: a
/// thousand million times 0.1 is 100000000. A sum to which only positive numbers are added never
/// falls. Once it is infinite or NaN it has no second half.
///
/// # Examples
///
/// ```
/// use qbus_aggregate::Sum;
/// let mut sum = Sum::from(9_007_199_254_740_992.0);
/// sum.add(1.0);
/// sum.add(1.0);
/// sum.add(1.0);
/// assert_eq!(sum.to_string(), "9007199254740995");
/// assert_eq!(sum.value(), 9_007_199_254_740_996.0); // The nearest double.
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    /// No sum yet.
    pub const ZERO: Sum = Sum {
        high: 0.0,
        low: 0.0,
    };

    /// The sum of two doubles, neither of which is rounded: how a row states a sum, and a delta
    /// that was itself compensated.
    pub fn from_parts(high: f64, low: f64) -> Sum {
        let mut sum = Sum::from(high);
        sum.add(low);
        sum.settled()
    }

    /// The nearest double to the sum, and what it lacks.
    pub fn parts(self) -> [f64; 2] {
        let Sum { high, low } = self.settled();
        [high, low]
    }

    /// The nearest double to the sum.
    #[inline]
    pub fn value(self) -> f64 {
        self.high + self.low
    }

    /// Adds a number.
    #[inline(always)]
    pub fn add(&mut self, value: f64) {
        // TwoSum (Knuth): `sum + lost` is exactly `high + value`, whichever is larger.
        let sum = self.high + value;
        let part = sum - self.high;
        let lost = (self.high - (sum - part)) + (value - part);
        self.high = sum;
        self.low += lost;
        if self.low.is_nan() {
            // `lost` of an infinity is NaN.
            self.low = 0.0;
        }
    }

    /// Adds `value × count`, exactly.
    #[inline(always)]
    pub fn add_times(&mut self, value: f64, count: u64) {
        // Nearly all records are one observation.
        if count == 1 {
            self.add(value);
        } else {
            self.add_product(value, count);
        }
    }

    #[cold]
    fn add_product(&mut self, value: f64, count: u64) {
        let halves = [
            (count >> 32) as f64 * 4_294_967_296.0,
            (count & 0xffff_ffff) as f64,
        ];
        for factor in halves {
            let product = value * factor;
            self.add(product);
            if product.is_finite() {
                // What the product lost, exactly.
                self.add(value.mul_add(factor, -product));
            }
        }
    }

    /// Adds an integer, exactly.
    pub fn add_integral(&mut self, count: u64) {
        self.add_times(1.0, count);
    }

    /// Adds another sum.
    pub fn add_sum(&mut self, other: Sum) {
        self.add(other.high);
        self.add(other.low);
    }

    /// The sum as an integer, if it is one that an `i128` holds.
    pub fn integral(self) -> Option<i128> {
        let [high, low] = self.parts();
        let is_integral = |part: f64| part.fract() == 0.0 && part.abs() <= INTEGRAL_MAX;
        (is_integral(high) && is_integral(low)).then(|| high as i128 + low as i128)
    }

    /// The sum as an integer where a double has too few digits for it: what is to be written out in
    /// full. `None` where the nearest double says as much.
    pub fn beyond_double(self) -> Option<i128> {
        if self.high.abs() < EXACT {
            return None;
        }
        self.integral()
    }

    /// The same sum with its parts in order: the first is the nearest double.
    fn settled(self) -> Sum {
        let high = self.high + self.low;
        let part = high - self.high;
        let low = (self.high - (high - part)) + (self.low - part);
        Sum {
            high,
            // NaN or infinite where `high` is, or where halves that somebody made up overflow.
            low: if low.is_finite() { low } else { 0.0 },
        }
    }
}

impl From<f64> for Sum {
    fn from(value: f64) -> Sum {
        Sum {
            high: value,
            low: 0.0,
        }
    }
}

/// As many digits as the sum has: all of an integer's, and else those of the nearest double.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.beyond_double() {
            Some(integer) => integer.fmt(f),
            None => self.value().fmt(f),
        }
    }
}

/// Equal sums are the same number.
impl PartialEq for Sum {
    fn eq(&self, other: &Sum) -> bool {
        self.parts() == other.parts()
    }
}

/// A sum equals the double that it is, to the last bit.
impl PartialEq<f64> for Sum {
    fn eq(&self, other: &f64) -> bool {
        *self == Sum::from(*other)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_exact_far_beyond_two_to_the_53() {
        let mut sum = Sum::ZERO;
        let mut exact: u128 = 0;
        for step in 0..100_000_u64 {
            let count = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sum.add_integral(count);
            sum.add(1.0);
            exact += u128::from(count) + 1;
        }
        assert_eq!(sum.integral(), Some(exact as i128));
        assert_eq!(sum.to_string(), exact.to_string());
        assert!(exact > 1 << 70);
    }

    #[test]
    fn fractions_are_right_to_the_last_digit() {
        let (mut sum, mut naive) = (Sum::ZERO, 0.0);
        for _ in 0..10_000_000 {
            sum.add(0.1);
            naive += 0.1;
        }
        assert_ne!(naive, 1_000_000.0);
        assert_eq!(sum.value(), 1_000_000.0);
        // As one record for all of them.
        let mut sum = Sum::ZERO;
        sum.add_times(0.1, 1_000_000_000);
        assert_eq!(sum.value(), 100_000_000.0);
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let mut sum = Sum::from(1.0);
        sum.add(f64::INFINITY);
        sum.add(5.0);
        assert_eq!(sum.parts(), [f64::INFINITY, 0.0]);
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add_times(f64::NEG_INFINITY, 3);
        assert!(sum.value().is_nan());
        let mut sum = Sum::from(f64::MAX);
        sum.add(f64::MAX);
        assert_eq!(sum.value(), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn a_sum_of_positive_numbers_never_falls(
            values in prop::collection::vec((0.0..1e3f64, -60..60_i32), 1..200),
            settle_every in 1..20_usize,
        ) {
            let (mut sum, mut last) = (Sum::ZERO, 0.0);
            for (index, (mantissa, exponent)) in values.into_iter().enumerate() {
                sum.add(mantissa * f64::from(exponent).exp2());
                if index % settle_every == 0 {
                    let [high, low] = sum.parts();
                    sum = Sum::from_parts(high, low);
                    prop_assert_eq!(sum.value(), high);
                }
                prop_assert!(sum.value() >= last);
                last = sum.value();
            }
        }

        #[test]
        fn any_parts_are_a_sum(high in any::<u64>(), low in any::<u64>()) {
            let sum = Sum::from_parts(f64::from_bits(high), f64::from_bits(low));
            let [high, low] = sum.parts();
            prop_assert!(low.is_finite());
            let again = Sum::from_parts(high, low).parts();
            prop_assert_eq!(again.map(f64::to_bits), [high, low].map(f64::to_bits));
            let _ = (sum.to_string(), sum.value());
        }

        #[test]
        fn parts_survive(values in prop::collection::vec(any::<f64>(), 1..20)) {
            let mut sum = Sum::ZERO;
            values.into_iter().filter(|value| value.abs() < 1e300).for_each(|value| sum.add(value));
            let [high, low] = sum.parts();
            prop_assert_eq!(Sum::from_parts(high, low), sum);
        }
    }
}
