//! `qbus top`: what is shown, apart from the terminal that shows it.
//!
//! In the order of the data: [`store`] (what the snapshot said, tick by tick), [`machine`] (the few
//! numbers that sum the host up), [`rows`] (what of it a list has), [`screen`] (what is open,
//! chosen, filtered; what keys do), [`draw`] (cells of a screen). [`text`] and [`units`] are how
//! texts and numbers read, [`filter`] is what a filter takes, [`terminal`] the one part that has a
//! terminal.

pub(crate) mod draw;
pub(crate) mod filter;
mod machine;
mod observed;
pub(crate) mod rows;
pub(crate) mod screen;
mod store;
pub(crate) mod terminal;
pub(crate) mod text;
mod units;
mod workers;

#[cfg(test)]
mod tests;
