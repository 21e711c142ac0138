//! What a collector sends on, and what it takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use qbus_aggregate::Value;
use qbus_collector::{Destination, ListenOptions, Metric, Protocol, PushError, PushOptions};
use qbus_tests::until;

use crate::collector;

/// Takes one request; its body.
fn take_one(listener: &TcpListener) -> Vec<u8> {
    let (stream, _) = listener.accept().expect("a connection");
    let mut reader = BufReader::new(&stream);
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        let line = line.trim().to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length: ") {
            len = text.parse().expect("a number");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).expect("a body");
    (&stream)
        .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        .expect("it listens");
    body
}

#[test]
fn a_private_collector_sends_on_what_was_added_last() {
    let collector = collector();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "http://{}/v1/metrics,plain",
        listener.local_addr().expect("a port")
    );
    let receiver = thread::spawn(move || take_one(&listener));
    let options = PushOptions {
        destinations: vec![Destination::parse(&url, Protocol::Otlp).expect("a destination")],
        // Only what its end sends.
        interval: Duration::from_secs(3600),
        labels: vec![("job".to_owned(), "training".to_owned())],
        self_metrics: false,
        ..PushOptions::default()
    };
    let stored = PushOptions {
        queue_folder: Some("/nowhere".into()),
        ..options.clone()
    };
    let refused = collector.push(stored, drop).expect_err("it has no name");
    assert!(matches!(refused, PushError::Queue { .. }) && refused.to_string().contains("private"));
    let pusher = collector.push(options, drop).expect("threads");
    collector
        .add_metric(&Metric::counter("steps_total", 3.0))
        .expect("room");
    let left = pusher.stop();
    assert_eq!((left.unsent, left.lost), (0, 0));
    let body = receiver.join().expect("a request");
    for text in ["steps_total", "training"] {
        assert!(
            body.windows(text.len())
                .any(|found| found == text.as_bytes()),
            "{text}"
        );
    }
}

#[test]
fn a_private_collector_takes_statsd() {
    let collector = collector();
    let options = ListenOptions {
        statsd: vec!["127.0.0.1:0".parse().expect("an address")],
        ..ListenOptions::default()
    };
    let listeners = collector.listen(&options).expect("a free port");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let to = &listeners.addresses()[0];
    socket
        .send_to(b"page.views:3|c|#region:east", to)
        .expect("it listens");
    until("the metric", || {
        let found = collector.get_metric("page_views", &[("region", "east")]);
        found.is_some_and(|found| found.value == Value::Counter(3.0.into()))
    });
}
