//! `qbus dump`: the same bytes of the same snapshot, whole files or none, and closed pipes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use qbus_tests::{Finished, Place, TestBus, run, until};
use serde_json::Value;

use crate::support::{QBUS, aggregate, aggregator, complaints, fails, qbus, stop, typed, well};

const FORMATS: [&str; 3] = ["json", "csv", "prometheus"];

/// A bus with a snapshot of all types.
fn filled(place: Place) -> TestBus {
    let bus = TestBus::small(place);
    for metric_type in ["counter", "gauge", "histogram", "summary"] {
        for value in ["1", "2.5"] {
            let name = format!("some_{metric_type}");
            let label = r#"'who=a "b"\ä'"#;
            well(
                &bus,
                &format!("emit {name} {value} --type {metric_type} --label {label}"),
            );
        }
    }
    aggregate(&bus);
    bus
}

#[test]
fn two_dumps_of_one_snapshot_are_the_same_bytes() {
    for place in Place::ALL {
        let bus = filled(place);
        for format in FORMATS {
            for more in ["", "--history", "--timestamps"] {
                if format == "prometheus" && more == "--history" {
                    continue;
                }
                let line = format!("dump -f {format} {more}");
                let first = well(&bus, &line);
                assert!(first.contains("some_counter"), "{first}");
                assert_eq!(first, well(&bus, &line), "{line}");
            }
        }
        // Also of a copy, and after everything else is gone.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = folder.path().join("copy").display().to_string();
        fs::copy(bus.address().snapshot(), &copy).expect("copied");
        let pages = FORMATS.map(|format| well(&bus, &format!("dump -f {format}")));
        well(&bus, "rm");
        for (format, page) in FORMATS.into_iter().zip(pages) {
            assert_eq!(
                well(&bus, &format!("dump -f {format} --snapshot {copy}")),
                page
            );
        }
    }
}

#[test]
fn each_format_parses() {
    let bus = filled(Place::Named);
    let json: Value = serde_json::from_str(&well(&bus, "dump -f json")).expect("JSON");
    let metrics = json["metrics"].as_array().expect("a list");
    let names: Vec<&str> = metrics
        .iter()
        .filter_map(|metric| metric["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "some_counter",
            "some_gauge",
            "some_histogram",
            "some_summary"
        ]
    );
    for metric in metrics {
        assert_eq!(metric["labels"]["who"], "a \"b\"\\ä");
    }
    assert_eq!(
        (&metrics[0]["value"], &metrics[1]["value"]),
        (&3.5.into(), &2.5.into())
    );

    let page = well(&bus, "dump -f csv");
    let mut rows = csv::Reader::from_reader(page.as_bytes());
    assert_eq!(rows.headers().expect("a header").len(), 7);
    assert!(rows.records().all(|row| row.is_ok()) && page.contains("some_summary"));

    check_with_promtool(&well(&bus, "dump"));
}

/// Checks a page with promtool where there is one; what it finds wrong is more than what it
/// advises.
pub(crate) fn check_with_promtool(page: &str) {
    if Command::new("promtool").arg("--version").output().is_err() {
        use std::io::Write;
        assert!(
            std::env::var_os("QBUS_REQUIRE_PROMTOOL").is_none(),
            "there is no promtool"
        );
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED, it needs promtool: the Prometheus page"
        );
        return;
    }
    let found = run(Command::new("promtool").args(["check", "metrics"]), page);
    // 3: lint alone, such as a counter without `_total`, which is the user's.
    assert!(matches!(found.code, Some(0 | 3)), "{found:?}\n{page}");
}

#[test]
fn a_glob_selects_by_name() {
    let bus = filled(Place::Named);
    let names = |glob: &str| {
        let json = well(&bus, &format!("dump -f json --match '{glob}'"));
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let metrics = json["metrics"].as_array().expect("a list").clone();
        let name = |metric: &Value| metric["name"].as_str().unwrap_or_default().to_owned();
        metrics.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("some_[cg]*"), ["some_counter", "some_gauge"]);
    assert_eq!(names("some_????????"), Vec::<String>::new());
    assert_eq!(names("some_summar?"), ["some_summary"]);
    assert_eq!(names("*").len(), 4);
    fails(&bus, "dump --match [a", 2, &["--match"]);
}

#[test]
fn history_is_there_when_asked_for() {
    let bus = filled(Place::Named);
    let json: Value = serde_json::from_str(&well(&bus, "dump -f json --history")).expect("JSON");
    let text = json["history"].to_string();
    assert!(
        text.contains("some_gauge") && text.contains("2.5"),
        "{text}"
    );
    let rows = |line: &str| {
        well(&bus, line)
            .lines()
            .filter(|l| l.contains("some_gauge"))
            .count()
    };
    for format in ["prometheus", "openmetrics", "protobuf"] {
        let gist = ["has no place for histories", "-f json --history"];
        fails(&bus, &format!("dump -f {format} --history"), 2, &gist);
    }
    let gauge = "dump -f csv --match some_gauge";
    assert!(rows(&format!("{gauge} --history")) > rows(gauge));
}

#[test]
fn a_closed_pipe_is_a_good_end() {
    let bus = TestBus::reserve(Place::Named);
    well(&bus, "create --max-owners 16");
    // More than a pipe holds.
    let lines: String = (0..3000)
        .map(|n| format!("{{\"name\":\"x\",\"value\":{n},\"labels\":{{\"n\":\"{n:0>40}\"}}}}\n"))
        .collect();
    let finished = crate::support::qbus_with_input(&bus, "emit --stdin", &lines);
    assert_eq!(finished.code, Some(0), "{}", finished.err);
    aggregate(&bus);
    for format in FORMATS {
        let mut command = typed(&format!("dump -f {format} -b {}", bus.address()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut dump = command.spawn().expect("it starts");
        let mut out = BufReader::with_capacity(64, dump.stdout.take().expect("a pipe"));
        // JSON is one line: a part of it is enough.
        out.fill_buf().expect("output");
        drop(out);
        until("the dump to end", || {
            dump.try_wait().expect("a child").is_some()
        });
        let output = dump.wait_with_output().expect("it ended");
        assert_eq!(output.status.code(), Some(0), "{format}: {output:?}");
        let finished = Finished {
            code: output.status.code(),
            out: String::new(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_eq!(complaints(&finished), "", "{format}");
    }
    for line in ["dump", "stat", "stat --json"] {
        let mut shell = Command::new("bash");
        let line = format!("set -o pipefail; '{QBUS}' {line} | head -n 1");
        shell.args(["-c", &line]);
        shell.env("QBUS", bus.address().to_string());
        let finished = run(&mut shell, "");
        assert_eq!(
            (finished.code, complaints(&finished).as_str()),
            (Some(0), ""),
            "{line}"
        );
        assert_eq!(finished.out.lines().count(), 1);
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_or_left() {
    let bus = filled(Place::Named);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("metrics.prom");
    let file = path.display().to_string();
    fs::write(&path, "old").expect("written");
    let reader = fs::File::open(&path).expect("it opens");
    assert_eq!(well(&bus, &format!("dump -o {file}")), "");
    assert_eq!(
        fs::read_to_string(&path).expect("a file"),
        well(&bus, "dump")
    );
    let old = std::io::read_to_string(&reader).expect("the old file");
    assert_eq!(old, "old", "whoever reads it sees one or the other");

    // A dump that fails leaves what there was, and nothing beside it.
    let before = fs::read_to_string(&path).expect("a file");
    let gone = TestBus::reserve(Place::Named);
    fails(
        &gone,
        &format!("dump -o {file}"),
        1,
        &["there is no snapshot"],
    );
    assert_eq!(fs::read_to_string(&path).expect("a file"), before);
    let nowhere = folder
        .path()
        .join("nowhere/metrics.prom")
        .display()
        .to_string();
    fails(
        &bus,
        &format!("dump -o {nowhere}"),
        2,
        &["could not write", &nowhere],
    );
    let folders = folder.path().join("folder");
    fs::create_dir(&folders).expect("a folder");
    fails(
        &bus,
        &format!("dump -o {}", folders.display()),
        2,
        &["could not write"],
    );
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["folder", "metrics.prom"]);
}

#[test]
fn dumps_during_load_never_go_back() {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    let name = bus.address();
    let load = format!("load --producers 2 --records 200000 --wait --keep -b {name}");
    let mut load = typed(&load);
    load.stdout(Stdio::null());
    let mut load = qbus_tests::Process::spawn(load);
    let sum = || {
        let page = well(&bus, "dump --match qbus_load_records_total");
        let value = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok())
        };
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(value)
            .sum::<f64>()
    };
    let mut last = 0.0;
    until("the load to end", || {
        let now = sum();
        assert!(now >= last, "{now} after {last}");
        last = now;
        !load.is_running()
    });
    load.end_well();
    stop(aggregating);
    assert_eq!(sum(), 400_000.0);
}

#[test]
fn a_page_that_is_too_old_is_not_printed() {
    let bus = TestBus::small(Place::Named);
    well(&bus, "emit level 1");
    aggregate(&bus);
    assert_eq!(well(&bus, "dump --max-age 1h"), well(&bus, "dump"));
    let gist = ["the page is", "and --max-age is 1µs", "qbus agg"];
    fails(&bus, "dump --max-age 1us", 1, &gist);
    // It is printed without, with a note as soon as that is worth one.
    until("the note", || {
        let dump = qbus(&bus, "dump");
        assert!(dump.out.ends_with("level 1\n"), "{dump:?}");
        dump.err.contains("no aggregator runs: the page is as of")
    });
}

#[test]
fn several_patterns_choose_others_exclude_and_labels_are_added() {
    let bus = TestBus::small(Place::Named);
    for name in ["model_a", "model_b", "demo_a", "host"] {
        well(&bus, &format!("emit {name} 1"));
    }
    well(&bus, "emit named 1 --label host=own");
    aggregate(&bus);
    let names = |args: &str| {
        let page = well(&bus, &format!("dump {args}"));
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        samples.map(str::to_owned).collect::<Vec<_>>()
    };
    let chosen = names("--match 'model_*' --match 'demo_*' --exclude '*_b'");
    assert_eq!(chosen, ["demo_a 1", "model_a 1"]);
    assert_eq!(
        names("--exclude '*_*'"),
        ["host 1", "named{host=\"own\"} 1"]
    );
    let labels = "--label host=a7 --label zone=eu --match named --match host";
    let labelled = [
        "host{host=\"a7\",zone=\"eu\"} 1",
        "named{host=\"own\",zone=\"eu\"} 1",
    ];
    assert_eq!(names(labels), labelled);
    let json = well(&bus, &format!("dump -f json {labels}"));
    assert!(
        json.contains(r#""labels":{"host":"a7","zone":"eu"}"#),
        "{json}"
    );
    for label in ["le=1", "quantile=1", "__name__=x", "a b=1", "novalue"] {
        fails(&bus, &format!("dump --label '{label}'"), 2, &["--label"]);
    }
}

#[test]
fn help_says_what_quantiles_are_of_and_what_spreadsheets_do() {
    for (command, gist) in [
        ("emit", &["of its last ten minutes", "emit a histogram"][..]),
        (
            "dump",
            &[
                "of its window, the last ten minutes",
                "for a formula",
                "description",
            ],
        ),
    ] {
        let help = well(
            &TestBus::reserve(Place::Named),
            &format!("{command} --help"),
        );
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in gist {
            assert!(help.contains(part), "{command}: no {part:?} in {help}");
        }
    }
}

#[test]
fn who_follows_ends_with_its_reader_though_nothing_happens() {
    let bus = TestBus::small(Place::Named);
    well(&bus, "emit level 1");
    aggregate(&bus);
    for format in FORMATS {
        let dump = format!("dump --follow=10ms -f {format} -b {}", bus.address());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("'{QBUS}' {dump} | head -c 4")]);
        let finished = run(&mut shell, "");
        assert_eq!(
            (finished.code, finished.out.len()),
            (Some(0), 4),
            "{format}"
        );
    }
}

#[test]
fn it_follows_a_bus_over_restarts_of_its_aggregator() {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    let emit = |name: &str, value: &str| well(&bus, &format!("emit {name} {value}"));
    emit("level", "1");
    let follow = |args: &str| {
        let mut command = typed(&format!("dump --follow=10ms -b {} {args}", bus.address()));
        command.stderr(Stdio::null());
        qbus_tests::Process::spawn(command)
    };
    // A table goes on: a row for each time that something was emitted.
    let table = follow("-f csv --match level");
    assert!(table.line().starts_with("name,value,"));
    assert!(table.line().starts_with("level,1.0,"));
    emit("other", "1");
    emit("level", "2");
    assert!(table.line().starts_with("level,2.0,"));
    stop(aggregating);
    let aggregating = aggregator(&bus, "");
    emit("level", "3");
    assert!(table.line().starts_with("level,3.0,"));
    table.signal(rustix::process::Signal::INT);
    table.end_well();

    // A document for each commit.
    let documents = follow("-f json --match level");
    let value = || {
        let document: Value = serde_json::from_str(&documents.line()).expect("a document a line");
        document["metrics"][0]["value"].as_f64()
    };
    assert_eq!(value(), Some(3.0));
    emit("level", "4");
    until("the next value", || value() == Some(4.0));

    // A file is replaced.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("qbus.prom");
    let file = follow(&format!("-o {} --match level", path.display()));
    let shown = |value: &str| {
        until("the file", || {
            let page = fs::read_to_string(&path).unwrap_or_default();
            page.ends_with(&format!("level {value}\n"))
        });
    };
    shown("4");
    emit("level", "5");
    shown("5");
    for following in [documents, file] {
        following.signal(rustix::process::Signal::TERM);
        following.end_well();
    }
    stop(aggregating);
}
