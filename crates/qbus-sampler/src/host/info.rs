//! What the machine is, as labels: kernel, system and CPU, by their own files.

use std::collections::HashSet;
use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Roots;
use crate::kernel_file::read_once;
use crate::node_metric::NodeMetric;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// The keys of `os-release` that are labels, in small letters.
const OS_LABELS: [&str; 12] = [
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

/// Kernel, operating system and CPU model.
pub(crate) struct Info {
    proc: PathBuf,
    root: PathBuf,
    version: Arc<NodeMetric>,
}

impl Info {
    pub(crate) fn new(roots: &Roots) -> Info {
        let help = "Version of the operating system: the number before its second point.";
        Info {
            proc: roots.proc.clone(),
            root: roots.root.clone(),
            version: NodeMetric::gauge("node_os_version", help),
        }
    }
}

impl Probe for Info {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mut buffer = Vec::new();
        let kernel = self.proc.join("sys/kernel");
        // A container has the kernel of its host, which answers where a file does not.
        let uname = rustix::system::uname();
        let mut word = |name, answer: &CStr| match read_once(&kernel.join(name), &mut buffer) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => answer.to_string_lossy().into_owned(),
        };
        let labels = [
            ("sysname", word("ostype", uname.sysname())),
            ("release", word("osrelease", uname.release())),
            ("version", word("version", uname.version())),
            ("machine", uname.machine().to_string_lossy().into_owned()),
            ("nodename", word("hostname", uname.nodename())),
            ("domainname", word("domainname", uname.domainname())),
        ];
        push_info(Reading::Uname, &labels, out);
        let places = ["etc/os-release", "usr/lib/os-release"];
        let text = places.iter().find_map(|place| {
            let text = read_once(&self.root.join(place), &mut buffer);
            text.ok().map(str::to_owned)
        });
        if let Some(text) = text {
            self.push_os(&text, out);
        }
        let path = self.proc.join("cpuinfo");
        let text = read_once(&path, &mut buffer).map_err(|err| Failure::io(&path, &err))?;
        push_cpu(text, out);
        Ok(())
    }
}

impl Info {
    fn push_os(&self, text: &str, out: &mut Readings) {
        let value = |label: &str| os_value(text, label).unwrap_or_default().to_owned();
        let labels = OS_LABELS.map(|label| (label, value(label)));
        push_info(Reading::Os, &labels, out);
        let version = value("version_id");
        let points = version.match_indices('.').nth(1).map(|(at, _)| at);
        let number = &version[..points.unwrap_or(version.len())];
        if let Ok(number) = number.parse::<f64>() {
            let (id, id_like, name) = (value("id"), value("id_like"), value("name"));
            let labels = [("id", &*id), ("id_like", &*id_like), ("name", &*name)];
            out.push_node(&self.version, &labels, number);
        }
    }
}

/// The value of a key, which may stand in quotes.
fn os_value<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let key = label.to_ascii_uppercase();
    let is_key = |line: &&str| line.split_once('=').is_some_and(|(found, _)| found == key);
    let (_, value) = text.lines().find(is_key)?.split_once('=')?;
    Some(value.trim().trim_matches(['"', '\'']))
}

fn push_cpu(text: &str, out: &mut Readings) {
    let fields = || {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(key, value)| (key.trim(), value.trim()))
    };
    let first = |wanted: &str| {
        fields()
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| value)
    };
    if let Some(model) = first("model name").or_else(|| first("Model")) {
        let vendor = first("vendor_id").unwrap_or_default().to_owned();
        let labels = [("vendor", vendor), ("model_name", model.to_owned())];
        push_info(Reading::CpuModel, &labels, out);
    }
    // A core is known by its package and its number there; some virtual machines do not say.
    let mut cores = HashSet::new();
    let mut package = "";
    for (key, value) in fields() {
        match key {
            "physical id" => package = value,
            "core id" => {
                cores.insert((package, value));
            }
            _ => {}
        }
    }
    if !cores.is_empty() {
        out.push(Reading::CpuCores, &[], cores.len() as f64);
    }
}

fn push_info(reading: Reading, labels: &[(&'static str, String)], out: &mut Readings) {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    out.push(reading, &labels, 1.0);
}
