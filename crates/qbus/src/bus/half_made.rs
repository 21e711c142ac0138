//! What a creator leaves that dies before the bus is whole.

use super::Bus;
use crate::address::Address;
use crate::clock;
use crate::error::OpenError;
use crate::layout::{Header, VERSION};
use crate::liveness::{CREATE_BYTE, FileId, Locks};
use crate::region::Region;
use crate::sync::Ordering;

/// Between the creation of a file and its lock the creator reserves memory; after this long it is
/// dead.
const DEAD_AFTER_S: i64 = 5;

/// Whether nothing lies behind the header: a file that begins with zeros may hold somebody's data
/// all the same.
fn holds_nothing(region: &Region) -> bool {
    let words = region.words(0, region.len() / 8).unwrap_or(&[]);
    let behind = words.iter().skip(size_of::<Header>() / 8);
    region.len().is_multiple_of(8)
        && behind
            .into_iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
}

impl Bus {
    /// Removes a file without magic, whose creator is gone; whether there was one.
    pub(super) fn remove_half_made(address: &Address) -> bool {
        let Ok(stat) = rustix::fs::lstat(address.file()) else {
            return false;
        };
        let now_s = (clock::precise_ns() / 1_000_000_000) as i64;
        if now_s - stat.st_ctime < DEAD_AFTER_S {
            return false;
        }
        let id = FileId::of(&stat);
        // Only the holder of the byte takes the name away.
        let Ok(Some(locks)) = Locks::open(address.file(), id) else {
            return false;
        };
        if !locks.try_lock(CREATE_BYTE).unwrap_or(false) {
            return false;
        }
        let is_half_made = match Region::open(address) {
            // Nothing was reserved yet; a file with something in it is not a bus's.
            Err(OpenError::Unfinished { .. }) => stat.st_size == 0,
            Ok(region) => {
                let header = region.header();
                region.id() == id
                    && header.magic.load(Ordering::Acquire) == 0
                    && [0, VERSION].contains(&header.version.load(Ordering::Relaxed))
                    && holds_nothing(&region)
            }
            Err(_) => false,
        };
        is_half_made && rustix::fs::unlink(address.file()).is_ok()
    }
}
