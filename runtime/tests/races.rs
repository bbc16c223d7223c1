//! Volumes shared with a container that renames what is in them while others are started with mounts below them
//! (CVE-2021-30465, CVE-2024-45310).
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use support::Bundle;

const ROUNDS: usize = 300;

/// Swaps a folder and a link of a volume as fast as it can while `attack` runs: what the process of another container could do.
fn while_swapping(folder: &Path, link: &Path, attack: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, folder, CWD, link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        // The racer ends with the attack, whichever way that ends.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
        stop.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
}

/// Seen to succeed with a target that is checked by `resolve::open` and then made and mounted on by its path: folders appeared
/// on the host within the first rounds.
#[test]
fn a_racing_volume_leads_no_mount_out_of_the_root() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("secret"), "secret\n").unwrap();
    for target in [host.path().display().to_string(), format!("../../../../../../../..{}", host.path().display())] {
        let volume = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("mine"), "mine\n").unwrap();
        let (folder, link) = (volume.path().join("a"), volume.path().join("b"));
        fs::create_dir(&folder).unwrap();
        symlink(&target, &link).unwrap();
        let mut bundle = Bundle::sh("cat /vol/*/secret /vol/*/deep/secret 2>/dev/null; cat /proc/self/mountinfo");
        bundle
            .mount("/vol", "bind", volume.path().to_str().unwrap(), &["rbind", "rw"])
            .mount("/vol/a", "bind", source.path().to_str().unwrap(), &["rbind", "ro"])
            .mount("/vol/a/deep/er", "tmpfs", "tmpfs", &[])
            .mount("/vol/b/new", "bind", source.path().join("mine").to_str().unwrap(), &["bind", "ro"]);
        let mut ran = 0;
        while_swapping(&folder, &link, || {
            for _ in 0..ROUNDS / 2 {
                // Some fail, as the target changes its kind under them; none may leave the root.
                let done = bundle.run();
                ran += usize::from(done.code == 0);
                assert!(!done.out.contains("secret\n"), "{}", done.out);
                let left: Vec<_> =
                    fs::read_dir(host.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
                assert_eq!(left, ["secret"], "something was made on the host");
            }
        });
        println!("{ran} of {} containers ran", ROUNDS / 2);
    }
}

/// The working directory is made where it is missing: the same race for it.
#[test]
fn a_racing_working_directory_is_made_in_the_root() {
    let (host, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, link) = (volume.path().join("a"), volume.path().join("b"));
    fs::create_dir(&folder).unwrap();
    symlink(host.path(), &link).unwrap();
    let mut bundle = Bundle::sh("touch here");
    bundle.mount("/vol", "bind", volume.path().to_str().unwrap(), &["rbind", "rw"]);
    while_swapping(&folder, &link, || {
        for round in 0..ROUNDS / 3 {
            bundle.process(|process| {
                process.set_cwd(format!("/vol/a/{round}").into());
            });
            bundle.run();
            assert!(fs::read_dir(host.path()).unwrap().next().is_none(), "made on the host in round {round}");
        }
    });
}
