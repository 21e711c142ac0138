//! `qbus emit`, one value or many lines.

use qbus_aggregate::{ReadOptions, Reader};
use qbus_tests::{Place, Process, TestBus, until};

use crate::support::{aggregate, aggregator, fails, ledger_of, qbus_with_input, stop, typed, well};

/// What a dump says of a metric, without comments.
fn samples(bus: &TestBus, glob: &str) -> Vec<String> {
    let page = well(bus, &format!("dump --match '{glob}'"));
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_type_arrives_with_what_it_was_given() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        for increment in ["2", "0.5"] {
            let described = "--description 'Jobs done.' --label kind=batch";
            well(
                &bus,
                &format!("emit jobs_total {increment} --type counter {described}"),
            );
        }
        for level in ["7", "-3.5"] {
            well(&bus, &format!("emit level {level}"));
        }
        for seconds in ["0.1", "1", "30"] {
            let buckets = "--type histogram --buckets 0.5,1,10";
            well(&bus, &format!("emit run_seconds {seconds} {buckets}"));
            well(&bus, &format!("emit wait_seconds {seconds} --type summary"));
        }
        aggregate(&bus);
        let page = well(&bus, "dump --match jobs_total");
        assert!(page.contains("# HELP jobs_total Jobs done.\n"), "{page}");
        assert!(page.contains("# TYPE jobs_total counter\n"), "{page}");
        assert_eq!(
            samples(&bus, "jobs_total"),
            ["jobs_total{kind=\"batch\"} 2.5"]
        );
        assert_eq!(samples(&bus, "level"), ["level -3.5"]);
        let buckets = [
            "run_seconds_bucket{le=\"0.5\"} 1",
            "run_seconds_bucket{le=\"1\"} 2",
            "run_seconds_bucket{le=\"10\"} 2",
            "run_seconds_bucket{le=\"+Inf\"} 3",
            "run_seconds_sum 31.1",
            "run_seconds_count 3",
        ];
        assert_eq!(samples(&bus, "run_seconds"), buckets);
        let summary = samples(&bus, "wait_seconds");
        assert!(
            summary.contains(&"wait_seconds_count 3".to_owned()),
            "{summary:?}"
        );
    }
}

#[test]
fn bad_lines_are_named_and_the_others_arrive() {
    let bus = TestBus::small(Place::Named);
    let lines = [
        r#"{"name":"good_total","value":1,"type":"counter"}"#,
        "not json",
        "",
        r#"{"name":"good_total","value":-1,"type":"counter"}"#,
        r#"{"name":"good_total","value":2,"type":"counter","description":"Good ones."}"#,
        r#"{"name":"no_value"}"#,
        r#"{"value":1}"#,
        r#"{"name":"x","value":1,"type":"wat"}"#,
        r#"{"name":"x","value":1,"surprise":1}"#,
        r#"{"name":"x","value":1,"labels":{"a":1}}"#,
        r#"{"name":"x","value":"seven"}"#,
        r#"{"name":"x","value":1,"timestamp":-5}"#,
        r#"{"name":"at","value":"NaN","timestamp":1700000000.5,"labels":{"b":"2","a":"1"}}"#,
        r#"{"name":"x","name":"y","value":1}"#,
        "[1]",
        r#"{"name":"x","#,
        r#"{"name":"x","value":1,"labels":{"a":"1","a":"1"}}"#,
        r#"{"name":"x","value":1e400}"#,
        r#"{"name":"x","value":1,"timestamp":4e9}"#,
        r#"{"name":"x","value":1,"buckets":[1,2]}"#,
        r#"{"name":"of_unit_seconds","value":1,"unit":"seconds"}"#,
    ];
    // The last one ends without a line feed, as a file may.
    let finished = qbus_with_input(&bus, "emit --stdin", &lines.join("\n"));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(finished.out, "");
    let mut errors = finished.err.lines();
    let expected = [
        (2, "not JSON, at character 2"),
        (4, "metric good_total: counter increment is -1"),
        (6, "the line has no value"),
        (7, "the line has no name"),
        (
            8,
            "type is \"wat\", expected counter, gauge, histogram, summary or untyped",
        ),
        (9, "key \"surprise\" is unknown, expected name, value, type"),
        (10, "label \"a\" is 1, expected a string"),
        (11, "value is \"seven\", expected a number"),
        (12, "timestamp is -5, expected seconds since 1970"),
        (14, "key \"name\" is given twice"),
        (15, "the line is a list, expected an object"),
        (16, "not JSON: the line ends too early"),
        (17, "label \"a\" is given twice"),
        (18, "a number is out of range, at character"),
        (
            19,
            "timestamp is 4000000000, expected seconds since 1970, at most five minutes",
        ),
        (20, "buckets are for histograms"),
    ];
    for (number, reason) in expected {
        let line = errors.next().expect("another line");
        assert!(
            line.starts_with(&format!("qbus: line {number}: ")),
            "{line}"
        );
        assert!(line.contains(reason), "{line}");
    }
    assert_eq!(errors.next(), Some("qbus: 16 of 20 lines were not emitted"));
    assert_eq!(errors.next(), None);
    aggregate(&bus);
    assert_eq!(samples(&bus, "good_total"), ["good_total 3"]);
    let page = well(&bus, "dump --timestamps --match at");
    assert!(
        page.ends_with("at{b=\"2\",a=\"1\"} NaN 1700000000500\n"),
        "{page}"
    );
}

#[test]
fn many_lines_wait_for_room() {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    let line = r#"{"name":"lines_total","value":1,"type":"counter"}"#;
    // Many times what the lane holds.
    let finished = qbus_with_input(&bus, "emit --stdin", &format!("{line}\n").repeat(5000));
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""));
    stop(aggregating);
    assert_eq!(samples(&bus, "lines_total"), ["lines_total 5000"]);
    assert_eq!(ledger_of(&bus, "qbus emit --stdin"), [5000, 0, 0, 0]);
}

#[test]
fn no_lines_are_no_failure() {
    let bus = TestBus::small(Place::Named);
    for input in ["", "\n \n\t\r\n"] {
        let finished = qbus_with_input(&bus, "emit --stdin", input);
        assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""));
    }
}

#[test]
fn numbers_are_written_as_people_write_them() {
    let bus = TestBus::small(Place::Named);
    let values = ["-5e-3", "-3.5", "+7", ".5", "1e-300", "-Inf", "inf", "NaN"];
    for (n, value) in values.iter().enumerate() {
        well(&bus, &format!("emit g{n} {value}"));
    }
    well(&bus, "emit at 1 --timestamp 1700000000.5");
    aggregate(&bus);
    let shown = [
        "-0.005", "-3.5", "7", "0.5", "1e-300", "-Inf", "+Inf", "NaN",
    ];
    for (n, value) in shown.iter().enumerate() {
        assert_eq!(samples(&bus, &format!("g{n}")), [format!("g{n} {value}")]);
    }
    let page = well(&bus, "dump --timestamps --match at");
    assert!(page.ends_with("at 1 1700000000500\n"), "{page}");
    for value in ["1e400", "-1e400", "one", "-x", "--5", "0x10", ""] {
        fails(&bus, &format!("emit g '{value}'"), 2, &["invalid value"]);
    }
    let late = "emit g 1 --timestamp 4e9";
    fails(
        &bus,
        late,
        2,
        &["timestamp is 4000000000, expected seconds since 1970"],
    );
    let bounds = "emit g 1 --buckets 1,2";
    fails(
        &bus,
        bounds,
        2,
        &[
            "metric g",
            "buckets are for histograms",
            "and this is a gauge",
        ],
    );
}

#[test]
fn a_unit_is_part_of_the_family() {
    let bus = TestBus::small(Place::Named);
    bus.open()
        .gauge("wait_seconds")
        .unit("seconds")
        .register()
        .expect("room");
    well(&bus, "emit wait_seconds 1");
    well(&bus, "emit wait_seconds 2 --unit seconds");
    let other = "emit wait_seconds 3 --unit minutes";
    fails(&bus, other, 2, &["is registered as", "seconds", "minutes"]);
    aggregate(&bus);
    assert_eq!(samples(&bus, "wait_seconds"), ["wait_seconds 2"]);
}

#[test]
fn a_dump_shows_what_was_emitted_before_it() {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    for n in 1..=20 {
        well(&bus, &format!("emit level {n}"));
        assert_eq!(samples(&bus, "level"), [format!("level {n}")]);
    }
    stop(aggregating);
}

#[test]
fn lines_to_a_bus_that_was_removed_are_an_error() {
    let bus = TestBus::small(Place::Named);
    let mut command = typed(&format!("emit --stdin -b {}", bus.address()));
    command.stderr(std::process::Stdio::null());
    let mut emitting = Process::spawn(command);
    emitting.tell(r#"{"name":"jobs_total","value":1,"type":"counter"}"#);
    let opened = bus.open();
    until("the first line", || {
        opened.lanes().iter().any(|lane| lane.fill > 0)
    });
    well(&bus, "rm --force");
    bus.make(TestBus::small_geometry());
    emitting.tell(r#"{"name":"jobs_total","value":1,"type":"counter"}"#);
    emitting.end_with(1);
}

#[test]
fn totals_are_stated_and_changes_are_added() {
    let bus = TestBus::small(Place::Named);
    for total in ["100", "250.5"] {
        well(&bus, &format!("emit read_bytes_total {total} --total"));
    }
    for change in ["5", "-2"] {
        well(&bus, &format!("emit queue_depth {change} --add"));
    }
    let lines = [
        r#"{"name":"sent_bytes_total","value":70,"total":true}"#,
        r#"{"name":"sent_bytes_total","value":80,"total":true,"type":"counter"}"#,
        r#"{"name":"queue_depth","value":-1,"add":true}"#,
        r#"{"name":"queue_depth","value":40,"add":false,"total":false,"labels":{"set":"yes"}}"#,
    ];
    let finished = qbus_with_input(&bus, "emit --stdin", &lines.join("\n"));
    assert_eq!(
        (finished.code, &*finished.err),
        (Some(0), ""),
        "{finished:?}"
    );
    aggregate(&bus);
    assert_eq!(
        samples(&bus, "read_bytes_total"),
        ["read_bytes_total 250.5"]
    );
    assert_eq!(samples(&bus, "sent_bytes_total"), ["sent_bytes_total 80"]);
    assert_eq!(
        samples(&bus, "queue_depth"),
        ["queue_depth 2", "queue_depth{set=\"yes\"} 40"]
    );
    let types = well(&bus, "dump --match read_bytes_total");
    assert!(
        types.contains("# TYPE read_bytes_total counter\n"),
        "{types}"
    );

    let total = "emit x 1 --total --type gauge";
    fails(
        &bus,
        total,
        2,
        &["metric x: total is for a counter, and this is a gauge"],
    );
    let add = "emit x 1 --add --type histogram";
    fails(
        &bus,
        add,
        2,
        &["metric x: add is for a gauge, and this is a histogram"],
    );
    fails(&bus, "emit x 1 --add --total", 2, &["cannot be used with"]);
    let bad = [
        (
            r#"{"name":"x","value":1,"total":"yes"}"#,
            "total is \"yes\", expected true or false",
        ),
        (
            r#"{"name":"x","value":1,"add":true,"type":"summary"}"#,
            "add is for a gauge",
        ),
        (
            r#"{"name":"x","value":1,"add":true,"total":true}"#,
            "exclude each other",
        ),
    ];
    for (line, gist) in bad {
        let finished = qbus_with_input(&bus, "emit --stdin", line);
        assert_eq!(finished.code, Some(2), "{line}");
        assert!(finished.err.contains(gist), "{line}: {}", finished.err);
    }
}

#[test]
fn an_exemplar_is_on_the_page() {
    let bus = TestBus::small(Place::Named);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let args = format!("emit run_seconds 0.3 --type histogram --exemplar {trace}");
    well(&bus, &args);
    aggregate(&bus);
    let page = well(&bus, "dump -f openmetrics");
    assert!(
        page.contains(&format!("# {{trace_id=\"{trace}\"}} 0.3 ")),
        "{page}"
    );
}

/// Every format says the same of a window that ran out; what is of all time stays.
#[test]
fn quantiles_leave_with_their_window_in_every_format() {
    let bus = TestBus::small(Place::Named);
    let process = aggregator(&bus, "");
    for (name, window) in [("brief", "300ms/3"), ("lasting", "1m"), ("forever", "all")] {
        well(
            &bus,
            &format!("emit {name} 4 --type summary --window {window}"),
        );
    }
    // As it was registered.
    let page = |format: &str| well(&bus, &format!("dump -f {format}"));
    until("the window of one to run out", || {
        page("prometheus").contains("brief{quantile=\"0.99\"} NaN")
    });
    let prometheus = page("prometheus");
    for line in [
        "brief_count 1",
        "brief_sum 4",
        "lasting{quantile=\"0.5\"} 4",
        "forever{quantile=\"0.5\"} 4",
    ] {
        assert!(
            prometheus.lines().any(|found| found == line),
            "{line}: {prometheus}"
        );
    }
    assert!(page("openmetrics").contains("brief{quantile=\"0.5\"} NaN\n"));
    let csv = page("csv");
    assert!(
        csv.lines()
            .any(|line| line.starts_with("brief,NaN,summary")),
        "{csv}"
    );
    assert!(
        csv.lines().any(|line| line.starts_with("brief_count,1")),
        "{csv}"
    );
    let json: serde_json::Value = serde_json::from_str(&page("json")).expect("JSON");
    let metrics = json["metrics"].as_array().expect("metrics");
    let of = |name: &str| {
        metrics
            .iter()
            .find(|metric| metric["name"] == name)
            .expect(name)
    };
    let (brief, forever) = (of("brief"), of("forever"));
    assert!(brief["quantiles"][0]["value"].is_null(), "{brief}");
    assert_eq!(brief["window_seconds"], 0.3);
    assert_eq!((&brief["count"], &brief["max"]), (&1.into(), &4.0.into()));
    assert!(forever["window_seconds"].is_null(), "{forever}");
    // The next observation is of the window that the name is registered with.
    well(&bus, "emit brief 8 --type summary");
    until("it to run out again", || {
        let page = page("prometheus");
        page.contains("brief_count 2") && page.contains("brief{quantile=\"0.5\"} NaN")
    });
    let other = "emit brief 8 --type summary --window all";
    fails(
        &bus,
        other,
        2,
        &["with quantiles of 300ms in 3 steps", "all time"],
    );
    let gauge = "emit level 8 --window 1m";
    fails(&bus, gauge, 2, &["window is for a summary"]);
    fails(&bus, "emit s 8 --window 1m/99", 2, &["10m/5"]);
    let line = r#"{"name":"lined","value":1,"type":"summary","window":"2m/4"}"#;
    let emitted = qbus_with_input(&bus, "emit --stdin", line);
    assert_eq!(emitted.code, Some(0), "{emitted:?}");
    let json: serde_json::Value = serde_json::from_str(&page("json")).expect("JSON");
    assert!(
        json.to_string().contains("\"window_seconds\":120.0"),
        "{json}"
    );
    stop(process);
}

#[test]
fn a_histogram_is_native_where_that_is_said() {
    let bus = TestBus::small(Place::Named);
    let line = r#"{"name":"wait_seconds","value":1,"type":"histogram","native":true}"#;
    let finished = qbus_with_input(&bus, "emit --stdin", line);
    assert_eq!(finished.code, Some(0), "{}", finished.err);
    let run = "emit run_seconds 2 --type histogram";
    well(&bus, &format!("{run} --native"));
    // As it is registered.
    well(&bus, run);
    well(&bus, "emit classic 3 --type histogram");
    aggregate(&bus);
    let mut reader = Reader::open(&bus.address().snapshot()).expect("a snapshot");
    let snapshot = reader.read(&ReadOptions::default()).expect("a commit");
    let native = snapshot.series.iter().map(|series| series.family.native);
    assert_eq!(native.collect::<Vec<_>>(), [false, true, true]);
    let other = "emit classic 3 --type histogram --native";
    fails(&bus, other, 2, &["classic", "is registered as", "native"]);
    let level = "emit level 3 --native";
    fails(
        &bus,
        level,
        2,
        &["native is for a histogram", "this is a gauge"],
    );
}
