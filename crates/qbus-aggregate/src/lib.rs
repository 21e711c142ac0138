//! Drains a qbus, folds its records into series, commits them to a snapshot, and exports it.
#![forbid(unsafe_code)]

pub mod series;

pub use series::{Family, HistogramValue, Point, Series, Snapshot, SummaryValue, Value};
