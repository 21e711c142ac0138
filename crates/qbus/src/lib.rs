//! A lock-free shared-memory telemetry bus: the part that a producer links.
//!
//! Worker processes emit fixed-size records into ring buffers in shared memory; an aggregator
//! process drains them, and folds them into series. An emit takes no lock, and makes no system call
//! but the one that wakes a sleeping aggregator when its lane fills; a SIGKILL at any instruction
//! of any process loses nothing silently, wedges nothing, and counts nothing twice.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let address = format!("doc-crate-{}", std::process::id()).parse()?;
//! # let made = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
//! # let name = address.to_string();
//! let bus = qbus::Bus::open(&name.parse()?)?;
//! let requests = bus.counter("requests_total").help("Requests.");
//! let requests = requests.label("endpoint", "/predict").register()?;
//! let latency = bus.histogram("request_seconds").unit("seconds").register()?;
//! let timer = latency.start_timer();
//! requests.inc();
//! drop(timer);
//! # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
//! # Ok(()) }
//! ```

// A model takes the protocols out of their surroundings, which then look unused.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

// ARCHITECTURE.md has them in the order in which they are to be read.
mod address;
#[cfg(not(loom))]
mod bus;
mod clock;
#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod doorbell;
mod error;
pub mod exponential;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod handle;
mod lane;
mod layout;
#[cfg(not(loom))]
mod liveness;
#[cfg(loom)]
#[doc(hidden)]
pub mod model;
mod owner;
#[cfg(not(loom))]
mod producer;
mod record;
#[cfg(not(loom))]
mod region;
#[cfg(not(loom))]
mod registration;
mod registry;
mod sync;
#[doc(hidden)]
pub mod testpoint;
#[cfg(not(loom))]
mod thread;
mod words;

pub use address::{Address, AddressError, snapshot_at};
#[cfg(not(loom))]
pub use bus::{AggregatorView, Bus, BusCounts, BusOptions, LaneView, Removal};
pub use clock::Clock;
#[cfg(not(loom))]
pub use consumer::{Consumer, STALL_LIMIT_NS, TakenCells};
pub use error::{
    ConsumeError, CreateError, EmitError, FlushError, JoinError, Largest, OpenError,
    OpenOrCreateError, RegisterError, Registrant, RemoveError,
};
#[cfg(not(loom))]
pub use handle::{Counter, Gauge, Handle, Histogram, Summary, Timer, bucket_of};
pub use lane::Drained;
pub use lane::cell::{CellChange, Placed};
pub use layout::{Geometry, GeometryError};
pub use owner::{OwnerCounts, OwnerId, OwnerView};
#[cfg(not(loom))]
pub use producer::{EmitManyError, Producer};
pub use record::{Kind, MetricType, Record, SeriesId};
#[cfg(not(loom))]
pub use region::{Access, Grower, Grown, MappedFile};
#[cfg(not(loom))]
pub use registration::{DEFAULT_BUCKETS, Registration};
pub use registry::{
    FamilyDefinition, FamilyId, FamilySize, Merge, OVERFLOW, SeriesDefinition, Window, check_label,
    is_metric_name,
};
#[cfg(loom)]
#[doc(hidden)]
pub use sync::Fault;
pub use words::{HeapWords, Words};
