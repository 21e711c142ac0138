//! The aggregator process as a library: what `qbus agg` runs, and an embedded collector in a thread.
