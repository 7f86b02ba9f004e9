//! The command line of `upright`.
fn main() {}
