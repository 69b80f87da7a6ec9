//! wherry
fn main() {}
