//! Memory of a server at its peak, in pages: what a scrape costs whoever runs it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::programs::{Programs, status_mib};
use crate::report::{Section, figure};
use crate::scrape::{Server, scrape_as};
use crate::series::{COUNTS, ManySeries};

/// What is asked for: the page, and what it comes in.
const ASKED: [(&str, &str, &str); 4] = [
    ("text", "text/plain;version=0.0.4", "identity"),
    ("text, gzip", "text/plain;version=0.0.4", "gzip"),
    ("protobuf", PROTOBUF, "identity"),
    ("protobuf, gzip", PROTOBUF, "gzip"),
];
const PROTOBUF: &str = "application/vnd.google.protobuf;\
     proto=io.prometheus.client.MetricFamily;encoding=delimited";

pub fn section(programs: &Programs) -> Section {
    let mut section = Section::new(
        "pages",
        "memory of scrapes at its peak, pages",
        &["10k", "100k"],
    );
    let mut rows = ASKED.map(|(name, ..)| (name, [f64::NAN; 2]));
    if let Some(program) = &programs.qbus {
        for (at, count) in COUNTS[1..].iter().enumerate() {
            let many = ManySeries::create("pages", *count);
            for (row, (_, accept, encoding)) in rows.iter_mut().zip(ASKED) {
                row.1[at] = peak(&many, program, accept, encoding);
            }
        }
    }
    for (name, figures) in rows {
        section.row(name, figures);
    }
    section.notes.push(
        "what qbus serve has of its own beyond what it has when it is ready, at the peak of four \
         scrapes of another value each, to the page in plain"
            .to_owned(),
    );
    section
}

/// The most of all, for the bar.
pub fn most(sections: &[Section]) -> Option<f64> {
    let all = ASKED.iter().flat_map(|(name, ..)| {
        ["10k", "100k"].map(|column| figure(sections, "pages", name, column))
    });
    all.reduce(|a, b| Some(a?.max(b?))).flatten()
}

fn peak(many: &ManySeries, program: &Path, accept: &str, encoding: &str) -> f64 {
    let mut server = Server::of_qbus(many, program);
    let Some(pid) = server.pid() else {
        return f64::NAN;
    };
    // Its threads are there then.
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream
        .write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")
        .expect("it is sent");
    stream.read_to_end(&mut Vec::new()).expect("it answers");
    let before = status_mib(pid, "RssAnon").unwrap_or(f64::NAN);
    let mut peak = f64::NAN;
    for _ in 0..4 {
        server.renew();
        // "This will reset the peak resident set size", proc(5).
        if fs::write(format!("/proc/{pid}/clear_refs"), "5").is_err() {
            return f64::NAN;
        }
        scrape_as(server.address, accept, encoding);
        // Of the snapshot's file nothing is given back meanwhile.
        let shared = ["RssFile", "RssShmem"].map(|key| status_mib(pid, key).unwrap_or(f64::NAN));
        let resident = status_mib(pid, "VmHWM").unwrap_or(f64::NAN);
        peak = peak.max(resident - shared.iter().sum::<f64>());
    }
    let page = scrape_as(server.address, accept, "identity").1 as f64 / 1048576.0;
    (peak - before) / page
}
