//! `/proc/net/snmp`, `netstat` and `snmp6`: what the network protocols count.

use std::path::Path;

use crate::filters::Pattern;
use crate::kernel_file::KernelFile;
use crate::metric::Trend;
use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// Fields that have a qbus name of their own.
const NAMED: [(&str, Reading); 6] = [
    ("Tcp_ActiveOpens", Reading::TcpActiveOpens),
    ("Tcp_PassiveOpens", Reading::TcpPassiveOpens),
    ("Tcp_CurrEstab", Reading::TcpEstablished),
    ("Tcp_InSegs", Reading::TcpReceivedSegments),
    ("Tcp_OutSegs", Reading::TcpSentSegments),
    ("Tcp_RetransSegs", Reading::TcpRetransmittedSegments),
];

/// Fields that are no totals.
const LEVELS: [&str; 2] = ["Ip_Forwarding", "Tcp_CurrEstab"];

/// The protocols of `snmp6`, whose names begin with them: the longer ones first.
const PROTOCOLS_6: [&str; 4] = ["UdpLite6", "Icmp6", "Udp6", "Ip6"];

/// Reads the three files.
pub(crate) struct Netstat {
    /// Each with its folder's rows: a line of names before each line of numbers.
    rows: [KernelFile; 2],
    snmp6: KernelFile,
    fields: Pattern,
    /// By the name of a field, whether it is wanted and what it is.
    known: std::collections::HashMap<String, Option<Field>>,
    catalog: Catalog,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Field {
    Named(Reading),
    Other(String, Trend),
}

impl Netstat {
    pub(crate) fn new(net: &Path, fields: &Pattern) -> Netstat {
        let file = |name: &str| KernelFile::new(net.join(name));
        Netstat {
            rows: [file("snmp"), file("netstat")],
            snmp6: file("snmp6"),
            fields: fields.clone(),
            known: std::collections::HashMap::new(),
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }

    fn push(&mut self, field: &str, number: &str, out: &mut Readings) {
        if !self.known.contains_key(field) {
            let named = NAMED.iter().find(|(name, _)| *name == field);
            let wanted = self.fields.matches(field).then(|| match named {
                Some((_, reading)) => Field::Named(*reading),
                None => {
                    let is_level = LEVELS.contains(&field);
                    let trend = if is_level {
                        Trend::Gauge
                    } else {
                        Trend::Counter
                    };
                    Field::Other(format!("node_netstat_{field}"), trend)
                }
            });
            self.known.insert(field.to_owned(), wanted);
        }
        let Some(Some(known)) = self.known.get(field) else {
            return;
        };
        // Some are negative: -1 says that there is no limit.
        let Ok(value) = number.parse::<i128>() else {
            out.fail(|| format!("can't read `{number}` of {field}"));
            return;
        };
        match known {
            Field::Named(reading) => out.push(*reading, &[], value as f64),
            Field::Other(name, trend) => {
                let help = "Statistic of a network protocol.";
                let metric = self.catalog.get(name, Trend::Untyped, *trend, help);
                out.push_node(metric, &[], value as f64);
            }
        }
    }

    fn read_rows(&mut self, place: usize, out: &mut Readings) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let text = match self.rows[place].read(&mut buffer) {
            Ok(text) => text,
            Err(err) => return Err(Failure::io(self.rows[place].path(), &err)),
        };
        let mut lines = text.lines();
        while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
            let mut names = names.split_ascii_whitespace();
            let protocol = names.next().unwrap_or_default().trim_end_matches(':');
            let numbers = numbers.split_ascii_whitespace().skip(1);
            for (name, number) in names.zip(numbers) {
                self.push(&format!("{protocol}_{name}"), number, out);
            }
        }
        self.buffer = buffer;
        Ok(())
    }
}

impl Probe for Netstat {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        self.read_rows(0, out)?;
        if let Err(Failure::Failed(message)) = self.read_rows(1, out) {
            out.fail(|| message);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        // A kernel without IPv6 has no such file.
        if let Ok(text) = self.snmp6.read(&mut buffer) {
            for line in text.lines() {
                let mut words = line.split_ascii_whitespace();
                let (Some(name), Some(number)) = (words.next(), words.next()) else {
                    continue;
                };
                let protocol = PROTOCOLS_6.iter().find(|one| name.starts_with(**one));
                if let Some(protocol) = protocol {
                    let field = &name[protocol.len()..];
                    self.push(&format!("{protocol}_{field}"), number, out);
                }
            }
        }
        self.buffer = buffer;
        Ok(())
    }
}
