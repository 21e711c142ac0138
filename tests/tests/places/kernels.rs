//! Kernels and sandboxes without what others have.

use super::{HERE, check_refused, host, skip};
use qbus_tests::{Place, TestBus};

const REFUSER: &str = env!("CARGO_BIN_EXE_test-refuser");

/// Runs a host in which the kernel refuses a system call.
fn without(call: &str, place: Place) -> Option<(TestBus, qbus_tests::Host)> {
    let tried = std::process::Command::new(REFUSER)
        .args([call, "true"])
        .status();
    if !tried.is_ok_and(|tried| tried.success()) {
        skip("no seccomp filter can be had here");
        return None;
    }
    let test = TestBus::reserve(place);
    let host = host(test.address(), &format!("exec {REFUSER} {call} \"$@\""));
    Some((test, host))
}

/// gVisor, old kernels, some network file systems.
#[test]
fn without_locks_a_bus_is_refused_and_nothing_is_left() {
    for place in Place::ALL {
        let Some((test, mut host)) = without("ofd-locks", place) else {
            return;
        };
        check_refused(&mut host, &["could not lock", "local file system"]);
        assert!(!test.address().file().exists());
        // One that others made: it opens, and says why nobody can join.
        let mut maker = super::host(test.address(), HERE);
        maker.expect("create", "open");
        host.expect("open", "open");
        let answer = host.ask("emit 2");
        assert!(answer.starts_with("accepted 0 of 2: "), "{answer}");
        host.expect_refusal("aggregate", &["local file system"]);
        host.end();
        maker.expect("emit 1", "accepted 1 of 1");
        maker.end();
    }
}

/// Without fallocate zeros are written.
#[test]
fn without_fallocate_a_bus_works() {
    for place in Place::ALL {
        let Some((_test, mut host)) = without("fallocate", place) else {
            return;
        };
        super::check_all_works(&mut host);
        host.end();
    }
}

/// Without what makes things faster or names them nicely.
#[test]
fn without_conveniences_a_bus_works() {
    for call in ["madvise", "getrandom", "membarrier", "statx"] {
        let Some((_test, mut host)) = without(call, Place::Named) else {
            return;
        };
        super::check_all_works(&mut host);
        host.end();
    }
}
