//! The sources that read files of the whole machine.

pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod filesystem;
pub(crate) mod info;
pub(crate) mod keyed;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod numbers;
pub(crate) mod pressure;
pub(crate) mod processes;
pub(crate) mod thermal;
