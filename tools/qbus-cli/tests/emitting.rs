//! `qbus emit`, one value or many lines.

use qbus_tests::{Place, TestBus};

use crate::support::{aggregate, aggregator, ledger_of, qbus_with_input, stop, well};

/// What a dump says of a metric, without comments.
fn samples(bus: &TestBus, glob: &str) -> Vec<String> {
    let page = well(bus, &["dump", "--match", glob]);
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
            let described = ["--description", "Jobs done.", "--label", "kind=batch"];
            well(
                &bus,
                &[
                    &["emit", "jobs_total", increment, "--type", "counter"],
                    &described[..],
                ]
                .concat(),
            );
        }
        for level in ["7", "-3.5"] {
            well(&bus, &["emit", "level", level]);
        }
        for seconds in ["0.1", "1", "30"] {
            let buckets = ["--type", "histogram", "--buckets", "0.5,1,10"];
            well(
                &bus,
                &[&["emit", "run_seconds", seconds], &buckets[..]].concat(),
            );
            well(
                &bus,
                &["emit", "wait_seconds", seconds, "--type", "summary"],
            );
        }
        aggregate(&bus);
        let page = well(&bus, &["dump", "--match", "jobs_total"]);
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
    ];
    // The last one ends without a line feed, as a file may.
    let finished = qbus_with_input(&bus, &["emit", "--stdin"], &lines.join("\n"));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(finished.out, "");
    let mut errors = finished.err.lines();
    let expected = [
        (2, "expected ident"),
        (4, "metric good_total: counter increment is -1"),
        (6, "missing field `value`"),
        (7, "missing field `name`"),
        (
            8,
            "type is \"wat\", expected counter, gauge, histogram or summary",
        ),
        (9, "unknown field `surprise`"),
        (10, "expected a string"),
        (11, "value is \"seven\", expected a number"),
        (12, "timestamp is -5, expected seconds since 1970"),
    ];
    for (number, reason) in expected {
        let line = errors.next().expect("another line");
        assert!(
            line.starts_with(&format!("qbus: line {number}: ")),
            "{line}"
        );
        assert!(line.contains(reason), "{line}");
    }
    assert_eq!(errors.next(), Some("qbus: 9 of 12 lines were not emitted"));
    assert_eq!(errors.next(), None);
    aggregate(&bus);
    assert_eq!(samples(&bus, "good_total"), ["good_total 3"]);
    let page = well(&bus, &["dump", "--timestamps", "--match", "at"]);
    assert!(
        page.ends_with("at{a=\"1\",b=\"2\"} NaN 1700000000500\n"),
        "{page}"
    );
}

#[test]
fn many_lines_wait_for_room() {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, &[]);
    let line = r#"{"name":"lines_total","value":1,"type":"counter"}"#;
    // Many times what the lane holds.
    let finished = qbus_with_input(
        &bus,
        &["emit", "--stdin"],
        &format!("{line}\n").repeat(5000),
    );
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""));
    stop(aggregating);
    assert_eq!(samples(&bus, "lines_total"), ["lines_total 5000"]);
    assert_eq!(ledger_of(&bus, "qbus emit --stdin"), [5000, 0, 0, 0]);
}

#[test]
fn no_lines_are_no_failure() {
    let bus = TestBus::small(Place::Named);
    for input in ["", "\n \n\t\r\n"] {
        let finished = qbus_with_input(&bus, &["emit", "--stdin"], input);
        assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""));
    }
}
