//! The `svae-cpu` program.
fn main() {}
