//! What a producer writes down beside its emits, in a file that outlives it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use qbus::{Access, EmitError, MappedFile};
use rustix::fs::{FlockOperation, flock};

use crate::random::Random;

const ATTEMPTED: usize = 0;
const ACCEPTED: usize = 1;
const FULL: usize = 2;
const REVOKED: usize = 3;
const DONE: usize = 4;
const GAP_NS: usize = 5;
const CALL_NS: usize = 6;
const UNTOLD: usize = 7;
const UNOWNED: usize = 8;
const REMOVED: usize = 9;
const BYTES: u64 = 4096;

/// An attempt is counted before the call, its outcome after it: at most one call of a dead thread
/// is without an outcome.
#[derive(Debug)]
pub struct Journal {
    file: MappedFile,
    /// Of one that was claimed: the kernel drops it with its last descriptor.
    _lock: Option<File>,
}

impl Journal {
    /// Makes an empty one.
    pub fn create(path: &Path) -> Journal {
        let file = MappedFile::create(path, BYTES, 0o600).expect("a new file");
        Journal { file, _lock: None }
    }

    /// Goes on with one of `count` journals that nobody holds, and its number. What its last holder
    /// died inside of is told as such, so that any number of threads can hold it one after the
    /// other.
    pub fn claim(folder: &Path, count: u64, random: &mut Random) -> (Journal, u64) {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        loop {
            let number = random.below(count);
            let path = folder.join(number.to_string());
            let lock = options.open(&path).expect("room for a journal");
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            lock.set_len(BYTES).expect("room for a journal");
            let file = MappedFile::open(&path, Access::Write).expect("the journal");
            let journal = Journal {
                file,
                _lock: Some(lock),
            };
            let open = journal.read().open_calls();
            assert!(open <= 1, "journal {number}: {:?}", journal.read());
            if open == 1 {
                journal.add(UNTOLD);
            }
            return (journal, number);
        }
    }

    /// Opens one that is there.
    pub fn open(path: &Path) -> Journal {
        let file = MappedFile::open(path, Access::Write).expect("the journal");
        Journal { file, _lock: None }
    }

    fn add(&self, at: usize) {
        let words = self.file.words();
        // Beyond what the emit stores next, or after what it has stored.
        words.publish(at, words.load(at) + 1);
        words.release();
    }

    /// Writes down an emit, before and after; whether it was accepted.
    ///
    /// # Panics
    ///
    /// It was refused for a reason that no test here has.
    pub fn emit(&self, emit: impl FnOnce() -> Result<(), EmitError>) -> bool {
        self.add(ATTEMPTED);
        let start = Instant::now();
        let emitted = emit();
        let took_ns = start.elapsed().as_nanos() as u64;
        let words = self.file.words();
        words.store(CALL_NS, words.load(CALL_NS).max(took_ns));
        self.add(match emitted {
            Ok(()) => ACCEPTED,
            Err(EmitError::Full) => FULL,
            Err(EmitError::Revoked) => REVOKED,
            Err(EmitError::NotJoined) => UNOWNED,
            Err(EmitError::Removed) => REMOVED,
            Err(error) => panic!("an emit failed: {error}"),
        });
        emitted.is_ok()
    }

    /// Says that all was emitted, and how long it went without an emit that was accepted.
    pub fn finish(&self, gap_ns: u64) {
        self.file.words().store(GAP_NS, gap_ns);
        self.file.words().publish(DONE, 1);
    }

    /// What it says.
    pub fn read(&self) -> Entries {
        let word = |at| self.file.words().load(at);
        Entries {
            attempted: word(ATTEMPTED),
            accepted: word(ACCEPTED),
            full: word(FULL),
            revoked: word(REVOKED),
            done: word(DONE) != 0,
            gap_ns: word(GAP_NS),
            call_ns: word(CALL_NS),
            untold: word(UNTOLD),
            unowned: word(UNOWNED),
            removed: word(REMOVED),
        }
    }
}

/// What a journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries {
    /// Emits that were begun.
    pub attempted: u64,
    /// Emits that returned `Ok`.
    pub accepted: u64,
    /// Emits that met a full lane.
    pub full: u64,
    /// Emits that were given up while the thread was stopped.
    pub revoked: u64,
    /// Whether all was emitted.
    pub done: bool,
    /// The longest time without an emit that was accepted.
    pub gap_ns: u64,
    /// The longest call.
    pub call_ns: u64,
    /// Emits of a process that was no owner: one in a handler that interrupts the join, say.
    pub unowned: u64,
    /// Emits on a bus that was removed.
    pub removed: u64,
    /// Emits that former holders died inside of.
    pub untold: u64,
}

impl Entries {
    /// The call that a dead thread was inside: 1, or 0 when it was in none.
    pub fn open_calls(&self) -> u64 {
        let refused = self.full + self.revoked + self.unowned + self.removed;
        self.attempted - self.accepted - refused - self.untold
    }
}
