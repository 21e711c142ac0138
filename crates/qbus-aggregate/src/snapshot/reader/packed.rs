//! Words in as few bytes as they need: what a cut keeps of its rows.
//!
//! Before each word stands what it is: up to 8 that so many of its low bytes follow and the others
//! are 0, as of a count; 9 to 15 that one to seven of its high bytes do, as of a double with few
//! digits. A greater one stands for a run of zeros, as most buckets are, and nothing follows.

const HIGH: u8 = 8;
const ZEROS: u8 = 16;

/// Appends words.
pub(super) fn pack(mut words: &[u64], out: &mut Vec<u8>) {
    while let Some((&word, rest)) = words.split_first() {
        let zeros = words.iter().take_while(|word| **word == 0);
        let zeros = zeros.take((u8::MAX - ZEROS) as usize + 1).count();
        if zeros > 0 {
            out.push(ZEROS + (zeros - 1) as u8);
            words = &words[zeros..];
            continue;
        }
        let low = 8 - word.leading_zeros() as usize / 8;
        let high = 8 - word.trailing_zeros() as usize / 8;
        if high < low {
            out.push(HIGH + high as u8);
            out.extend_from_slice(&word.to_be_bytes()[..high]);
        } else {
            out.push(low as u8);
            out.extend_from_slice(&word.to_le_bytes()[..low]);
        }
        words = rest;
    }
}

/// Appends the words that were packed.
pub(super) fn unpack(mut bytes: &[u8], out: &mut Vec<u64>) {
    while let Some((&first, rest)) = bytes.split_first() {
        let len = match first {
            ZEROS.. => 0,
            HIGH => 8,
            _ => usize::from(first % HIGH),
        };
        let Some((some, rest)) = rest.split_at_checked(len) else {
            return;
        };
        bytes = rest;
        let mut word = [0; 8];
        word[..len].copy_from_slice(some);
        match first {
            ZEROS.. => out.resize(out.len() + usize::from(first - ZEROS) + 1, 0),
            ..=HIGH => out.push(u64::from_le_bytes(word)),
            _ => out.push(u64::from_be_bytes(word)),
        }
    }
}

/// Appends a number, small as a rule: seven bits a byte, the lowest first.
pub(super) fn push_small(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number from the front.
pub(super) fn take_small(bytes: &mut &[u8]) -> u32 {
    let mut number = 0;
    for shift in (0..u32::BITS).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else {
            break;
        };
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(words: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(words, &mut bytes);
        bytes
    }

    #[test]
    fn counts_doubles_and_zeros_are_short() {
        assert_eq!(bytes(&[7, 0x1234, u64::MAX]).len(), 2 + 3 + 9);
        assert_eq!(
            bytes(&[1.0_f64.to_bits(), 0.125_f64.to_bits()]).len(),
            3 + 3
        );
        assert_eq!(bytes(&[0; 240]).len(), 1);
        assert_eq!(bytes(&[0; 241]).len(), 2);
    }

    proptest! {
        #[test]
        fn a_number_comes_back(number in any::<u32>(), by in 0..32_u32) {
            let mut bytes = Vec::new();
            push_small(number >> by, &mut bytes);
            push_small(7, &mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_small(&mut rest), number >> by);
            prop_assert_eq!(take_small(&mut rest), 7);
            prop_assert_eq!(take_small(&mut rest), 0);
        }

        #[test]
        fn what_is_packed_comes_back(words in prop::collection::vec(prop_oneof![
            Just(0),
            any::<u64>(),
            (any::<u64>(), 0..64_u32).prop_map(|(word, by)| word >> by),
            (any::<u64>(), 0..64_u32).prop_map(|(word, by)| word << by),
            (-1e6..1e6).prop_map(f64::to_bits),
        ], 0..400)) {
            let mut unpacked = Vec::new();
            unpack(&bytes(&words), &mut unpacked);
            prop_assert_eq!(unpacked, words);
        }
    }
}
