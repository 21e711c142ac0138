//! A bus that is served, and a client that sends what it is told, byte for byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qbus_agent::serve::{ServeOptions, Server};
use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_tests::{LIMIT, Place, TestBus};

/// A bus with a counter at 3, committed and served.
pub(crate) struct Served {
    pub(crate) bus: TestBus,
    pub(crate) server: Server,
    pub(crate) news: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn served(change: impl FnOnce(&mut ServeOptions)) -> Served {
    let bus = TestBus::small(Place::Named);
    count(&bus, 3.0);
    let (server, news) = serve(&bus, change);
    Served { bus, server, news }
}

/// Adds to the counter `jobs_total`, and commits it.
pub(crate) fn count(bus: &TestBus, jobs: f64) {
    let opened = bus.open();
    opened
        .counter("jobs_total")
        .label("queue", "a")
        .register()
        .expect("room")
        .add(jobs);
    commit(bus);
}

/// Commits what was emitted.
pub(crate) fn commit(bus: &TestBus) {
    let aggregator = Aggregator::open(&bus.open(), &AggregatorOptions::default());
    aggregator.expect("the only one").finish();
}

pub(crate) type News = Arc<Mutex<Vec<String>>>;

/// Serves a bus on a port of this machine.
pub(crate) fn serve(bus: &TestBus, change: impl FnOnce(&mut ServeOptions)) -> (Server, News) {
    let mut options = ServeOptions::new(bus.address().snapshot());
    options.listen = vec!["127.0.0.1:0".parse().expect("an address")];
    options.bus = Some(bus.address().clone());
    change(&mut options);
    let news = News::default();
    let heard = news.clone();
    let report = move |said| heard.lock().expect("no panic").push(said);
    (Server::start(options, report).expect("it starts"), news)
}

impl Served {
    pub(crate) fn connect(&self) -> TcpStream {
        connect(&self.server)
    }

    /// Asks once, with these further header lines.
    pub(crate) fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask("GET", path, headers)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        ask(self.connect(), method, path, headers)
    }
}

pub(crate) fn connect(server: &Server) -> TcpStream {
    let url = &server.urls()[0];
    let (_, address) = url.trim_end_matches('/').split_once("://").expect("a URL");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream
}

pub(crate) fn ask(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &str,
) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it is sent");
    Answer::read(stream)
}

/// What a server said, until it closed the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(mut stream: impl Read) -> Answer {
        let mut bytes = Vec::new();
        // A TLS server that closes at once says no farewell.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.expect("a status"),
            body: bytes.split_off(end + 4),
            head,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// Long enough for a server to have done something wrong.
pub(crate) const MOMENT: Duration = Duration::from_millis(50);
