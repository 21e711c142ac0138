//! What a collector serves.

use std::io::{Read, Write};
use std::net::TcpStream;

use qbus_collector::{CollectorOptions, Metric};
use qbus_tests::until;

use crate::collector;

fn get(url: &str, path: &str) -> String {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it is sent");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("text");
    said
}

#[test]
fn a_private_collector_serves_itself_until_the_server_goes() {
    let collector = collector();
    let listen = "127.0.0.1:0".parse().expect("an address");
    let server = collector.serve(listen, drop).expect("a free port");
    let url = server.urls()[0].clone();
    collector
        .add_metric(&Metric {
            labels: &[("queue", "a")],
            trace_id: 0xabc,
            ..Metric::counter("jobs_total", 3.0)
        })
        .expect("room");
    let has = |page: &str, line: &str| get(&url, page).contains(line);
    until("the page", || {
        has("/metrics", "\njobs_total{queue=\"a\"} 3\n")
    });
    until("the exemplar", || {
        has(
            "/api/v1/series",
            "\"trace_id\":\"00000000000000000000000000000abc\"",
        )
    });
    assert!(has("/", "<title>qbus</title>"));
    // It is seen by its owner's readers as well.
    let metric = collector.get_metric("jobs_total", &[]).expect("a metric");
    assert_eq!(metric.exemplars.len(), 1);
    server.stop();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn all_who_share_a_bus_are_on_the_page_of_one() {
    let (ours, theirs) = (collector(), CollectorOptions::default());
    let named = CollectorOptions {
        bus: Some(ours.bus().address().clone()),
        ..theirs
    };
    let theirs = qbus_collector::Collector::new(&named).expect("the same bus");
    theirs
        .add_metric(&Metric::gauge("level", 7.0))
        .expect("room");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let server = ours.serve(listen, drop).expect("a free port");
    until("the other's metric", || {
        get(&server.urls()[0], "/metrics").contains("\nlevel 7\n")
    });
}
