//! Paths: odd ones, and files that move.

use std::fs;

use qbus::Address;
use qbus_tests::Host;
use tempfile::TempDir;

use super::{HERE, check_all_works, host};

fn folder() -> TempDir {
    TempDir::with_prefix("qbus test ").expect("a temporary folder")
}

fn host_at(path: &str) -> Host {
    let address: Address = path.parse().expect("a path");
    host(&address, HERE)
}

#[test]
fn a_path_of_any_shape_works_or_is_refused() {
    let folder = folder();
    let at = folder.path().display();
    for path in [
        format!("{at}/a bus of \u{fc}mlauts and \"quotes\""),
        format!("{at}/./sub/../bus"),
        format!("{at}//bus"),
        format!("{at}/{}", "x".repeat(230)),
    ] {
        fs::create_dir_all(folder.path().join("sub")).expect("a folder");
        let mut host = host_at(&path);
        check_all_works(&mut host);
        host.end();
    }
    for (path, why) in [
        (format!("{at}/"), "is not a regular file"),
        (format!("{at}/{}", "x".repeat(300)), "File name too long"),
        (
            format!("{at}/{}bus", "d/".repeat(2500)),
            "File name too long",
        ),
        (format!("{at}/absent/bus"), "No such file"),
    ] {
        let mut host = host_at(&path);
        host.expect_refusal("create", &[why]);
        host.expect_refusal("emit 1", &["no bus"]);
        host.end();
    }
    let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Daemons go to another folder, before their first emit or after it.
#[test]
fn a_relative_path_means_the_folder_where_it_was_said() {
    let folder = folder();
    let place = format!("cd '{}'; exec \"$@\"", folder.path().display());
    let address: Address = "./bus".parse().expect("a path");
    let mut host = host(&address, &place);
    host.expect("create", "open");
    host.expect("cd /", "there");
    host.expect("emit 3", "accepted 3 of 3");
    host.expect("aggregate", "aggregating");
    host.expect("fork 2", "accepted 2 of 2");
    host.expect("finish", "counted 5");
    assert!(folder.path().join("bus.snapshot").exists());
    host.expect("rest", "resting");
    host.expect("force", "removed");
    host.end();
}

/// Two names of one file are one bus: one aggregator, and everybody's records.
#[test]
fn a_hard_link_is_another_name_of_the_same_bus() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mut first = host_at(&path("bus").display().to_string());
    first.expect("create", "open");
    first.expect("emit 2", "accepted 2 of 2");
    fs::hard_link(path("bus"), path("link")).expect("a link");
    let mut second = host_at(&path("link").display().to_string());
    second.expect("open", "open");
    second.expect("emit 3", "accepted 3 of 3");
    first.expect("aggregate", "aggregating");
    let pid = first.process().pid().to_string();
    second.expect_refusal("aggregate", &["aggregator already", &pid]);
    first.expect("finish", "counted 5");
    second.expect("emit 1", "accepted 1 of 1");
    first.expect("finish", "counted 6");
    second.expect_refusal("remove", &["in use", &pid]);
    first.end();
    second.end();
}

#[test]
fn a_bus_that_is_renamed_goes_on_for_those_who_have_it() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mut host = host_at(&path("bus").display().to_string());
    host.expect("create", "open");
    host.expect("emit 2", "accepted 2 of 2");
    host.expect("aggregate", "aggregating");
    fs::rename(path("bus"), path("moved")).expect("it was there");
    let mut late = host_at(&path("bus").display().to_string());
    late.expect_refusal("open", &["there is no "]);
    late.end();
    let mut other = host_at(&path("moved").display().to_string());
    other.expect("open", "open");
    other.expect("emit 1", "accepted 1 of 1");
    let pid = host.process().pid().to_string();
    other.expect_refusal("aggregate", &["aggregator already", &pid]);
    host.expect("finish", "counted 3");
    host.end();
    other.end();
}

/// A backup of a live bus, opened, is a bus of its own whose owners are all dead.
#[test]
fn a_copy_of_a_live_bus_does_no_harm_to_it() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mut host = host_at(&path("bus").display().to_string());
    host.expect("create", "open");
    host.expect("emit 2", "accepted 2 of 2");
    host.expect("aggregate", "aggregating");
    host.expect("finish", "counted 2");
    host.expect("emit 2", "accepted 2 of 2");
    fs::copy(path("bus"), path("copy")).expect("room");
    let mut other = host_at(&path("copy").display().to_string());
    other.expect("open", "open");
    other.expect("emit 1", "accepted 1 of 1");
    other.expect("aggregate", "aggregating");
    // What lay in the lanes when the copy was made, and its own.
    other.expect("finish", "counted 3");
    host.expect("finish", "counted 4");
    other.expect("force", "removed");
    other.end();
    host.expect("emit 1", "accepted 1 of 1");
    host.expect("finish", "counted 5");
    host.end();
}
