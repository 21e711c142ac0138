//! InfiniBand devices and their ports, as `/sys/class/infiniband` has them.

use std::path::{Path, PathBuf};

use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{items, number, word};

const HELP: &str = "What a port counts.";

/// Data is counted in words of four bytes.
const WORD: f64 = 4.0;

/// Files of counters, how the metric goes on, and what to multiply by.
const COUNTERS: [(&str, &str, f64); 30] = [
    (
        "counters_ext/port_multicast_rcv_packets",
        "legacy_multicast_packets_received_total",
        1.0,
    ),
    (
        "counters_ext/port_multicast_xmit_packets",
        "legacy_multicast_packets_transmitted_total",
        1.0,
    ),
    (
        "counters_ext/port_rcv_data_64",
        "legacy_data_received_bytes_total",
        WORD,
    ),
    (
        "counters_ext/port_rcv_packets_64",
        "legacy_packets_received_total",
        1.0,
    ),
    (
        "counters_ext/port_unicast_rcv_packets",
        "legacy_unicast_packets_received_total",
        1.0,
    ),
    (
        "counters_ext/port_unicast_xmit_packets",
        "legacy_unicast_packets_transmitted_total",
        1.0,
    ),
    (
        "counters_ext/port_xmit_data_64",
        "legacy_data_transmitted_bytes_total",
        WORD,
    ),
    (
        "counters_ext/port_xmit_packets_64",
        "legacy_packets_transmitted_total",
        1.0,
    ),
    (
        "counters/excessive_buffer_overrun_errors",
        "excessive_buffer_overrun_errors_total",
        1.0,
    ),
    ("counters/link_downed", "link_downed_total", 1.0),
    (
        "counters/link_error_recovery",
        "link_error_recovery_total",
        1.0,
    ),
    (
        "counters/local_link_integrity_errors",
        "local_link_integrity_errors_total",
        1.0,
    ),
    (
        "counters/multicast_rcv_packets",
        "multicast_packets_received_total",
        1.0,
    ),
    (
        "counters/multicast_xmit_packets",
        "multicast_packets_transmitted_total",
        1.0,
    ),
    (
        "counters/port_rcv_constraint_errors",
        "port_constraint_errors_received_total",
        1.0,
    ),
    (
        "counters/port_xmit_constraint_errors",
        "port_constraint_errors_transmitted_total",
        1.0,
    ),
    (
        "counters/port_rcv_data",
        "port_data_received_bytes_total",
        WORD,
    ),
    (
        "counters/port_xmit_data",
        "port_data_transmitted_bytes_total",
        WORD,
    ),
    (
        "counters/port_rcv_discards",
        "port_discards_received_total",
        1.0,
    ),
    (
        "counters/port_xmit_discards",
        "port_discards_transmitted_total",
        1.0,
    ),
    (
        "counters/port_rcv_errors",
        "port_errors_received_total",
        1.0,
    ),
    (
        "counters/port_rcv_packets",
        "port_packets_received_total",
        1.0,
    ),
    (
        "counters/port_xmit_packets",
        "port_packets_transmitted_total",
        1.0,
    ),
    ("counters/port_xmit_wait", "port_transmit_wait_total", 1.0),
    (
        "counters/port_rcv_remote_physical_errors",
        "port_receive_remote_physical_errors_total",
        1.0,
    ),
    (
        "counters/port_rcv_switch_relay_errors",
        "port_receive_switch_relay_errors_total",
        1.0,
    ),
    ("counters/symbol_error", "symbol_error_total", 1.0),
    (
        "counters/unicast_rcv_packets",
        "unicast_packets_received_total",
        1.0,
    ),
    (
        "counters/unicast_xmit_packets",
        "unicast_packets_transmitted_total",
        1.0,
    ),
    ("counters/VL15_dropped", "vl15_dropped_total", 1.0),
];

/// Reads every port.
pub(crate) struct Infiniband {
    class: PathBuf,
    catalog: Catalog,
    buffer: Vec<u8>,
}

impl Infiniband {
    pub(crate) fn new(sys: &Path) -> Infiniband {
        Infiniband {
            class: sys.join("class/infiniband"),
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }
}

impl Probe for Infiniband {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let (catalog, buffer) = (&mut self.catalog, &mut self.buffer);
        let devices = items(&self.class, "");
        if devices.is_empty() {
            let class = self.class.display();
            return Err(Failure::Absent(format!(
                "no InfiniBand device under {class}"
            )));
        }
        for device in devices {
            let mut text = |file| word(&device.path.join(file), buffer).unwrap_or_default();
            let info = [
                ("device", device.name.as_str()),
                ("board_id", &*text("board_id")),
                ("firmware_version", &*text("fw_ver")),
                ("hca_type", &*text("hca_type")),
            ];
            let help = "An InfiniBand device, as labels; the value is 1.";
            out.push_node(catalog.gauge("node_infiniband_info", help), &info, 1.0);
            for port in items(&device.path.join("ports"), "") {
                let labels = [("device", &*device.name), ("port", &*port.name)];
                // `4: ACTIVE`
                for (file, end) in [("state", "state_id"), ("phys_state", "physical_state_id")] {
                    let text = word(&port.path.join(file), buffer).unwrap_or_default();
                    let state = text.split(':').next().unwrap_or_default();
                    if let Ok(state) = state.trim().parse::<f64>() {
                        let name = format!("node_infiniband_{end}");
                        let help = "State of a port, by its number.";
                        out.push_node(catalog.gauge(&name, help), &labels, state);
                    }
                }
                // `40 Gb/sec (4X QDR)`
                let rate = word(&port.path.join("rate"), buffer).unwrap_or_default();
                let gigabits = rate
                    .split(' ')
                    .next()
                    .and_then(|word| word.parse::<f64>().ok());
                if let Some(gigabits) = gigabits {
                    let help = "Bytes that a port can carry in a second.";
                    let metric = catalog.gauge("node_infiniband_rate_bytes_per_second", help);
                    out.push_node(metric, &labels, gigabits * 1e9 / 8.0);
                }
                for (file, end, factor) in COUNTERS {
                    if let Some(value) = number(&port.path.join(file), buffer) {
                        let name = format!("node_infiniband_{end}");
                        out.push_node(catalog.counter(&name, HELP), &labels, value * factor);
                    }
                }
            }
        }
        Ok(())
    }
}
