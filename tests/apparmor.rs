//! AppArmor's profiles on containers: one by name, and the one of all others. Needs a kernel that has it on, its parser, and the
//! profile of tests/vm: `make test-vm`.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use test_support::TestEnv;

/// Whether the profile is loaded here.
fn is_on() -> bool {
    let loaded =
        std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").is_ok_and(|all| all.contains("ctr-test "));
    if !loaded {
        assert!(std::env::var_os("CTR_TEST_VM").is_none(), "the test machine has no profile loaded");
        eprintln!("SKIPPED: AppArmor's profile ctr-test is not loaded here; make test-vm has a machine where it is");
    }
    loaded
}

#[test]
fn a_profile_by_name_confines_the_container() {
    if !is_on() {
        return;
    }
    let env = TestEnv::new();
    let volume = format!("{}:/secret", env.write("secret", "told\n").display());
    let script = "cat /proc/self/attr/current /secret; sleep 1000";
    let run = ["run", "-d", "--name", "box", "--network", "none", "-v", &volume, "--security-opt", "apparmor=ctr-test"];
    env.ctr([&run[..], &["busybox", "sh", "-c", script]].concat()).ok();
    env.ctr(["exec", "box", "sh", "-c", "cat /proc/self/attr/current; cat /secret"])
        .fails(1)
        .prints("ctr-test (enforce)\n")
        .says("Permission denied");
    test_support::eventually("it was denied", || {
        let logs = env.ctr("logs box").ok();
        (logs.stdout().contains("ctr-test (enforce)") && logs.stderr().contains("Permission denied")).then_some(())
    });
    let none = "run --rm --network none --security-opt apparmor=no-such-profile busybox true";
    env.ctr(none).fails(125).says("no-such-profile").says_it_plainly();
}

/// With AppArmor and without.
#[test]
fn info_and_inspect_say_what_confines() {
    let on = std::path::Path::new("/sys/kernel/security/apparmor/profiles").exists();
    let env = TestEnv::new();
    let info = env.ctr("info").ok().stdout();
    let wanted = if on { " apparmor\n seccomp\n" } else { "Security Options:\n seccomp\n" };
    assert!(info.contains(&format!("{wanted}  Profile: builtin\n cgroupns\n")), "{info}");
    let json = env.ctr("info --format json").ok().json();
    assert_eq!(json["SecurityOptions"].as_array().unwrap().contains(&"name=apparmor".into()), on, "{json}");
    env.ctr("create --name box --security-opt apparmor=unconfined busybox true").ok();
    let profile = if on { "unconfined\n" } else { "\n" };
    assert_eq!(env.ctr(["inspect", "--format", "{{.AppArmorProfile}}", "box"]).ok().stdout(), profile);
}

#[test]
fn without_a_name_it_is_the_default_one() {
    if !is_on() {
        return;
    }
    let env = TestEnv::new();
    let label = "cat /proc/self/attr/current";
    let run = "run --rm --network none";
    env.ctr(format!("{run} busybox {label}")).ok().prints("ctr-default (enforce)\n");
    env.ctr(format!("{run} --privileged busybox {label}")).ok().prints("unconfined\n");
    env.ctr(format!("{run} --security-opt apparmor=unconfined busybox {label}")).ok().prints("unconfined\n");
    // Opened as by a writer, but not written. Without masks and read-only paths only the profile is in the way.
    let script = "for f in sysrq-trigger sys/kernel/core_pattern sys/vm/swappiness sys/fs/file-max; do \
        (: >> /proc/$f) 2>&1 | grep -o 'Permission denied'; done; (: >> /proc/sys/kernel/msgmax) && echo its own";
    let open = ["--security-opt", "systempaths=unconfined", "busybox", "sh", "-c", script];
    let words: Vec<&str> = run.split(' ').chain(open).collect();
    let said = env.ctr(words.as_slice()).ok().stdout();
    assert_eq!(said, "Permission denied\n".repeat(4) + "its own\n");
    let mut free: Vec<&str> = run.split(' ').chain(["--security-opt", "apparmor=unconfined"]).collect();
    free.extend(open);
    assert!(!env.ctr(free.as_slice()).ok().stdout().contains("denied"), "without it nothing is in the way");
    // Among themselves they may do what they like.
    let signals = "sleep 100 & kill -0 $! && kill $! && echo signalled";
    env.ctr(["run", "--rm", "--network", "none", "busybox", "sh", "-c", signals]).ok().prints("signalled");
    env.ctr("run -d --name box --network none busybox sleep 1000").ok();
    let profile_of = |name: &str| env.ctr(["inspect", "--format", "{{.AppArmorProfile}}", name]).ok().stdout();
    assert_eq!(profile_of("box"), "ctr-default\n");
    for (option, profile) in [
        ("--privileged", "unconfined\n"),
        ("--security-opt=apparmor=unconfined", "unconfined\n"),
        ("--security-opt=apparmor=ctr-test", "ctr-test\n"),
    ] {
        env.ctr(["create", "--name", "other", option, "busybox", "true"]).ok();
        assert_eq!(profile_of("other"), profile, "{option}");
        env.ctr("rm other").ok();
    }
    env.ctr(format!("exec box {label}")).ok().prints("ctr-default (enforce)\n");
    env.ctr("kill box").ok();
    env.write("context/Containerfile", "FROM busybox\nRUN grep -q ctr-default /proc/self/attr/current\n");
    env.ctr("build --network none -t step context").ok();
}
