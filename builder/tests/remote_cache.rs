//! What a build keeps for other machines.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::{CacheOrigin, CacheTarget, export_cache};
use common::Home;

/// Seen to fail with all steps in either, and with none of the image's own.
#[test]
fn a_small_cache_holds_the_images_own_steps_alone() {
    let homes = [(); 3].map(|()| Home::new());
    for home in &homes {
        home.file("f", "f");
        home.file("g", "g");
    }
    let [here, homes @ ..] = homes;
    let text = "FROM scratch AS a\nCOPY f /deep/f\nFROM scratch\nCOPY --from=a /deep/f /f\nCOPY g /g\n";
    let built = here.build(text).built;
    let own = ["COPY --from=a /deep/f /f", "COPY g /g"];
    for (home, all, expected) in [(&homes[0], false, &own[..]), (&homes[1], true, &["COPY f /deep/f", own[0], own[1]])]
    {
        let folder = here.dir.path().join(format!("cache-{all}"));
        export_cache(&here.engine, &built, &CacheTarget::Local { folder: folder.clone(), all }).unwrap();
        // A layer for each step, the list and the manifest.
        assert_eq!(std::fs::read_dir(folder.join("blobs/sha256")).unwrap().count(), expected.len() + 2, "{all}");
        let origin = CacheOrigin::Local(folder);
        let outcome = home.try_build(text, |request| request.cache_from = vec![origin.clone()]);
        let steps = outcome.unwrap_or_else(|error| panic!("{error}")).steps;
        let mut cached: Vec<&str> = steps.iter().filter_map(|step| step.strip_suffix(" CACHED")).collect();
        cached.retain(|step| step.contains("COPY"));
        cached.iter_mut().for_each(|step| *step = step.split_once("] ").unwrap().1);
        assert_eq!(cached, expected, "{steps:?}");
    }
}
