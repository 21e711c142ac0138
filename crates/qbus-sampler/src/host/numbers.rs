//! Sources that are a few files of one number each.

use std::path::Path;
use std::sync::Arc;

use crate::kernel_file::KernelFile;
use crate::node_metric::NodeMetric;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;

/// A file, its metric, and the help of that.
type Number = (&'static str, &'static str, &'static str);

/// Random bits that the kernel's entropy pool has.
pub(crate) const ENTROPY: &[Number] = &[
    (
        "sys/kernel/random/entropy_avail",
        "node_entropy_available_bits",
        "Bits of entropy at hand.",
    ),
    (
        "sys/kernel/random/poolsize",
        "node_entropy_pool_size_bits",
        "Bits that the pool of entropy holds.",
    ),
];

/// The files of one source.
pub(crate) struct Numbers {
    files: Vec<(KernelFile, Arc<NodeMetric>)>,
    buffer: Vec<u8>,
}

impl Numbers {
    pub(crate) fn new(root: &Path, numbers: &[Number]) -> Numbers {
        let file = |&(path, name, help): &Number| {
            let file = KernelFile::new(root.join(path));
            (file, NodeMetric::gauge(name, help))
        };
        Numbers {
            files: numbers.iter().map(file).collect(),
            buffer: Vec::new(),
        }
    }
}

impl Probe for Numbers {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        for (file, metric) in &mut self.files {
            let text = match file.read(&mut self.buffer) {
                Ok(text) => text.trim(),
                Err(err) => return Err(Failure::io(file.path(), &err)),
            };
            match text.parse::<u64>() {
                Ok(number) => out.push_node(metric, &[], number as f64),
                Err(_) => out.fail(|| format!("{}: can't read `{text}`", file.path().display())),
            }
        }
        Ok(())
    }
}
