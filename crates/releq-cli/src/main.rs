//! The program `releq`.

fn main() {}
