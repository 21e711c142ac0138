//! Owners: the attached processes.
//!
//! Entry i of the table belongs to whoever holds lock byte i ([`crate::liveness`]). A joiner takes
//! any byte that it gets, repairs what a dead occupant left, and raises the generation; the reaper
//! (the aggregator) does the repair alone. Nothing here decides by pid: pid, start time and command
//! are stored for people to read.
//!
//! * **E6 occupy** `occupy` stores JOINING, then (Release fence) the entry's words → `counts` loads
//!   the words, then (Acquire fence) the state again: the same state means that all are one
//!   occupant's.
//!
//! | a process dies after | others see                   | repair                            |
//! |----------------------|------------------------------|-----------------------------------|
//! | it took the byte     | the old state, the byte free | none                              |
//! | JOINING              | JOINING, the byte free       | reaper or joiner: as for ACTIVE   |
//! | ACTIVE               | ACTIVE, the byte free        | claims TORN, leases free, LEFT    |
//! | LEFT                 | LEFT                         | none                              |
//! | (a reaper) any step  | ACTIVE, the byte free        | the next one does all of it again |

use std::fmt;

use crate::clock;
use crate::lane::Lane;
use crate::layout::OwnerEntry;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::testpoint;
use crate::words::{Cursor, Words};

/// An occupant of the owner table: entry and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId {
    /// Entry of the table.
    pub index: u16,
    /// Raised with every occupant, modulo 4,096.
    pub generation: u16,
}

impl OwnerId {
    pub(crate) const BITS: u32 = 24;
    pub(crate) const MASK: u32 = (1 << Self::BITS) - 1;
    pub(crate) const GENERATION_MASK: u16 = 0xfff;
    /// What a slot names that nobody claimed. Generations of occupants start at 1; after a wrap the
    /// name can be an occupant's too, which does no harm: EMPTY slots belong to no owner.
    pub(crate) const NOBODY: OwnerId = OwnerId {
        index: 0,
        generation: 0,
    };

    #[inline]
    pub(crate) fn pack(self) -> u32 {
        u32::from(self.generation & Self::GENERATION_MASK) << 12 | u32::from(self.index & 0xfff)
    }

    #[inline]
    pub(crate) fn unpack(raw: u32) -> OwnerId {
        OwnerId {
            index: (raw & 0xfff) as u16,
            generation: (raw >> 12) as u16 & Self::GENERATION_MASK,
        }
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Where an entry is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerPhase {
    /// Never used.
    Free,
    /// Being filled in.
    Joining,
    /// Occupied, unless its byte is free.
    Active,
    /// Left, or reaped; what it emitted may still lie in lanes.
    Left,
}

/// The `state` word: generation << 8 | phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u16,
    pub(crate) phase: OwnerPhase,
}

impl State {
    pub(crate) fn to_raw(self) -> u64 {
        u64::from(self.generation) << 8 | self.phase as u64
    }

    /// Decodes a state read from shared memory. An unknown phase is an occupant's: only possession
    /// of the byte then allows anything.
    fn from_raw(raw: u64) -> State {
        let phase = match raw & 0xff {
            0 => OwnerPhase::Free,
            1 => OwnerPhase::Joining,
            3 => OwnerPhase::Left,
            _ => OwnerPhase::Active,
        };
        State {
            generation: (raw >> 8) as u16 & OwnerId::GENERATION_MASK,
            phase,
        }
    }
}

/// The longest text of an entry in bytes.
const TEXT_MAX: usize = 14 * 8;

/// What a process says of itself when it joins; for people. Made without an allocation: the first
/// emit of a process may come in a signal handler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity<'a> {
    pub(crate) pid: u64,
    pub(crate) pid_start_ticks: u64,
    pub(crate) pid_namespace: u64,
    pub(crate) role: &'a str,
    /// The command line as the kernel has it, a 0 behind each argument, cut short.
    pub(crate) command: &'a [u8],
}

impl Identity<'_> {
    /// Of this process; its command line goes to `command`.
    #[cfg(not(loom))]
    pub(crate) fn of_this_process<'a>(role: &'a str, command: &'a mut [u8; 256]) -> Identity<'a> {
        let (mut stat, len) = ([0; 1024], read(c"/proc/self/cmdline", command));
        let stat_len = read(c"/proc/self/stat", &mut stat);
        // Fields after the command in parentheses, which may hold anything: starttime is field 22.
        let mut fields = stat[..stat_len].rsplit(|&byte| byte == b')').next();
        let ticks = fields.take().and_then(|fields| {
            let mut fields = fields
                .split(u8::is_ascii_whitespace)
                .filter(|f| !f.is_empty());
            std::str::from_utf8(fields.nth(19)?).ok()?.parse().ok()
        });
        let namespace = rustix::fs::stat(c"/proc/self/ns/pid").map_or(0, |stat| stat.st_ino);
        Identity {
            pid: u64::from(std::process::id()),
            pid_start_ticks: ticks.unwrap_or(0),
            pid_namespace: namespace,
            role,
            command: &command[..len],
        }
    }
}

/// Reads the start of a file; how many bytes.
#[cfg(not(loom))]
fn read(path: &std::ffi::CStr, into: &mut [u8]) -> usize {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty());
    file.and_then(|file| rustix::io::read(&file, into))
        .unwrap_or(0)
}

/// An owner as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerView {
    /// Entry and generation.
    pub id: OwnerId,
    /// Whether its process holds its byte.
    pub alive: bool,
    /// Pid, in the process's own pid namespace.
    pub pid: u64,
    /// Start time of the process in clock ticks after boot (field 22 of /proc/PID/stat).
    pub pid_start_ticks: u64,
    /// Inode of the process's pid namespace.
    pub pid_namespace: u64,
    /// When it joined, in nanoseconds since the Unix epoch.
    pub joined_ns: u64,
    /// What the process calls itself; may be empty.
    pub role: String,
    /// Its command line, cut short.
    pub command: String,
    /// Records that met a full lane.
    pub dropped_full: u64,
    /// Records whose value their series could not take.
    pub rejected: u64,
    /// Records that met a full lane and were kept as state: in the totals, and without a point of
    /// their own in any history.
    pub coalesced: u64,
    /// `dropped_full` by the type of the metric, in the order of
    /// [`MetricType::ALL`](crate::MetricType::ALL): counters, gauges and what is untyped,
    /// histograms, summaries. Those of unknown series are in none.
    pub dropped_by_type: [u64; 4],
    /// `dropped_full` of all occupants of the entry, this one included: it never goes back.
    pub dropped_full_total: u64,
    /// `rejected` of all occupants of the entry, this one included: it never goes back.
    pub rejected_total: u64,
}

/// What the counters of an entry say: sums over all occupants, and where the present one began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerCounts {
    /// The present (or last) occupant's generation.
    pub generation: u16,
    /// Records that met a full lane, over all occupants.
    pub dropped_full: u64,
    /// Records whose value their series could not take, over all occupants.
    pub rejected: u64,
    /// Calls that wrote to cells of a shared lane, over all occupants.
    pub shared_calls: u64,
    /// `dropped_full` of all occupants before.
    pub dropped_full_base: u64,
    /// `rejected` of all occupants before.
    pub rejected_base: u64,
    /// `shared_calls` of all occupants before.
    pub shared_calls_base: u64,
}

impl OwnerEntry {
    pub(crate) fn state(&self) -> State {
        State::from_raw(self.state.load(Ordering::Acquire))
    }

    /// Whether somebody is attached here, or died and was not found dead.
    pub(crate) fn is_occupied(&self) -> bool {
        self.state().phase == OwnerPhase::Active
    }

    /// Whether `owner` is the present occupant, and nobody found it dead.
    pub(crate) fn is_occupied_by(&self, owner: OwnerId) -> bool {
        self.state()
            == State {
                generation: owner.generation,
                phase: OwnerPhase::Active,
            }
    }

    /// Where the state stands, and what it says while `owner` is the occupant.
    #[cfg(not(loom))]
    pub(crate) fn proof(&self, owner: OwnerId) -> (&AtomicU64, u64) {
        let state = State {
            generation: owner.generation,
            phase: OwnerPhase::Active,
        };
        (&self.state, state.to_raw())
    }

    fn set(&self, state: State) {
        // Release: who sees the state sees what was written before it.
        self.state.store(state.to_raw(), Ordering::Release);
    }

    /// Occupies an entry whose byte the caller holds, after the dead occupant's traces are gone.
    pub(crate) fn occupy(&self, index: usize, identity: &Identity<'_>) -> OwnerId {
        let generation = match self.state().generation.wrapping_add(1) & OwnerId::GENERATION_MASK {
            0 => 1,
            generation => generation,
        };
        self.set(State {
            generation,
            phase: OwnerPhase::Joining,
        });
        testpoint!("joining");
        // E6 (release): pairs with the fence in `counts`: who sees a word of this occupant sees
        // JOINING.
        fence(Ordering::Release);
        let relaxed = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        relaxed(
            &self.dropped_full_base,
            self.dropped_full.load(Ordering::Relaxed),
        );
        relaxed(&self.rejected_base, self.rejected.load(Ordering::Relaxed));
        relaxed(
            &self.shared_calls_base,
            self.shared_calls.load(Ordering::Relaxed),
        );
        relaxed(&self.coalesced_base, self.coalesced.load(Ordering::Relaxed));
        for (base, dropped) in self.dropped_by_type_base.iter().zip(&self.dropped_by_type) {
            relaxed(base, dropped.load(Ordering::Relaxed));
        }
        relaxed(&self.pid, identity.pid);
        relaxed(&self.pid_start_ticks, identity.pid_start_ticks);
        relaxed(&self.pid_namespace, identity.pid_namespace);
        relaxed(&self.joined_ns, clock::precise_ns());
        store_text(&self.role, identity.role.as_bytes());
        store_text(&self.command, identity.command);
        testpoint!("identity");
        self.set(State {
            generation,
            phase: OwnerPhase::Active,
        });
        testpoint!("active");
        OwnerId {
            index: index as u16,
            generation,
        }
    }

    /// Marks the entry as left. Its byte is still held by the caller.
    pub(crate) fn vacate(&self) {
        let State { generation, .. } = self.state();
        self.set(State {
            generation,
            phase: OwnerPhase::Left,
        });
    }

    /// Removes the traces of a dead occupant, whose byte the caller holds.
    pub(crate) fn repair<'a>(
        &self,
        index: usize,
        shared: impl Iterator<Item = Lane<'a>>,
        exclusive: impl Iterator<Item = Lane<'a>>,
    ) -> bool {
        let State { generation, phase } = self.state();
        if matches!(phase, OwnerPhase::Free | OwnerPhase::Left) {
            return false;
        }
        let owner = OwnerId {
            index: index as u16,
            generation,
        };
        for lane in shared {
            lane.reap(owner);
        }
        for lane in exclusive {
            lane.take_back(owner);
        }
        self.vacate();
        testpoint!("vacated");
        true
    }

    /// The counters, or `None` while the entry changes hands.
    pub(crate) fn counts(&self) -> Option<OwnerCounts> {
        let state = self.state();
        let counts = OwnerCounts {
            generation: state.generation,
            dropped_full: self.dropped_full.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            shared_calls: self.shared_calls.load(Ordering::Relaxed),
            dropped_full_base: self.dropped_full_base.load(Ordering::Relaxed),
            rejected_base: self.rejected_base.load(Ordering::Relaxed),
            shared_calls_base: self.shared_calls_base.load(Ordering::Relaxed),
        };
        // E6 (acquire): pairs with the fence in `occupy`.
        fence(Ordering::Acquire);
        (state.phase != OwnerPhase::Joining && self.state() == state).then_some(counts)
    }

    pub(crate) fn view(&self, index: usize, alive: bool) -> OwnerView {
        let relaxed = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let generation = self.state().generation;
        let counts = self.counts().unwrap_or_default();
        OwnerView {
            id: OwnerId {
                index: index as u16,
                generation,
            },
            alive,
            pid: relaxed(&self.pid),
            pid_start_ticks: relaxed(&self.pid_start_ticks),
            pid_namespace: relaxed(&self.pid_namespace),
            joined_ns: relaxed(&self.joined_ns),
            role: load_text(&self.role),
            command: load_text(&self.command),
            dropped_full: counts.dropped_full.wrapping_sub(counts.dropped_full_base),
            rejected: counts.rejected.wrapping_sub(counts.rejected_base),
            coalesced: relaxed(&self.coalesced).wrapping_sub(relaxed(&self.coalesced_base)),
            dropped_by_type: std::array::from_fn(|index| {
                relaxed(&self.dropped_by_type[index])
                    .wrapping_sub(relaxed(&self.dropped_by_type_base[index]))
            }),
            dropped_full_total: relaxed(&self.dropped_full),
            rejected_total: relaxed(&self.rejected),
        }
    }
}

/// Stores a text behind its length, cut to what fits. What is no text, and what would move a
/// terminal, is replaced.
fn store_text(words: &[AtomicU64], text: &[u8]) {
    let (mut packed, mut len) = ([0_u8; TEXT_MAX], 0);
    let room = packed.len().min((words.len() - 1) * 8);
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    let replacement = |chunk: std::str::Utf8Chunk<'_>| {
        (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER)
    };
    let chars = text
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().chain(replacement(chunk)))
        .map(|c| if c.is_control() { ' ' } else { c });
    for c in chars {
        if len + c.len_utf8() > room {
            break;
        }
        len += c.encode_utf8(&mut packed[len..]).len();
    }
    words[0].store(len as u64, Ordering::Relaxed);
    for (word, bytes) in words[1..].iter().zip(packed.as_chunks::<8>().0) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
}

/// Loads a text; empty when what lies there is not valid text.
fn load_text(words: &[AtomicU64]) -> String {
    let mut cursor = Cursor::new(Words::new(words), 0);
    let text = cursor
        .word()
        .and_then(|len| cursor.text(usize::try_from(len).ok()?));
    let printable = |text: String| {
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    };
    text.map(printable).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_packing() {
        for (index, generation) in [(0, 0), (4095, 4095), (1, 2)] {
            let id = OwnerId { index, generation };
            assert_eq!(OwnerId::unpack(id.pack()), id);
        }
    }

    #[test]
    fn an_unknown_phase_is_an_occupant() {
        assert_eq!(State::from_raw(u64::MAX).phase, OwnerPhase::Active);
    }
}
