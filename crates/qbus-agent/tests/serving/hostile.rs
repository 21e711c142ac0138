//! Clients that mean ill, or are broken: the others are served, and so is the bus.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use qbus_agent::{Agent, AgentOptions};
use qbus_tests::{LIMIT, Place, TestBus, until};

use crate::client::{Answer, Served, connect, serve, served};

fn is_served(served: &Served) -> bool {
    served
        .get("/metrics", "")
        .text()
        .contains("jobs_total{queue=\"a\"} 3\n")
}

#[test]
fn more_idle_connections_than_there_are_places_keep_nobody_out() {
    let served = served(|_| ());
    let mut idle: Vec<TcpStream> = (0..1000).map(|_| served.connect()).collect();
    assert!(is_served(&served));
    // The first of them had to go; the last are still there.
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).unwrap_or(0), 0);
    let last = idle.last_mut().expect("a thousand");
    last.write_all(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        .expect("it is sent");
    assert_eq!(last.read(&mut byte).expect("an answer"), 1);
}

#[test]
fn who_sends_a_head_by_bytes_is_cut_off_and_keeps_nobody_waiting() {
    let served = served(|_| ());
    let mut slow = served.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: local")
        .expect("it is sent");
    assert!(is_served(&served));
    // It is cut off, or told that it took too long.
    let mut said = Vec::new();
    let _ = slow.read_to_end(&mut said);
    assert!(
        said.is_empty() || said.starts_with(b"HTTP/1.1 408"),
        "{said:?}"
    );
}

#[test]
fn garbage_is_answered_or_cut_off() {
    let served = served(|_| ());
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(5_000));
    let huge = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(100_000));
    for garbage in [
        &b"\0\x01\x02\xff\xfe\n\n\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /metrics?name[]=%00%ff%zz&&&=&= HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
          \r\n",
        long.as_bytes(),
        many.as_bytes(),
        huge.as_bytes(),
    ] {
        let mut stream = served.connect();
        // The server may have closed it before all was sent.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 "),
            "{said:?}"
        );
        assert!(is_served(&served));
    }
}

#[test]
fn a_request_in_another_is_answered_by_nobody() {
    // What another server on the way would take for a body, or for the end of one, is neither read
    // as a request nor left over for the next one.
    let served = served(|_| ());
    let inner = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (head, statuses) in [
        (
            "POST /metrics HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n",
            405,
        ),
        (
            "GET /metrics HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 40\r\n",
            400,
        ),
        (
            "GET /metrics HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n",
            400,
        ),
        ("GET /metrics HTTP/1.1\r\nX: a\r\n b\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nX: a\0b\r\n", 400),
    ] {
        let mut stream = served.connect();
        let request = format!("{head}Host: localhost\r\n\r\n0\r\n\r\n{inner}");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let answer = Answer::read(stream);
        assert_eq!(answer.status, statuses, "{head}");
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!said.contains("HTTP/1.1 200"), "{head}: {said}");
    }
    // Requests one behind the other are each answered.
    let mut stream = served.connect();
    let ahead = "GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    stream
        .write_all((ahead + inner).as_bytes())
        .expect("it is sent");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("text");
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 21);
}

#[test]
fn no_path_leads_out_of_what_is_served() {
    let served = served(|_| ());
    for path in [
        "/../../etc/passwd",
        "/dashboard/../../../etc/passwd",
        "/dashboard/%2e%2e/%2e%2e/etc/passwd",
        "/dashboard/",
        "/dashboard/main.js%00",
        "/metrics%00",
        "/%6detrics",
        "//metrics",
        "/metrics/",
        "/api/v1/",
    ] {
        let answer = served.get(path, "");
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("nothing is here"), "{path}");
    }
    // What a query says comes into no header.
    let answer = served.get("/metrics?name[]=a%0d%0aX-Evil:1", "");
    assert_eq!((answer.status, answer.header("x-evil")), (200, None));
}

#[test]
fn who_vanishes_or_does_not_read_keeps_nobody_waiting() {
    let served = served(|_| ());
    let request = b"GET /api/v1/series HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut deaf = Vec::new();
    for _ in 0..64 {
        let mut stream = served.connect();
        // Again and again, and not one answer is read.
        for _ in 0..100 {
            stream.set_nonblocking(true).expect("it can be");
            let _ = stream.write(request);
        }
        deaf.push(stream);
    }
    drop(deaf.split_off(32));
    // More requests at once than are answered at once: others may be told to try again, until these
    // have been answered as far as anybody reads.
    until("an answer", || is_served(&served));
}

#[test]
fn the_aggregator_drains_on_whoever_connects() {
    // The server is in the process of the aggregator, as with `qbus agg --listen`.
    let bus = TestBus::small(Place::Named);
    let opened = bus.open();
    let agent = Agent::start(&opened, AgentOptions::default(), |_| ()).expect("the only agent");
    let jobs = opened.counter("jobs_total").label("queue", "a").register();
    let jobs = jobs.expect("room");
    jobs.inc();
    opened.flush(LIMIT).expect("somebody drains");
    let (server, news) = serve(&bus, |_| ());
    let mut others: Vec<TcpStream> = (0..1000).map(|_| connect(&server)).collect();
    for (at, stream) in others.iter_mut().enumerate() {
        stream.set_nonblocking(true).expect("it can be");
        let said: &[u8] = match at % 4 {
            0 => b"GET /metrics HTTP/1.1\r\nHost: local",
            1 => b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\n\n",
            2 => b"GET /api/v1/series?history=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            _ => b"",
        };
        // The server may have closed it by now.
        let _ = stream.write(said);
        if at % 100 == 0 {
            jobs.inc();
            opened.flush(LIMIT).expect("somebody drains");
        }
    }
    jobs.inc();
    opened.flush(LIMIT).expect("somebody drains");
    let served = Served { bus, server, news };
    let page = || served.get("/metrics", "").text();
    until("the page", || {
        page().contains("jobs_total{queue=\"a\"} 12\n")
    });
    drop(others);
    agent.stop();
}
