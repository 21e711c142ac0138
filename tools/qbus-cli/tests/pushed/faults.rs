//! A receiver that does its worst.

use std::fs;
use std::time::{Duration, Instant};

use qbus::{Bus, Removal};
use qbus_tests::{Finished, Place, TestBus, run, until};

use crate::receiver::{Act, Received, Receiver};
use crate::wire::{metrics, samples, value};
use crate::{pushing, stop, typed};

/// A bus with a counter at seven.
fn bus() -> TestBus {
    let bus = TestBus::small(Place::Named);
    let jobs = bus.open().counter("jobs_total").register().expect("room");
    jobs.add(7.0);
    bus
}

/// The times of requests, in their order, each once.
fn times(requests: &[Received]) -> Vec<u64> {
    let mut times: Vec<u64> = requests.iter().map(|one| samples(one)[0].2).collect();
    times.dedup();
    times
}

#[test]
fn whatever_a_receiver_does_each_request_is_taken_once_and_in_order() {
    let acts = [
        Act::Say("503 Service Unavailable", "Retry-After: 0\r\n", b"busy"),
        Act::Say("204 No Content", "", b""),
        Act::Reset,
        Act::Garbage,
        Act::Say("500 Internal Server Error", "", b"\xff\xfe\0"),
        Act::Say(
            "429 Too Many Requests",
            "Retry-After: Tue, 20 Oct 2015 07:28:00 GMT\r\n",
            b"",
        ),
        Act::Dawdle(Duration::from_secs(2)),
        Act::Say("200 OK", "", b"<html>"),
        Act::Say("503 Service Unavailable", "Retry-After: soon\r\n", b""),
    ];
    let receiver = Receiver::start(&acts);
    let bus = bus();
    let url = receiver.url("/api/v1/write,timeout=0.5");
    let agg = pushing(&bus, &format!("--remote-write {url} --label zone=b"));
    receiver.await_taken(20);
    stop(agg);
    let taken = receiver.taken();
    let all = times(&taken);
    assert_eq!(
        all.len(),
        taken.len(),
        "none is sent again once it was taken"
    );
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    for one in &taken {
        assert_eq!(value(one, "jobs_total"), Some(7.0));
        assert_eq!(one.path, "/api/v1/write");
        assert_eq!(one.headers["content-type"], "application/x-protobuf");
        assert_eq!(one.headers["x-prometheus-remote-write-version"], "0.1.0");
        assert!(one.headers["user-agent"].starts_with("qbus/"));
        let (labels, ..) = &samples(one)[0];
        assert!(labels.contains(&"zone=b".to_owned()), "{labels:?}");
        let job = format!("job={}", bus.address());
        assert!(labels.contains(&job), "{labels:?}");
    }
    // What was tried again is the very same.
    let received: Vec<u64> = receiver
        .received()
        .iter()
        .filter(|one| one.headers["content-length"] == one.body.len().to_string())
        .map(|one| samples(one)[0].2)
        .collect();
    assert!(received.is_sorted(), "{received:?}");
}

#[test]
fn what_was_taken_without_an_answer_is_said_again_and_nothing_else() {
    let receiver = Receiver::start(&[Act::TakeSilently, Act::TakeSilently]);
    let bus = bus();
    let agg = pushing(&bus, &format!("--remote-write {}", receiver.url("/")));
    let taken = receiver.await_taken(5);
    stop(agg);
    // To store the same value of the same time twice changes nothing.
    assert_eq!(taken[0].body, taken[1].body);
    assert_eq!(taken[1].body, taken[2].body);
    assert!(times(&taken).is_sorted_by(|a, b| a < b));
}

#[test]
fn what_is_refused_for_good_is_not_sent_again() {
    let refused = Act::Say("400 Bad Request", "", b"out of order sample");
    let receiver = Receiver::start(&[refused, refused]);
    let bus = bus();
    let agg = pushing(&bus, &format!("--remote-write {}", receiver.url("/")));
    receiver.await_taken(3);
    // It is counted, on the bus itself.
    let of = |page: &str, outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        let line = page.lines().find(|line| line.contains(&outcome));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0.0, |value| value.parse().expect("a number"))
    };
    until("what became of the samples", || {
        let dump = format!("dump -b {} --match 'qbus_push*'", bus.address());
        let page = run(&mut typed(&dump), "").out;
        of(&page, "failed") > 0.0
            && of(&page, "sent") > 0.0
            && page.contains("qbus_push_lag_seconds")
    });
    stop(agg);
    let all = times(&receiver.received());
    assert_eq!(
        all.len(),
        receiver.received().len(),
        "each request came once"
    );
}

#[test]
fn a_partial_success_is_counted_and_not_sent_again() {
    let head = "Content-Type: application/x-protobuf\r\n";
    let partial = Act::Say("200 OK", head, b"\x0a\x08\x08\x01\x12\x04oops");
    // Not among the codes that OTLP allows to try again.
    let broken = Act::Say("500 Internal Server Error", "", b"");
    let receiver = Receiver::start(&[
        Act::Say("503 Service Unavailable", "Retry-After: 0\r\n", b""),
        partial,
        broken,
        Act::Say("502 Bad Gateway", "", b""),
    ]);
    receiver.usually(Act::Say("200 OK", head, b""));
    let bus = bus();
    let agg = pushing(
        &bus,
        &format!("--otlp {} --label instance=gpu-7", receiver.url("")),
    );
    receiver.await_taken(6);
    stop(agg);
    let all = receiver.received();
    let bodies: Vec<_> = all.iter().map(|one| &one.body).collect();
    assert_eq!(bodies[0], bodies[1], "busy is tried again");
    assert_ne!(bodies[1], bodies[2], "a partial success is not");
    assert_ne!(bodies[2], bodies[3], "a 500 is not");
    assert_eq!(bodies[3], bodies[4], "a 502 is");
    let mut start = None;
    for one in &all {
        assert_eq!(one.path, "/v1/metrics");
        let (metrics, resource) = metrics(one);
        assert!(
            resource.contains(&"service.instance.id=gpu-7".to_owned()),
            "{resource:?}"
        );
        assert!(resource.contains(&format!("service.name={}", bus.address())));
        let jobs = metrics.iter().find(|metric| metric.text(1) == "jobs_total");
        let point = jobs.expect("the counter").messages(7)[0]
            .messages(1)
            .remove(0);
        assert_eq!(point.number(4).map(f64::from_bits), Some(7.0));
        // Since when it counts does not move.
        assert_eq!(*start.get_or_insert(point.number(2)), point.number(2));
        assert!(point.number(2) <= point.number(3));
    }
}

#[test]
fn a_receiver_of_one_gets_one_and_loses_nothing() {
    let empty = Act::Say("204 No Content", "", b"");
    let unsupported = Act::Say("415 Unsupported Media Type", "", b"");
    let written = "X-Prometheus-Remote-Write-Samples-Written: 1\r\n";
    for (first, is_two) in [
        // It says that all is well, and has stored nothing.
        (empty, false),
        (unsupported, false),
        (Act::Say("204 No Content", written, b""), true),
    ] {
        let receiver = Receiver::start(&[first]);
        if is_two {
            receiver.usually(first);
        }
        let bus = bus();
        let agg = pushing(&bus, &format!("--remote-write {}", receiver.url("/,v2")));
        receiver.await_taken(5);
        stop(agg);
        let received = receiver.received();
        let versions: Vec<&str> = received
            .iter()
            .map(|one| one.headers["x-prometheus-remote-write-version"].as_str())
            .collect();
        assert_eq!(versions[0], "2.0.0");
        let rest = if is_two { "2.0.0" } else { "0.1.0" };
        assert!(
            versions[1..].iter().all(|version| *version == rest),
            "{versions:?}"
        );
        let first_times = [samples(&received[0])[0].2, samples(&received[1])[0].2];
        assert_eq!(
            first_times[0] == first_times[1],
            !is_two,
            "the first is said again"
        );
        assert!(
            received
                .iter()
                .all(|one| value(one, "jobs_total") == Some(7.0))
        );
    }
}

#[test]
fn what_waits_survives_kills_and_is_caught_up_with_in_order() {
    let receiver = Receiver::start(&[]);
    let away = Act::Say("503 Service Unavailable", "", b"");
    receiver.usually(away);
    let bus = bus();
    let folder = tempfile::tempdir().expect("a folder");
    let queue = folder.path().display().to_string();
    let url = receiver.url("/");
    let args = format!("--remote-write {url} --push-queue {queue}");
    let waiting = || {
        let folders = fs::read_dir(folder.path()).expect("a folder").flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten());
        let is_request = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".push");
        files
            .flatten()
            .filter(|file| is_request(&file.file_name()))
            .count()
    };
    let mut least = 0;
    for _ in 0..3 {
        let agg = pushing(&bus, &args);
        until("requests that wait", || waiting() >= least + 4);
        agg.kill();
        least = waiting();
    }
    receiver.usually(Act::Say("204 No Content", "", b""));
    let agg = pushing(&bus, &args);
    let taken = receiver.await_taken(least + 3);
    stop(agg);
    let all = times(&taken);
    assert_eq!(all.len(), taken.len());
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    assert_eq!(waiting(), 0);
}

#[test]
fn a_receiver_that_is_away_hurts_nobody() {
    let receiver = Receiver::start(&[]);
    receiver.usually(Act::Dawdle(Duration::from_secs(20)));
    let bus = bus();
    let url = receiver.url("/");
    let agg = pushing(
        &bus,
        &format!("--remote-write {url} --push-queue-size 2KiB"),
    );
    until("a request", || !receiver.received().is_empty());
    let opened = bus.open();
    let jobs = opened.counter("jobs_total").register().expect("room");
    let start = Instant::now();
    (0..1000).for_each(|_| jobs.inc());
    opened
        .flush(Duration::from_secs(5))
        .expect("the drain goes on");
    assert!(start.elapsed() < Duration::from_secs(5));
    // It ends in its time, although the receiver answers nothing.
    let start = Instant::now();
    stop(agg);
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
}

fn once(bus: &TestBus, args: &str) -> Finished {
    let line = format!("agg --push-once -b {} {args}", bus.address());
    run(&mut typed(&line), "")
}

#[test]
fn a_job_sends_once_and_says_how_it_went() {
    let bus = bus();
    let receiver = Receiver::start(&[Act::Say(
        "503 Service Unavailable",
        "Retry-After: 0\r\n",
        b"",
    )]);
    let (one, other) = (receiver.url("/write"), receiver.url(""));
    let finished = once(&bus, &format!("--remote-write {one} --otlp {other}"));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let taken = receiver.taken();
    assert_eq!(taken.len(), 2);
    let written = taken
        .iter()
        .find(|one| one.path == "/write")
        .expect("remote write");
    assert_eq!(value(written, "jobs_total"), Some(7.0));
    // An aggregator that runs has it all committed first.
    let agg = pushing(&bus, "");
    until("an aggregator", || bus.is_aggregated(agg.pid()));
    bus.open()
        .counter("jobs_total")
        .register()
        .expect("room")
        .inc();
    assert_eq!(once(&bus, &format!("--remote-write {one}")).code, Some(0));
    let taken = receiver.taken();
    assert_eq!(value(&taken[2], "jobs_total"), Some(8.0));
    stop(agg);

    receiver.usually(Act::Say("401 Unauthorized", "", b"who are you?"));
    let refused = once(&bus, &format!("--remote-write {one}"));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("who are you?"), "{}", refused.err);
    let nobody = once(&bus, "");
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.err.contains("--remote-write"), "{}", nobody.err);
}

#[test]
fn since_when_a_counter_counts_moves_with_the_bus_alone() {
    let bus = bus();
    let receiver = Receiver::start(&[]);
    let count = || -> (u64, f64) {
        let finished = once(&bus, &format!("--otlp {}", receiver.url("")));
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let last = receiver.taken().pop().expect("a request");
        let (metrics, _) = metrics(&last);
        let jobs = metrics.iter().find(|metric| metric.text(1) == "jobs_total");
        let point = jobs.expect("the counter").messages(7)[0]
            .messages(1)
            .remove(0);
        let value = point.number(4).map(f64::from_bits);
        (point.number(2).expect("a start"), value.expect("a value"))
    };
    let jobs = |bus: &TestBus| {
        let opened = bus.open();
        opened.counter("jobs_total").register().expect("room").inc();
    };
    let (start, first) = count();
    // Each time another aggregator goes on with the snapshot.
    jobs(&bus);
    assert_eq!((count(), first), ((start, 8.0), 7.0));
    let removed = Bus::remove(bus.address(), Removal::Forced);
    removed.expect("nobody is attached");
    bus.make(TestBus::small_geometry());
    jobs(&bus);
    let (later, value) = count();
    assert!(later > start, "{later} {start}");
    assert_eq!(value, 1.0);
}

#[test]
fn secrets_come_from_files_and_are_shown_nowhere() {
    let bus = bus();
    let receiver = Receiver::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("room");
        path.display().to_string()
    };
    let basic = file("basic", "alice:s3cr3t\n");
    let bearer = file("bearer", "t0k3n\n");
    let headers = file("headers", "X-Scope-OrgID: team-a\n\n");
    let header =
        |request: &Received, name: &str| request.headers.get(name).cloned().unwrap_or_default();
    for (options, name, expected) in [
        (
            format!("basic={basic}"),
            "authorization",
            "Basic YWxpY2U6czNjcjN0",
        ),
        (
            format!("bearer={bearer},headers={headers}"),
            "authorization",
            "Bearer t0k3n",
        ),
        (
            format!("bearer={bearer},headers={headers}"),
            "x-scope-orgid",
            "team-a",
        ),
    ] {
        let finished = once(
            &bus,
            &format!("--remote-write {}", receiver.url(&format!("/,{options}"))),
        );
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let last = receiver.taken().pop().expect("a request");
        assert_eq!(header(&last, name), expected);
    }
    // An evil receiver that points elsewhere gets no second request.
    receiver.usually(Act::Say(
        "307 Temporary Redirect",
        "Location: http://127.0.0.1:1/\r\n",
        b"",
    ));
    let finished = once(
        &bus,
        &format!(
            "--remote-write {}",
            receiver.url(&format!("/?key=s3cr3t,bearer={bearer}"))
        ),
    );
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(
        finished.err.contains("307") && !finished.err.contains("s3cr3t"),
        "{}",
        finished.err
    );
    let missing = once(
        &bus,
        &format!("--remote-write {}", receiver.url("/,bearer=/nowhere/token")),
    );
    assert_eq!(missing.code, Some(2));
    assert!(missing.err.contains("/nowhere/token"), "{}", missing.err);
    let secret = once(&bus, "--remote-write http://alice:s3cr3t@localhost/");
    assert_eq!(secret.code, Some(2));
    assert!(secret.err.contains("basic=FILE"), "{}", secret.err);
}
