//! A bus or snapshot that is absent, broken, somebody else's, or has no room.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_tests::{Place, TestBus, plant, run, until};

use crate::support::{aggregate, aggregator, fails, is_root, qbus, stop, typed, well};

/// Commands that open the bus.
const OPENING: [&str; 4] = ["emit x 1", "stat", "load --records 1", "rm"];

/// Checks that every command that opens the bus ends with that code and says all of that.
fn check(bus: &TestBus, code: i32, gist: &[&str]) {
    for line in OPENING {
        fails(bus, line, code, gist);
    }
}

#[test]
fn no_such_bus() {
    for place in Place::ALL {
        let bus = TestBus::reserve(place);
        let path = bus.address().file().display().to_string();
        check(&bus, 1, &["there is no", &path]);
        let start = format!("start `qbus agg -b {}`", bus.address());
        fails(&bus, "emit x 1", 1, &[&start, "qbus create -b"]);
        fails(&bus, "agg --no-create", 1, &[&start]);
        fails(&bus, "dump", 1, &[&start, "no snapshot"]);
        assert!(!bus.address().file().exists(), "asking makes nothing");
    }
}

#[test]
fn no_such_address() {
    let bus = TestBus::reserve(Place::Named);
    let gist = [
        "\"two words\" names no bus",
        "1 to 64 letters",
        "a path with a slash",
    ];
    fails(&bus, "-b 'two words' dump", 2, &gist);
    fails(&bus, "-b '' dump", 2, &["names no bus"]);
    let long = "x".repeat(65);
    fails(&bus, &format!("-b {long} dump"), 2, &["names no bus"]);
}

#[test]
fn a_dump_before_any_aggregator_ran() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let start = format!("start `qbus agg -b {}`", bus.address());
        fails(
            &bus,
            "dump",
            1,
            &["there is no snapshot", "no aggregator has run", &start],
        );
        // Statistics are of the bus, and the bus is there.
        assert!(well(&bus, "stat").contains(&start));
    }
}

#[test]
fn a_dump_of_a_snapshot_that_was_never_finished() {
    let bus = TestBus::small(Place::Named);
    let start = format!("start `qbus agg -b {}`", bus.address());
    for page in [&[][..], &[0; 65536]] {
        fs::write(bus.address().snapshot(), page).expect("written");
        let error = fails(&bus, "dump", 1, &["is empty", &start]);
        assert!(!error.contains("rm"), "the bus is good: {error}");
    }
    // The next aggregator makes it anew.
    fs::set_permissions(bus.address().snapshot(), Permissions::from_mode(0o600)).expect("a mode");
    well(&bus, "emit x 1");
    aggregate(&bus);
    assert!(well(&bus, "dump").ends_with("x 1\n"));
}

/// What it is and what is wrong with it is said by every command, and none touches it.
#[test]
fn what_is_no_bus() {
    for place in Place::ALL {
        let bus = TestBus::reserve(place);
        let path = bus.address().file();
        plant::text(path);
        let shown = path.display().to_string();
        let gist = [&shown, "is not a bus", "it starts with 0x"];
        check(&bus, 2, &gist);
        for line in ["agg", "rm --force"] {
            fails(&bus, line, 2, &gist);
        }
        let dump = format!("dump --snapshot {shown}");
        fails(&bus, &dump, 2, &["is not a snapshot"]);
        // Nothing says that it could be removed.
        let error = fails(&bus, "create", 2, &gist);
        assert!(!error.contains("qbus rm"), "{error}");
        let doctor = qbus(&bus, "doctor").out;
        let remove = format!("qbus rm -b {}", bus.address());
        assert!(
            doctor.contains("is not a bus") && !doctor.contains(&remove),
            "{doctor}"
        );
        assert!(path.exists(), "it is not ours to remove");

        let bus = TestBus::small(place);
        let whole = bus.open().geometry().size_bytes();
        plant::end(bus.address().file(), 8192);
        let sizes = format!("has 8192 bytes, its header says {whole}");
        check(&bus, 2, &[&sizes, "truncated"]);
        fails(&bus, "agg", 2, &[&sizes, "truncated"]);

        let bus = TestBus::small(place);
        aggregate(&bus);
        plant::word(bus.address().file(), 1, 99);
        for line in ["emit x 1", "stat", "agg"] {
            let gist = ["has layout version 99, this build reads "];
            fails(&bus, line, 2, &gist);
        }
        plant::word(&bus.address().snapshot(), 1, 9);
        fails(&bus, "dump", 2, &["has layout version 9, this build reads"]);
        // Nobody uses it.
        well(&bus, "rm");
    }
}

#[test]
fn a_snapshot_of_another_layout_version() {
    let bus = TestBus::small(Place::Named);
    aggregate(&bus);
    plant::word(&bus.address().snapshot(), 1, 9);
    // It shows what is known, and what is not.
    let skewed = "layout version 9, this build";
    let shown = well(&bus, "stat");
    assert!(shown.contains("the snapshot is not read"), "{shown}");
    assert!(shown.contains(skewed), "{shown}");
    let shown = well(&bus, "stat --json");
    let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let why = json["no_snapshot"].as_str().expect("why");
    assert!(why.contains(skewed), "{why}");

    thread::scope(|scope| {
        let aggregating = scope.spawn(|| {
            let name = bus.address();
            let line = format!("agg --no-host --no-gpu --no-self -b {name}");
            run(&mut typed(&line), "")
        });
        until("the new snapshot", || {
            let shown = well(&bus, "stat --json");
            let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
            json["no_snapshot"].is_null() && json["aggregator"]["epoch"].as_u64() > Some(0)
        });
        // It ends with the bus.
        well(&bus, "rm --force");
        let ended = aggregating.join().expect("ran");
        for part in [skewed, "was moved to", "totals begin anew"] {
            assert!(ended.err.contains(part), "{part:?}: {ended:?}");
        }
    });
}

#[test]
fn a_bus_that_was_never_finished() {
    let bus = TestBus::reserve(Place::Named);
    fs::write(bus.address().file(), "").expect("written");
    fails(&bus, "stat", 1, &["is unfinished", "`qbus rm --force -b "]);
    well(&bus, "rm --force");
    assert!(!bus.address().file().exists());
}

#[test]
fn a_bus_of_another_user() {
    if !is_root("a bus of another user") {
        return;
    }
    for place in Place::ALL {
        let bus = TestBus::small(place);
        chown(bus.address().file(), Some(65534), None).expect("root may");
        let gist = [
            "belongs to uid 65534, this process runs as uid 0",
            "--mode 0660",
        ];
        check(&bus, 2, &gist);
        fails(&bus, "agg", 2, &gist);
        // One that is shared with a group is for whoever the kernel lets in.
        fs::set_permissions(bus.address().file(), Permissions::from_mode(0o660)).expect("a mode");
        well(&bus, "emit x 1");
        fs::set_permissions(bus.address().file(), Permissions::from_mode(0o666)).expect("a mode");
        check(&bus, 2, &["has mode 0666", "expected 0600 or 0660"]);
    }
}

#[test]
fn something_else_in_its_place() {
    let target = TestBus::small(Place::Named);
    let link = |path: &Path| symlink(target.address().file(), path).expect("a link");
    let gist = ["is not a regular file"];
    for place in Place::ALL {
        // A link in place of a snapshot is followed; that one leads to what is none.
        let plants = [
            (&link as &dyn Fn(&Path), "is not a snapshot"),
            (&plant::fifo, gist[0]),
        ];
        for (plant, of_snapshot) in plants {
            let bus = TestBus::reserve(place);
            plant(bus.address().file());
            check(&bus, 2, &gist);
            fails(&bus, "agg", 2, &gist);
            fails(&bus, "create", 2, &gist);
            assert!(fs::symlink_metadata(bus.address().file()).is_ok());

            let bus = TestBus::small(place);
            plant(&bus.address().snapshot());
            fails(&bus, "dump", 2, &[of_snapshot]);
            let agg = "agg --no-host --no-gpu --no-self";
            fails(&bus, agg, 2, &[of_snapshot]);
        }
    }
    well(&target, "stat");
}

#[test]
fn a_second_aggregator() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let first = aggregator(&bus, "");
        let pid = format!("pid {}", first.pid());
        fails(&bus, "agg", 2, &["has an aggregator already", &pid]);
        let pid = first.pid().to_string();
        fails(&bus, "rm", 2, &["in use by pid", &pid, "--force"]);
        assert!(bus.is_aggregated(first.pid()));
        stop(first);
    }
}

/// A file system of 256 KiB; unmounted when it is dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Small {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(folder.path());
        let mounted = run(&mut mount, "");
        assert_eq!(mounted.code, Some(0), "{mounted:?}");
        Small(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A file system that, unlike a tmpfs, would fill itself to the last byte before it says that
/// something has no room; `None`, and aloud, where none can be had.
fn mount_ext4(mebibytes: u32) -> Option<Small> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().display();
    let made = format!(
        "truncate -s {mebibytes}M {at}.img && mkfs.ext4 -q {at}.img && mount -o loop {at}.img \
        {at}; status=$?; rm -f {at}.img; exit $status"
    );
    let mounted = run(Command::new("sh").args(["-c", &made]), "");
    if mounted.code != Some(0) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED, no ext4 can be mounted here");
        return None;
    }
    Some(Small(folder))
}

#[test]
fn what_has_no_room_leaves_a_disk_as_it_was() {
    if !is_root("a disk of its own") {
        return;
    }
    let Some(small) = mount_ext4(32) else { return };
    let free = || {
        let found = rustix::fs::statvfs(small.0.path()).expect("a file system");
        found.f_bavail * found.f_frsize
    };
    let path = small.0.path().join("bus").display().to_string();
    let geometry = "--lanes=8 --slots=256 --max-series=256 --max-owners=64 --cells=256";
    well_at(&path, &format!("create {geometry}"));
    let before = free();
    // A new snapshot, then one that is there.
    let lots = format!("agg --no-host --no-gpu --no-self --recent 5000000 -b {path}");
    let opened = |address: &str| qbus::Bus::open(&address.parse().expect("a path")).expect("a bus");
    for is_there in [false, true] {
        if is_there {
            let aggregator = Aggregator::open(&opened(&path), &AggregatorOptions::default());
            aggregator.expect("the only one").finish();
        }
        let before = if is_there { free() } else { before };
        let finished = run(&mut typed(&lots), "");
        assert_eq!(finished.code, Some(2), "{finished:?}");
        for part in [
            "no room for",
            &format!("has {before} left"),
            "--recent",
            "--snapshot PATH",
        ] {
            assert!(
                finished.err.contains(part),
                "no {part:?} in {}",
                finished.err
            );
        }
        assert!(!finished.err.contains("--lanes"), "{}", finished.err);
        assert_eq!(free(), before, "as it was");
    }
    let large = format!("create -b {path}2 --slots=65536");
    let large = run(&mut typed(&large), "");
    assert_eq!(large.code, Some(2), "{large:?}");
    assert!(
        large.err.contains("--lanes") && !large.err.contains("has 0 left"),
        "{}",
        large.err
    );
}

fn well_at(path: &str, line: &str) {
    let finished = run(&mut typed(&format!("{line} -b {path}")), "");
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn no_room() {
    if !is_root("a full file system") {
        return;
    }
    let (small, bus) = (Small::mount(), TestBus::reserve(Place::Named));
    let path = small.0.path().join("bus").display().to_string();
    let needed = qbus::Geometry::default().size_bytes();
    let (needs, mebibytes) = (format!("needs {needed} bytes"), needed.div_ceil(1 << 20));
    let shm_size = format!("--shm-size={}m", (mebibytes * 2).max(64));
    let gist = [
        path.as_str(),
        &needs,
        "its file system has 26",
        "--lanes",
        &shm_size,
        "emptyDir",
    ];
    fails(&bus, &format!("create -b {path}"), 2, &gist);
    fails(&bus, &format!("agg -b {path}"), 2, &gist);
    let left: Vec<_> = fs::read_dir(small.0.path()).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");

    // Room for the bus and none for the snapshot: the bus stays as it was, and nothing half-made.
    let tiny = "--lanes 2 --shared-lanes 1 --slots 16 --max-series 16 --max-families 8";
    well_at(&path, &format!("create {tiny} --max-owners 8"));
    fails(
        &bus,
        &format!("agg -b {path} --no-host --no-gpu --no-self"),
        2,
        &["no room for", ".snapshot"],
    );
    assert!(!Path::new(&format!("{path}.snapshot")).exists());
    well(&bus, &format!("emit x 1 -b {path}"));
}

#[test]
fn a_geometry_that_cannot_be() {
    let bus = TestBus::reserve(Place::Named);
    let slots = ["slots is 3", "a power of two, 4 say"];
    fails(&bus, "create --slots 3", 2, &slots);
    fails(
        &bus,
        "create --lanes 0",
        2,
        &["lanes is 0, expected 1 to 4096"],
    );
    let shared = "create --lanes 2 --shared-lanes 3";
    fails(&bus, shared, 2, &["shared lanes is 3, expected 0 to 2"]);
    fails(&bus, "create --mode 0666", 2, &["0600", "0660"]);
    assert!(!bus.address().file().exists());
    well(&bus, "create --mode 0660 --max-owners 16");
    let mode = fs::metadata(bus.address().file())
        .expect("a bus")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o660);
    let remove = format!("`qbus rm -b {}`", bus.address());
    fails(
        &bus,
        "create",
        2,
        &["exists already", "--if-absent", &remove],
    );
}

#[test]
fn a_name_in_the_environment_that_is_no_text() {
    for name in [&b"/tmp/\xff"[..], b"bus\xff"] {
        let finished = run(typed("stat").env("QBUS", OsStr::from_bytes(name)), "");
        assert_eq!(finished.code, Some(2), "{finished:?}");
        for part in ["UTF-8", "the environment's QBUS"] {
            assert!(finished.err.contains(part), "{part:?}: {finished:?}");
        }
    }
}

#[test]
fn an_empty_name_in_the_environment_is_none() {
    let help = run(typed("--help").env("QBUS", ""), "");
    assert_eq!(help.code, Some(0), "{help:?}");
    // Whether there is one of that name is not this test's.
    let finished = run(typed("stat").env("QBUS", ""), "");
    assert!(
        !finished.err.contains("names no bus"),
        "the default one: {finished:?}"
    );
    let finished = run(typed("-b '' stat").env_remove("QBUS"), "");
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("names no bus"), "{finished:?}");
}

#[test]
fn misuse_ends_with_2() {
    for line in ["frobnicate", "", "dump -f xml", "dump --match '[a'"] {
        let finished = run(typed(line).env_remove("QBUS"), "");
        assert_eq!(finished.code, Some(2), "{line}: {finished:?}");
        assert_eq!(finished.out, "", "{line}");
    }
}
