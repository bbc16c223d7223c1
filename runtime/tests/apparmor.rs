//! AppArmor's label on every process of a container. Needs a kernel that has it on, and the profile of tests/vm: `make test-vm`.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod support;

use std::fs;
use support::Bundle;

/// Whether the profile is loaded here.
fn is_loaded() -> bool {
    let loaded =
        fs::read_to_string("/sys/kernel/security/apparmor/profiles").is_ok_and(|all| all.contains("ctr-test "));
    if !loaded {
        assert!(std::env::var_os("CTR_TEST_VM").is_none(), "the test machine has no profile loaded");
        eprintln!("SKIPPED: AppArmor's profile ctr-test is not loaded here; make test-vm has a machine where it is");
    }
    loaded
}

#[test]
fn the_label_is_on_the_program_and_on_what_is_executed_later() {
    if !is_loaded() {
        return;
    }
    for no_new_privileges in [false, true] {
        let mut bundle =
            Bundle::sh("cat /proc/self/attr/current; cat /secret || echo denied; mkfifo /go; echo up; cat /go");
        fs::write(bundle.rootfs().join("secret"), "told\n").unwrap();
        bundle.process(|process| {
            process.set_apparmor_profile(Some("ctr-test".to_owned()));
            process.set_no_new_privileges(Some(no_new_privileges));
        });
        let mut child = bundle.spawn();
        let expected = "ctr-test (enforce)\ndenied\nup\n";
        let mut said = vec![0; expected.len()];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), expected);
        let other = bundle.exec(&["--apparmor", "unconfined", "cat", "/secret"]);
        assert_eq!((other.code, other.out.as_str()), (0, "told\n"), "{}", other.err);
        let missing = bundle.exec(&["--apparmor", "no-such-profile", "true"]);
        assert!(missing.code != 0 && missing.err.contains("no-such-profile"), "{}", missing.err);
        let ran = bundle.exec(&["sh", "-c", "cat /proc/self/attr/current /secret"]);
        assert!(ran.out == "ctr-test (enforce)\n" && ran.err.contains("Permission denied"), "{} {}", ran.out, ran.err);
        fs::write(bundle.rootfs().join("go"), "").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn without_a_label_nothing_is_denied_and_a_missing_profile_is_told() {
    if !is_loaded() {
        return;
    }
    let mut bundle = Bundle::sh("cat /secret");
    fs::write(bundle.rootfs().join("secret"), "told\n").unwrap();
    assert_eq!(bundle.run().out, "told\n");
    bundle.process(|process| {
        process.set_apparmor_profile(Some("no-such-profile".to_owned()));
    });
    let ran = bundle.run();
    assert!(ran.code == 1 && ran.err.contains("no-such-profile") && ran.err.lines().count() == 1, "{}", ran.err);
    assert!(bundle.cgroups_left().is_empty());
}
