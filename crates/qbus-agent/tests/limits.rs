//! A metric with more label values than it may have, and what its help text says.

use std::sync::{Arc, Mutex};

use qbus::OVERFLOW;
use qbus_agent::{Agent, AgentOptions, SamplingOptions};
use qbus_aggregate::{ReadOptions, Series, Value};
use qbus_sampler::SamplerOptions;
use qbus_tests::{Place, TestBus, until};

use crate::life::sampling;

/// The series of a name on the page.
fn series(bus: &TestBus, name: &str) -> Vec<Series> {
    let options = ReadOptions {
        matches: Some(&|found: &str| found == name),
        ..ReadOptions::default()
    };
    bus.reader().read(&options).expect("a snapshot").series
}

fn sum(series: &[Series]) -> f64 {
    let value = |series: &Series| match &series.value {
        Value::Counter(sum) => sum.value(),
        _ => 0.0,
    };
    series.iter().map(value).sum()
}

#[test]
fn beyond_the_limit_sums_are_exact_and_one_line_says_who() {
    let bus = TestBus::small(Place::Named);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let hears = told.clone();
    let options = AgentOptions {
        sampling: Some(SamplingOptions {
            sampler: SamplerOptions {
                sources: Vec::new(),
                ..SamplerOptions::default()
            },
            ..sampling()
        }),
        max_series_per_family: Some(10),
        ..AgentOptions::default()
    };
    let report = move |news: String| hears.lock().expect("no panic").push(news);
    let agent = Agent::start(&bus.open(), options, report).expect("the only agent");
    let open = bus.open();
    for path in 0..60 {
        for (method, times) in [("GET", 3), ("POST", 1)] {
            let hits = open.counter("hits_total").label("method", method);
            let hits = hits.label("path", &format!("/{path}")).register();
            let hits = hits.expect("it is counted somewhere");
            (0..times).for_each(|_| hits.inc());
        }
    }
    let own = |name: &str| {
        let label = ("family".to_owned(), "hits_total".to_owned());
        let mut found = series(&bus, name).into_iter();
        let found = found.find(|series| series.labels.contains(&label))?;
        Some((found.value.clone(), found.labels))
    };
    until("the bus says so of itself", || {
        let gauge = |name| own(name).map(|(value, _)| value);
        gauge("qbus_family_series") == Some(Value::Gauge(12.0))
            && gauge("qbus_family_limit") == Some(Value::Gauge(10.0))
            && own("qbus_overflow_records_total").is_some()
    });
    let (_, labels) = own("qbus_overflow_records_total").expect("seen");
    assert!(
        labels.contains(&("label".to_owned(), "path".to_owned())),
        "{labels:?}"
    );
    agent.stop();

    let page = series(&bus, "hits_total");
    assert_eq!((page.len(), sum(&page)), (12, 60.0 * 4.0));
    let folded = |method: &str| {
        let labels = [("method", method), ("path", OVERFLOW)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let found = page.iter().find(|series| series.labels == labels);
        found.map(|series| series.value.clone())
    };
    // Ten of 0 to 4, each with both methods, have their own.
    assert_eq!(folded("GET"), Some(Value::Counter((55.0 * 3.0).into())));
    assert_eq!(folded("POST"), Some(Value::Counter(55.0.into())));
    let told = told.lock().expect("no panic");
    let [line] = &told[..] else {
        panic!("one line: {told:?}");
    };
    let process = format!("process {} (", std::process::id());
    for part in [
        "metric hits_total",
        &process,
        "has 10 series",
        "label path",
        OVERFLOW,
    ] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn the_last_help_text_is_on_the_page() {
    let bus = TestBus::small(Place::Named);
    let agent = Agent::start(&bus.open(), AgentOptions::default(), |news| {
        panic!("{news}")
    });
    let agent = agent.expect("the only agent");
    let open = bus.open();
    let register = |help: &str, place: &str| {
        let jobs = open.counter("jobs_total").help(help).label("place", place);
        jobs.register().expect("room").inc();
    };
    let mut reader = bus.reader();
    let mut shows = |help: &str| {
        let page = reader.read(&ReadOptions::default()).expect("a snapshot");
        let mut jobs = page
            .series
            .iter()
            .filter(|it| it.family.name == "jobs_total");
        !page.series.is_empty() && jobs.all(|series| series.family.help == help)
    };
    for place in 0..50 {
        register("Jobs.", &place.to_string());
    }
    until("the first text", || shows("Jobs."));
    let long = "Jobs that were done, whether or not anybody waited for them. ".repeat(20);
    for help in ["Jobs done.", &long, "Jobs done.", &long, "Jobs."] {
        register(help, "0");
        until(help, || shows(help));
    }
    agent.stop();
    // The next aggregator takes over what was said while there was none.
    register("Jobs, at last.", "1");
    let agent = Agent::start(&bus.open(), AgentOptions::default(), |news| {
        panic!("{news}")
    });
    let agent = agent.expect("the only agent");
    until("the text that was said meanwhile", || {
        shows("Jobs, at last.")
    });
    agent.stop();
    assert_eq!(sum(&series(&bus, "jobs_total")), 56.0);
}

#[test]
fn a_label_with_that_value_is_no_overflow() {
    let bus = TestBus::small(Place::Named);
    let agent = Agent::start(&bus.open(), AgentOptions::default(), |news| {
        panic!("{news}")
    });
    let agent = agent.expect("the only agent");
    let open = bus.open();
    open.set_max_series_per_family(100);
    let hits = open
        .counter("hits_total")
        .label("path", OVERFLOW)
        .register();
    hits.expect("room").inc();
    until("it is on the page", || {
        sum(&series(&bus, "hits_total")) == 1.0
    });
    assert_eq!(open.overflow_series(), []);
    agent.stop();
}
