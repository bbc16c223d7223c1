//! Control groups made by systemd: only where it is the first process, which is so in one of `make test-vm`'s machines.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod support;

use serde_json::json;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Bundle, Ran, eventually, ran};

/// The machine's ordinary user, who has a systemd of his own (tests/vm/systemd/user.service).
const USER: u32 = 1000;
const RUNTIME_DIR: &str = "/run/user/1000";

fn is_there() -> bool {
    let booted = Path::new("/run/systemd/system").is_dir() && std::env::var_os("CTR_TEST_VM").is_some();
    if !booted {
        eprintln!(
            "SKIPPED: systemd is not the first process of a test machine; scripts/test-vm systemd has one where it is"
        );
    }
    booted
}

fn systemctl(args: &[&str]) -> String {
    let ran = ran(Command::new("systemctl").args(args).output().unwrap());
    assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
    ran.out
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit]).trim().to_owned()
}

#[track_caller]
fn assert_gone(unit: &str) {
    eventually(&format!("{unit} is gone"), || property(unit, "LoadState") == "not-found");
}

fn create(bundle: &Bundle) -> Ran {
    let file = bundle.path().join("create.err");
    let mut command = bundle.command(&["--systemd-cgroup", "create", &bundle.id]);
    command.stdout(Stdio::null()).stderr(fs::File::create(&file).unwrap());
    let code = command.status().unwrap().code().unwrap_or(-1);
    Ran { code, out: String::new(), err: fs::read_to_string(file).unwrap() }
}

#[track_caller]
fn done(bundle: &Bundle, args: &[&str]) {
    let ran = bundle.runtime(&[args, &[bundle.id.as_str()]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
}

fn value(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).unwrap().trim().to_owned()
}

/// Where a bundle's container is to be, as podman says it: its unit and its group.
fn placed(bundle: &mut Bundle) -> (String, PathBuf) {
    let id = bundle.id.clone();
    bundle.json(|spec| spec["linux"]["cgroupsPath"] = json!(format!("machine.slice:libpod:{id}")));
    let unit = format!("libpod-{id}.scope");
    let group = Path::new("/sys/fs/cgroup/machine.slice").join(&unit);
    (unit, group)
}

#[test]
fn a_container_is_a_scope_whose_limits_last() {
    if !is_there() {
        return;
    }
    let mut bundle = Bundle::sh("while :; do sleep 1; done");
    let (unit, group) = placed(&mut bundle);
    bundle.json(|spec| {
        let resources = &mut spec["linux"]["resources"];
        resources["memory"] = json!({"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20});
        resources["cpu"] = json!({"shares": 1024, "quota": 25_000, "period": 50_000, "cpus": "1", "mems": "0"});
        resources["pids"] = json!({"limit": 44});
        resources["unified"] = json!({"memory.high": "60000000", "memory.oom.group": "1"});
        spec["annotations"] =
            json!({"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.Description": "'mine'"});
    });
    let created = create(&bundle);
    assert_eq!((created.code, created.err.as_str()), (0, ""));
    let state = bundle.state();
    assert_eq!(value(&group, "cgroup.procs"), state["pid"].to_string());
    for (name, wanted) in [
        ("Slice", "machine.slice"),
        ("Delegate", "yes"),
        ("Description", "mine"),
        ("TimeoutStopUSec", "7s"),
        ("ActiveState", "active"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "60000000"),
        ("CPUWeight", "39"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("AllowedCPUs", "1"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "44"),
    ] {
        assert_eq!(property(&unit, name), wanted, "{name}");
    }
    let first = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        ("memory.oom.group", "1"),
        ("cpu.weight", "39"),
        ("cpu.max", "25000 50000"),
        ("cpuset.cpus", "1"),
        ("pids.max", "44"),
    ];
    let check = |when: &str, wanted: &[(&str, &str)]| {
        for (file, wanted) in wanted {
            assert_eq!(value(&group, file), *wanted, "{file} {when}");
        }
    };
    check("at first", &first);
    done(&bundle, &["start"]);
    systemctl(&["daemon-reload"]);
    check("after a reload", &first);
    let ran =
        bundle.exec(&["sh", "-c", "mknod /tmp/mem c 1 1; (: < /tmp/mem) && echo opened; cat /sys/fs/cgroup/pids.max"]);
    assert_eq!(ran.out, "44\n", "devices are still limited: {}", ran.err);

    let changes =
        json!({"memory": {"limit": 128 << 20, "swap": 128 << 20}, "cpu": {"quota": 10_000}, "pids": {"limit": 55}});
    fs::write(bundle.path().join("resources"), changes.to_string()).unwrap();
    done(&bundle, &["update", "-r", "resources"]);
    let second =
        [("memory.max", "134217728"), ("memory.swap.max", "0"), ("cpu.max", "10000 50000"), ("pids.max", "55")];
    check("after an update", &second);
    assert_eq!(property(&unit, "MemoryMax"), "134217728");
    systemctl(&["daemon-reload"]);
    check("after an update and a reload", &second);
    check("after an update of others", &[("cpu.weight", "39"), ("cpuset.cpus", "1")]);

    done(&bundle, &["pause"]);
    assert_eq!(bundle.status(), "paused");
    done(&bundle, &["resume"]);
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    eventually("it ends", || bundle.status() == "stopped");
    done(&bundle, &["delete"]);
    assert!(!group.exists());
    assert_gone(&unit);
}

#[test]
fn a_name_is_made_of_the_id_and_nothing_stays() {
    if !is_there() {
        return;
    }
    let mut bundle = Bundle::sh("cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max; ls /dev/null");
    bundle.json(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        spec["linux"]["resources"].as_object_mut().unwrap().remove("pids");
    });
    let unit = format!("ctr-{}.scope", bundle.id);
    let group = Path::new("/sys/fs/cgroup/system.slice").join(&unit);
    let ran = bundle.runtime(&["--systemd-cgroup", "run", &bundle.id]);
    // No limit asked is none, whatever systemd's default is.
    assert_eq!((ran.code, ran.out.as_str()), (0, "0::/\nmax\n/dev/null\n"), "{}", ran.err);
    assert!(!group.exists());
    assert_gone(&unit);

    bundle.process(|process| _ = process.set_args(Some(vec!["/not/there".to_owned()])));
    let ran = bundle.runtime(&["--systemd-cgroup", "run", &bundle.id]);
    assert_ne!(ran.code, 0);
    assert!(!group.exists());
    assert_gone(&unit);
    // Without a namespace of its own it sees where it is.
    bundle.json(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
        spec["process"]["args"] = json!(["cat", "/proc/self/cgroup"]);
    });
    let ran = bundle.runtime(&["--systemd-cgroup", "run", &bundle.id]);
    assert_eq!(ran.out, format!("0::/system.slice/{unit}\n"), "{}", ran.err);
}

#[test]
fn what_systemd_refuses_is_said_in_a_line() {
    if !is_there() {
        return;
    }
    let mut bundle = Bundle::sh("sleep 1000");
    let (unit, group) = placed(&mut bundle);
    assert_eq!(create(&bundle).code, 0);
    // A second one of that name does the first no harm.
    let mut second = Bundle::sh("true");
    let path = format!("machine.slice:libpod:{}", bundle.id);
    for (path, wanted) in [
        (path.as_str(), "already loaded"),
        ("/a/b", "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups"),
        ("machine:libpod:x", "invalid slice name: machine"),
    ] {
        second.json(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let ran = create(&second);
        assert!(ran.code == 1 && ran.err.contains(wanted) && ran.err.lines().count() == 1, "{path}: {}", ran.err);
    }
    second.json(|spec| {
        spec["linux"]["cgroupsPath"] = json!("machine.slice:libpod:annotated");
        spec["annotations"] = json!({"org.systemd.property.NoSuchProperty": "true"});
    });
    let ran = create(&second);
    assert!(ran.code == 1 && ran.err.contains("NoSuchProperty"), "{}", ran.err);
    assert_eq!(property("libpod-annotated.scope", "LoadState"), "not-found");
    assert_eq!(bundle.status(), "created");
    assert!(group.exists() && property(&unit, "ActiveState") == "active");
    done(&bundle, &["delete", "--force"]);
    assert_gone(&unit);
}

#[test]
fn where_its_own_socket_is_not_the_bus_serves() {
    if !is_there() {
        return;
    }
    let mut bundle = Bundle::sh("cat /sys/fs/cgroup/pids.max");
    let (unit, group) = placed(&mut bundle);
    bundle.json(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 46}));
    let script = "mount --bind /dev/null /run/systemd/private && exec \"$0\" \"$@\"";
    let direct = bundle.command(&["--systemd-cgroup", "run", &bundle.id]);
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", script]).arg(direct.get_program()).args(direct.get_args());
    let ran = ran(hidden.current_dir(bundle.path()).stdin(Stdio::null()).output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (0, "46\n"), "{}", ran.err);
    assert!(!group.exists());
    assert_gone(&unit);
}

#[test]
fn an_init_born_in_another_s_user_namespace_is_in_the_scope() {
    if !is_there() {
        return;
    }
    let user = |bundle: &mut Bundle, path: Option<String>| {
        bundle.json(|spec| {
            let linux = &mut spec["linux"];
            linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": path}));
            linux["sysctl"] = json!({});
            if path.is_none() {
                let map = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
                (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
            }
        });
    };
    let mut first = Bundle::sh("sleep 1000");
    let (unit, group) = placed(&mut first);
    user(&mut first, None);
    let created = create(&first);
    assert_eq!((created.code, created.err.as_str()), (0, ""));
    let mut second = Bundle::sh("cat /sys/fs/cgroup/pids.max");
    let (second_unit, second_group) = placed(&mut second);
    user(&mut second, Some(format!("/proc/{}/ns/user", first.state()["pid"])));
    second.json(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 47}));
    let ran = second.runtime(&["--systemd-cgroup", "run", &second.id]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "47\n"), "{}", ran.err);
    done(&first, &["delete", "--force"]);
    assert!(!group.exists() && !second_group.exists());
    assert_gone(&unit);
    assert_gone(&second_unit);
}

/// From a process that is not below the user's systemd: that has the machine's move the container over.
#[test]
fn an_ordinary_user_s_systemd_limits_his_containers() {
    if !is_there() {
        return;
    }
    let mut bundle = Bundle::sh("cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max; exec sleep 1000");
    bundle.json(|spec| {
        let linux = &mut spec["linux"];
        linux["cgroupsPath"] = json!("user.slice:libpod:rootless");
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
        (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
        linux["sysctl"] = json!({});
        linux["resources"] = json!({"memory": {"limit": 48 << 20}, "pids": {"limit": 48}});
        for mount in spec["mounts"].as_array_mut().unwrap() {
            let options = mount["options"].as_array_mut();
            options.into_iter().for_each(|options| options.retain(|option| option != "gid=5"));
        }
    });
    let as_user = |args: &[&str]| {
        let mut command = bundle.command(args);
        let status =
            Command::new("chown").arg("-hR").arg(format!("{USER}:{USER}")).arg(bundle.path()).status().unwrap();
        assert!(status.success());
        command.uid(USER).gid(USER).env("XDG_RUNTIME_DIR", RUNTIME_DIR).env("HOME", "/home/user");
        command
    };
    let out = bundle.path().join("out");
    let mut create = as_user(&["--systemd-cgroup", "create", &bundle.id]);
    create.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(bundle.path().join("err")).unwrap());
    let code = create.status().unwrap().code();
    assert_eq!(code, Some(0), "{}", fs::read_to_string(bundle.path().join("err")).unwrap());
    let group = ran(Command::new("find")
        .args(["/sys/fs/cgroup/user.slice", "-name", "libpod-rootless.scope"])
        .output()
        .unwrap())
    .out;
    let group = PathBuf::from(group.trim());
    assert!(
        group.starts_with("/sys/fs/cgroup/user.slice/user-1000.slice/user.service/user.slice"),
        "{}",
        group.display()
    );
    assert_eq!(value(&group, "cgroup.procs"), bundle.state()["pid"].to_string());
    let run = |args: &[&str]| {
        let ran = ran(as_user(args).output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        ran.out
    };
    run(&["start", &bundle.id]);
    eventually("it speaks", || fs::read_to_string(&out).unwrap() == "48\n50331648\n");
    run(&["update", "--pids-limit", "49", "--memory", "60000000", &bundle.id]);
    assert_eq!((value(&group, "pids.max"), value(&group, "memory.max")), ("49".to_owned(), "59998208".to_owned()));
    run(&["pause", &bundle.id]);
    assert!(value(&group, "cgroup.events").contains("frozen 1"));
    run(&["resume", &bundle.id]);
    run(&["delete", "--force", &bundle.id]);
    assert!(!group.exists());
}
