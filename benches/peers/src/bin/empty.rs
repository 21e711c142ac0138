//! A program that links nothing: what a producer's size is measured against.

fn main() {}
