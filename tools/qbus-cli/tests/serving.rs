//! `qbus serve` as it is started, and what it lives through.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use qbus_tests::{LIMIT, Place, Process, TestBus, until};

use crate::support::{QBUS, aggregate, aggregator, fails, stop, well};

/// What a server says to a request; nothing where it closes the connection.
fn asked(mut stream: impl Read + Write, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    said
}

fn page(port: u16) -> String {
    let stream = TcpStream::connect(("localhost", port)).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    asked(stream, "/metrics")
}

/// Starts a server with its news in a file, and waits until it has said so many addresses.
fn serve(bus: &TestBus, log: &Path, args: &[&str], addresses: usize) -> (Process, Vec<String>) {
    let mut command = Command::new(QBUS);
    command.args(["serve", "-b", &bus.address().to_string()]);
    command.args(args).stderr(File::create(log).expect("room"));
    let process = Process::spawn(command);
    (process, urls(log, addresses))
}

fn urls(log: &Path, addresses: usize) -> Vec<String> {
    let mut urls = Vec::new();
    until("a server to say where it is", || {
        let said = fs::read_to_string(log).unwrap_or_default();
        let at = said.lines().filter_map(|line| line.split_once(" at "));
        urls = at.map(|(_, url)| url.to_owned()).collect();
        urls.len() == addresses
    });
    urls
}

fn port_of(url: &str) -> u16 {
    let port = url.trim_end_matches('/').rsplit_once(':');
    port.and_then(|(_, port)| port.parse().ok())
        .expect("a port")
}

/// A bus with a counter at that value.
fn bus(jobs: &str) -> TestBus {
    let bus = TestBus::small(Place::Named);
    well(&bus, &format!("emit jobs_total {jobs} --type counter"));
    bus
}

#[test]
fn it_listens_wherever_it_is_told_to_all_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, socket) = (folder.path().join("log"), folder.path().join("q"));
    let bus = bus("3");
    let running = aggregator(&bus, "");
    let unix = format!("unix:{},mode=0666", socket.display());
    let mut listen = vec!["--listen", "127.0.0.1:0", "--listen", &unix];
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if has_ipv6 {
        listen.extend(["--listen", "[::1]:0"]);
    }
    let (server, urls) = serve(&bus, &log, &listen, listen.len() / 2);
    until("the page", || {
        page(port_of(&urls[0])).contains("\njobs_total 3\n")
    });
    assert!(urls[1].starts_with("http+unix://"), "{urls:?}");
    let mode = fs::metadata(&socket)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o666);
    let stream = UnixStream::connect(&socket).expect("it listens");
    assert!(asked(stream, "/metrics").contains("\njobs_total 3\n"));
    if has_ipv6 {
        let port = port_of(&urls[2]);
        assert_eq!(urls[2], format!("http://[::1]:{port}/"));
        let stream = TcpStream::connect(("::1", port)).expect("it listens");
        assert!(asked(stream, "/metrics").contains("\njobs_total 3\n"));
    }
    // One that cannot be had ends it, and says which; the first socket does not stay.
    let (taken, other) = (
        format!("127.0.0.1:{}", port_of(&urls[0])),
        format!("unix:{}", folder.path().join("other").display()),
    );
    let args = format!("serve --listen {other} --listen {taken}");
    fails(&bus, &args, 2, &[&taken, "is taken"]);
    let nowhere = "serve --listen unix:/nowhere/at/all";
    fails(&bus, nowhere, 2, &["/nowhere/at/all", "No such file"]);
    let left = fs::read_dir(folder.path()).expect("a folder").flatten();
    let mut left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["log", "q"]);
    stop(server);
    assert!(!socket.exists(), "it goes with the server");
    stop(running);
}

#[test]
fn its_json_is_that_of_a_dump() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let bus = bus("3");
    well(
        &bus,
        "emit wait_seconds 0.2 --type histogram --label queue=a",
    );
    well(&bus, "emit size_bytes 17 --type summary");
    aggregate(&bus);
    let args = ["--listen", "127.0.0.1:0", "--max-age", "off"];
    let (server, urls) = serve(&bus, &log, &args, 1);
    for (path, dump) in [
        ("/api/v1/series", "dump -f json"),
        ("/api/v1/series?history=1", "dump -f json --history"),
        (
            "/api/v1/series?collect[]=wait*",
            "dump -f json --match wait*",
        ),
    ] {
        let stream = TcpStream::connect(("localhost", port_of(&urls[0]))).expect("it listens");
        let said = asked(stream, path);
        let (_, body) = said.split_once("\r\n\r\n").expect("a body");
        assert_eq!(body, well(&bus, dump), "{path}");
    }
    stop(server);
}

/// Starts `qbus` as a socket unit does: with a listening socket as descriptor 3.
fn activated(bus: &TestBus, socket: OwnedFd, log: &Path, args: &[&str]) -> Process {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "exec 3<&2 2>\"$LOG\"; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"",
        "sh",
        QBUS,
    ]);
    command.args(args).args(["-b", &bus.address().to_string()]);
    command.env("LOG", log).stderr(socket);
    Process::spawn(command)
}

#[test]
fn it_takes_the_sockets_of_its_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("q");
    let bus = bus("3");
    let running = aggregator(&bus, "");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("an address").port();
    let log = folder.path().join("tcp.log");
    let server = activated(&bus, tcp.into(), &log, &["serve", "--listen", "systemd"]);
    assert_eq!(urls(&log, 1), [format!("http://127.0.0.1:{port}/")]);
    until("the page", || page(port).contains("\njobs_total 3\n"));
    stop(server);

    let unix = UnixListener::bind(&path).expect("a socket");
    let log = folder.path().join("unix.log");
    let server = activated(&bus, unix.into(), &log, &["serve", "--listen", "systemd"]);
    assert_eq!(urls(&log, 1), [format!("http+unix://{}", path.display())]);
    let stream = UnixStream::connect(&path).expect("it listens");
    assert!(asked(stream, "/metrics").contains("\njobs_total 3\n"));
    stop(server);
    assert!(path.exists(), "the unit's socket is the unit's to remove");
    stop(running);

    // The aggregator takes them as well.
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("an address").port();
    let log = folder.path().join("agg.log");
    let args = ["agg", "--no-host", "--no-gpu", "--listen", "systemd"];
    let running = activated(&bus, tcp.into(), &log, &args);
    until("the page", || page(port).contains("\njobs_total 3\n"));
    stop(running);
    let none = "serve --listen systemd";
    fails(&bus, none, 2, &["systemd handed over no sockets"]);
}

#[test]
fn it_outlives_aggregators_and_buses() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let bus = bus("3");
    let (server, urls) = serve(&bus, &log, &["--listen", "127.0.0.1:0"], 1);
    let port = port_of(&urls[0]);
    let unready = page(port);
    assert!(unready.starts_with("HTTP/1.1 503 "), "{unready}");
    assert!(unready.contains("start `qbus agg"), "{unready}");
    let mut running = aggregator(&bus, "");
    until("the page", || page(port).contains("\njobs_total 3\n"));
    for jobs in 4..6 {
        running.kill();
        // What it committed is still there, and not old.
        assert!(page(port).starts_with("HTTP/1.1 200 "));
        well(&bus, "emit jobs_total 1 --type counter");
        running = aggregator(&bus, "");
        let sample = format!("\njobs_total {jobs}\n");
        until("what came meanwhile", || page(port).contains(&sample));
    }
    stop(running);
    // Another bus of the same name has nothing of the old one.
    well(&bus, "rm --force");
    assert!(page(port).starts_with("HTTP/1.1 503 "));
    well(&bus, "create");
    well(&bus, "emit others_total 7 --type counter");
    let running = aggregator(&bus, "");
    until("the other bus", || {
        let page = page(port);
        assert!(!page.contains("jobs_total"), "{page}");
        page.contains("\nothers_total 7\n")
    });
    stop(running);
    stop(server);
}
