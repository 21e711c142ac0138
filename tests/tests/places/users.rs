//! Other users: two containers of a pod that share a folder, and one who was there first.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown};
use std::path::Path;

use qbus::Address;
use qbus_tests::{Host, until};
use tempfile::TempDir;

use super::processes::public_copy;
use super::{HOST, is_root};

/// A folder that several users share, and a program that they may run.
struct Shared {
    folder: TempDir,
    program: TempDir,
}

/// A container: its user, its groups beside that user's own, and its umask.
#[derive(Clone, Copy, Debug)]
struct Container {
    uid: u32,
    gid: u32,
    groups: &'static str,
    umask: &'static str,
}

impl Shared {
    fn new(group: u32, mode: u32) -> Shared {
        let folder = TempDir::new().expect("a temporary folder");
        chown(folder.path(), None, Some(group)).expect("root may");
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).expect("our folder");
        Shared {
            folder,
            program: public_copy(HOST),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Starts a host in a container, with the bus in the shared folder; it makes buses of that
    /// mode.
    fn start(&self, container: Container, mode: u32) -> Host {
        let Container {
            uid,
            gid,
            groups,
            umask,
        } = container;
        let place = format!(
            "umask {umask}; export TEST_MODE={mode:o}; \
             exec setpriv --reuid {uid} --regid {gid} {groups} \"$@\""
        );
        let address: Address = self.path("bus").parse().expect("a path");
        let program = self.program.path().join("helper");
        Host::start(&program.display().to_string(), &address, &place)
    }
}

const PLAIN: Container = Container {
    uid: 61001,
    gid: 61001,
    groups: "--clear-groups",
    umask: "022",
};

/// Everything in every order: who made the bus, who aggregates first, and who goes on with the
/// snapshot.
fn check_pod(shared: impl Fn() -> Shared, containers: [Container; 2]) {
    for (maker, aggregates_first) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let shared = shared();
        let mut hosts = containers.map(|container| shared.start(container, 0o660));
        let case = format!("{containers:?}, made by {maker}, aggregated by {aggregates_first}");
        assert_eq!(hosts[maker].ask("create"), "open", "{case}");
        assert_eq!(hosts[1 - maker].ask("open"), "open", "{case}");
        let mut counted = 0;
        for round in 0..3 {
            for host in &mut hosts {
                host.expect("emit 2", "accepted 2 of 2");
            }
            counted += 4;
            let now = (aggregates_first + round) % 2;
            assert_eq!(hosts[now].ask("aggregate"), "aggregating", "{case}");
            for host in [now, 1 - now] {
                let read = if host == now { "finish" } else { "read" };
                assert_eq!(
                    hosts[host].ask(read),
                    format!("counted {counted}"),
                    "{case}"
                );
            }
            hosts[1 - now].expect_refusal("aggregate", &["aggregator already"]);
            hosts[now].expect("rest", "resting");
        }
        for host in hosts {
            host.end();
        }
    }
}

#[test]
fn containers_of_a_pod_share_a_bus_over_every_restart_order() {
    if !is_root("containers with users of their own") {
        return;
    }
    // fsGroup: a set-group-ID folder of a group that both have beside their own.
    let fs_group = |uid| Container {
        uid,
        gid: uid,
        groups: "--groups 62000",
        umask: "027",
    };
    check_pod(
        || Shared::new(62000, 0o2770),
        [fs_group(61001), fs_group(61002)],
    );
    // An arbitrary user in group 0, as OpenShift has it.
    let arbitrary = |uid| Container {
        uid,
        gid: 0,
        groups: "--clear-groups",
        umask: "027",
    };
    check_pod(
        || Shared::new(0, 0o770),
        [arbitrary(1_000_660_000), arbitrary(1_000_770_000)],
    );
    // One user under two names of its groups.
    let same = Container {
        groups: "--groups 62000",
        ..PLAIN
    };
    check_pod(|| Shared::new(62000, 0o2770), [same, PLAIN_IN_GROUP]);
}

const PLAIN_IN_GROUP: Container = Container {
    gid: 62000,
    umask: "077",
    ..PLAIN
};

#[test]
fn who_shares_no_group_is_refused_with_both_users() {
    if !is_root("users of their own") {
        return;
    }
    let shared = Shared::new(0, 0o777);
    let other = Container {
        uid: 61002,
        gid: 61002,
        ..PLAIN
    };
    for mode in [0o600, 0o660] {
        let (mut maker, mut stranger) = (shared.start(PLAIN, mode), shared.start(other, mode));
        maker.expect("create", "open");
        maker.expect("emit 1", "accepted 1 of 1");
        stranger.expect_refusal("create", &["61001", "61002"]);
        stranger.expect_refusal("emit 1", &["no bus"]);
        stranger.expect_refusal("read", &["there is no"]);
        maker.expect("aggregate", "aggregating");
        maker.expect("finish", "counted 1");
        stranger.expect_refusal("read", &["bus.snapshot", "61001", "61002"]);
        stranger.end();
        maker.expect("force", "removed");
        maker.end();
    }
}

/// A folder that everybody may write to, as /dev/shm is, and somebody who was there first.
#[test]
fn what_another_user_planted_is_refused_and_left_alone() {
    if !is_root("users of their own") {
        return;
    }
    let shared = Shared::new(0, 0o1777);
    let (stranger, bus, snapshot) = (61002, shared.path("bus"), shared.path("bus.snapshot"));
    let give = |path: &str, mode| {
        chown(path, Some(stranger), Some(stranger)).expect("root may");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("root may");
    };
    // A bus of the stranger's, whole and readable or not.
    for mode in [0o600, 0o644, 0o666] {
        fs::copy(whole_bus(&shared), &bus).expect("room");
        give(&bus, mode);
        let mut host = shared.start(PLAIN, 0o600);
        let why = if mode == 0o666 { "mode" } else { "61002" };
        host.expect_refusal("create", &[why]);
        host.expect_refusal("emit 1", &["no bus"]);
        host.expect_refusal("force", &[]);
        host.end();
        fs::remove_file(&bus).expect("it is left alone");
    }
    // A link of the stranger's to a file of the user's, soft and hard.
    let precious = shared.path("precious");
    fs::write(&precious, "precious ".repeat(1000)).expect("room");
    chown(&precious, Some(PLAIN.uid), Some(PLAIN.gid)).expect("root may");
    fs::set_permissions(&precious, Permissions::from_mode(0o600)).expect("root may");
    for is_hard in [false, true] {
        for planted in [&bus, &snapshot] {
            let mut host = shared.start(PLAIN, 0o600);
            if planted == &snapshot {
                host.expect("create", "open");
                host.expect("emit 1", "accepted 1 of 1");
            }
            if is_hard {
                fs::hard_link(&precious, planted).expect("a link");
            } else {
                std::os::unix::fs::symlink(&precious, planted).expect("a link");
                // Root's own could be followed: it can do anything as it is.
                lchown(planted, Some(stranger), Some(stranger)).expect("root may");
            }
            if planted == &snapshot {
                host.expect_refusal("aggregate", &["bus.snapshot"]);
                host.expect("emit 1", "accepted 1 of 1");
            } else {
                host.expect_refusal("create", &["bus"]);
            }
            host.end();
            for path in [&bus, &snapshot] {
                let _ = fs::remove_file(path);
            }
            let text = fs::read_to_string(&precious).expect("it is there");
            assert_eq!(text, "precious ".repeat(1000));
        }
    }
    // A snapshot of the stranger's beside the user's own bus.
    let mut host = shared.start(PLAIN, 0o600);
    host.expect("create", "open");
    fs::write(&snapshot, [0; 1 << 16]).expect("room");
    give(&snapshot, 0o644);
    host.expect_refusal("aggregate", &["61002"]);
    host.expect("emit 1", "accepted 1 of 1");
    fs::remove_file(&snapshot).expect("it is left alone");
    host.expect("aggregate", "aggregating");
    host.expect("finish", "counted 1");
    host.end();
}

/// A bus that nobody has broken, made once.
fn whole_bus(shared: &Shared) -> std::path::PathBuf {
    let path = shared.folder.path().join("whole");
    if !Path::new(&path).exists() {
        let address: Address = path.display().to_string().parse().expect("a path");
        let options = qbus::BusOptions {
            geometry: qbus_tests::TestBus::small_geometry(),
            ..qbus::BusOptions::default()
        };
        drop(qbus::Bus::create(&address, &options).expect("room"));
        until("the bus", || path.exists());
    }
    path
}
