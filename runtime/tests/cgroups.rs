//! Control groups v2 by themselves: limits as the kernel has them, the device filter, freezing, killing, what a container does
//! with its own group. Where v1 hierarchies hold the controllers there is nothing to see: `make test-vm` runs these.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod support;

use serde_json::json;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use support::{Bundle, eventually};

/// The v2 hierarchy's mount, where it is the only one.
fn v2() -> Option<PathBuf> {
    let only = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !only {
        assert!(std::env::var_os("CTR_TEST_VM").is_none(), "the test machine has not v2 alone");
        eprintln!("SKIPPED: control groups v2 are not alone on this machine; make test-vm has one where they are");
    }
    only.then(|| "/sys/fs/cgroup".into())
}

/// A container that has started, and its group's folder.
fn up(mount: &Path, bundle: &Bundle) -> (std::process::Child, PathBuf) {
    let mut child = bundle.spawn();
    let started = child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]);
    if started.is_err() {
        let mut said = String::new();
        child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        panic!("it did not start: {said}");
    }
    (child, mount.join(&bundle.id).join("group"))
}

fn value(group: &Path, file: &str) -> String {
    let path = group.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn update(bundle: &Bundle, resources: &serde_json::Value) -> support::Ran {
    fs::write(bundle.path().join("resources"), resources.to_string()).unwrap();
    bundle.runtime(&["update", "-r", "resources", &bundle.id])
}

#[test]
fn limits_are_converted_to_those_of_v2() {
    let Some(mount) = v2() else { return };
    let mut bundle = Bundle::sh("echo up; exec sleep 100");
    bundle.json(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20});
        spec["linux"]["resources"]["cpu"] =
            json!({"shares": 1024, "quota": 25_000, "period": 50_000, "burst": 1000, "cpus": "1", "mems": "0"});
        spec["linux"]["resources"]["pids"] = json!({"limit": 33});
        spec["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
        spec["linux"]["resources"]["blockIO"] = json!({
            "weight": 505,
            "throttleReadBpsDevice": [{"major": 7, "minor": 0, "rate": 1_000_000}],
            "throttleWriteIOPSDevice": [{"major": 7, "minor": 0, "rate": 50}],
        });
        spec["linux"]["resources"]["unified"] = json!({"memory.high": "60000000", "cgroup.max.descendants": "5"});
    });
    let (mut child, group) = up(&mount, &bundle);
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        ("memory.high", "59998208"),
        ("cpu.weight", "39"),
        ("cpu.max", "25000 50000"),
        ("cpu.max.burst", "1000"),
        ("cpuset.cpus", "1"),
        ("cpuset.mems.effective", "0"),
        ("pids.max", "33"),
        ("hugetlb.2MB.max", "4194304"),
        ("io.weight", "default 5000"),
        ("io.max", "7:0 rbps=1000000 wbps=max riops=max wiops=50"),
        ("cgroup.max.descendants", "5"),
    ] {
        assert_eq!(value(&group, file), expected, "{file}");
    }
    // All of them above it hand down what it needs, and hold no process themselves.
    let parent = group.parent().unwrap();
    assert!(value(parent, "cgroup.subtree_control").contains("memory") && value(parent, "cgroup.procs").is_empty());
    assert!(!value(&group, "cgroup.procs").is_empty());

    // What an update does not name stays.
    let ran = update(&bundle, &json!({"cpu": {"quota": 10_000}, "memory": {"swap": 80 << 20}, "pids": {"limit": -1}}));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(value(&group, "cpu.max"), "10000 50000");
    assert_eq!((value(&group, "memory.swap.max"), value(&group, "memory.max")), ("16777216".into(), "67108864".into()));
    assert_eq!(value(&group, "pids.max"), "max");
    assert_eq!(update(&bundle, &json!({"cpu": {"quota": -1}, "memory": {"swap": -1}})).code, 0);
    assert_eq!((value(&group, "cpu.max"), value(&group, "memory.swap.max")), ("max 50000".into(), "max".into()));
    let refused = update(&bundle, &json!({"memory": {"limit": 64 << 20, "swap": 32 << 20}}));
    assert!(refused.code != 0 && refused.err.contains("must not be less"), "{}", refused.err);

    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(bundle.cgroups_left().is_empty());
}

#[test]
fn a_unified_limit_that_is_not_there_is_an_error() {
    if v2().is_none() {
        return;
    }
    for (file, text) in [("nonsense.max", "no such file"), ("../x", "not a control file")] {
        let mut bundle = Bundle::sh("true");
        bundle.json(|spec| spec["linux"]["resources"]["unified"] = json!({file: "1"}));
        let ran = bundle.run();
        assert!(ran.code == 1 && ran.err.contains(text) && ran.err.lines().count() == 1, "{} {}", ran.code, ran.err);
        assert!(bundle.cgroups_left().is_empty());
    }
}

#[test]
fn the_device_filter_decides_over_every_access() {
    let Some(_) = v2() else { return };
    let script = "mknod /tmp/mem c 1 1 && mknod /tmp/full c 1 7 && mknod /tmp/loop b 7 0 && echo made
        head -c 1 /tmp/mem; (: > /tmp/mem) 2>/dev/null || echo no-mem
        head -c 1 /tmp/loop || echo no-loop
        head -c 1 /dev/zero | wc -c; echo x > /dev/null && echo null
        (: < /dev/fuse) && echo reads; (: > /dev/fuse) || echo no-writes; (: <> /dev/fuse) || echo not-both
        : <> /dev/console5 && echo both-halves";
    let mut bundle = Bundle::sh(script);
    let rule = |allow: bool, major: i64, minor: i64, access: &str| json!({"allow": allow, "type": "c", "major": major, "minor": minor, "access": access});
    bundle.json(|spec| {
        let rules = spec["linux"]["resources"]["devices"].as_array_mut().unwrap();
        rules.extend([rule(true, 10, 229, "rw"), rule(false, 10, 229, "w")]);
        // Together they grant what neither does alone.
        rules.extend([rule(true, 5, 1, "r"), rule(true, 5, 1, "w")]);
        spec["linux"]["devices"] = json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
            {"path": "/dev/console5", "type": "c", "major": 5, "minor": 1},
        ]);
    });
    let ran = bundle.run();
    for expected in
        ["made\n", "no-mem\n", "no-loop\n", "1\n", "null\n", "reads\n", "no-writes\n", "not-both\n", "both-halves\n"]
    {
        assert!(ran.out.contains(expected), "{expected:?}: {} {}", ran.out, ran.err);
    }
    assert!(ran.err.contains("Operation not permitted"), "{}", ran.err);

    let mut bundle = Bundle::sh("mknod /tmp/loop b 7 0; (: < /tmp/loop) && echo opened");
    bundle.json(|spec| spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(bundle.run().out, "opened\n");
}

#[test]
fn a_frozen_container_stands_still_and_can_be_killed() {
    let Some(mount) = v2() else { return };
    let bundle = Bundle::sh("echo up; while :; do echo tick >> /ticks; done");
    let (mut child, group) = up(&mount, &bundle);
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.runtime(&["pause", &bundle.id]).code, 0);
    assert_eq!(bundle.status(), "paused");
    assert!(value(&group, "cgroup.events").contains("frozen 1"));
    let ticks = || fs::metadata(bundle.rootfs().join("ticks")).map_or(0, |meta| meta.len());
    let before = ticks();
    assert_eq!(bundle.runtime(&["resume", &bundle.id]).code, 0);
    eventually("it goes on", || ticks() > before);
    assert_eq!(bundle.runtime(&["pause", &bundle.id]).code, 0);
    assert_eq!(bundle.runtime(&["delete", "--force", &bundle.id]).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(bundle.cgroups_left().is_empty());
}

/// As systemd and docker in a container do.
#[test]
fn a_container_may_split_its_group_up() {
    let Some(mount) = v2() else { return };
    let script = "cat /proc/self/cgroup; cd /sys/fs/cgroup && mkdir init work && echo 1 > init/cgroup.procs &&
        echo '+memory +pids' > cgroup.subtree_control && cat work/pids.max; sleep 1000 & echo $! > work/cgroup.procs; echo up; wait";
    let mut bundle = Bundle::sh(script);
    bundle.json(|spec| {
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
            }
        }
    });
    let mut child = bundle.spawn();
    let mut said = String::new();
    while !said.ends_with("up\n") {
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        said.push(byte[0].into());
    }
    assert_eq!(said, "0::/\nmax\nup\n", "it sees its own group as the root");
    let group = mount.join(&bundle.id).join("group");
    assert!(!value(&group.join("work"), "cgroup.procs").is_empty());
    // The group itself takes no process now: a further one goes to where the init is.
    let ran = bundle.exec(&["cat", "/proc/self/cgroup"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "0::/init\n"), "{}", ran.err);
    assert_eq!(bundle.runtime(&["ps", &bundle.id]).out.lines().count(), 3);
    assert_eq!(bundle.runtime(&["delete", "--force", &bundle.id]).code, 0);
    child.wait().unwrap();
    assert!(bundle.cgroups_left().is_empty());
}

#[test]
fn without_a_cgroup_namespace_the_whole_hierarchy_is_shown_read_only() {
    if v2().is_none() {
        return;
    }
    let script = "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/pids.max; mkdir /sys/fs/cgroup/x";
    let mut bundle = Bundle::sh(script);
    bundle.json(|spec| {
        spec["linux"]["resources"]["pids"] = json!({"limit": 44});
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    });
    let ran = bundle.run();
    assert!(ran.out == "44\n" && ran.err.contains("Read-only"), "{} {}", ran.out, ran.err);
}

#[test]
fn usage_is_counted_and_survivors_are_killed() {
    let Some(mount) = v2() else { return };
    let mut bundle = Bundle::sh("sleep 1000 & head -c 3000000 /dev/zero > /tmp/file; mkfifo /go; echo up; cat /go");
    bundle.json(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let (mut child, group) = up(&mount, &bundle);
    let stats = runtime::Cgroup::open(&format!("/{}/group", bundle.id)).unwrap().stats().unwrap();
    assert!(stats.cpu_usage_ns.unwrap() > 0 && stats.memory_usage_bytes.unwrap() > 0, "{stats:?}");
    assert!(stats.pids_current.unwrap() >= 2 && stats.memory_limit_bytes.is_none(), "{stats:?}");
    fs::write(bundle.rootfs().join("go"), "").unwrap();
    // Its init's end is not theirs where they share the host's pids.
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!group.exists(), "{}", value(&group, "cgroup.procs"));
}

#[test]
fn exec_goes_to_a_group_below_the_container_s() {
    let bundle = Bundle::sh("echo up; sleep 60");
    let mut child = bundle.spawn();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let groups: Vec<_> = bundle.cgroups_left().into_iter().map(|group| group.join("group")).collect();
    let inside = |options: &[&str]| {
        let words = [&["exec"], options, &[bundle.id.as_str(), "cat", "/proc/self/cgroup"]].concat();
        bundle.runtime(&words)
    };
    let refused = inside(&["--cgroup", "part"]);
    assert!(refused.code == 1 && refused.err.contains("no such control group"), "{}", refused.err);
    for group in &groups {
        fs::create_dir(group.join("part")).unwrap();
        // Version 1 wants them said.
        for setting in ["cpuset.cpus", "cpuset.mems"].iter().filter(|setting| group.join("part").join(setting).exists())
        {
            fs::write(group.join("part").join(setting), value(group, setting)).unwrap();
        }
    }
    for name in ["part", "/part", "memory:part"] {
        let ran = inside(&["--cgroup", name]);
        let parts = ran.out.lines().filter(|line| line.ends_with(":/part")).count();
        assert_eq!((ran.code, parts), (0, groups.len()), "{name}: {}{}", ran.out, ran.err);
    }
    let ran = inside(&["--cgroup", "/"]);
    assert!(ran.code == 0 && !ran.out.contains("part"), "{}", ran.out);
    // Out of the container's own there is no way.
    let ran = inside(&["--cgroup", "../../.."]);
    assert!(ran.code == 1 && ran.out.is_empty(), "{}", ran.out);
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
}
