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
///
/// Seen to succeed with the directory made by its name: it was on the host in the second round.
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

/// CVE-2025-52565: in a shared volume for a /dev, whoever else has it swaps the folder of terminals for one of links while the
/// console is mounted: as the container's console they would be writable, before paths are made read-only.
///
/// Seen to succeed with the terminal found by its name in the root: the setting was the console, and was written.
#[test]
fn a_racing_terminal_is_no_other_file() {
    let volume = tempfile::tempdir().unwrap();
    let (folder, evil) = (volume.path().join("pts"), volume.path().join("evil"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&evil).unwrap();
    for number in 0..4 {
        // Of the container's own ipc namespace, so that nothing happens to the host where the attack succeeds.
        symlink("/proc/sys/kernel/msgmax", evil.join(number.to_string())).unwrap();
    }
    let mut bundle = Bundle::sh("(echo 4321 > /dev/console); cat /proc/sys/kernel/msgmax");
    bundle.json(|spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        spec["process"]["terminal"] = true.into();
    });
    bundle.mount("/dev", "bind", volume.path().to_str().unwrap(), &["rbind", "rw"]);
    bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=620"]);
    let mut ran = 0;
    while_swapping(&folder, &evil, || {
        for _ in 0..ROUNDS {
            // Some fail, as there is no terminal where one is looked for.
            let done = bundle.run();
            ran += usize::from(done.code == 0);
            assert!(done.code != 0 || done.out.ends_with("8192\r\n"), "{}{}", done.out, done.err);
        }
    });
    println!("{ran} of {ROUNDS} containers ran");
}
