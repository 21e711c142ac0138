//! Network devices as `/sys/class/net` has them: state, speed, bonds.

use std::path::{Path, PathBuf};

use crate::filters::Choice;
use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{items, number, word};

const HELP: &str = "What a network device says of itself.";

/// Files of one number, and how the metric goes on behind `node_network_`.
const GAUGES: [(&str, &str); 14] = [
    ("addr_assign_type", "address_assign_type"),
    ("carrier", "carrier"),
    ("dev_id", "device_id"),
    ("dormant", "dormant"),
    ("flags", "flags"),
    ("ifindex", "iface_id"),
    ("iflink", "iface_link"),
    ("link_mode", "iface_link_mode"),
    ("mtu", "mtu_bytes"),
    ("name_assign_type", "name_assign_type"),
    ("netdev_group", "net_dev_group"),
    ("tx_queue_len", "transmit_queue_length"),
    ("type", "protocol_type"),
    ("speed", "speed_bytes"),
];

const COUNTERS: [(&str, &str); 4] = [
    ("carrier_changes", "carrier_changes_total"),
    ("carrier_up_count", "carrier_up_changes_total"),
    ("carrier_down_count", "carrier_down_changes_total"),
    ("statistics/rx_nohandler", "receive_nohandler_total"),
];

/// Megabits to bytes.
const BYTES_PER_MEGABIT: f64 = 1e6 / 8.0;

/// Reads every device.
pub(crate) struct NetClass {
    class: PathBuf,
    choice: Choice,
    catalog: Catalog,
    buffer: Vec<u8>,
}

impl NetClass {
    pub(crate) fn new(sys: &Path, choice: &Choice) -> NetClass {
        NetClass {
            class: sys.join("class/net"),
            choice: choice.clone(),
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }
}

impl Probe for NetClass {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let (catalog, buffer) = (&mut self.catalog, &mut self.buffer);
        for device in items(&self.class, "") {
            if !device.path.is_dir() || !self.choice.has(&device.name) {
                continue;
            }
            let labels = [("device", device.name.as_str())];
            let mut text = |file| word(&device.path.join(file), buffer).unwrap_or_default();
            let (state, duplex) = (text("operstate"), text("duplex"));
            let (address, broadcast) = (text("address"), text("broadcast"));
            let info = [
                labels[0],
                ("address", &*address),
                ("broadcast", &*broadcast),
                ("duplex", &*duplex),
                ("operstate", &*state),
                ("ifalias", &text("ifalias")),
            ];
            let help = "A network device, as labels; the value is 1.";
            out.push_node(catalog.gauge("node_network_info", help), &info, 1.0);
            let help = "Whether a network device is up (1).";
            let up = f64::from(u8::from(state == "up"));
            out.push_node(catalog.gauge("node_network_up", help), &labels, up);
            for (file, end) in GAUGES {
                // A device without a carrier refuses some of them.
                let Some(mut value) = number(&device.path.join(file), buffer) else {
                    continue;
                };
                if file == "speed" {
                    // -1 says that it is not known.
                    if value < 0.0 {
                        continue;
                    }
                    value *= BYTES_PER_MEGABIT;
                }
                let name = format!("node_network_{end}");
                out.push_node(catalog.gauge(&name, HELP), &labels, value);
            }
            for (file, end) in COUNTERS {
                if let Some(value) = number(&device.path.join(file), buffer) {
                    let name = format!("node_network_{end}");
                    out.push_node(catalog.counter(&name, HELP), &labels, value);
                }
            }
        }
        Ok(())
    }
}

/// Reads the bonds.
pub(crate) struct Bonds {
    class: PathBuf,
    catalog: Catalog,
    buffer: Vec<u8>,
}

impl Bonds {
    pub(crate) fn new(sys: &Path) -> Bonds {
        Bonds {
            class: sys.join("class/net"),
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }
}

impl Probe for Bonds {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let path = self.class.join("bonding_masters");
        let Some(masters) = word(&path, &mut self.buffer) else {
            return Err(Failure::Absent(format!("no {}", path.display())));
        };
        for master in masters.split_ascii_whitespace() {
            let folder = self.class.join(master);
            let slaves = word(&folder.join("bonding/slaves"), &mut self.buffer);
            let slaves = slaves.unwrap_or_default();
            let (mut all, mut active) = (0.0, 0.0);
            for slave in slaves.split_ascii_whitespace() {
                all += 1.0;
                // Older kernels name the folder with a prefix.
                let status = ["lower", "slave"].iter().find_map(|prefix| {
                    let file = format!("{prefix}_{slave}/bonding_slave/mii_status");
                    word(&folder.join(file), &mut self.buffer)
                });
                active += f64::from(u8::from(status.as_deref() == Some("up")));
            }
            let labels = [("master", master)];
            let help = "Devices of a bond.";
            out.push_node(
                self.catalog.gauge("node_bonding_slaves", help),
                &labels,
                all,
            );
            let help = "Devices of a bond that are up.";
            out.push_node(
                self.catalog.gauge("node_bonding_active", help),
                &labels,
                active,
            );
        }
        Ok(())
    }
}
