//! `qbus agg` and `qbus demo` from start to end, and what every command says of itself.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use qbus_tests::{LIMIT, Place, Process, TestBus, run, until};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::dumping::check_with_promtool;
use crate::support::{aggregate, aggregator, fails, is_root, qbus, stop, typed, well};

#[test]
fn a_signal_drains_and_commits_what_is_left() {
    for (place, signal) in [(Place::Named, Signal::TERM), (Place::Path, Signal::INT)] {
        let bus = TestBus::small(place);
        let aggregating = aggregator(&bus, "--interval 1h");
        let counter = bus.open();
        let counter = counter.counter("jobs_total").register().expect("it fits");
        let accepted = (0..2000).filter(|_| counter.try_add(1.0).is_ok()).count();
        aggregating.signal(signal);
        aggregating.end_well();
        let page = well(&bus, "dump --match jobs_total");
        assert!(
            page.ends_with(&format!("jobs_total {accepted}\n")),
            "{page}"
        );
        assert!(well(&bus, "stat").contains("(gone)"));
    }
}

#[test]
fn it_creates_the_bus_and_samples_the_host() {
    let bus = TestBus::reserve(Place::Named);
    let name = bus.address();
    let mut command = typed(&format!("agg --interval 50ms --no-gpu --no-self -b {name}"));
    let aggregating = Process::spawn({
        command.stderr(Stdio::null());
        command
    });
    until("the aggregator", || bus.is_aggregated(aggregating.pid()));
    let memory = || {
        let dump = qbus(&bus, "dump");
        // Early on there is no snapshot, or an empty one, which is exit code 1.
        assert!(matches!(dump.code, Some(0 | 1)), "{dump:?}");
        dump.out.contains("\nqbus_host_memory_total_bytes ")
    };
    until("a sample", memory);
    stop(aggregating);
    check_with_promtool(&well(&bus, "dump"));
    well(&bus, "rm");
    assert!(!bus.address().file().exists() && !bus.address().snapshot().exists());
}

#[test]
fn totals_and_history_outlive_a_kill() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let sample = || well(&bus, "dump --match jobs_total");
        for round in 1..=3 {
            let aggregating = aggregator(&bus, "");
            well(&bus, "emit jobs_total 5 --type counter");
            let expected = format!("\njobs_total {}\n", round * 5);
            until("a commit", || sample().ends_with(&expected));
            aggregating.kill();
        }
        // What nobody folded yet is in the lane.
        well(&bus, "emit jobs_total 5 --type counter");
        stop(aggregator(&bus, ""));
        assert!(sample().ends_with("\njobs_total 20\n"), "{}", sample());
    }
}

#[test]
fn a_snapshot_that_lies_elsewhere_is_found_from_the_bus() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("elsewhere");
        let told = path.display().to_string();
        well(&bus, "emit jobs_total 1 --type counter");
        stop(aggregator(&bus, &format!("--snapshot {told}")));
        let link = bus.address().snapshot_link();
        assert_eq!(fs::read_link(&link).expect("a link beside the bus"), path);
        let shows = |total: &str| {
            let end = format!("jobs_total {total}\n");
            assert!(well(&bus, "dump").ends_with(&end));
            assert!(well(&bus, &format!("dump --snapshot {told}")).ends_with(&end));
        };
        shows("1");
        let stat = well(&bus, "stat");
        assert!(
            stat.contains("1 delivered") && stat.contains("(gone)"),
            "{stat}"
        );
        assert!(!bus.address().snapshot().starts_with("/dev/shm"));
        // Whoever aggregates it next goes on with it, told or not.
        well(&bus, "emit jobs_total 1 --type counter");
        stop(aggregator(&bus, ""));
        shows("2");
        let page = served(&bus);
        assert!(page.contains("\njobs_total{host=\"a7\"} 2\n"), "{page}");
        // Back beside the bus, totals begin anew, as with any other file.
        well(&bus, "emit jobs_total 1 --type counter");
        stop(aggregator(&bus, &format!("--snapshot {}", link.display())));
        assert!(fs::symlink_metadata(&link).expect("a file").is_file());
        assert!(well(&bus, "dump").ends_with("jobs_total 1\n"));
        // Elsewhere again: what lies in the place of the link is moved aside, and all goes with the
        // bus.
        stop(aggregator(&bus, &format!("--snapshot {told}")));
        well(&bus, "rm");
        assert!(!path.exists() && fs::symlink_metadata(&link).is_err());
    }
}

#[test]
fn a_snapshot_can_be_told_by_a_link() {
    let bus = TestBus::small(Place::Named);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (link, file) = (folder.path().join("link"), folder.path().join("file"));
    symlink("file", &link).expect("a link");
    let told = link.display().to_string();
    well(&bus, "emit level 1");
    let name = bus.address();
    let mut command = typed(&format!(
        "agg --no-host --no-gpu --no-self --snapshot {told} -b {name}"
    ));
    command.stderr(Stdio::null());
    let aggregating = Process::spawn(command);
    until("the snapshot", || {
        file.is_file() && bus.is_aggregated(aggregating.pid())
    });
    stop(aggregating);
    for line in ["dump", &format!("dump --snapshot {told}")] {
        assert!(well(&bus, line).ends_with("level 1\n"));
    }
    assert!(fs::symlink_metadata(&link).expect("it").is_symlink());
    // What is no file is no place for one, and stays what it is.
    fails(
        &bus,
        "agg --snapshot /dev/null",
        2,
        &["/dev/null is not a regular file"],
    );
    assert!(
        fs::metadata("/dev/null")
            .expect("it")
            .file_type()
            .is_char_device()
    );
}

/// What `qbus serve` says of a bus.
fn served(bus: &TestBus) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("http");
    let (name, at) = (bus.address(), socket.display());
    let mut command = typed(&format!(
        "serve --max-age off -b {name} --listen unix:{at} --label host=a7"
    ));
    command.stderr(Stdio::null());
    let serving = Process::spawn(command);
    until("the server", || UnixStream::connect(&socket).is_ok());
    let mut stream = UnixStream::connect(&socket).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    stop(serving);
    page
}

#[test]
fn a_link_that_leads_to_what_is_no_snapshot_of_the_bus_harms_nobody() {
    let bus = TestBus::small(Place::Named);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let precious = folder.path().join("precious");
    fs::write(&precious, "somebody's own words, and more than eight bytes").expect("written");
    symlink(&precious, bus.address().snapshot_link()).expect("a link");
    fails(&bus, "dump", 2, &["is not a snapshot"]);
    fails(&bus, "agg", 2, &["is not a snapshot"]);
    well(&bus, "rm");
    assert!(precious.exists(), "it is not the bus's to remove");
    assert!(fs::symlink_metadata(bus.address().snapshot_link()).is_err());

    if !is_root("a stranger's link") {
        return;
    }
    let bus = TestBus::small(Place::Named);
    aggregate(&bus);
    let (link, stolen) = (bus.address().snapshot_link(), folder.path().join("stolen"));
    fs::copy(&link, &stolen).expect("copied");
    fs::remove_file(&link).expect("removed");
    symlink(&stolen, &link).expect("a link");
    well(&bus, "dump");
    lchown(&link, Some(65_534), None).expect("nobody's");
    fails(&bus, "dump", 2, &["is not a regular file"]);
}

/// Checks that a file of the demo is there and that its format's parser takes it.
fn check(folder: &Path, name: &str, parses: impl Fn(&str)) {
    let page = fs::read_to_string(folder.join(name)).expect(name);
    assert!(page.contains("demo_requests_total"), "{name}: {page}");
    parses(&page);
}

#[test]
fn the_demo_leaves_three_files_and_no_bus() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = folder.path().display();
    let mut command = typed(&format!("demo --seconds 1 -o {to} --listen 127.0.0.1:0"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let finished = run(&mut command, "");
    assert_eq!(
        (finished.code, finished.err.as_str()),
        (Some(0), ""),
        "{finished:?}"
    );
    begins_as_the_readme_says(&finished.out);
    let ledger = finished
        .out
        .lines()
        .find(|line| line.starts_with("Ledger: "))
        .expect("a ledger");
    assert!(
        ledger.ends_with("0 dropped, 0 torn, 0 revoked."),
        "{ledger}"
    );

    check(folder.path(), "metrics.json", |page| {
        let json: Value = serde_json::from_str(page).expect("JSON");
        assert!(
            json["metrics"]
                .as_array()
                .is_some_and(|metrics| !metrics.is_empty())
        );
    });
    check(folder.path(), "metrics.csv", |page| {
        assert!(
            csv::Reader::from_reader(page.as_bytes())
                .records()
                .all(|row| row.is_ok())
        );
    });
    check(folder.path(), "metrics.prom", check_with_promtool);
    let name = finished
        .out
        .split_whitespace()
        .find(|word| word.starts_with("demo-"));
    let name = name.expect("the bus is named").trim_end_matches(':');
    let bus: qbus::Address = name.parse().expect("a name");
    assert!(!bus.file().exists() && !bus.snapshot().exists(), "{name}");
}

/// All that the README shows of the demo is what it prints, but for the numbers.
fn begins_as_the_readme_says(printed: &str) {
    // A number is one #, with or without a fraction; a folder may be any.
    let shape = |line: &str| {
        let line = line.split(": /").next().unwrap_or_default();
        let digits = line.replace(|c: char| c.is_ascii_digit() || c == '.', "#");
        digits
            .split_inclusive('#')
            .filter(|part| *part != "#")
            .collect::<String>()
    };
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let begin = readme.find("    The bus demo-").expect("what it prints");
    let shown = readme[begin..].lines().map_while(|line| match line {
        "" => Some(line),
        line => line.strip_prefix("    "),
    });
    let printed: Vec<String> = printed.lines().map(shape).collect();
    let mut lines = 0;
    for line in shown.filter(|line| *line != "…") {
        assert!(printed.contains(&shape(line)), "{line:?} in {printed:#?}");
        lines += 1;
    }
    assert!(lines > 10, "{lines} lines");
}

#[test]
fn the_demo_serves_its_dashboard_and_stays_until_it_is_told_to_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = folder.path().display();
    let demo = Process::spawn(typed(&format!(
        "demo --seconds 1 --workers 2 --stay -o {to} --listen 127.0.0.1:0"
    )));
    let name = demo
        .line()
        .split([' ', ':'])
        .nth(2)
        .expect("the bus")
        .to_owned();
    let bus: qbus::Address = name.parse().expect("a name");
    let line = demo.line();
    let (_, url) = line.split_once("http://").expect("where the dashboard is");
    let ask = || {
        let mut stream = TcpStream::connect(url.trim_end_matches('/')).ok()?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse().ok());
        page.lines()
            .find(|line| line.starts_with("demo_requests_total{"))
            .and_then(value)
    };
    while demo.line() != "All of it goes on until ^C." {}
    let before: f64 = ask().expect("a page");
    until("the workers to go on", || {
        ask().is_some_and(|requests: f64| requests > before)
    });
    demo.signal(Signal::INT);
    demo.end_well();
    assert!(!bus.file().exists() && !bus.snapshot().exists(), "{name}");
}

#[test]
fn an_interrupted_demo_leaves_no_bus_and_no_process() {
    let mut command = typed("demo --seconds 60 --workers 2");
    command.stderr(Stdio::null());
    let demo = Process::spawn(command);
    let line = demo.line();
    let name = line
        .split_whitespace()
        .nth(2)
        .expect("the bus is named")
        .trim_end_matches(':');
    let bus: qbus::Address = name.parse().expect("a name");
    let opened = qbus::Bus::open(&bus).expect("it is there");
    let alive = || {
        let owners = opened.owners().expect("the locks answer");
        owners.iter().filter(|owner| owner.alive).count()
    };
    until("the workers", || alive() >= 2);
    let pids: Vec<u64> = opened
        .owners()
        .expect("owners")
        .iter()
        .map(|owner| owner.pid)
        .collect();
    demo.signal(Signal::TERM);
    demo.end_with(2);
    assert!(!bus.file().exists() && !bus.snapshot().exists(), "{name}");
    until("the processes to end", || {
        pids.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
}

/// As ^C does it in a shell: to all processes of the group at once.
#[test]
fn an_interrupt_ends_a_demo_and_blames_nobody() {
    let mut command = typed("demo --seconds 60 --workers 2");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut demo = command
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("it starts");
    let pid = Pid::from_child(&demo);
    let bus: qbus::Address = format!("demo-{}", demo.id()).parse().expect("a name");
    until("the workers", || {
        let owners = qbus::Bus::open(&bus).ok().and_then(|bus| bus.owners().ok());
        owners.is_some_and(|owners| owners.iter().filter(|owner| owner.alive).count() >= 2)
    });
    kill_process_group(pid, Signal::INT).expect("it is there");
    let mut said = String::new();
    let mut err = demo.stderr.take().expect("a pipe");
    err.read_to_string(&mut said).expect("text");
    assert_eq!(demo.wait().expect("it ends").code(), Some(2));
    assert_eq!(
        said,
        "qbus: interrupted; the demo's processes and bus are gone\n"
    );
    assert!(!bus.file().exists() && !bus.snapshot_link().exists());
}

#[test]
fn what_would_be_ignored_is_refused() {
    let bus = TestBus::reserve(Place::Named);
    let name = bus.address().to_string();
    for command in ["bench", "sample", "demo"] {
        let gist = [&*format!("`qbus {command}`"), "leave --bus out"];
        fails(&bus, &format!("{command} -b {name}"), 2, &gist);
        fails(&bus, &format!("-b {name} {command}"), 2, &gist);
    }
    let tls = "agg --web.config.file web.yml";
    fails(&bus, tls, 2, &["nothing is served without --listen"]);
    assert!(!bus.address().file().exists());
}

#[test]
fn every_help_has_an_example() {
    let help = |line: &str| {
        let finished = run(typed(line).env_remove("QBUS"), "");
        assert_eq!(
            (finished.code, finished.err.as_str()),
            (Some(0), ""),
            "{line}"
        );
        finished.out
    };
    let page = help("--help");
    let commands = page.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        // A description that is too long for a line goes on in the next one.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let known = [
        "create", "agg", "emit", "dump", "stat", "load", "rm", "run", "demo",
    ];
    assert!(
        known.iter().all(|command| commands.contains(command)),
        "{commands:?}"
    );
    for command in commands.into_iter().filter(|command| *command != "help") {
        let page = help(&format!("{command} --help"));
        let (_, examples) = page
            .split_once("Example")
            .unwrap_or_else(|| panic!("{command}: {page}"));
        assert!(
            examples.contains(&format!("qbus {command}")),
            "{command}: {page}"
        );
        assert!(
            page.lines().all(|line| line.chars().count() <= 100),
            "{command}: {page}"
        );
    }
    assert!(page.contains("Example") && help("--version").starts_with("qbus "));
}

/// An aggregator that a service manager has started, and the manager's socket.
fn service(bus: &TestBus, folder: &Path, watchdog: &str) -> (Process, UnixDatagram) {
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    let name = bus.address();
    let mut command = typed(&format!("agg --no-host --no-gpu --no-self -b {name}"));
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", watchdog);
    command.stderr(Stdio::null());
    (Process::spawn(command), socket)
}

#[test]
fn a_service_manager_hears_when_it_is_ready_that_it_works_and_that_it_ends() {
    let bus = TestBus::small(Place::Named);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (aggregating, socket) = service(&bus, folder.path(), "200000");
    let heard = || {
        let mut state = [0; 512];
        let len = socket.recv(&mut state).expect("a word within the limit");
        String::from_utf8_lossy(&state[..len]).into_owned()
    };
    let ready = heard();
    let aggregated = format!(
        "READY=1\nSTATUS=aggregating the bus {} into ",
        bus.address()
    );
    assert!(ready.starts_with(&aggregated), "{ready}");
    assert!(bus.is_aggregated(aggregating.pid()), "ready is ready");
    assert_eq!([heard(), heard(), heard()], ["WATCHDOG=1"; 3]);
    // A service does not end for it.
    aggregating.signal(Signal::HUP);
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    aggregating.signal(Signal::TERM);
    until("the word that it ends", || heard() == "STOPPING=1");
    aggregating.end_well();
}

/// What an aggregator says from its start to its end.
fn said(bus: &TestBus, level: &str, journal: bool) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = fs::File::create(folder.path().join("log")).expect("a file");
    let name = bus.address();
    let mut command = typed(&format!(
        "agg --no-gpu --no-self --log-level {level} -b {name}"
    ));
    if journal {
        let found = log.metadata().expect("a file");
        command.env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino()));
    }
    let aggregating = Process::spawn({
        command.stderr(log);
        command
    });
    until("the aggregator", || bus.is_aggregated(aggregating.pid()));
    aggregating.signal(Signal::HUP);
    until("its samples", || {
        qbus(bus, "dump")
            .out
            .contains("\nqbus_host_memory_total_bytes ")
    });
    stop(aggregating);
    fs::read_to_string(folder.path().join("log")).expect("text")
}

#[test]
fn it_says_as_much_as_it_is_told_to_a_line_an_event() {
    let bus = TestBus::small(Place::Named);
    let info = said(&bus, "info", false);
    let begin = format!("qbus: aggregating the bus {} into ", bus.address());
    assert!(info.starts_with(&begin), "{info}");
    assert!(
        info.lines().all(|line| line.starts_with("qbus: ")),
        "{info}"
    );
    for level in ["warn", "error"] {
        let less = said(&bus, level, false);
        assert!(
            !less.contains("aggregating") && !less.contains("hang-up"),
            "{less}"
        );
    }
    let journal = said(&bus, "info", true);
    assert!(journal.starts_with("<6>aggregating the bus"), "{journal}");
    assert!(
        journal.lines().all(|line| line.starts_with('<')),
        "{journal}"
    );
}

#[test]
fn times_that_would_keep_a_core_busy_are_refused() {
    let bus = TestBus::reserve(Place::Named);
    for (option, typed, gist) in [
        ("--interval", "1ns", "expected 10ms or more"),
        ("--interval", "9ms", "expected 10ms or more"),
        (
            "--latency",
            "1ns",
            "expected 100µs to 10s; to never nap is --spin",
        ),
        ("--latency", "1h", "expected 100µs to 10s"),
    ] {
        fails(&bus, &format!("agg {option} {typed}"), 2, &[option, gist]);
    }
    assert!(!bus.address().file().exists());
}
