//! Further files below `/proc/net`: sockets, neighbours, packet processing.

use std::path::Path;

use crate::config::Roots;
use crate::filters::Choice;
use crate::kernel_file::KernelFile;
use crate::metric::Trend;
use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;

const SOCKET_HELP: &str = "Sockets of a protocol, and their memory.";

/// Files that are read together; only the first one has to be there.
pub(crate) struct NetFiles {
    files: Vec<KernelFile>,
    parse: Parse,
    catalog: Catalog,
    buffer: Vec<u8>,
}

/// Pushes what a text says; the number is that of its file.
type Parse = Box<dyn FnMut(usize, &str, &mut Catalog, &mut Readings) + Send>;

impl NetFiles {
    fn new(files: Vec<KernelFile>, parse: Parse) -> NetFiles {
        NetFiles {
            files,
            parse,
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }

    /// `sockstat` and `sockstat6`.
    pub(crate) fn sockstat(net: &Path) -> NetFiles {
        let page_bytes = rustix::param::page_size() as f64;
        let parse = move |_, text: &str, catalog: &mut Catalog, out: &mut Readings| {
            push_sockets(text, page_bytes, catalog, out);
        };
        NetFiles::new(files(net, &["sockstat", "sockstat6"]), Box::new(parse))
    }

    /// `softnet_stat`, a line for each CPU.
    pub(crate) fn softnet(net: &Path) -> NetFiles {
        NetFiles::new(
            files(net, &["softnet_stat"]),
            Box::new(|_, text, catalog, out| push_softnet(text, catalog, out)),
        )
    }

    /// `arp`, a line for each neighbour.
    pub(crate) fn arp(net: &Path, choice: &Choice) -> NetFiles {
        let choice = choice.clone();
        let parse = move |_, text: &str, catalog: &mut Catalog, out: &mut Readings| {
            push_neighbours(text, &choice, catalog, out);
        };
        NetFiles::new(files(net, &["arp"]), Box::new(parse))
    }

    /// `udp` and `udp6`, a line for each socket.
    pub(crate) fn udp_queues(net: &Path) -> NetFiles {
        NetFiles::new(files(net, &["udp", "udp6"]), Box::new(push_queues))
    }

    /// `../schedstat`, whose lines `cpu…` are of CPUs.
    pub(crate) fn schedstat(proc: &Path) -> NetFiles {
        NetFiles::new(
            files(proc, &["schedstat"]),
            Box::new(|_, text, catalog, out| push_schedstat(text, catalog, out)),
        )
    }

    /// The firewall's counts of what it did with connections, by CPU: they are added up.
    pub(crate) fn conntrack(roots: &Roots) -> NetFiles {
        let limits = roots.proc.join("sys/net/netfilter");
        let mut all = files(&limits, &["nf_conntrack_count", "nf_conntrack_max"]);
        all.extend(files(&roots.net(), &["stat/nf_conntrack"]));
        NetFiles::new(all, Box::new(push_conntrack))
    }
}

/// Files of a folder.
fn files(folder: &Path, names: &[&str]) -> Vec<KernelFile> {
    let file = |name: &&str| KernelFile::new(folder.join(name));
    names.iter().map(file).collect()
}

impl Probe for NetFiles {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        for (place, file) in self.files.iter_mut().enumerate() {
            match file.read(&mut self.buffer) {
                Ok(text) => (self.parse)(place, text, &mut self.catalog, out),
                Err(err) if place == 0 => return Err(Failure::io(file.path(), &err)),
                Err(err) => {
                    if let Failure::Failed(message) = Failure::io(file.path(), &err) {
                        out.fail(|| message);
                    }
                }
            }
        }
        Ok(())
    }
}

/// `TCP: inuse 4 orphan 0 mem 1`; memory is counted in pages.
fn push_sockets(text: &str, page_bytes: f64, catalog: &mut Catalog, out: &mut Readings) {
    for (protocol, rest) in text.lines().filter_map(|line| line.split_once(':')) {
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        for pair in words.chunks_exact(2) {
            let [key, number] = pair else { continue };
            let Ok(number) = number.parse::<f64>() else {
                out.fail(|| format!("can't read sockstat's {protocol} `{rest}`"));
                continue;
            };
            let name = format!("node_sockstat_{protocol}_{key}");
            out.push_node(catalog.gauge(&name, SOCKET_HELP), &[], number);
            if *key == "mem" {
                let name = format!("{name}_bytes");
                let bytes = number * page_bytes;
                out.push_node(catalog.gauge(&name, SOCKET_HELP), &[], bytes);
            }
        }
    }
}

fn push_softnet(text: &str, catalog: &mut Catalog, out: &mut Readings) {
    let columns = [
        (
            "node_softnet_processed_total",
            "Packets that a CPU processed.",
        ),
        (
            "node_softnet_dropped_total",
            "Packets that found the queue of a CPU full.",
        ),
        (
            "node_softnet_times_squeezed_total",
            "Times that a CPU had to stop with packets left.",
        ),
    ];
    for (line, place) in text.lines().zip(0..) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let hexadecimal = |word: &&str| u64::from_str_radix(word, 16).ok();
        // Newer kernels say which CPU it is: offline ones have no line.
        let cpu = words.get(12).and_then(hexadecimal).unwrap_or(place);
        let cpu = cpu.to_string();
        for (word, (name, help)) in words.iter().zip(columns) {
            if let Some(number) = hexadecimal(word) {
                out.push_node(catalog.counter(name, help), &[("cpu", &cpu)], number as f64);
            }
        }
    }
}

fn push_neighbours(text: &str, choice: &Choice, catalog: &mut Catalog, out: &mut Readings) {
    let mut counts = std::collections::BTreeMap::new();
    for line in text.lines().skip(1) {
        if let Some(device) = line.split_ascii_whitespace().nth(5) {
            *counts.entry(device).or_insert(0_u64) += 1;
        }
    }
    let help = "Neighbours of a network device, by its table of addresses.";
    for (device, count) in counts.into_iter().filter(|(device, _)| choice.has(device)) {
        let metric = catalog.gauge("node_arp_entries", help);
        out.push_node(metric, &[("device", device)], count as f64);
    }
}

fn push_queues(place: usize, text: &str, catalog: &mut Catalog, out: &mut Readings) {
    let (mut sent, mut received) = (0_u64, 0_u64);
    for line in text.lines().skip(1) {
        let queues = line.split_ascii_whitespace().nth(4);
        let Some((waiting_out, waiting_in)) = queues.and_then(|queues| queues.split_once(':'))
        else {
            continue;
        };
        let bytes = |word| u64::from_str_radix(word, 16).unwrap_or_default();
        sent = sent.saturating_add(bytes(waiting_out));
        received = received.saturating_add(bytes(waiting_in));
    }
    let metric = catalog.gauge(
        "node_udp_queues",
        "Bytes that wait in the queues of UDP sockets.",
    );
    let ip = ["v4", "v6"][place.min(1)];
    out.push_node(metric, &[("queue", "tx"), ("ip", ip)], sent as f64);
    out.push_node(metric, &[("queue", "rx"), ("ip", ip)], received as f64);
}

fn push_schedstat(text: &str, catalog: &mut Catalog, out: &mut Readings) {
    const NANOSECONDS: f64 = 1e9;
    let columns = [
        (
            "node_schedstat_running_seconds_total",
            "Time that threads ran on a CPU.",
            NANOSECONDS,
        ),
        (
            "node_schedstat_waiting_seconds_total",
            "Time that threads which could run waited for a CPU.",
            NANOSECONDS,
        ),
        (
            "node_schedstat_timeslices_total",
            "Turns that threads had on a CPU.",
            1.0,
        ),
    ];
    for line in text.lines().filter_map(|line| line.strip_prefix("cpu")) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(cpu) = words.first() else { continue };
        for (word, (name, help, per_unit)) in words.iter().skip(7).zip(columns) {
            if let Ok(number) = word.parse::<u64>() {
                let metric = catalog.counter(name, help);
                out.push_node(metric, &[("cpu", cpu)], number as f64 / per_unit);
            }
        }
    }
}

fn push_conntrack(place: usize, text: &str, catalog: &mut Catalog, out: &mut Readings) {
    let single = [
        ("node_nf_conntrack_entries", "Connections that are tracked."),
        (
            "node_nf_conntrack_entries_limit",
            "Connections that can be tracked.",
        ),
    ];
    if let Some((name, help)) = single.get(place) {
        match text.trim().parse::<f64>() {
            Ok(number) => out.push_node(catalog.gauge(name, help), &[], number),
            Err(_) => out.fail(|| format!("{name}: can't read `{}`", text.trim())),
        }
        return;
    }
    const SHOWN: [&str; 8] = [
        "found",
        "invalid",
        "ignore",
        "insert",
        "insert_failed",
        "drop",
        "early_drop",
        "search_restart",
    ];
    let mut lines = text.lines();
    let names: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    let mut sums = [0_u64; SHOWN.len()];
    for line in lines {
        for (name, word) in names.iter().zip(line.split_ascii_whitespace()) {
            let place = SHOWN.iter().position(|shown| shown == name);
            if let (Some(place), Ok(number)) = (place, u64::from_str_radix(word, 16)) {
                sums[place] = sums[place].saturating_add(number);
            }
        }
    }
    for (name, sum) in SHOWN.iter().zip(sums) {
        let name = format!("node_nf_conntrack_stat_{name}");
        let help = "What the firewall did with connections, of all CPUs.";
        let metric = catalog.get(&name, Trend::Gauge, Trend::Counter, help);
        out.push_node(metric, &[], sum as f64);
    }
}
