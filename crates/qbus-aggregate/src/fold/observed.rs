//! What a histogram or a summary has observed.

use crate::distribution::{Distribution, OCTAVE, Octave};
use crate::fold::series::{OBSERVED_LEN, PLAIN_LEN};

pub(super) const OCTAVE_WORDS: usize = 1 + OCTAVE;
/// With no more bounds than this, comparing with all of them beats a search, each step of which waits
/// for the one before.
const FEW_BOUNDS: usize = 64;

#[derive(Debug)]
pub(super) struct Observed {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Buckets { bounds: Vec<f64>, counts: Vec<u64> },
    Distribution(Distribution),
}

impl Observed {
    /// A histogram's, with these upper bounds.
    pub(super) fn in_buckets(bounds: Vec<f64>) -> Observed {
        let counts = vec![0; bounds.len() + 1];
        Observed::new(Body::Buckets { bounds, counts })
    }

    /// A summary's.
    pub(super) fn in_distribution() -> Observed {
        Observed::new(Body::Distribution(Distribution::default()))
    }

    fn new(body: Body) -> Observed {
        Observed {
            count: 0,
            sum: 0.0,
            min: f64::NAN,
            max: f64::NAN,
            body,
        }
    }

    /// What a version of the row of the same series has.
    pub(super) fn restore(&self, version: &[u64]) -> Option<Observed> {
        let &[count, sum, min, max] = version.get(PLAIN_LEN..OBSERVED_LEN)? else {
            return None;
        };
        let rest = version.get(OBSERVED_LEN..)?;
        let body = match &self.body {
            Body::Buckets { bounds, counts } => Body::Buckets {
                bounds: bounds.clone(),
                counts: rest.get(..counts.len())?.to_vec(),
            },
            Body::Distribution(_) => Body::Distribution(decode_distribution(rest)?),
        };
        Some(Observed {
            count,
            sum: f64::from_bits(sum),
            min: f64::from_bits(min),
            max: f64::from_bits(max),
            body,
        })
    }

    #[inline(always)]
    pub(super) fn add(&mut self, value: f64, count: u64) {
        // Saturating: a record may say any count.
        self.count = self.count.saturating_add(count);
        self.sum += times(value, count);
        // Branches, which are foreseen: else each record would wait for the one before.
        if value < self.min || self.min.is_nan() {
            self.min = value;
        }
        if value > self.max || self.max.is_nan() {
            self.max = value;
        }
        match &mut self.body {
            Body::Buckets { bounds, counts } => {
                let bucket = &mut counts[bucket(bounds, value)];
                *bucket = bucket.saturating_add(count);
            }
            Body::Distribution(distribution) => distribution.observe(value, count),
        }
    }

    /// Words of a version behind the plain ones.
    pub(super) fn body_len(&self) -> usize {
        match &self.body {
            Body::Buckets { counts, .. } => counts.len(),
            Body::Distribution(distribution) => {
                2 + distribution.octaves.len().max(1) * OCTAVE_WORDS
            }
        }
    }

    /// Puts the octaves for which `room` words do not suffice together with those for which they do.
    #[cold]
    pub(super) fn shrink(&mut self, room: usize) {
        if let Body::Distribution(distribution) = &mut self.body {
            let octaves = room.saturating_sub(2) / OCTAVE_WORDS;
            distribution.shrink(octaves.max(1));
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u64>) {
        out.extend([
            self.count,
            self.sum.to_bits(),
            self.min.to_bits(),
            self.max.to_bits(),
        ]);
        match &self.body {
            Body::Buckets { counts, .. } => out.extend_from_slice(counts),
            Body::Distribution(distribution) => {
                out.extend([distribution.zeros, distribution.octaves.len() as u64]);
                for octave in &distribution.octaves {
                    out.push(octave.key);
                    out.extend_from_slice(&octave.counts);
                }
            }
        }
    }
}

/// `value × count`. Nearly all records stand for one observation, and a conversion takes longer than a
/// branch that is foreseen.
#[inline(always)]
pub(super) fn times(value: f64, count: u64) -> f64 {
    if count == 1 {
        value
    } else {
        times_many(value, count)
    }
}

#[cold]
fn times_many(value: f64, count: u64) -> f64 {
    value * count as f64
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

/// A summary's words after its max.
pub(crate) fn decode_distribution(words: &[u64]) -> Option<Distribution> {
    let (&[zeros, octaves], rest) = words.split_first_chunk()?;
    let octaves = usize::try_from(octaves).ok()?;
    let used = rest.get(..octaves.checked_mul(OCTAVE_WORDS)?)?;
    let decode = |chunk: &[u64]| {
        let (key, counts) = chunk.split_first()?;
        Some(Octave {
            key: *key,
            counts: counts.try_into().ok()?,
        })
    };
    Some(Distribution::from_parts(
        zeros,
        used.chunks(OCTAVE_WORDS)
            .map(decode)
            .collect::<Option<_>>()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_to_the_first_bucket_that_is_not_below_it() {
        for len in [0, 1, 7, 8, 11, 64, 65, 200] {
            let bounds: Vec<f64> = (0..len).map(f64::from).collect();
            for value in [-1.0, 0.0, 0.5, 1.0, 7.0, 10.5, 63.0, 63.5, 64.0, 199.0, 1e9] {
                let mut observed = Observed::in_buckets(bounds.clone());
                observed.add(value, 1);
                let Body::Buckets { counts, .. } = observed.body else {
                    panic!("a histogram");
                };
                let expected = bounds.partition_point(|bound| *bound < value);
                assert_eq!(counts.len(), bounds.len() + 1);
                assert_eq!(counts[expected], 1, "{value} among {len}");
            }
        }
    }
}
