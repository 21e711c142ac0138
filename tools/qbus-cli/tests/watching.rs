//! `qbus top` as somebody has it on a terminal, and as a script has it.

use std::fs;
use std::process::Command;

use qbus_tests::{Place, Terminal, TestBus, run};

use crate::support::{QBUS, aggregator, fails, qbus, stop, typed, well};

/// A bus with something on it.
fn bus() -> TestBus {
    let bus = TestBus::small(Place::Named);
    for endpoint in ["/predict", "/embed"] {
        let label = format!("endpoint={endpoint}");
        well(
            &bus,
            &format!("emit requests_total 5 --type counter --label {label}"),
        );
    }
    well(&bus, "emit request_seconds 0.2 --type histogram");
    well(&bus, "emit batch_size 17");
    bus
}

fn start(terminal: &Terminal, bus: &TestBus, args: &str) -> String {
    terminal.run(&format!(
        "{QBUS} top -b {} {args}; echo ended-$?",
        bus.address()
    ));
    terminal.until("METRIC")
}

#[test]
fn it_starts_takes_keys_and_sizes_and_leaves_the_terminal_as_it_was() {
    let Some(terminal) = Terminal::open() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let bus = bus();
    let running = aggregator(&bus, "");
    let before = terminal.settings(&folder.path().join("before"));
    let screen = start(&terminal, &bus, "-i 200ms");
    for part in [
        "requests_total",
        "request_seconds",
        "batch_size",
        "0 lost",
        "4 series",
    ] {
        assert!(screen.contains(part), "no {part:?} on\n{screen}");
    }
    assert!(terminal.is_alternate() && !terminal.has_cursor());
    terminal.press(&["/", "e", "m", "b", "e", "d", "Enter"]);
    terminal.until_screen("one family", |screen| !screen.contains("batch_size"));
    terminal.press(&["Space"]);
    terminal.until("endpoint=\"/embed\"");
    terminal.press(&["Escape"]);
    terminal.until("batch_size");
    terminal.press(&["4"]);
    terminal.until("aggregator ");
    terminal.press(&["?"]);
    terminal.until("KEYS");
    terminal.press(&["x"]);
    terminal.until("aggregator ");
    terminal.press(&["2"]);
    terminal.resize(140, 40);
    // The last line is the fortieth, and there is room for what 80 columns have none for.
    terminal.until_screen("a larger screen", |screen| {
        screen
            .lines()
            .nth(39)
            .is_some_and(|line| line.contains("q quit"))
            && screen
                .lines()
                .any(|line| line.contains("GPU mem last minute"))
    });
    terminal.resize(60, 12);
    terminal.until_screen("a smaller screen", |screen| {
        screen
            .lines()
            .nth(11)
            .is_some_and(|line| line.contains("/ filter"))
    });
    terminal.press(&["q"]);
    terminal.until("ended-0");
    assert!(!terminal.is_alternate() && terminal.has_cursor());
    assert_eq!(terminal.settings(&folder.path().join("after")), before);
    stop(running);
}

#[test]
fn a_signal_ends_it_and_a_stop_is_a_stop() {
    let Some(terminal) = Terminal::open() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let bus = bus();
    let running = aggregator(&bus, "");
    let before = terminal.settings(&folder.path().join("before"));
    let is_restored = |after: &str| {
        assert!(!terminal.is_alternate() && terminal.has_cursor());
        assert_eq!(terminal.settings(&folder.path().join(after)), before);
    };
    start(&terminal, &bus, "");
    terminal.press(&["C-c"]);
    terminal.until("ended-0");
    is_restored("interrupted");
    for signal in ["TERM", "INT", "HUP"] {
        let pid = folder.path().join("pid");
        let line = format!("exec {QBUS} top -b {}", bus.address());
        terminal.run(&format!(
            "(echo $BASHPID > {}; {line}); echo ended-$?",
            pid.display()
        ));
        terminal.until("METRIC");
        let pid = fs::read_to_string(&pid).expect("its pid");
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), pid.trim()])
            .status();
        assert!(sent.expect("kill runs").success());
        terminal.until("ended-0");
        is_restored(signal);
    }
    start(&terminal, &bus, "");
    terminal.press(&["C-z"]);
    terminal.until("Stopped");
    is_restored("stopped");
    terminal.run("fg");
    terminal.until("METRIC");
    terminal.press(&["q"]);
    terminal.until_screen("the shell", |screen| {
        !screen.contains("METRIC") && screen.contains("ready>")
    });
    is_restored("continued");
    stop(running);
}

#[test]
fn a_terminal_that_is_gone_ends_it() {
    let bus = bus();
    let running = aggregator(&bus, "");
    let folder = tempfile::tempdir().expect("a folder");
    // As a connection that breaks, and as one that breaks under `nohup`, which hears of no signal.
    for (name, trap) in [("heard", ""), ("unheard", "trap '' HUP; ")] {
        let Some(terminal) = Terminal::open() else {
            return;
        };
        let pid = folder.path().join(name);
        let line = format!("{trap}exec {QBUS} top -b {}", bus.address());
        terminal.run(&format!("(echo $BASHPID > {}; {line})", pid.display()));
        terminal.until("METRIC");
        let pid = fs::read_to_string(&pid).expect("its pid");
        let process = std::path::Path::new("/proc").join(pid.trim());
        assert!(process.exists());
        drop(terminal);
        qbus_tests::until("the end of a process without a terminal", || {
            !process.exists()
        });
    }
    stop(running);
}

#[test]
fn it_follows_its_bus_to_the_end_and_says_so() {
    let Some(terminal) = Terminal::open() else {
        return;
    };
    let bus = bus();
    let running = aggregator(&bus, "");
    let pid = running.pid();
    start(&terminal, &bus, "-i 100ms");
    stop(running);
    terminal.until(&format!("POST MORTEM: its aggregator (pid {pid}) is gone"));
    // It goes on with the next.
    let next = aggregator(&bus, "");
    terminal.until_screen("no word of an end", |screen| {
        !screen.contains("POST MORTEM")
    });
    stop(next);
    well(&bus, "rm");
    let screen = terminal.until("GONE: there is no snapshot to show");
    assert!(screen.contains("batch_size"), "{screen}");
    terminal.press(&["q"]);
    terminal.until("ended-0");
}

#[test]
fn it_waits_for_the_first_aggregator() {
    let Some(terminal) = Terminal::open() else {
        return;
    };
    let bus = bus();
    terminal.run(&format!("{QBUS} top -b {} -i 100ms", bus.address()));
    terminal.until("WAITING: no aggregator so far: start `qbus agg");
    let running = aggregator(&bus, "");
    terminal.until("requests_total");
    stop(running);
    terminal.press(&["q"]);
}

#[test]
fn once_is_plain_text_of_a_live_bus_a_dead_one_and_a_copy() {
    let bus = bus();
    let running = aggregator(&bus, "");
    let once = |args: &str| well(&bus, &format!("top --once -i 100ms {args}"));
    let live = once("");
    assert!(
        !live.contains(['\u{1b}', '\u{9b}']) && !live.contains("q quit"),
        "{live}"
    );
    assert!(
        live.contains("requests_total") && !live.contains("POST MORTEM"),
        "{live}"
    );
    let ascii = once("--ascii --view bus");
    assert!(ascii.is_ascii() && ascii.contains("lost: full"), "{ascii}");
    let filtered = once("--filter /^request_/");
    assert!(
        filtered.contains("request_seconds") && !filtered.contains("batch_size"),
        "{filtered}"
    );
    stop(running);

    let dead = once("");
    assert!(
        dead.contains("POST MORTEM: its aggregator") && dead.contains("17"),
        "{dead}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy.snapshot");
    fs::copy(bus.address().snapshot(), &copy).expect("a copy");
    well(&bus, "rm");
    let copy = copy.to_str().expect("a path");
    // Nothing was committed for a while, as far as a copy can tell.
    qbus_tests::until("an old copy", || {
        let copied = once(&format!("--snapshot {copy}"));
        assert!(copied.contains("batch_size"), "{copied}");
        copied.contains("POST MORTEM: nobody writes this snapshot")
    });
    fails(&bus, "top --once", 1, &["there is no snapshot of the bus"]);
}

#[test]
fn what_cannot_be_shown_is_said() {
    let bus = bus();
    fails(
        &bus,
        "top",
        2,
        &["standard output is no terminal", "--once"],
    );
    fails(&bus, "top --once -i 1ms", 2, &["shorter than 100 ms"]);
    let wrong = qbus(&bus, "top --once --filter '/(/'");
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    // A bus that nobody has aggregated.
    fails(&bus, "top --once", 1, &["no aggregator has run"]);
    let mut narrow = typed(&format!("top --once -b {}", bus.address()));
    narrow.env("COLUMNS", "x");
    assert_eq!(run(&mut narrow, "").code, Some(1));
}
