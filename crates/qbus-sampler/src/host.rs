//! The sources that read files of the whole machine.

pub(crate) mod amd_gpu;
pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod cpu_features;
pub(crate) mod cpu_frequency;
pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod filesystem;
pub(crate) mod hardware;
pub(crate) mod hwmon;
pub(crate) mod infiniband;
pub(crate) mod info;
pub(crate) mod keyed;
pub(crate) mod md;
pub(crate) mod memory;
pub(crate) mod net_class;
pub(crate) mod net_files;
pub(crate) mod netstat;
pub(crate) mod network;
pub(crate) mod numbers;
pub(crate) mod pressure;
pub(crate) mod processes;
pub(crate) mod remote;
pub(crate) mod textfile;
pub(crate) mod thermal;
pub(crate) mod volumes;
