//! What a process is: every field of `process` in the config, seen from inside by the prober.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::{Value, json};
use std::io::Read;
use support::Bundle;

fn names(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn user_groups_umask_and_session() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        spec["process"]["user"] = json!({"uid": 1234, "gid": 4321, "additionalGids": [7, 8, 9], "umask": 0o77});
        spec["process"]["cwd"] = "/tmp".into();
        spec["process"]["args"] = json!(["/prober", "a", "ä b"]);
        spec["process"]["env"] = json!(["A=1", "B=", "A=2"]);
    });
    let found = bundle.probe();
    assert_eq!((&found["uids"], &found["gids"]), (&json!([1234, 1234, 1234]), &json!([4321, 4321, 4321])));
    assert_eq!(found["status"]["Groups"], "7 8 9");
    assert_eq!(
        (&found["umask"], &found["cwd"], &found["args"]),
        (&json!(0o77), &json!("/tmp"), &json!(["/prober", "a", "ä b"]))
    );
    assert_eq!((&found["pid"], &found["session"]), (&json!(1), &json!(1)));
    assert_eq!(found["env"], json!(["A=1", "B=", "A=2", "HOME=/"]), "home: a user without a line in passwd");
    bundle.json(|spec| spec["process"]["user"] = json!({"uid": 0, "gid": 0}));
    assert!(names(&bundle.probe()["env"]).contains(&"HOME=/root"));
    bundle.json(|spec| spec["process"]["env"] = json!(["HOME=/elsewhere"]));
    assert_eq!(bundle.probe()["env"], json!(["HOME=/elsewhere"]));
}

#[test]
fn the_five_capability_sets() {
    let mut bundle = Bundle::prober(&[]);
    let all = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"];
    bundle.json(|spec| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        spec["process"]["capabilities"] = json!({
            "bounding": all, "permitted": all, "effective": all, "inheritable": all, "ambient": ["CAP_KILL"],
        });
    });
    let found = bundle.probe();
    // An exec by a user who is not root leaves what is ambient.
    for (set, mask) in [("CapBnd", 0xa1u64), ("CapInh", 0xa1), ("CapPrm", 0x20), ("CapEff", 0x20), ("CapAmb", 0x20)] {
        assert_eq!(found["status"][set], format!("{mask:016x}"), "{set}");
    }
    let mut bundle = Bundle::prober(&[]);
    for (set, mask) in [("CapBnd", 0xa804_25fbu64), ("CapPrm", 0xa804_25fb), ("CapInh", 0), ("CapAmb", 0)] {
        assert_eq!(bundle.probe()["status"][set], format!("{mask:016x}"), "{set}");
    }
    bundle.json(|spec| {
        spec["process"].as_object_mut().unwrap().remove("capabilities");
    });
    assert_eq!(bundle.probe()["status"]["CapEff"], "0000000000000000", "none given, none had");
}

#[test]
fn a_capability_that_can_t_be_granted_is_a_warning() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        spec["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"],
            "permitted": ["CAP_KILL", "CAP_SYS_RESOURCE"], "effective": ["CAP_KILL", "CAP_SYS_RESOURCE"]});
    });
    let have = linux::capability::current().unwrap().permitted >> 24 & 1;
    let ran = bundle.runtime(&["--log", "log", "run", &bundle.id]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["status"]["CapEff"], format!("{:016x}", 0x20 | have << 24));
    let log = std::fs::read_to_string(bundle.path().join("log")).unwrap_or_default();
    assert_eq!(log.contains("can't grant CAP_SYS_RESOURCE"), have == 0, "{log}");
}

#[test]
fn no_new_privileges_and_the_filter() {
    let mut bundle = Bundle::prober(&[]);
    for (given, filtered) in [(true, true), (false, true), (true, false), (false, false)] {
        bundle.json(|spec| {
            spec["process"]["noNewPrivileges"] = given.into();
            if !filtered {
                spec["linux"].as_object_mut().unwrap().remove("seccomp");
            }
        });
        let found = bundle.probe();
        assert_eq!(found["status"]["NoNewPrivs"], if given { "1" } else { "0" });
        assert_eq!(found["status"]["Seccomp"], if filtered { "2" } else { "0" });
        assert_eq!(found["status"]["Seccomp_filters"], if filtered { "1" } else { "0" });
        bundle = Bundle::prober(&[]);
    }
}

#[test]
fn every_limit_is_set() {
    let mut bundle = Bundle::prober(&[]);
    let kinds = [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ];
    // The hard limits this test runs under can't be raised here, so they are only lowered.
    let value = |kind: &str| if matches!(kind, "NICE" | "RTPRIO") { 0u64 } else { 1 << 30 };
    let now = |kind: &str| {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let name = match kind {
            "NOFILE" => "Max open files",
            "NPROC" => "Max processes",
            "MEMLOCK" => "Max locked memory",
            "MSGQUEUE" => "Max msgqueue size",
            "SIGPENDING" => "Max pending signals",
            _ => return u64::MAX,
        };
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.split("  ").filter(|word| !word.trim().is_empty()).nth(2).unwrap().trim().parse().unwrap_or(u64::MAX)
    };
    let wanted = |kind: &str| value(kind).min(now(kind));
    bundle.json(|spec| {
        spec["process"]["rlimits"] = kinds
            .iter()
            .map(|kind| json!({"type": format!("RLIMIT_{kind}"), "soft": wanted(kind) / 2, "hard": wanted(kind)}))
            .collect();
    });
    let found = bundle.probe();
    for kind in kinds {
        assert_eq!(found["limits"][kind], json!([wanted(kind) / 2, wanted(kind)]), "{kind}");
    }
    bundle.json(|spec| {
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]);
    });
    assert!(bundle.run().err.contains("above the hard limit"));
    bundle.json(|spec| {
        let limit = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 1});
        spec["process"]["rlimits"] = json!([limit, limit]);
    });
    assert!(bundle.run().err.contains("given twice"));
}

#[test]
fn scheduler_disk_priority_personality_and_oom_score() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        spec["process"]["oomScoreAdj"] = 321.into();
        spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    let found = bundle.probe();
    assert_eq!(found["scheduling"], json!({"policy": 3, "nice": 7, "priority": 0, "flags": 0}));
    assert_eq!((&found["io_priority"], &found["oom_score_adj"]), (&json!([2, 6]), &json!("321")));
    assert_eq!((&found["personality"], &found["machine"]), (&json!(8), &json!("i686")));

    // The name that the spec has for it.
    let raw = |scheduler: Value| {
        let mut bundle = Bundle::prober(&[]);
        bundle.raw = Some(("/process/scheduler".to_owned(), scheduler));
        bundle.run()
    };
    let ran = raw(json!({"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}));
    let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    assert_eq!((&found["scheduling"]["policy"], &found["scheduling"]["flags"]), (&json!(5), &json!(1)));
    for (scheduler, why) in [
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice 20"),
        (json!({"policy": "SCHED_OTHER", "priority": 5}), "SCHED_FIFO and SCHED_RR only"),
        (json!({"policy": "SCHED_FIFO", "runtime": 5}), "SCHED_DEADLINE only"),
    ] {
        let ran = raw(scheduler);
        assert!(ran.code == 1 && ran.err.contains(why), "{}", ran.err);
    }
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8}));
    assert!(bundle.run().err.contains("0 to 7"));
}

#[test]
fn memory_nodes() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        // Docker's profile lets nobody ask.
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
        spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    });
    let ran = bundle.run();
    if ran.err.contains("Function not implemented") {
        eprintln!("SKIPPED memory_nodes: this kernel has no NUMA");
    } else {
        let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
        assert_eq!(found["memory_policy"], 2 | 1 << 15);
    }
    for (policy, why) in [
        (json!({"mode": "MPOL_BIND"}), "needs nodes"),
        (json!({"mode": "MPOL_LOCAL", "nodes": "0"}), "takes no nodes"),
        (json!({"mode": "MPOL_BIND", "nodes": "0-"}), "something like 0-3,7"),
    ] {
        bundle.json(|spec| spec["linux"]["memoryPolicy"] = policy);
        let ran = bundle.run();
        assert!(ran.code == 1 && ran.err.contains(why), "{}", ran.err);
    }
}

#[test]
fn the_session_keyring_is_its_own() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
    });
    assert_eq!(bundle.probe()["keyring"], format!("_ses.{}", bundle.id));
    let own = linux::process::session_keyring().unwrap_or_default();
    let ran = bundle.runtime(&["run", "--no-new-keyring", &bundle.id]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_ne!(found["keyring"], format!("_ses.{}", bundle.id));
    assert!(own.is_empty() || found["keyring"] == own, "{} {own}", found["keyring"]);
}

#[test]
fn a_process_that_is_added_is_like_the_first() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
        spec["linux"]["personality"] = json!({"domain": "LINUX32"});
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 77777}});
        spec["process"]["args"] = json!(["sh", "-c", "/prober; sleep 60"]);
        spec["process"]["env"] = json!(["PATH=/bin"]);
        spec["process"]["noNewPrivileges"] = true.into();
        spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH"});
    });
    let mut child = bundle.spawn();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    let (first, added): (Value, Value) = (serde_json::from_str(&line).unwrap(), bundle.probe_exec(&[]));
    for field in
        ["namespaces", "mounts", "limits", "uids", "cgroup", "personality", "keyring", "hostname", "scheduling"]
    {
        assert_eq!(first[field], added[field], "{field}");
    }
    for field in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp", "Groups"] {
        assert_eq!(first["status"][field], added["status"][field], "{field}");
    }
    assert!(added["clocks"]["monotonic"].as_i64().unwrap() >= 77777);
    assert_eq!(added["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2"]);

    let process = json!({
        "user": {"uid": 5, "gid": 6}, "args": ["/prober"], "cwd": "/tmp", "env": ["X=y"],
        "execCPUAffinity": {"initial": "0", "final": "0"}, "oomScoreAdj": 99,
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
    });
    std::fs::write(bundle.path().join("process.json"), process.to_string()).unwrap();
    let ran = bundle.runtime(&["exec", "--process", "process.json", &bundle.id]);
    let added: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    assert_eq!((&added["status"]["Cpus_allowed_list"], &added["oom_score_adj"]), (&json!("0"), &json!("99")));
    assert_eq!((&added["uids"], &added["io_priority"]), (&json!([5, 5, 5]), &json!([3, 0])));
    assert_eq!((&added["cwd"], &added["env"]), (&json!("/tmp"), &json!(["X=y", "HOME=/"])));
    for (affinity, why) in [("final", "0-"), ("final", "4000")] {
        let process =
            json!({"user": {"uid": 0, "gid": 0}, "args": ["/prober"], "cwd": "/", "execCPUAffinity": {affinity: why}});
        std::fs::write(bundle.path().join("process.json"), process.to_string()).unwrap();
        assert_eq!(bundle.runtime(&["exec", "--process", "process.json", &bundle.id]).code, 1);
    }
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    child.wait().unwrap();
}

#[test]
fn only_its_own_descriptors() {
    let bundle = Bundle::prober(&[]);
    let found = bundle.probe();
    let fds = found["fds"].as_object().unwrap();
    assert_eq!(fds.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(fds["0"], "/dev/null");
}

#[test]
fn a_terminal_has_its_size_and_a_console() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| spec["process"]["terminal"] = true.into());
    let ran = bundle.run();
    let found: Value = serde_json::from_str(ran.out.trim()).unwrap_or_else(|e| panic!("{e}: {}{}", ran.out, ran.err));
    assert_eq!((&found["fds"]["0"], &found["devices"]["console"]), (&json!("/dev/pts/0"), &json!("c 136:0 620")));
}
