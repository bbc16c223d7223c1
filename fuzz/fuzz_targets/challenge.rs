//! `WWW-Authenticate`, as any server may send it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| registry_client::parse_challenges_for_fuzzing(text));
