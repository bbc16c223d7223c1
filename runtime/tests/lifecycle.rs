//! Commands over a container's life, and its limits.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Bundle, eventually};

#[test]
fn create_start_kill_delete() {
    let bundle = Bundle::sh("trap 'exit 0' TERM; echo started > /tmp/mark; while :; do sleep 0.05; done");
    let ran = bundle.create(&["--pid-file", "pid", &bundle.id]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(bundle.status(), "created");
    assert_eq!(std::fs::read_to_string(bundle.path().join("pid")).unwrap(), bundle.state()["pid"].to_string());
    assert!(!bundle.rootfs().join("tmp/mark").exists(), "nothing of the user's runs before start");
    assert!(bundle.create(&[&bundle.id]).err.contains("already exists"));

    assert_eq!(bundle.runtime(&["start", &bundle.id]).code, 0);
    eventually("it started", || bundle.rootfs().join("tmp/mark").exists());
    assert_eq!(bundle.status(), "running");
    assert_ne!(bundle.runtime(&["start", &bundle.id]).code, 0);
    assert!(bundle.runtime(&["delete", &bundle.id]).err.contains("not stopped"));
    assert!(bundle.runtime(&["list"]).out.contains(&bundle.id));

    assert_eq!(bundle.runtime(&["pause", &bundle.id]).code, 0);
    assert_eq!(bundle.status(), "paused");
    assert_eq!(bundle.runtime(&["resume", &bundle.id]).code, 0);
    assert_eq!(bundle.runtime(&["kill", &bundle.id]).code, 0);
    eventually("it stopped", || bundle.status() == "stopped");
    assert_eq!(bundle.runtime(&["delete", &bundle.id]).code, 0);
    assert!(bundle.cgroups_left().is_empty());
    for command in ["state", "start", "kill", "delete"] {
        let ran = bundle.runtime(&[command, &bundle.id]);
        assert!(ran.code != 0 && ran.err.contains("does not exist"), "{command}: {}", ran.err);
    }
}

/// As with runc: the start has succeeded, the program ended with 1, and its own streams say why.
#[test]
fn a_program_that_can_t_be_executed_says_why_itself() {
    for (script, why) in [("#!/no/such\n", "the interpreter /no/such"), ("echo\n", "exec format error: a script needs")]
    {
        let bundle = Bundle::new(&["/script"]);
        std::fs::write(bundle.rootfs().join("script"), script).unwrap();
        std::fs::set_permissions(bundle.rootfs().join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        assert_eq!(bundle.create(&[&bundle.id]).code, 0);
        let ran = bundle.runtime(&["start", &bundle.id]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        eventually("it stopped", || bundle.status() == "stopped");
        let said = std::fs::read_to_string(bundle.path().join("create.err")).unwrap();
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_forced_delete_ends_everything() {
    let bundle = Bundle::sh("for i in 1 2 3 4 5; do (trap '' TERM; sleep 100) & done; echo up; wait");
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    assert!(bundle.runtime(&["ps", &bundle.id]).out.lines().count() > 6);
    assert_eq!(bundle.runtime(&["delete", "-f", &bundle.id]).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(bundle.cgroups_left().is_empty());
}

#[test]
fn the_process_limit_holds() {
    let mut bundle = Bundle::sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done 2>&1 | head -1");
    bundle.json(|spec| spec["linux"]["resources"]["pids"] = serde_json::json!({"limit": 5}));
    let ran = bundle.run();
    assert!((ran.out + &ran.err).contains("can't fork"), "{}", ran.code);
}

#[test]
fn the_memory_limit_kills_and_is_counted() {
    let mut bundle = Bundle::sh("head -c 200000000 /dev/zero | tail -c 150000000 | wc -c; echo $?");
    bundle.json(|spec| spec["linux"]["resources"]["memory"] = serde_json::json!({"limit": 20 << 20, "swap": 20 << 20}));
    let cgroup = format!("/{}/group", bundle.id);
    let ran = bundle.runtime(&["run", "--keep", &bundle.id]);
    assert!(!ran.out.contains("150000000"), "{}", ran.out);
    assert!(runtime::Cgroup::open(&cgroup).unwrap().oom_kills().unwrap() > 0, "{} {}", ran.code, ran.err);
}

#[test]
fn limits_are_written_and_can_be_changed() {
    let mut bundle = Bundle::sh("echo up; sleep 60");
    bundle.json(|spec| {
        spec["linux"]["resources"]["memory"] = serde_json::json!({"limit": 64 << 20});
        spec["linux"]["resources"]["cpu"] =
            serde_json::json!({"quota": 50000, "period": 100000, "shares": 512, "cpus": "0"});
    });
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let cgroup = runtime::Cgroup::open(&format!("/{}/group", bundle.id)).unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(64 << 20));
    assert!(
        stats.cpu_usage_ns.unwrap() > 0 && stats.memory_usage_bytes.unwrap() > 0 && stats.pids_current.unwrap() >= 1,
        "{stats:?}"
    );
    assert_eq!(bundle.exec(&["nproc"]).out, "1\n");
    std::fs::write(bundle.path().join("resources"), r#"{"memory": {"limit": 134217728}, "pids": {"limit": 77}}"#)
        .unwrap();
    assert_eq!(bundle.runtime(&["update", "-r", "resources", &bundle.id]).code, 0);
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.memory_limit_bytes, stats.pids_limit), (Some(128 << 20), Some(77)));
    assert!(!cgroup.is_empty().unwrap());
    cgroup.kill_all().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(cgroup.is_empty().unwrap());
}

#[test]
fn hooks_run_at_their_moments() {
    let mut bundle = Bundle::sh("echo program >> /order");
    let order = bundle.rootfs().join("order");
    let hook = |name: &str, file: &str| serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("grep -q '\"id\"' && echo {name} >> {file}")]}]);
    let outside = order.to_str().unwrap().to_owned();
    bundle.json(|spec| {
        spec["hooks"] = serde_json::json!({
            "createRuntime": hook("createRuntime", &outside),
            "startContainer": hook("startContainer", "/order"),
            "poststart": hook("poststart", &outside),
            "poststop": hook("poststop", &outside),
        });
    });
    let ran = bundle.run();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let seen = std::fs::read_to_string(&order).unwrap();
    let mut seen: Vec<&str> = seen.lines().collect();
    assert_eq!((seen[0], seen[1], *seen.last().unwrap()), ("createRuntime", "startContainer", "poststop"));
    seen.sort_unstable();
    assert_eq!(seen, ["createRuntime", "poststart", "poststop", "program", "startContainer"]);

    bundle.json(|spec| spec["hooks"] = serde_json::json!({"createRuntime": [{"path": "/bin/false"}]}));
    let ran = bundle.run();
    assert!(ran.code == 1 && ran.err.contains("hook /bin/false"), "{}", ran.err);
    assert!(bundle.cgroups_left().is_empty());
}

#[test]
fn bad_input_gives_one_line() {
    let bundle = Bundle::sh("true");
    for args in [
        &["bogus"][..],
        &["run", "--bogus", "x"],
        &["run"],
        &["state", "../x"],
        &["kill", "x", "BOGUS"],
        &["run", "-b", "/nowhere", "x"],
    ] {
        let ran = bundle.runtime(args);
        assert!(ran.code != 0 && ran.err.lines().count() == 1, "{args:?}: {}", ran.err);
    }
    std::fs::write(bundle.path().join("config.json"), "{").unwrap();
    let ran = support::ran(
        std::process::Command::new(env!("CARGO_BIN_EXE_ctr-runtime"))
            .args(["run", "x"])
            .current_dir(bundle.path())
            .output()
            .unwrap(),
    );
    assert!(ran.code == 1 && ran.err.contains("parse"), "{}", ran.err);
}

#[test]
fn a_deep_state_folder_is_no_obstacle() {
    let bundle = Bundle::sh("sleep 100");
    let deep = bundle.path().join("x".repeat(80)).join("y".repeat(80));
    let deep = deep.to_str().unwrap();
    let quiet = |words: &[&str]| {
        let mut command = bundle.command(&[&["--root", deep], words].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(quiet(&["create", &bundle.id]), Some(0));
    assert_eq!(quiet(&["start", &bundle.id]), Some(0));
    assert_eq!(quiet(&["delete", "--force", &bundle.id]), Some(0));
}

#[test]
fn a_control_group_that_was_there_stays() {
    let bundle = Bundle::sh("true");
    let parent = Path::new("/sys/fs/cgroup").join(if Path::new("/sys/fs/cgroup/pids").exists() { "pids" } else { "." });
    let parent = parent.join(&bundle.id);
    fs::create_dir(&parent).unwrap();
    assert_eq!(bundle.run().code, 0);
    let (left, inside) = (parent.exists(), parent.join("group").exists());
    fs::remove_dir(&parent).unwrap();
    assert_eq!((left, inside), (true, false));
    for other in bundle.cgroups_left() {
        fs::remove_dir(other).unwrap();
    }
}

#[test]
fn a_mount_namespace_that_was_joined_is_left_as_it_was() {
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let at = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", holder.id())).unwrap();
    eventually("it is in its namespace", || at("comm") == "cat\n");
    let path = format!("/proc/{}/ns/mnt", holder.id());
    let join = |bundle: &mut Bundle| {
        bundle.json(|spec| {
            for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "mount" {
                    namespace["path"] = path.clone().into();
                }
            }
        });
    };
    let before = at("mountinfo");
    let mut bundle = Bundle::sh("echo up; exec sleep 1000");
    join(&mut bundle);
    let mut child = bundle.spawn();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    assert!(at("mountinfo").lines().count() > before.lines().count());
    assert_eq!(bundle.runtime(&["delete", "--force", &bundle.id]).code, 0);
    child.wait().unwrap();
    assert_eq!(at("mountinfo"), before);
    // One that fails on its way, and one without a program.
    let mut bundle = Bundle::sh("true");
    join(&mut bundle);
    bundle.mount("/x", "no-such-filesystem", "x", &[]);
    assert_eq!(bundle.run().code, 1);
    assert_eq!(at("mountinfo"), before);
    let mut bundle = Bundle::new(&["/not/there"]);
    join(&mut bundle);
    assert_eq!(bundle.run().code, 127);
    assert_eq!(at("mountinfo"), before);
    drop(holder.stdin.take());
    holder.wait().unwrap();
}
