//! The scrape endpoint as its clients meet it, well-behaved and otherwise.

mod access;
mod answers;
mod client;
mod hostile;
mod stream;
