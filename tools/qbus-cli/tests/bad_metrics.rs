//! Metrics that cannot be: refused, named, and without harm to those that can.

use qbus::{Geometry, MetricType};
use qbus_tests::{Place, TestBus};

use crate::support::{aggregate, fails, qbus_with_input, well};

/// Checks that an emit is refused with exit code 2 and an error that says all of that, on the
/// command line and as a line of standard input.
fn check(bus: &TestBus, args: &str, line: &str, gist: &[&str]) {
    fails(bus, &format!("emit {args}"), 2, gist);
    let finished = qbus_with_input(bus, "emit --stdin", line);
    assert_eq!(finished.code, Some(2), "{line}: {finished:?}");
    for part in gist.iter().chain(&["qbus: line 1: ", "1 of 1 lines"]) {
        assert!(
            finished.err.contains(part),
            "{line}: no {part:?} in {:?}",
            finished.err
        );
    }
}

#[test]
fn a_name_that_is_none() {
    let bus = TestBus::small(Place::Named);
    let long = "x".repeat(256);
    for name in ["9x", "", "a-b", "a b", "ä", "a.b", &long] {
        let line = format!(r#"{{"name":"{name}","value":1}}"#);
        let gist = [
            &format!("{name:?} is no metric name"),
            "[a-zA-Z_:][a-zA-Z0-9_:]*",
        ];
        check(&bus, &format!("'{name}' 1"), &line, &gist);
    }
    assert_eq!(bus.open().counts().series, 0);
    well(&bus, &format!("emit {} 1", "x".repeat(255)));
    well(&bus, "emit vllm:kv_cache_usage 1");
}

#[test]
fn a_label_that_is_none_or_reserved() {
    let bus = TestBus::small(Place::Named);
    let cases = [
        ("9", "is no label name"),
        ("a-b", "is no label name"),
        (
            "__name__",
            "starts with two underscores: such names are reserved",
        ),
    ];
    for (label, reason) in cases {
        let line = format!(r#"{{"name":"x","value":1,"labels":{{"{label}":"v"}}}}"#);
        let gist = ["metric x", &format!("label {label:?}"), reason];
        check(&bus, &format!("x 1 --label '{label}=v'"), &line, &gist);
    }
    let twice = "emit x 1 --label a=1 --label a=2";
    fails(&bus, twice, 2, &["metric x", "twice"]);
    fails(&bus, "emit x 1 --label a", 2, &["expected NAME=VALUE"]);
    assert_eq!(bus.open().counts().series, 0);
    well(&bus, "emit x 1 --label a=b=c --label empty=");
}

#[test]
fn a_type_conflict_names_both_definitions() {
    let bus = TestBus::small(Place::Named);
    for existing in MetricType::ALL {
        let name = format!("an_{existing}");
        well(&bus, &format!("emit '{name}' 1 --type '{existing}'"));
        for requested in MetricType::ALL {
            let args = format!("{name} 1 --type {requested}");
            if requested == existing {
                well(&bus, &format!("emit {args}"));
                continue;
            }
            let line = format!(r#"{{"name":"{name}","value":1,"type":"{requested}"}}"#);
            let (found, asked) = (
                format!("registered as {existing}"),
                format!("asked for as {requested}"),
            );
            check(
                &bus,
                &args,
                &line,
                &[&format!("metric {name}"), &found, &asked],
            );
        }
    }
    let buckets = "emit an_histogram 1 --type histogram --buckets 1,2";
    fails(
        &bus,
        buckets,
        2,
        &[
            "registered as histogram",
            "0.005",
            "asked for as histogram",
            "[1.0, 2.0]",
        ],
    );
}

#[test]
fn a_value_that_its_type_cannot_take() {
    let bus = TestBus::small(Place::Named);
    let cases = [
        (
            "counter",
            "-1",
            "-1",
            "counter increment is -1, expected a finite number, 0 or more",
        ),
        ("counter", "NaN", "\"NaN\"", "counter increment is NaN"),
        ("counter", "inf", "\"+Inf\"", "counter increment is inf"),
        (
            "histogram",
            "NaN",
            "\"NaN\"",
            "value is NaN, expected a number",
        ),
        (
            "summary",
            "NaN",
            "\"NaN\"",
            "value is NaN, expected a number",
        ),
    ];
    for (metric_type, typed, json, gist) in cases {
        let name = format!("an_{metric_type}");
        let line = format!(r#"{{"name":"{name}","value":{json},"type":"{metric_type}"}}"#);
        let metric = format!("metric {name}");
        check(
            &bus,
            &format!("--type '{metric_type}' -- '{name}' '{typed}'"),
            &line,
            &[&metric, gist],
        );
    }
    fails(&bus, "emit x one", 2, &["one"]);
    // A gauge says what there is, also that there is no number for it.
    for value in ["NaN", "inf", "-inf", "-1.5"] {
        well(&bus, &format!("emit -- a_gauge '{value}'"));
    }
    aggregate(&bus);
    let ledger = well(&bus, "stat");
    // Each refusal is a drop: two of each case.
    assert!(
        ledger.contains("4 delivered, 10 lost (10 rejected)"),
        "{ledger}"
    );
}

#[test]
fn buckets_that_do_not_ascend() {
    let bus = TestBus::small(Place::Named);
    for buckets in ["1,1", "2,1", "1,inf", "NaN"] {
        let args = format!("emit h 1 --type histogram --buckets '{buckets}'");
        fails(
            &bus,
            &args,
            2,
            &["metric h: buckets are [", "each larger than the one before"],
        );
    }
    let line = r#"{"name":"h","value":1,"type":"histogram","buckets":[2,1]}"#;
    let finished = qbus_with_input(&bus, "emit --stdin", line);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(
        finished.err.contains("buckets are [2.0, 1.0]"),
        "{finished:?}"
    );
    let args = "emit h 1 --type histogram --buckets -1,0,2.5";
    well(&bus, args);
    // Without buckets a known histogram keeps its own.
    well(&bus, "emit h 2 --type histogram");
}

#[test]
fn a_full_registry_names_who_filled_it() {
    let bus = TestBus::reserve(Place::Named);
    well(
        &bus,
        "create --lanes 8 --slots 64 --max-series 4 --max-families 8",
    );
    for user in ["a", "b", "c"] {
        let labels = format!("--label region=eu --label user={user}");
        well(&bus, &format!("emit logins 1 {labels}"));
    }
    well(&bus, "emit other 1");
    let line = r#"{"name":"logins","value":1,"labels":{"region":"eu","user":"d"}}"#;
    let args = "logins 1 --label region=eu --label user=d";
    let gist = [
        "metric logins: no room for more series (capacity 4)",
        "the largest family is logins with 3 series",
        "its label user has 3 values",
        "known series go on",
    ];
    check(&bus, args, line, &gist);
    well(&bus, "emit other 2");
    let stat = well(&bus, "stat");
    assert!(stat.contains("4 of 4 series"), "{stat}");
    assert!(stat.contains("2 registrations were refused"), "{stat}");
}

#[test]
fn no_free_lane_falls_back_to_a_shared_one() {
    let geometry = Geometry {
        lanes: 2,
        shared_lanes: 1,
        ..TestBus::small_geometry()
    };
    let bus = TestBus::create(Place::Named, geometry);
    let opened = bus.open();
    let holder = opened.producer().expect("the exclusive lane");
    assert!(holder.is_exclusive());
    well(&bus, "load --producers 2 --records 100 --keep");
    aggregate(&bus);
    let page = well(&bus, "dump --match qbus_load_records_total");
    let sums = page.lines().filter(|line| line.ends_with(" 100")).count();
    assert_eq!(sums, 2, "{page}");

    // Without a shared lane, what is missing is said.
    let geometry = Geometry {
        lanes: 1,
        shared_lanes: 0,
        ..geometry
    };
    let bus = TestBus::create(Place::Named, geometry);
    let opened = bus.open();
    let _holder = opened.producer().expect("the exclusive lane");
    let gist = [
        "all 1 lanes are leased and the bus has no shared lane",
        "--shared-lanes",
    ];
    fails(&bus, "emit x 1", 2, &gist);
}

#[test]
fn a_refused_value_registers_nothing() {
    let bus = TestBus::small(Place::Named);
    let args = "emit --type counter -- x -1";
    fails(&bus, args, 2, &["counter increment is -1"]);
    assert_eq!(bus.open().counts().series, 0);
    well(&bus, "emit x -1");
}
