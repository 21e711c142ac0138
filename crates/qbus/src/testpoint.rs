//! Test points: after each side effect that others can see, a place where a test can end or stop
//! the process.
//!
//! `testpoint!("claimed")` expands to nothing without the feature `testpoints`, which only tests
//! turn on. With it the environment arms points: `QBUS_TESTPOINT=NAME:N:KILL` (or `STOP`, and
//! several behind commas) raises the signal in the thread that makes the N-th passage; `HANG` has
//! that thread alone wait for ever; `FORK` and `CLONE` have it fork a child, the second one without
//! the C library, that waits for the end of its standard input.

/// Ends or stops the process here if a test said so; nothing in an ordinary build.
#[cfg(not(feature = "testpoints"))]
#[doc(hidden)]
#[macro_export]
macro_rules! testpoint {
    ($name:literal) => {};
}

/// Ends or stops the process here if a test said so; nothing in an ordinary build.
#[cfg(feature = "testpoints")]
#[doc(hidden)]
#[macro_export]
macro_rules! testpoint {
    ($name:literal) => {{
        const { assert!($crate::testpoint::is_listed($name)) };
        $crate::testpoint::pass($name);
    }};
}

#[cfg(feature = "testpoints")]
pub use armed::{
    CELLS, EXCLUSIVE, FREE, JOIN, LOCK, REAP, REGISTRY, SHARED, SHARED_CELLS, SNAPSHOT, is_listed,
    pass,
};

#[cfg(feature = "testpoints")]
mod armed {
    use std::sync::OnceLock;

    use crate::sync::{Ordering, PrivateU64};

    /// A producer of an exclusive lane.
    pub const EXCLUSIVE: &[&str] = &["leased", "payload", "sequence", "tail", "lane-returned"];
    /// A producer of a shared lane.
    pub const SHARED: &[&str] = &[
        "claimed",
        "hinted",
        "written",
        "published",
        "skipped",
        "acknowledged",
    ];
    /// A writer of the cells of an exclusive lane.
    pub const CELLS: &[&str] = &[
        "cells-handed-over",
        "cells-signed",
        "cells-taken",
        "members-named",
        "unit-named",
        "cell-value",
        "pulse",
    ];
    /// A writer of the cells of a shared lane.
    pub const SHARED_CELLS: &[&str] = &[
        "shared-cells-taken",
        "shared-unit-named",
        "shared-cell-value",
        "shared-pulse",
    ];
    /// A process that joins, and leaves.
    pub const JOIN: &[&str] = &["byte", "joining", "identity", "active", "joined", "left"];
    /// The descriptor of a process's lock, from its open to its close.
    pub const LOCK: &[&str] = &[
        "lock-opened",
        "lock-enlisted",
        "lock-unlocked",
        "lock-delisted",
    ];
    /// A process that registers families and series, and forgets some.
    pub const REGISTRY: &[&str] = &[
        "arena-taken",
        "defined",
        "interned",
        "counted",
        "forgotten",
        "remembered",
        "help-told",
    ];
    /// The aggregator that frees series and their family.
    pub const FREE: &[&str] = &[
        "closed",
        "unlinked",
        "offered",
        "revoked",
        "unlisted",
        "series-freed",
        "family-suspected",
    ];
    /// Whoever repairs what the dead left: the aggregator, or a joiner.
    pub const REAP: &[&str] = &[
        "retired",
        "byte-taken",
        "slot-reaped",
        "lease-reaped",
        "vacated",
        "reaped",
        "byte-returned",
    ];
    /// The aggregator.
    pub const SNAPSHOT: &[&str] = &[
        "aggregator-byte",
        "aggregator-signed",
        "snapshot-made",
        "snapshot-filled",
        "snapshot-published",
        "unfinished-removed",
        "moved-aside",
        "row-erased",
        "snapshot-signed",
        "file-grows",
        "file-grown",
        "allocated",
        "appended",
        "ring-made",
        "ring-moved",
        "window-written",
        "block-filled",
        "placed",
        "point-claimed",
        "point-written",
        "row-opened",
        "row-filled",
        "row-tagged",
        "series-row",
        "owner-row",
        "globals-row",
        "head-row",
        "committed",
        "freed",
        "cells-row",
        "cell-seen",
    ];

    const fn is_same(a: &[u8], b: &[u8]) -> bool {
        let mut at = 0;
        while at < a.len() && at < b.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len() && at == b.len()
    }

    /// Whether a point is in one of the lists, so that the tests know of it.
    pub const fn is_listed(name: &str) -> bool {
        let lists = [
            EXCLUSIVE,
            SHARED,
            CELLS,
            SHARED_CELLS,
            JOIN,
            LOCK,
            REGISTRY,
            REAP,
            FREE,
            SNAPSHOT,
        ];
        let mut list = 0;
        while list < lists.len() {
            let mut at = 0;
            while at < lists[list].len() {
                if is_same(lists[list][at].as_bytes(), name.as_bytes()) {
                    return true;
                }
                at += 1;
            }
            list += 1;
        }
        false
    }

    #[derive(Clone, Copy)]
    enum Action {
        Signal(libc::c_int),
        Hang,
        Fork,
        Clone,
    }

    struct Armed {
        name: String,
        action: Action,
        /// Passages left.
        left: PrivateU64,
    }

    /// Counts a passage, and at the one that the environment names does what that says.
    ///
    /// # Panics
    ///
    /// The environment names no point, or nothing to do there.
    pub fn pass(name: &str) {
        static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("QBUS_TESTPOINT").unwrap_or_default();
            let points = text.split(',').filter(|point| !point.is_empty());
            points
                .map(|point| parse(point).expect("NAME:N:KILL, STOP, HANG, FORK or CLONE"))
                .collect()
        });
        for point in armed.iter().filter(|point| point.name == name) {
            // Beyond the last passage it wraps, which no test lives to see.
            if point.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                act(point.action);
            }
        }
    }

    fn act(action: Action) {
        let pid = match action {
            Action::Signal(signal) => {
                // SAFETY: no memory is passed. The signal goes to this very thread.
                unsafe { libc::raise(signal) };
                return;
            }
            Action::Hang => loop {
                std::thread::park();
            },
            // SAFETY: the child does nothing but wait and end.
            Action::Fork => unsafe { libc::fork() },
            Action::Clone => {
                let none = 0_usize;
                let flags = libc::SIGCHLD;
                // SAFETY: without flags, clone(2) is a fork: nothing is shared, and a null stack is
                // a copy. The child does nothing but wait and end.
                unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) as i32 }
            }
        };
        if pid == 0 {
            // Until whoever writes to it has closed it: what they write is the parent's to read.
            let mut input = libc::pollfd {
                fd: libc::STDIN_FILENO,
                events: 0,
                revents: 0,
            };
            // SAFETY: one entry, which outlives the call.
            unsafe { libc::poll(&raw mut input, 1, -1) };
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(0) };
        }
        assert!(pid > 0, "no fork: {}", std::io::Error::last_os_error());
    }

    fn parse(point: &str) -> Option<Armed> {
        let mut parts = point.split(':');
        let (name, left, action) = (parts.next()?, parts.next()?, parts.next()?);
        let action = match action {
            "KILL" => Action::Signal(libc::SIGKILL),
            "STOP" => Action::Signal(libc::SIGSTOP),
            "HANG" => Action::Hang,
            "FORK" => Action::Fork,
            "CLONE" => Action::Clone,
            _ => return None,
        };
        is_listed(name).then_some(Armed {
            name: name.to_owned(),
            action,
            left: PrivateU64::new(left.parse().ok()?),
        })
    }
}
