//! Buckets of a base-2 exponential histogram: 32 an octave.
//!
//! Schema 5 of Prometheus native histograms and scale 5 of OpenTelemetry exponential histograms:
//! bucket i holds (2^((i−1)/32), 2^(i/32)]. It is found from the float's bits, without a logarithm.

/// Buckets of an octave.
pub const OCTAVE: usize = 32;
/// The mantissa bits of 2^(k/32) for k = 0 … 31: bucket k of an octave begins above.
const BOUNDS: [u64; OCTAVE] = bounds();
/// For each 1/128 of an octave, how many bounds lie at or below its start, less those at it: one
/// comparison finds the bucket, since bounds are more than 1/128 apart.
const CELLS: [u8; 128] = cells();
const MANTISSA_BITS: u32 = 52;
const MANTISSA: u64 = (1 << MANTISSA_BITS) - 1;

/// 2^(k/32) by repeated square roots and products, since a constant cannot call `powf`.
const fn bounds() -> [u64; OCTAVE] {
    // 2^(1/32), 2^(1/16), …, 2^(1/2), correctly rounded.
    const ROOTS: [f64; 5] = [
        1.021_897_148_654_116_7,
        1.044_273_782_427_413_8,
        1.090_507_732_665_257_7,
        1.189_207_115_002_721,
        std::f64::consts::SQRT_2,
    ];
    let mut bounds = [0; OCTAVE];
    let mut k = 0;
    while k < OCTAVE {
        let mut power = 1.0;
        let mut bit = 0;
        while bit < ROOTS.len() {
            if k >> bit & 1 == 1 {
                power *= ROOTS[bit];
            }
            bit += 1;
        }
        bounds[k] = power.to_bits() & MANTISSA;
        k += 1;
    }
    bounds
}

const fn cells() -> [u8; 128] {
    let mut cells = [0; 128];
    let mut cell = 0;
    while cell < 128 {
        let start = (cell as u64) << (MANTISSA_BITS - 7);
        let mut below = 0;
        while below < OCTAVE && BOUNDS[below] < start {
            below += 1;
        }
        cells[cell] = below as u8;
        cell += 1;
    }
    cells
}

/// The octave of a value that is not NaN, sign (1 = negative) << 16 | exponent + 2^15, and the
/// bucket in it; `None` for 0 and what is as good as 0.
#[inline]
pub fn locate(value: f64) -> Option<(u64, usize)> {
    let bits = value.to_bits();
    let exponent = (bits >> MANTISSA_BITS) & 0x7ff;
    if exponent == 0 {
        return None;
    }
    if exponent == 0x7ff {
        // An infinity: the bucket above that of the largest double, whose middle is infinite too.
        return Some(((bits >> 63) << 16 | ((1 << 15) + 1024), 1));
    }
    let mantissa = bits & MANTISSA;
    let cell = usize::from(CELLS[(mantissa >> (MANTISSA_BITS - 7)) as usize]);
    // `cell` bounds lie below the cell; the next one may lie in it, below the mantissa.
    let bucket = cell + usize::from(cell < OCTAVE && BOUNDS[cell] < mantissa);
    let sign = bits >> 63;
    // Bucket 32 of an octave is bucket 0 of the next: a power of two closes the bucket below it.
    let octave = exponent + (1 << 15) - 1023 + (bucket / OCTAVE) as u64;
    Some((sign << 16 | octave, bucket % OCTAVE))
}

/// The lowest exponent of an octave, less 2: indexes of buckets that are not zero's begin above 0.
const EXPONENT_BASE: u64 = (1 << 15) - 1024;
const OCTAVE_BITS: u32 = OCTAVE.trailing_zeros();
const SIGN: u32 = 1 << 17;

/// A number below 2^18 for the bucket of a value that is not NaN; 0 is the bucket of 0.
///
/// ```
/// use qbus::exponential::{index, locate, place};
/// assert_eq!(index(0.0), 0);
/// assert_eq!(place(index(-3.7e-9)), locate(-3.7e-9));
/// ```
pub fn index(value: f64) -> u32 {
    let Some((key, bucket)) = locate(value) else {
        return 0;
    };
    let sign = if key >> 16 == 0 { 0 } else { SIGN };
    // At most 2^11 + 1 octaves, of 2^12.
    let octave = ((key & 0xffff) - EXPONENT_BASE) as u32;
    sign | octave << OCTAVE_BITS | bucket as u32
}

/// The octave and the bucket of such a number, as [`locate`] gives them; `None` for the bucket of
/// 0, and for what is no such number.
pub fn place(index: u32) -> Option<(u64, usize)> {
    let octave = u64::from(index % SIGN) >> OCTAVE_BITS;
    let is_number = index < 2 * SIGN && (1..=2050).contains(&octave);
    let sign = u64::from(index / SIGN);
    let key = sign << 16 | (octave + EXPONENT_BASE);
    is_number.then_some((key, index as usize % OCTAVE))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The bucket by the definition, with a logarithm.
    fn index_by_logarithm(value: f64) -> i64 {
        (value.log2() * 32.0).ceil() as i64
    }

    #[test]
    fn bits_and_logarithm_agree() {
        let mut value = 1.1e-9;
        while value < 1e9 {
            let (key, bucket) = locate(value).unwrap();
            let index = (key as i64 - (1 << 15)) * 32 + bucket as i64;
            assert_eq!(index, index_by_logarithm(value), "{value}");
            value *= 1.000_37;
        }
    }

    #[test]
    fn bounds_are_the_roots_of_two() {
        for (k, bound) in BOUNDS.iter().enumerate() {
            let exact = (k as f64 / 32.0).exp2();
            let ours = f64::from_bits(1023 << MANTISSA_BITS | bound);
            assert!((ours / exact - 1.0).abs() < 1e-15, "{k}: {ours} {exact}");
        }
    }

    #[test]
    fn a_power_of_two_closes_its_bucket() {
        for exponent in -20..20 {
            let power = f64::from(exponent).exp2();
            let (key, bucket) = locate(power).unwrap();
            assert_eq!((key as i64 - (1 << 15), bucket), (i64::from(exponent), 0));
        }
    }

    #[test]
    fn an_index_says_the_bucket() {
        let large = [
            0.0,
            1.0,
            1.5,
            2.0,
            1e-300,
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::INFINITY,
        ];
        for value in large.into_iter().flat_map(|value| [value, -value]) {
            assert!(index(value) < 1 << 18, "{value}");
            assert_eq!(place(index(value)), locate(value), "{value}");
        }
        assert_eq!(place(u32::MAX), None);
        assert_ne!(index(1.0), index(1.01));
        assert_ne!(index(1.0), index(-1.0));
    }
}
