//! `qbus stat` and `qbus doctor`: what a person is told of a bus, and with which exit status.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use qbus::{EmitError, Geometry};
use qbus_tests::{Finished, Place, Process, TestBus, command, until};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{QBUS, aggregate, aggregator, fails, is_root, qbus, stop, typed, well};

/// What the doctor finds, and its exit status.
fn doctor(bus: &TestBus) -> (Value, Option<i32>) {
    let Finished { code, out, err } = qbus(bus, "doctor --json");
    assert_eq!(err, "", "it says all on standard output");
    (serde_json::from_str(&out).expect("JSON"), code)
}

/// Whether a finding of that severity says all of that.
fn has(report: &Value, severity: &str, gist: &[&str]) -> bool {
    let findings = report["findings"].as_array().expect("a list").iter();
    let mut like = findings.filter(|finding| finding["severity"] == severity);
    like.any(|finding| {
        let keys = ["found", "meaning", "mend"];
        let texts = keys.map(|key| finding[key].as_str().expect("a text"));
        assert!(texts.iter().all(|text| !text.is_empty()), "{finding}");
        gist.iter().all(|part| texts.join("\n").contains(part))
    })
}

/// Files of buses that other tests have at the moment are worth a note, and no more.
fn check_healthy(bus: &TestBus) {
    let (report, code) = doctor(bus);
    assert_eq!(code, Some(0), "{report}");
    let page = well(bus, "doctor");
    let end = format!("The bus {} is healthy.\n", bus.address());
    assert!(page.ends_with(&end), "{page}");
}

#[test]
fn a_healthy_bus_is_told_in_the_first_line() {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    let opened = bus.open();
    opened.set_role("inference");
    let requests = opened.counter("requests_total").register().expect("room");
    requests.inc();
    let stat = well(&bus, "stat");
    let first = stat.lines().next().expect("a line");
    assert!(first.starts_with("healthy: 1 worker, "), "{stat}");
    assert!(first.contains(" records/s; page "), "{stat}");
    assert!(stat.contains("nothing lost"), "{stat}");
    let row = stat.lines().find(|line| line.contains("inference"));
    let row = row.expect("the worker");
    // The program is told by its name, and not by the folder that it is in.
    let pid = format!("{} ", std::process::id());
    assert!(
        row.trim_start().starts_with(&pid) && !row.contains('/'),
        "{row}"
    );
    check_healthy(&bus);
    stop(aggregating);
}

#[test]
fn losses_are_told_apart_by_cause() {
    let bus = TestBus::create(Place::Named, TestBus::ring_geometry());
    let opened = bus.open();
    let level = opened.gauge("level").register().expect("room");
    let full = (0..300)
        .filter(|&n| level.try_set(f64::from(n)) == Err(EmitError::Full))
        .count();
    assert_eq!(full, 300 - 256);
    let wait = opened.summary("wait_seconds").register().expect("room");
    for _ in 0..3 {
        assert!(wait.try_observe(f64::NAN).is_err());
    }
    aggregate(&bus);
    let stat = well(&bus, "stat");
    assert!(stat.starts_with("look at it: 1 worker"), "{stat}");
    assert!(
        stat.contains("256 delivered, 47 lost (44 lane full, 3 rejected)"),
        "{stat}"
    );
    let heads = stat
        .lines()
        .find(|line| line.contains("PID"))
        .expect("a table");
    assert!(heads.contains("LOST  FULL  REJECTED  COMMAND"), "{heads}");
    assert!(!heads.contains("TORN"), "nobody was killed: {heads}");
    let (report, code) = doctor(&bus);
    assert_eq!(code, Some(1), "{report}");
    let pid = std::process::id().to_string();
    assert!(has(
        &report,
        "look",
        &["44 records were lost", &pid, "lane full", "--slots"]
    ));
    assert!(has(
        &report,
        "look",
        &["3 records were lost", &pid, "mend the caller"]
    ));
    let start = format!("qbus agg -b {}", bus.address());
    assert!(has(&report, "look", &["no aggregator runs", &start]));
}

#[test]
fn what_is_lost_now_is_the_worst() {
    let bus = TestBus::create(Place::Named, TestBus::ring_geometry());
    let opened = bus.open();
    let level = opened.gauge("level").register().expect("room");
    let is_over = AtomicBool::new(false);
    let (page, report) = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                level.set(1.0);
                thread::yield_now();
            }
        });
        until("the lane to be full", || {
            opened
                .owners()
                .is_ok_and(|owners| owners.iter().any(|owner| owner.dropped_full > 0))
        });
        let looked = (qbus(&bus, "stat").out, doctor(&bus));
        is_over.store(true, Ordering::Relaxed);
        looked
    });
    assert!(page.starts_with("LOSING DATA: 1 worker"), "{page}");
    let (report, code) = report;
    assert_eq!(code, Some(2), "{report}");
    assert_eq!(report["severity"], "losing");
    assert_eq!(
        report["findings"][0]["severity"], "losing",
        "the worst first: {report}"
    );
    assert!(has(
        &report,
        "losing",
        &["are being lost, most by", "lane full"]
    ));
    assert!(has(&report, "look", &["nobody has aggregated"]));
}

#[test]
fn what_fills_up_is_said_before_it_is_full_and_after() {
    let geometry = Geometry {
        series: 10,
        ..TestBus::small_geometry()
    };
    let bus = TestBus::create(Place::Named, geometry);
    let aggregating = aggregator(&bus, "");
    let opened = bus.open();
    let register = |user: usize| {
        let users = opened
            .counter("logins_total")
            .label("user", &user.to_string());
        users.register().map(|logins| logins.inc())
    };
    (0..9).try_for_each(register).expect("room");
    let (report, code) = doctor(&bus);
    assert_eq!(code, Some(1), "{report}");
    assert!(has(
        &report,
        "look",
        &["9 of 10 places for series", "--max-series"]
    ));
    register(9).expect("room");
    register(10).expect_err("none");
    let (report, _) = doctor(&bus);
    let gist = [
        "1 registration was refused",
        "logins_total has 10",
        "qbus forget",
    ];
    assert!(has(&report, "look", &gist), "{report}");
    stop(aggregating);
}

#[test]
fn names_that_have_no_room_are_told_from_series() {
    let bus = TestBus::small(Place::Named);
    let opened = bus.open();
    let names = opened.geometry().families;
    let register = |n: u64| opened.gauge(&format!("level_of_{n}")).register();
    (0..names).for_each(|n| drop(register(n).expect("room")));
    register(names).expect_err("none");
    let (report, _) = doctor(&bus);
    let room = format!("the registry has room for {names} metric names");
    let gist = ["1 registration was refused", &room, "--max-families"];
    assert!(has(&report, "look", &gist), "{report}");
}

#[test]
fn a_stopped_aggregator_is_found() {
    let bus = TestBus::create(Place::Named, TestBus::ring_geometry());
    let aggregating = aggregator(&bus, "");
    aggregating.signal(Signal::STOP);
    until("the stop", || aggregating.is_stopped());
    bus.open().gauge("level").register().expect("room").set(1.0);
    let (report, code) = doctor(&bus);
    let stat = well(&bus, "stat");
    aggregating.signal(Signal::CONT);
    let doctor = format!("what to do: qbus doctor -b {}\n", bus.address());
    assert!(
        stat.starts_with("look at it: ") && stat.contains("is stopped") && stat.contains(&doctor),
        "{stat}"
    );
    assert_eq!(code, Some(1), "{report}");
    let cont = format!("kill -CONT {}", aggregating.pid());
    assert!(has(&report, "look", &["is stopped", &cont]), "{report}");
    assert!(
        has(&report, "look", &["has committed nothing", "records wait"]),
        "{report}"
    );
    stop(aggregating);
}

#[test]
fn every_command_that_is_advised_names_the_bus() {
    let bus = TestBus::create(Place::Named, TestBus::ring_geometry());
    let opened = bus.open();
    let level = opened.gauge("level").register().expect("room");
    (0..300).for_each(|n| level.set(f64::from(n)));
    let users = |user: u64| {
        let logins = opened.counter("logins_total").max_series(3);
        logins.label("user", &user.to_string()).register()
    };
    let room = opened.geometry().series + 3;
    (0..room).for_each(|user| drop(users(user)));
    (0..room).for_each(|name| drop(opened.gauge(&format!("level_{name}")).register()));
    fs::write(bus.address().snapshot(), "no page".repeat(99)).expect("written");
    let (report, _) = doctor(&bus);
    let findings = report["findings"].as_array().expect("a list").iter();
    let here = format!("-b {}", bus.address());
    let mut advised = 0;
    for finding in findings.filter(|finding| finding["severity"] != "note") {
        let mend = finding["mend"].as_str().expect("a text");
        for (at, _) in mend.match_indices("qbus ") {
            let command = mend[at..].split([';', ':', ',']).next().unwrap_or_default();
            assert!(command.contains(&here), "{command} is of which bus? {mend}");
            advised += 1;
        }
    }
    assert!(advised >= 6, "{report:#}");
}

#[test]
fn the_ended_are_shown_on_request_and_rows_are_chosen_and_sorted() {
    let bus = TestBus::small(Place::Named);
    for name in ["first", "second"] {
        well(&bus, &format!("emit {name} 1"));
    }
    well(&bus, "load --records 10");
    aggregate(&bus);
    let stat = well(&bus, "stat");
    assert!(
        stat.contains("nobody is attached; 3 have ended (--all)"),
        "{stat}"
    );
    let rows = |args: &str| {
        let page = well(&bus, &format!("stat --all {args}"));
        let table = page
            .lines()
            .skip_while(|line| !line.contains("PID"))
            .skip(1);
        let rows = table.filter(|line| line.contains("ended"));
        rows.map(|row| row.split("qbus ").nth(1).unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let first_word = |rows: Vec<String>| -> Vec<String> {
        rows.iter()
            .map(|row| row.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(
        first_word(rows("--sort delivered")),
        ["load", "emit", "emit"]
    );
    assert_eq!(rows("--match '*second*'"), ["emit second 1"]);
    assert_eq!(
        rows("--match '*first*' --match '*second*' --sort command"),
        ["emit first 1", "emit second 1"]
    );
    assert_eq!(first_word(rows("--match load")), ["load"], "a role");
    let none = well(&bus, "stat --match nobody");
    assert!(none.contains("no process matches"), "{none}");
    let lanes = well(&bus, "stat --lanes");
    assert!(
        lanes.contains("shared") && lanes.contains("that are free and empty"),
        "{lanes}"
    );
}

fn watching(bus: &TestBus, args: &str) -> Process {
    let mut command = typed(&format!("stat -b {} --watch=20ms {args}", bus.address()));
    command.stderr(Stdio::null());
    Process::spawn(command)
}

#[test]
fn it_goes_on_until_it_is_told_to_end_or_the_bus_is_gone() {
    let bus = TestBus::small(Place::Named);
    let json = watching(&bus, "--json");
    for _ in 0..3 {
        let report: Value = serde_json::from_str(&json.line()).expect("a document a line");
        assert!(report["records_per_second"].is_number(), "{report}");
    }
    json.signal(Signal::INT);
    json.end_well();
    let text = watching(&bus, "");
    let shown = |_| text.line().starts_with("look at it: 0 workers");
    assert!(
        (0..100).filter(|&n| shown(n)).count() > 3,
        "page after page"
    );
    well(&bus, "rm --force");
    text.end_with(1);
    fails(&bus, "stat --watch=1ns", 2, &["expected 10ms or more"]);
}

#[test]
fn no_bus_and_what_the_dead_left() {
    let bus = TestBus::reserve(Place::Named);
    let other = TestBus::small(Place::Named);
    // As after a plain `rm` of the bus alone.
    fs::write(bus.address().snapshot(), "a page").expect("written");
    let (report, code) = doctor(&bus);
    assert_eq!(code, Some(1), "{report}");
    let (name, path) = (
        bus.address().to_string(),
        bus.address().file().display().to_string(),
    );
    let gist = [
        &*format!("there is no bus {name}"),
        &path,
        &other.address().to_string(),
    ];
    assert!(has(&report, "look", &gist), "{report}");
    assert!(
        has(&report, "note", &["of buses that are gone", "rm /dev/shm/"]),
        "{report}"
    );
    assert!(
        has(
            &report,
            "note",
            &["that nobody uses", &other.address().to_string()]
        ),
        "{report}"
    );
    assert!(!bus.address().file().exists(), "asking makes nothing");
}

#[test]
fn a_snapshot_that_its_group_may_not_go_on_with_is_found() {
    let bus = TestBus::reserve(Place::Named);
    well(&bus, "create --mode 0660 --lanes 8 --slots 256");
    let aggregating = aggregator(&bus, "");
    check_healthy(&bus);
    let path = bus.address().snapshot();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    let (report, code) = doctor(&bus);
    assert_eq!(code, Some(1), "{report}");
    let gist = ["may not write to its snapshot", &path.display().to_string()];
    assert!(has(&report, "look", &gist), "{report}");
    stop(aggregating);
}

#[test]
fn processes_of_another_pid_namespace_are_noted() {
    if !is_root("another pid namespace") {
        return;
    }
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    let line = format!(
        "unshare --pid --fork {QBUS} emit --stdin -b {}",
        bus.address()
    );
    let mut emitting = Process::spawn(command(&line));
    emitting.tell(r#"{"name":"level","value":1}"#);
    until("the line", || well(&bus, "dump").contains("level 1"));
    let (report, code) = doctor(&bus);
    assert_eq!(code, Some(0), "nothing is wrong with it: {report}");
    let gist = [
        "1 process is in another pid namespace",
        "shareProcessNamespace",
    ];
    assert!(has(&report, "note", &gist), "{report}");
    emitting.end_well();
    stop(aggregating);
}

#[test]
fn a_file_system_that_is_nearly_full_is_found() {
    if !is_root("a file system of its own") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().display().to_string();
    let mounted = command(&format!("mount -t tmpfs -o size=6m tmpfs {at}")).status();
    assert!(mounted.is_ok_and(|status| status.success()));
    let _unmounted = Unmounted(folder);
    let bus = format!("{at}/bus");
    let run = |line: &str| qbus_tests::run(&mut typed(&format!("{line} -b {bus}")), "");
    let geometry = "--lanes=8 --slots=256 --max-series=256 --max-owners=64 --cells=256";
    assert_eq!(run(&format!("create {geometry}")).code, Some(0));
    let doctor = run("doctor");
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    let room = format!(" left of 6.0 MiB in {at}");
    assert!(
        doctor.out.contains(&room) && doctor.out.contains("--shm-size"),
        "{doctor:?}"
    );
}

/// A folder that something is mounted on until this is dropped.
struct Unmounted(tempfile::TempDir);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
