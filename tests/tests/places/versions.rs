//! Processes of another build: a bus or a snapshot of another layout version.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use qbus::{Bus, OpenError, Removal, RemoveError};
use qbus_tests::{Place, TestBus, until};

use super::{HERE, host};

/// Gives a file another layout version: a build before this one's, and one after it.
const OTHERS: [u64; 2] = [1, 1000];

/// The second word of a bus and of a snapshot is the version.
fn set_version(path: &Path, version: u64) {
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|file| file.write_all_at(&version.to_le_bytes(), 8));
    written.expect("a file of ours");
}

#[test]
fn a_bus_of_another_version_is_refused_and_can_be_removed() {
    for place in Place::ALL {
        for version in OTHERS {
            let test = TestBus::small(place);
            let mut earlier = host(test.address(), HERE);
            earlier.expect("create", "open");
            earlier.expect("emit 3", "accepted 3 of 3");
            set_version(test.address().file(), version);

            let mut worker = host(test.address(), HERE);
            let words = [format!("layout version {version}"), "qbus rm".to_owned()];
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            worker.expect_refusal("create", &words);
            worker.expect_refusal("open", &words);
            worker.expect_refusal("emit 3", &["no bus"]);
            // As long as somebody of that version has it, it is in use; then nobody's force is
            // needed.
            let refused = Bus::remove(test.address(), Removal::Unused);
            assert!(
                matches!(
                    refused,
                    Err(RemoveError::Open(OpenError::Version { found, .. })) if found == version
                ),
                "{refused:?}"
            );
            // Those who have it go on.
            earlier.expect("emit 3", "accepted 3 of 3");
            earlier.kill();
            worker.expect("remove", "removed");
            worker.expect("create", "open");
            worker.expect("emit 3", "accepted 3 of 3");
            worker.end();
        }
    }
}

#[test]
fn a_snapshot_of_another_version_is_moved_aside_and_not_read() {
    for version in OTHERS {
        let test = TestBus::small(Place::Path);
        let mut first = host(test.address(), HERE);
        first.expect("create", "open");
        first.expect("emit 3", "accepted 3 of 3");
        first.expect("aggregate", "aggregating");
        first.expect("finish", "counted 3");
        first.expect("rest", "resting");
        let snapshot = test.address().snapshot();
        set_version(&snapshot, version);
        first.expect_refusal("read", &[&format!("layout version {version}")]);
        // What it counted is in the other build's file; the lanes' records are counted from here
        // on.
        first.expect("emit 2", "accepted 2 of 2");
        first.expect("aggregate", "aggregating");
        until("what lies in the lanes", || {
            first.ask("finish") == "counted 2"
        });
        let mut previous = snapshot.into_os_string();
        previous.push(".previous");
        assert!(Path::new(&previous).exists());
        first.end();
    }
}
