//! The `qbus` command.
fn main() {}
