//! File systems: full, read-only, absent, another user's, or without what others have.

use qbus::Address;
use qbus_tests::Host;
use tempfile::TempDir;

use super::{check_all_works, check_refused, host, is_root, skip};

/// Starts a host in a mount namespace of its own, for a bus of that name or path; `None`, and
/// aloud, where none can be had or `mounts` fail.
fn host_with_mounts(bus: &str, mounts: &str) -> Option<Host> {
    let root = rustix::process::geteuid().is_root();
    let namespace = if root {
        "unshare --mount"
    } else {
        "unshare --user --map-root-user --mount"
    };
    let tried = std::process::Command::new("sh")
        .args(["-ec", &format!("{namespace} sh -ec '{mounts}'")])
        .output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        skip(&format!("these mounts cannot be made here: {mounts}"));
        return None;
    }
    let place = format!("exec {namespace} sh -ec '{mounts}; exec \"$@\"' sh \"$@\"");
    let address: Address = bus.parse().expect("a legal address");
    Some(host(&address, &place))
}

/// Everything works there.
fn check_works(bus: &str, mounts: &str) {
    if let Some(mut host) = host_with_mounts(bus, mounts) {
        check_all_works(&mut host);
        host.end();
    }
}

#[test]
fn a_folder_that_is_no_tmpfs_takes_a_bus() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path().display();
    let bus = &format!("{at}/mnt/bus");
    let overlay = format!(
        "mkdir -p {at}/mnt; mount -t tmpfs x {at}/mnt; cd {at}/mnt; mkdir l u w m; \
         mount -t overlay -o lowerdir=l,upperdir=u,workdir=w x m"
    );
    check_works(&format!("{at}/mnt/m/bus"), &overlay);
    // Without fallocate.
    check_works(
        bus,
        &format!("mkdir -p {at}/mnt; mount -t ramfs x {at}/mnt"),
    );
    let flags = "noexec,nosuid,nodev";
    check_works(
        bus,
        &format!("mkdir -p {at}/mnt; mount -t tmpfs -o {flags} x {at}/mnt"),
    );
    let image = format!(
        "mkdir -p {at}/mnt; truncate -s 16M {at}/img; mkfs.ext4 -q {at}/img; mount -o loop \
        {at}/img {at}/mnt"
    );
    check_works(bus, &image);
}

/// As containers have it: nothing can be written but memory.
#[test]
fn a_read_only_root_has_a_bus() {
    // This mount of it alone, in this namespace.
    check_works(
        "test",
        "mount -o remount,bind,ro /; mount -t tmpfs x /dev/shm",
    );
}

/// A user in a namespace of its own, as rootless containers have it.
#[test]
fn a_rootless_user_has_a_bus() {
    let place = "exec unshare --user --map-root-user --mount --ipc \
                 sh -ec 'mount -t tmpfs x /dev/shm; exec \"$@\"' sh \"$@\"";
    let tried = std::process::Command::new("sh")
        .args(["-ec", place, "sh", "true"])
        .output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        skip("no user namespace can be had here");
        return;
    }
    let address: Address = "rootless".parse().expect("a name");
    let mut host = host(&address, place);
    check_all_works(&mut host);
    host.end();
}

#[test]
fn a_full_or_read_only_or_absent_shm_is_said() {
    let refused = |mounts: &str, words: &[&str]| {
        if let Some(mut host) = host_with_mounts("test", mounts) {
            host.expect_refusal("create", words);
            host.expect_refusal("emit 3", &["no bus"]);
            host.end();
        }
    };
    let full = ["323584 bytes", "102400 left", "--shm-size"];
    refused("mount -t tmpfs -o size=100k x /dev/shm", &full);
    refused(
        "mount -t tmpfs -o nr_inodes=1 x /dev/shm",
        &["could not create /dev/shm/qbus.test", "No space left"],
    );
    refused(
        "mount -t tmpfs -o ro x /dev/shm",
        &["could not create /dev/shm/qbus.test", "Read-only"],
    );
    refused(
        "mount -t tmpfs x /dev",
        &[
            "could not create /dev/shm/qbus.test",
            "No such file or directory",
        ],
    );
    // Room for the bus, and not for its snapshot: producers go on, and their lanes keep what fits.
    for size in ["size=600k", "nr_inodes=2"] {
        let mounts = format!("mount -t tmpfs -o {size} x /dev/shm");
        if let Some(mut host) = host_with_mounts("test", &mounts) {
            host.expect("create", "open");
            host.expect("emit 3", "accepted 3 of 3");
            host.expect_refusal("aggregate", &["/dev/shm/qbus.test.snapshot"]);
            host.expect("emit 3", "accepted 3 of 3");
            host.expect("force", "removed");
            host.end();
        }
    }
}

#[test]
fn a_file_system_that_fills_under_a_bus_harms_nobody() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path().display();
    let mounts = format!(
        "mkdir -p {at}/mnt; truncate -s 8M {at}/img; mkfs.ext4 -q -O ^has_journal {at}/img; \
         mount -o loop {at}/img {at}/mnt"
    );
    let fill = format!("dd if=/dev/zero of={at}/mnt/full bs=64k 2>/dev/null || true");
    // Before the bus is made: refused, and nothing is left that stands in the way later.
    if let Some(mut host) = host_with_mounts(&format!("{at}/mnt/bus"), &format!("{mounts}; {fill}"))
    {
        check_refused(&mut host, &["no room for", "/mnt/bus"]);
        host.end();
    }
    // While it is in use: all of it is reserved, so that nothing ends with SIGBUS.
    if let Some(mut host) = host_with_mounts(&format!("{at}/mnt/bus"), &mounts) {
        host.expect("create", "open");
        host.expect("aggregate", "aggregating");
        host.expect("fill", "full");
        for _ in 0..3 {
            host.expect("emit 200", "accepted 200 of 200");
            let answer = host.ask("finish");
            assert!(answer.starts_with("counted "), "{answer}");
        }
        host.expect("read", "counted 600");
        host.end();
    }
}

#[test]
fn another_users_shm_is_refused() {
    if !is_root("another user") {
        return;
    }
    let copy = super::processes::public_copy(super::HOST);
    let place = "exec unshare --mount sh -ec 'mount -t tmpfs -o mode=755 x /dev/shm; \
                 exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"' sh \"$@\"";
    let address: Address = "test".parse().expect("a name");
    let program = copy.path().join("helper").display().to_string();
    let mut host = Host::start(&program, &address, place);
    check_refused(
        &mut host,
        &["could not create /dev/shm/qbus.test", "Permission denied"],
    );
    host.end();
}
