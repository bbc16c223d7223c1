//! `ctr-runtime`: the runtime with runc's command line.
fn main() {}
