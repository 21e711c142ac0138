//! Hashes of names and labels.

use std::hash::{BuildHasher, Hasher};

use super::FamilyId;

/// Of both together.
pub(super) fn name_hash(name: &str, suffix: &str) -> u64 {
    hash_of(&|hasher| {
        hasher.write(name.as_bytes());
        hasher.write(suffix.as_bytes());
    })
}

/// The same in every process and every build: the hash is part of the layout. FNV-1a, whose low
/// bits choose the place and, mixed, the tag (Fowler, Noll, Vo; RFC 9923).
fn hash_of(write: &dyn Fn(&mut Fnv)) -> u64 {
    let mut hasher = std::hash::BuildHasherDefault::<Fnv>::default().build_hasher();
    write(&mut hasher);
    let hash = hasher.finish();
    hash ^ hash.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write(&value.to_le_bytes());
    }
}

/// Whatever the order of its labels.
pub(super) fn series_hash(family: FamilyId, labels: &[(String, String)]) -> u64 {
    let of_label = |(name, value): &(String, String)| {
        hash_of(&|hasher| {
            hasher.write(name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(value.as_bytes());
        })
    };
    let of_labels = labels.iter().map(of_label).fold(0, u64::wrapping_add);
    hash_of(&|hasher| {
        hasher.write_u32(family.0);
        hasher.write(&of_labels.to_le_bytes());
    })
}
