//! A Containerfile from anywhere: parsed, linted, planned. Nothing may panic, and an error names a line that is there.
#![no_main]

use builder::{BuildRequest, Containerfile, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let request = BuildRequest::new("/nonexistent", Containerfile::from_text("Containerfile", data));
    match check(None, &request) {
        Err(error) => {
            let line = error.source_line().map_or(1, |at| at.line);
            assert!(line >= 1 && line <= data.len() + 1, "{error}");
        }
        Ok(recipe) => {
            assert!(recipe.stages.iter().filter(|stage| stage.is_target).count() == 1);
            assert!(recipe.stages.iter().all(|stage| stage.instructions.first().is_some_and(|i| i.keyword == "FROM")));
        }
    }
});
