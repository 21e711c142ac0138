//! What history and buffer return.

use std::sync::Arc;

use qbus_aggregate::Family;

/// One value of a series at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Name, type and description.
    pub family: Arc<Family>,
    /// Name and value of each label.
    pub labels: Vec<(String, String)>,
    /// In a history a counter's sum so far, and in the buffer its increment; else the value as it
    /// was added.
    pub value: f64,
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
}
