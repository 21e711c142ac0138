//! `qbus stat` and `qbus load`: the keys that others read, and totals that agree with the dump.

use qbus_tests::{Place, TestBus, until};
use serde_json::Value;

use crate::support::{aggregate, aggregator, fails, ledger_of, qbus, stop, typed, well};

fn json(bus: &TestBus, line: &str) -> Value {
    serde_json::from_str(&well(bus, line)).expect("JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn stat_has_the_keys_that_others_read() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let before = json(&bus, "stat --json");
        assert_eq!(
            keys(&before),
            [
                "aggregator",
                "bus",
                "health",
                "lanes",
                "ledger",
                "no_snapshot",
                "owners",
                "records_per_second",
                "series"
            ]
        );
        assert_eq!(before["aggregator"], Value::Null);
        well(&bus, "emit x 1");
        let aggregating = aggregator(&bus, "");
        let during = json(&bus, "stat --json");
        assert_eq!(during["aggregator"]["alive"], true);
        assert_eq!(during["aggregator"]["pid"], aggregating.pid());
        stop(aggregating);

        let stat = json(&bus, "stat --json");
        assert_eq!(stat["aggregator"]["alive"], false);
        assert!(stat["aggregator"]["epoch"].as_u64() > Some(0), "{stat}");
        assert!(
            stat["aggregator"]["commit_age_seconds"].as_f64() >= Some(0.0),
            "{stat}"
        );
        let (geometry, shown) = (TestBus::small_geometry(), &stat["bus"]);
        assert_eq!(shown["name"], bus.address().to_string());
        assert_eq!(shown["path"], bus.address().file().display().to_string());
        assert_eq!(shown["size_bytes"], geometry.size_bytes());
        assert_eq!((&shown["lanes"], &shown["slots"]), (&8.into(), &256.into()));
        for key in ["delivered", "dropped", "torn", "revoked"] {
            // The aggregator may be an owner too.
            let owners = stat["owners"].as_array().expect("a list").iter();
            let sum: u64 = owners.filter_map(|owner| owner[key].as_u64()).sum();
            assert_eq!(stat["ledger"][key], sum, "{key}: {stat}");
        }
        assert_eq!(ledger_of(&bus, "qbus emit x 1"), [1, 0, 0, 0]);
        assert_eq!(stat["owners"][0]["alive"], false);
        assert!(
            stat["owners"][0]["command"]
                .as_str()
                .is_some_and(|c| c.contains("emit x 1"))
        );
        assert_eq!(stat["lanes"].as_array().map(Vec::len), Some(8));
        assert_eq!(stat["lanes"][0]["fill"], 0);
        assert_eq!(stat["lanes"][0]["owner"], Value::Null);
        assert_eq!(stat["series"]["registered"], stat["series"]["committed"]);
        assert!(stat["series"]["registered"].as_u64() >= Some(1), "{stat}");
    }
}

/// Runs a load, and checks its report against itself, the dump and the ledger.
fn check(metric_type: &str, name: &str, more: &str) {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    let kind = metric_type;
    let line = format!("load --producers 3 --records 20000 --kind {kind} --keep --json {more}");
    let report = json(&bus, &line);
    stop(aggregating);
    assert_eq!(keys(&report), ["total", "workers"]);
    let workers = report["workers"].as_array().expect("a list");
    assert_eq!(workers.len(), 3);
    let number = |of: &Value, key: &str| of[key].as_u64().expect("a whole number");
    for of in workers.iter().chain([&report["total"]]) {
        assert_eq!(
            keys(of),
            [
                "accepted",
                "attempted",
                "dropped",
                "ns_per_record",
                "seconds"
            ]
        );
        assert_eq!(
            number(of, "attempted"),
            number(of, "accepted") + number(of, "dropped")
        );
    }
    let total = |key| number(&report["total"], key);
    for key in ["attempted", "accepted", "dropped"] {
        assert_eq!(
            workers
                .iter()
                .map(|worker| number(worker, key))
                .sum::<u64>(),
            total(key)
        );
    }
    assert_eq!(total("attempted"), 60_000);

    let [delivered, dropped, torn, revoked] = ledger_of(&bus, "load");
    assert_eq!(delivered, total("accepted"));
    assert_eq!(dropped + torn + revoked, total("dropped"));
    let dump = json(&bus, &format!("dump -f json --match {name}"));
    let metrics = dump["metrics"].as_array().expect("a list");
    let of = |worker: usize| {
        let worker = worker.to_string();
        let mine = metrics
            .iter()
            .filter(move |m| m["labels"]["worker"] == worker.as_str());
        mine.map(|m| {
            if metric_type == "counter" {
                &m["value"]
            } else {
                &m["count"]
            }
        })
    };
    for (worker, report) in workers.iter().enumerate() {
        if metric_type == "gauge" {
            continue;
        }
        let sum: f64 = of(worker).filter_map(Value::as_f64).sum();
        assert_eq!(
            sum,
            number(report, "accepted") as f64,
            "worker {worker}: {metrics:?}"
        );
    }
}

#[test]
fn load_agrees_with_the_dump_and_the_ledger() {
    check("counter", "qbus_load_records_total", "");
    check("gauge", "qbus_load_level", "");
    check("histogram", "qbus_load_seconds", "--series 5");
    check("summary", "qbus_load_summary_seconds", "--wait");
    check("counter", "qbus_load_records_total", "--wait --series 3");
}

#[test]
fn load_without_an_aggregator_counts_what_it_drops() {
    // Without cells: with them nothing is dropped.
    let bus = TestBus::create(Place::Named, TestBus::ring_geometry());
    let waiting = qbus(&bus, "load --records 100 --wait --keep");
    let start = format!("`qbus agg -b {}`", bus.address());
    assert!(waiting.err.contains("nobody aggregates the bus") && waiting.err.contains(&start));
    aggregate(&bus);
    let report = json(&bus, "load --records 1000 --json");
    let total = &report["total"];
    assert_eq!(
        (&total["accepted"], &total["dropped"]),
        (&256.into(), &744.into())
    );
    let stat = json(&bus, "stat --json");
    assert_eq!(
        stat["ledger"]["dropped"], 744,
        "known before any aggregator ran"
    );
    aggregate(&bus);
    let ledger = &json(&bus, "stat --json")["ledger"];
    assert_eq!(
        (&ledger["delivered"], &ledger["dropped"]),
        (&356.into(), &744.into())
    );
}

#[test]
fn load_keeps_to_its_rate_and_prints_a_line_a_worker() {
    let bus = TestBus::small(Place::Named);
    let args = "load --producers 2 --records 40 --rate 200";
    let start = std::time::Instant::now();
    let page = well(&bus, args);
    // The clock is the point here, and only in the direction that noise cannot break.
    assert!(start.elapsed().as_secs_f64() >= 0.19, "{page}");
    let first: Vec<&str> = page
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(first, ["worker", "0", "1", "total"], "{page}");
    for rate in ["0", "-1", "NaN", "inf"] {
        fails(
            &bus,
            &format!("load --rate={rate}"),
            2,
            &["--rate is not positive"],
        );
    }
}

#[test]
fn a_load_gives_back_the_room_that_it_took() {
    let bus = TestBus::small(Place::Named);
    let aggregating = aggregator(&bus, "");
    // Each takes most of the room: were it not given back, the second would be refused.
    for kind in ["counter", "gauge", "histogram", "summary"] {
        until("the series to go", || {
            well(&bus, "stat").contains(" 0 of 256 series")
        });
        let args = format!("load --records 200 --series 200 --kind {kind} --json");
        assert_eq!(json(&bus, &args)["total"]["accepted"], 200, "{kind}");
    }
    until("the series to go", || {
        well(&bus, "dump --match 'qbus_load*'").is_empty()
    });
    // More than there is room for is refused before it takes that of others.
    let gist = [
        "need room for 600 series",
        "has 256 left",
        "qbus create -b load --max-series 1024",
    ];
    fails(&bus, "load --producers 3 --series 200", 2, &gist);
    let many = bus.open().geometry().owners + 1;
    let gist = [&*format!("need room for {many} processes"), "--max-owners"];
    fails(&bus, &format!("load --producers {many}"), 2, &gist);
    for none in ["--producers 0", "--series 0", "--kind untyped"] {
        fails(&bus, &format!("load {none}"), 2, &["invalid value"]);
    }
    well(&bus, "load --records 100 --keep");
    let page = well(&bus, "dump --match 'qbus_load*'");
    let kept = "qbus_load_records_total{worker=\"0\",series=\"0\"} 100\n";
    assert!(page.contains(kept), "{page}");
    stop(aggregating);
}

#[test]
fn no_worker_outlives_its_load() {
    let bus = TestBus::small(Place::Named);
    let line = format!("load --producers 2 --rate 1000 -b {}", bus.address());
    let load = qbus_tests::Process::spawn(typed(&line));
    let opened = bus.open();
    let living = || {
        let owners = opened.owners().expect("the locks answer");
        owners
            .iter()
            .filter(|owner| owner.alive && owner.role == "load")
            .count()
    };
    until("the workers", || living() == 2);
    load.kill();
    until("their end", || living() == 0);
}
