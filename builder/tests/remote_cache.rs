//! What a build keeps for other machines.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::{CacheOrigin, CacheTarget, export_cache};
use common::{Home, Outcome, read};

const TEXT: &str =
    "FROM scratch AS a\nCOPY f /deep/f\nCOPY h /deep/h\nFROM scratch\nCOPY --from=a /deep /\nCOPY g /g\n";

fn home() -> Home {
    let home = Home::new();
    for name in ["f", "g", "h"] {
        home.file(name, name);
    }
    home
}

/// The steps that copy, without their numbers.
fn copies(outcome: &Outcome) -> Vec<&str> {
    outcome
        .steps
        .iter()
        .filter_map(|step| step.split_once("] "))
        .map(|(_, step)| step)
        .filter(|s| s.starts_with("COPY"))
        .collect()
}

fn layers_of(home: &Home) -> usize {
    std::fs::read_dir(home.dir.path().join("root/layers")).map_or(0, Iterator::count)
}

/// What another machine needs of a stage that is only copied from is what its layers are, and no file of them.
///
/// Seen to fail with a list of the image's own steps alone, with all layers in the small cache, and with layers fetched as they
/// are found.
#[test]
fn what_has_not_changed_is_not_built_elsewhere() {
    let here = home();
    let built = here.build(TEXT).built;
    // A layer for each step, the list and the manifest.
    for (all, blobs) in [(false, 2 + 2), (true, 4 + 2)] {
        let folder = here.dir.path().join(format!("cache-{all}"));
        export_cache(&here.engine, &built, &CacheTarget::Local { folder: folder.clone(), all }).unwrap();
        assert_eq!(std::fs::read_dir(folder.join("blobs/sha256")).unwrap().count(), blobs, "{all}");
        let there = home();
        let again = || there.try_build(TEXT, |request| request.cache_from = vec![CacheOrigin::Local(folder.clone())]);
        let outcome = again().unwrap_or_else(|error| panic!("{error}"));
        let expected =
            ["COPY f /deep/f CACHED", "COPY h /deep/h CACHED", "COPY --from=a /deep / CACHED", "COPY g /g CACHED"];
        assert_eq!(copies(&outcome), expected);
        assert_eq!(layers_of(&there), 2, "{all}: those of the image");
        assert_eq!((read(&there.layers(&outcome)[0], "h"), read(&there.top(&outcome), "g")), ("h".into(), "g".into()));

        // A new file of the image's own: still nothing of the other stage.
        there.file("g", "new");
        let outcome = again().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(copies(&outcome)[..3], expected[..3]);
        assert_eq!((layers_of(&there), read(&there.top(&outcome), "g")), (3, "new".into()));
    }
}

/// Seen to fail with the files of a stage taken to be there when its layers are known.
#[test]
fn a_stage_that_changes_is_fetched_or_built() {
    let here = home();
    let built = here.build(TEXT).built;
    for all in [false, true] {
        let folder = here.dir.path().join(format!("cache-{all}"));
        export_cache(&here.engine, &built, &CacheTarget::Local { folder: folder.clone(), all }).unwrap();
        let there = home();
        there.file("h", "new");
        let again = |text: &str| {
            let outcome =
                there.try_build(text, |request| request.cache_from = vec![CacheOrigin::Local(folder.clone())]);
            outcome.unwrap_or_else(|error| panic!("{error}"))
        };
        let outcome = again(TEXT);
        let below = there.layers(&outcome).remove(0);
        assert_eq!((read(&below, "f"), read(&below, "h")), ("f".into(), "new".into()), "{all}");
        let first = copies(&outcome).iter().filter(|step| **step == "COPY f /deep/f").count();
        assert_eq!(first, usize::from(!all), "{all}: it is built only where it cannot be fetched: {:?}", outcome.steps);
        assert_eq!(outcome.output.contains("the cache knows what is below"), !all, "{}", outcome.output);
        // By now it is all here.
        assert!(copies(&again(TEXT)).iter().all(|step| step.ends_with("CACHED")));

        // What was only copied from becomes the base, and a mount.
        let there = home();
        let again = |text: &str| {
            let outcome =
                there.try_build(text, |request| request.cache_from = vec![CacheOrigin::Local(folder.clone())]);
            outcome.unwrap_or_else(|error| panic!("{error}"))
        };
        assert_eq!(layers_of(&there), 0);
        let outcome = again(&TEXT.replace("COPY --from=a /deep /", "COPY --from=a /deep/h /other"));
        assert_eq!(read(&there.layers(&outcome)[0], "other"), "h");
        let outcome = again(&TEXT.replace("FROM scratch\nCOPY --from=a /deep /", "FROM a"));
        assert_eq!(read(&there.layers(&outcome)[0], "deep/f"), "f");
        assert_eq!(there.layers(&outcome).len(), 3);
    }
}
