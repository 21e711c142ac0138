//! How often which values were observed, in as few bytes as it takes: what a summary keeps of the
//! steps of its window.

use qbus::exponential::OCTAVE;

use crate::distribution::Distribution;

/// Bits of a bucket's number that say which of its octave it is.
const OCTAVE_BITS: u32 = OCTAVE.trailing_zeros();
/// The number of the bucket of zeros. No octave has the key 0.
const ZEROS: u64 = 0;

/// Counts of buckets that are not 0, by number (the octave's key × 32 + the bucket's place in it),
/// ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(Vec<(u64, u64)>);

impl Counts {
    pub(crate) fn of(distribution: &Distribution) -> Counts {
        let mut counts = vec![(ZEROS, distribution.zeros)];
        for octave in &distribution.octaves {
            let first = octave.key << OCTAVE_BITS;
            counts.extend((0..).map(|bucket| first | bucket).zip(octave.counts));
        }
        counts.retain(|(_, count)| *count != 0);
        counts.sort_unstable();
        // Octaves that were read from garbage may be there twice.
        counts.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 = kept.1.saturating_add(later.1);
            }
            is_same
        });
        Counts(counts)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of buckets.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Octave, place in it and count of each bucket; no octave for zeros.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Option<(u64, usize)>, u64)> {
        self.0.iter().map(|&(number, count)| {
            let place = (number >> OCTAVE_BITS, number as usize % OCTAVE);
            ((number != ZEROS).then_some(place), count)
        })
    }

    /// What is left of each count without the other's; at least 0.
    pub(crate) fn minus(&self, other: &Counts) -> Counts {
        let mut others = other.0.iter().copied().peekable();
        let left = self.0.iter().filter_map(|&(number, count)| {
            while others.next_if(|other| other.0 < number).is_some() {}
            let its = others.next_if(|other| other.0 == number);
            let left = count.saturating_sub(its.map_or(0, |other| other.1));
            (left != 0).then_some((number, left))
        });
        Counts(left.collect())
    }

    /// Both together.
    pub(crate) fn plus(&self, other: &Counts) -> Counts {
        let mut sums = Vec::with_capacity(self.len() + other.len());
        let mut others = other.0.iter().copied().peekable();
        for &(number, count) in &self.0 {
            while let Some(before) = others.next_if(|other| other.0 < number) {
                sums.push(before);
            }
            let its = others.next_if(|other| other.0 == number);
            sums.push((number, count.saturating_add(its.map_or(0, |other| other.1))));
        }
        sums.extend(others);
        Counts(sums)
    }

    /// Appends how many there are, then the difference of each number to the one before, and its
    /// count: seven bits a byte, the lowest first, and the highest bit where more follow.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        pack(self.len() as u64, out);
        let mut last = 0;
        for &(number, count) in &self.0 {
            pack(number - last, out);
            pack(count, out);
            last = number;
        }
    }

    /// Takes them from the front of bytes that another process wrote; `None` when they make no
    /// sense.
    pub(crate) fn unpack(bytes: &mut &[u8]) -> Option<Counts> {
        let len = usize::try_from(unpack(bytes)?).ok()?;
        // Each takes two bytes at least.
        let mut counts = Vec::with_capacity(len.min(bytes.len() / 2));
        let mut last = None;
        for _ in 0..len {
            let (step, count) = (unpack(bytes)?, unpack(bytes)?);
            let number = last.unwrap_or(0_u64).checked_add(step)?;
            if count == 0 || last.is_some_and(|last| last >= number) {
                return None;
            }
            counts.push((number, count));
            last = Some(number);
        }
        Some(Counts(counts))
    }
}

/// Appends a number.
pub(crate) fn pack(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number from the front.
pub(crate) fn unpack(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Counts> {
        let number = prop_oneof![Just(ZEROS), 1_000_000..1_000_200_u64, any::<u64>()];
        btree_map(number, 1..u64::MAX, 0..40)
            .prop_map(|counts| Counts(counts.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(each in vec(counts(), 0..4)) {
            let mut bytes = Vec::new();
            each.iter().for_each(|counts| counts.pack(&mut bytes));
            let mut rest = &bytes[..];
            for counts in &each {
                prop_assert_eq!(Counts::unpack(&mut rest), Some(counts.clone()));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn garbage_is_refused_or_in_order(bytes in vec(any::<u8>(), 0..200)) {
            if let Some(found) = Counts::unpack(&mut &bytes[..]) {
                prop_assert!(found.0.is_sorted_by(|a, b| a.0 < b.0));
                prop_assert!(found.0.iter().all(|(_, count)| *count != 0));
            }
        }

        #[test]
        fn what_was_added_is_taken_away(one in counts(), other in counts()) {
            // Below what would saturate.
            let halved = |Counts(counts): Counts| {
                Counts(counts.into_iter().map(|(number, count)| (number, count / 2 + 1)).collect())
            };
            let (one, other) = (halved(one), halved(other));
            let both = one.plus(&other);
            prop_assert_eq!(&both, &other.plus(&one));
            prop_assert_eq!(both.minus(&other), one);
        }
    }

    #[test]
    fn a_distribution_is_its_counts() {
        let mut distribution = Distribution::default();
        for value in [3.5, -1e9, 0.0, 0.25, 3.5, -0.1, f64::INFINITY] {
            distribution.observe(value, 2);
        }
        let counts = Counts::of(&distribution);
        assert!(counts.0.is_sorted_by(|a, b| a.0 < b.0));
        let mut again = Distribution::default();
        counts
            .buckets()
            .for_each(|(place, count)| again.add_in(place, count));
        let quantiles = [0.0, 0.2, 0.5, 0.8, 1.0];
        let of = |distribution: &Distribution| {
            distribution.quantiles(&quantiles, f64::NEG_INFINITY, f64::INFINITY)
        };
        assert_eq!(of(&again), of(&distribution));
        assert_eq!(distribution.without(&counts).count(), 0);
    }
}
