//! The host as a container sees it: its `/proc`, `/sys` and `/` are mounted elsewhere.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use qbus_sampler::{Names, Source};

use crate::support::{sampler, tick};

/// Where the child of the test finds the host, and what the host says of itself.
const HOST: &str = "QBUS_TEST_HOST";

/// Mounts the host below a folder, and goes on in pid, network and mount namespaces of its own.
const CONTAINER: &str = "
    mount --make-rprivate / &&
    mount --rbind / \"$1/root\" &&
    mount --rbind /proc \"$1/proc\" &&
    mount --rbind /sys \"$1/sys\" &&
    mount -t proc proc /proc &&
    echo mounted &&
    exec \"$2\" --ignored --exact --nocapture roots::what_a_container_reads
";

/// Devices of `/proc/net/dev`.
fn devices() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// The number of the device that a process has at `/`.
fn root_device(process: &str) -> Option<String> {
    let table = fs::read_to_string(format!("/proc/{process}/mountinfo")).ok()?;
    let words = |line: &'_ str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut mounts = table.lines().map(words);
    let root = mounts.rfind(|words| words.get(4).is_some_and(|point| point == "/"))?;
    Some(root[2].clone())
}

fn size_of(path: &str) -> f64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_blocks as f64 * found.f_frsize as f64
}

#[test]
fn a_container_with_the_hosts_folders_reads_the_host() {
    if root_device("1") != root_device("self") {
        eprintln!("skipped: the first process has another root than this one");
        return;
    }
    // In this network somebody has opened a connection, and in the other nobody can.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for folder in ["root", "proc", "sys"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let host = format!(
        "{}\n{}\n{}",
        dir.path().display(),
        size_of("/"),
        devices().join(" ")
    );
    let output = Command::new("unshare")
        .args([
            "--mount", "--pid", "--net", "--fork", "sh", "-c", CONTAINER, "sh",
        ])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(HOST, host)
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: no program `unshare`");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    if !said.starts_with("mounted") {
        eprintln!("skipped: no namespaces, or no mounts in them: {failed}");
        return;
    }
    assert!(output.status.success(), "{said}\n{failed}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "runs as a child of another test"]
fn what_a_container_reads() {
    let Ok(host) = std::env::var(HOST) else {
        return;
    };
    let mut lines = host.lines();
    let root = PathBuf::from(lines.next().unwrap());
    let size: f64 = lines.next().unwrap().parse().unwrap();
    let on_host: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    assert_eq!(devices(), ["lo"], "the network is another one");
    let sources = [
        Source::Network,
        Source::Netstat,
        Source::Filesystem,
        Source::Processes,
        Source::Load,
        Source::Netclass,
    ];
    let mut sampler = sampler(&sources, |options| {
        options.names = Names::Node;
        options.roots.root = root.join("root");
        options.roots.proc = root.join("proc");
        options.roots.sys = root.join("sys");
        // The root of this machine may be an overlay.
        options.filters.fs_types_exclude = Some("^proc$".parse().unwrap());
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    for device in on_host {
        assert!(page.has(&format!(
            "node_network_receive_bytes_total{{device={device:?}}}"
        )));
    }
    let opened = page.value("node_netstat_Tcp_ActiveOpens");
    assert!(
        opened > 0.0,
        "nobody has opened a connection in this network"
    );
    let of_root = |key: &&String| {
        key.starts_with("node_filesystem_size_bytes") && key.ends_with("mountpoint=\"/\"}")
    };
    let key = page.samples.keys().find(of_root);
    let key = key.unwrap_or_else(|| panic!("no root in {page:#?}"));
    assert_eq!(page.value(key), size);
    let below = page
        .samples
        .keys()
        .filter(|key| key.contains(&*root.to_string_lossy()));
    assert_eq!(
        below.count(),
        0,
        "mount points are as the host knows them: {page:#?}"
    );
    let processes = page
        .samples
        .iter()
        .filter(|(key, _)| key.starts_with("node_processes_state"));
    let processes: f64 = processes.map(|(_, value)| value).sum();
    assert!(processes > 3.0, "this namespace has no more: {processes}");
}
