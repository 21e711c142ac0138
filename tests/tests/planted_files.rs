//! What a stranger, or an accident, may have put where a bus or a snapshot should be: it is
//! refused, and left as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use qbus::{Bus, CreateError, OpenError, OpenOrCreateError, Removal, RemoveError};
use qbus_aggregate::{
    AggregateError, Aggregator, AggregatorOptions, ReadError, Reader, SnapshotError,
};
use qbus_tests::{Place, TestBus, plant};

/// Plants something in place of a bus that is not there, and checks that every way in refuses it.
fn check(plant: impl Fn(&Path), expected: impl Fn(&OpenError) -> bool) {
    for place in Place::ALL {
        let test = TestBus::reserve(place);
        let path = test.address().file();
        plant(path);
        let before = fs::symlink_metadata(path).expect("it was planted");
        let refused = |error: &OpenError| assert!(expected(error), "{place:?}: {error:?}");
        refused(&Bus::open(test.address()).expect_err("no bus"));
        let config = qbus::BusOptions::default();
        match Bus::open_or_create(test.address(), &config) {
            Err(OpenOrCreateError::Open(error)) => refused(&error),
            other => panic!("{place:?}: {other:?}"),
        }
        let created = Bus::create(test.address(), &config);
        assert!(
            matches!(created, Err(CreateError::Exists { .. })),
            "{place:?}: {created:?}"
        );
        match Bus::remove(test.address(), Removal::Unused) {
            Err(RemoveError::Open(error)) => refused(&error),
            other => panic!("{place:?}: {other:?}"),
        }
        let after = fs::symlink_metadata(path).expect("it is still there");
        assert_eq!(
            (before.len(), before.mode()),
            (after.len(), after.mode()),
            "{place:?}"
        );
        if after.is_dir() {
            fs::remove_dir(path).expect("it is empty");
        }
    }
}

fn is_not_a_file(error: &OpenError) -> bool {
    matches!(error, OpenError::NotAFile { .. })
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let target = TestBus::small(Place::Named);
    check(
        |path| symlink(target.address().file(), path).expect("a link"),
        is_not_a_file,
    );
    // One that points nowhere must not make its target either.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let victim = folder.path().join("victim");
    check(
        |path| symlink(&victim, path).expect("a link"),
        is_not_a_file,
    );
    assert!(!victim.exists());
    assert!(
        Bus::open(target.address()).is_ok(),
        "the target is as it was"
    );
}

#[test]
fn a_fifo_is_refused_without_waiting() {
    check(plant::fifo, is_not_a_file);
}

#[test]
fn a_folder_is_refused() {
    check(
        |path| fs::create_dir(path).expect("a folder"),
        is_not_a_file,
    );
}

#[test]
fn a_file_of_something_else_is_refused() {
    let magic = u64::from_le_bytes(*plant::TEXT.as_bytes().first_chunk().expect("long enough"));
    check(
        plant::text,
        |error| matches!(error, OpenError::NotOurs { found, .. } if *found == magic),
    );
}

#[test]
fn a_short_file_is_unfinished() {
    for (place, text) in [(Place::Named, ""), (Place::Path, "short")] {
        let test = TestBus::reserve(place);
        let path = test.address().file();
        fs::write(path, text).expect("written");
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
        let error = Bus::open(test.address()).expect_err("no bus");
        assert!(matches!(error, OpenError::Unfinished { .. }), "{error:?}");
        assert_eq!(fs::read_to_string(path).expect("still there"), text);
    }
    // Only force takes it away: it may be a creator's that is still at work.
    let test = TestBus::reserve(Place::Named);
    fs::write(test.address().file(), "").expect("written");
    Bus::remove(test.address(), Removal::Forced).expect("it is removed");
    assert!(!test.address().file().exists());
}

#[test]
fn a_file_that_everybody_may_write_to_is_refused() {
    let test = TestBus::small(Place::Path);
    let copy = fs::read(test.address().file()).expect("a bus");
    let write = |path: &Path| {
        fs::write(path, &copy).expect("written");
        fs::set_permissions(path, Permissions::from_mode(0o666)).expect("a mode");
    };
    check(write, |error| {
        matches!(error, OpenError::Mode { found: 0o666, .. })
    });
}

#[test]
fn a_bus_with_another_header_is_refused() {
    // Word of the header, what is put there, and what is expected of the error.
    type Expected = fn(&OpenError) -> bool;
    let patches: [(u64, u64, Expected); 6] = [
        (1, 1, |error| {
            matches!(error, OpenError::Version { found: 1, .. })
        }),
        (1, u64::MAX, |error| {
            matches!(error, OpenError::Version { .. })
        }),
        (4, 4096, |error| matches!(error, OpenError::Size { .. })),
        (5, u64::MAX, |error| {
            matches!(error, OpenError::Geometry { .. })
        }),
        (7, 128, |error| matches!(error, OpenError::Size { .. })),
        (7, 257, |error| matches!(error, OpenError::Geometry { .. })),
    ];
    for place in Place::ALL {
        for (word, value, expected) in patches {
            let test = TestBus::small(place);
            plant::word(test.address().file(), word, value);
            let error = Bus::open(test.address()).expect_err("refused");
            assert!(expected(&error), "word {word} = {value}: {error:?}");
        }
    }
}

#[test]
fn a_truncated_bus_is_refused_with_both_sizes() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let whole = test.open().geometry().size_bytes();
        for left in [whole - 4096, 8192, 4096] {
            plant::end(test.address().file(), left);
            match Bus::open(test.address()) {
                Err(OpenError::Size {
                    found, expected, ..
                }) => {
                    assert_eq!((found, expected), (left, whole));
                }
                other => panic!("{place:?}: {other:?}"),
            }
        }
    }
}

/// Plants something in place of a snapshot, and checks that neither side takes it.
fn check_snapshot(plant: impl Fn(&Path), expected: impl Fn(&OpenError) -> bool) {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let path = test.address().snapshot();
        plant(&path);
        match Reader::open(&path) {
            Err(ReadError::Open(error)) => assert!(expected(&error), "{error:?}"),
            other => panic!("{place:?}: {other:?}"),
        }
        match Aggregator::open(&test.open(), &AggregatorOptions::default()) {
            Err(AggregateError::Snapshot(SnapshotError::Open(error))) => {
                assert!(expected(&error), "{error:?}");
            }
            other => panic!("{place:?}: {other:?}"),
        }
    }
}

#[test]
fn a_planted_snapshot_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let victim = folder.path().join("victim");
    plant::text(&victim);
    let link = |path: &Path| symlink(&victim, path).expect("a link");
    // One of this user's own is followed, as an aggregator may have left it; what it leads to is
    // not a snapshot, and stays.
    let is_refused = |error: &OpenError| {
        is_not_a_file(error) || matches!(error, OpenError::NotOurs { path, .. } if *path == victim)
    };
    check_snapshot(link, is_refused);
    check_snapshot(plant::fifo, is_not_a_file);
    check_snapshot(plant::text, |error| {
        matches!(error, OpenError::NotOurs { .. })
    });
    let text = fs::read_to_string(&victim).expect("still there");
    assert_eq!(text, plant::TEXT.repeat(1000));
}

#[test]
fn a_truncated_snapshot_is_refused() {
    let test = TestBus::small(Place::Path);
    drop(Aggregator::open(&test.open(), &AggregatorOptions::default()).expect("the first one"));
    let path = test.address().snapshot();
    plant::end(&path, 8192);
    match Reader::open(&path) {
        Err(ReadError::Open(OpenError::Size {
            found: 8192,
            expected,
            ..
        })) => {
            assert!(expected > 8192);
        }
        other => panic!("{other:?}"),
    }
}
