//! Server-sent events.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::client::{count, served};

/// The next event: its name and document.
fn next(lines: &mut BufReader<TcpStream>) -> (String, Value) {
    let (mut name, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        assert_ne!(
            lines.read_line(&mut line).expect("an event"),
            0,
            "the stream ended"
        );
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            return (name, serde_json::from_str(data).expect("JSON"));
        }
    }
}

#[test]
fn the_first_event_says_all_and_the_others_what_changed() {
    let served = served(|_| ());
    let mut stream = served.connect();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it is sent");
    let mut lines = BufReader::new(stream);
    let (name, full) = next(&mut lines);
    assert_eq!(name, "full");
    assert_eq!(full["families"][0]["name"], "jobs_total");
    assert_eq!(full["series"][0], serde_json::json!([0, 0, {"queue": "a"}]));
    assert_eq!(full["values"], serde_json::json!([[0, 3.0]]));
    count(&served.bus, 4.0);
    let (name, delta) = next(&mut lines);
    assert_eq!(
        (name.as_str(), &delta["series"]),
        ("delta", &serde_json::json!([]))
    );
    assert_eq!(delta["values"], serde_json::json!([[0, 7.0]]));
    assert_eq!(delta["ledger"]["records"]["delivered"], 2);
    // The snapshot goes: that is told, too.
    std::fs::remove_file(served.bus.address().snapshot()).expect("it was there");
    let (name, down) = next(&mut lines);
    assert_eq!(name, "down");
    assert!(
        down["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("qbus agg"))
    );
}

#[test]
fn only_so_many_may_listen() {
    let served = served(|_| ());
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut stream = served.connect();
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("it is sent");
        let mut lines = BufReader::new(stream);
        next(&mut lines);
        open.push(lines);
    }
    let refused = served.get("/events", "");
    assert!(refused.status == 503 && refused.text().contains("close one"));
    assert_eq!(served.get("/metrics", "").status, 200);
    // Who goes makes room.
    drop(open.pop());
    qbus_tests::until("a place", || {
        let mut stream = served.connect();
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("it is sent");
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .expect("an answer");
        line.contains("200")
    });
}
