//! What a scrape takes of the server's memory: at most twice the page, in every format. The page
//! itself lies in pieces beside the heap. (What the allocator keeps of the system is another
//! matter: `benches/run --only pages` asks the system.)

use std::io::{Read, Write};
use std::net::TcpStream;

use peak_alloc::PeakAlloc;
use qbus::Geometry;
use qbus_agent::serve::{ServeOptions, Server};
use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_tests::{LIMIT, Place, TestBus, until};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const SERIES: usize = 10_000;
/// Buffers of a connection, of the writers and of gzip, however long the page is.
const BESIDE: usize = 384 * 1024;

fn emit(bus: &TestBus) {
    let opened = bus.open();
    opened.set_max_series_per_family(0);
    for at in 0..SERIES {
        let instance = format!("worker-{}", at / 2);
        let labels = [("service", "inference"), ("instance", &*instance)];
        if at % 100 == 0 {
            let wait = opened.summary("bench_wait_seconds").labels(labels);
            wait.register().expect("room").observe(at as f64 + 0.001);
        } else if at % 2 == 0 {
            let jobs = opened.counter("bench_requests_total").labels(labels);
            jobs.register().expect("room").add(at as f64 * 1.25);
        } else {
            let level = opened.gauge("bench_level").labels(labels);
            level.register().expect("room").set(at as f64 * 1.25);
        }
    }
    commit(bus);
}

/// Commits what was emitted, and something more: another page.
fn commit(bus: &TestBus) {
    let rounds = bus.open().counter("bench_rounds_total").register();
    rounds.expect("room").inc();
    let options = AggregatorOptions {
        history: 1,
        ..AggregatorOptions::default()
    };
    let aggregator = Aggregator::open(&bus.open(), &options);
    aggregator.expect("the only one").finish();
}

fn connect(server: &Server) -> TcpStream {
    let url = &server.urls()[0];
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream
}

/// Asks, and keeps nothing of the answer: how long it is.
fn scrape(server: &Server, headers: &str) -> usize {
    let mut stream = connect(server);
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let (mut buffer, mut len) = ([0; 64 * 1024], 0);
    loop {
        match stream.read(&mut buffer).expect("it answers") {
            0 => return len,
            some => len += some,
        }
    }
}

/// Asks for more than fits between two sockets, and reads none of it.
fn ask_in_vain(server: &Server) -> TcpStream {
    let mut stream = connect(server);
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    stream.write_all(request.as_bytes()).expect("it is sent");
    stream
}

#[test]
fn a_scrape_takes_at_most_twice_the_page() {
    let bus = TestBus::create(
        Place::Named,
        Geometry {
            series: 16_384,
            // Every gauge is a record.
            slots: 16_384,
            ..TestBus::small_geometry()
        }
        .with_arena(),
    );
    emit(&bus);
    let mut options = ServeOptions::new(bus.address().snapshot());
    options.listen = vec!["127.0.0.1:0".parse().expect("an address")];
    options.max_age = None;
    options.max_requests = 2;
    let server = Server::start(options, |_| ()).expect("it starts");
    let protobuf = "Accept: application/vnd.google.protobuf;\
         proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n";
    let openmetrics = "Accept: application/openmetrics-text;version=1.0.0\r\n";
    let bare = HEAP.current_usage();
    for accept in ["", openmetrics, protobuf] {
        let page = scrape(&server, accept);
        for coding in ["", "Accept-Encoding: gzip\r\n"] {
            // Twice: a page is there already.
            for _ in 0..2 {
                commit(&bus);
                HEAP.reset_peak_usage();
                let sent = scrape(&server, &format!("{accept}{coding}"));
                let taken = sent + HEAP.peak_usage() - bare;
                assert!(taken <= 2 * page, "{taken} bytes for a page of {page}");
            }
        }
        // Pages are kept for a moment, and then let go.
        until("the page to go", || HEAP.current_usage() < bare + BESIDE);
    }
    // As many as may ask at once read nothing of what they asked for: the first of them has to go.
    let page = scrape(&server, "");
    let mut deaf: Vec<TcpStream> = (0..2).map(|_| ask_in_vain(&server)).collect();
    until("a page", || scrape(&server, "") == page);
    let cut_off = |stream: &mut TcpStream| {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        said.len() < 100 * page
    };
    assert!(deaf.iter_mut().any(cut_off));
}
