//! What a container is: namespaces, mounts, devices, settings, hooks and the filter's agent, seen from inside by the prober.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{Bundle, eventually, ran};

const KINDS: &[(&str, &str)] = &[
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("uts", "uts"),
];

fn own_namespace(file: &str) -> Value {
    fs::read_link(format!("/proc/self/ns/{file}")).unwrap().to_str().unwrap().into()
}

#[test]
fn namespaces_are_made_joined_or_shared_as_asked() {
    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        spec["linux"]["namespaces"] = KINDS.iter().map(|(kind, _)| json!({"type": kind})).collect();
    });
    let found = bundle.probe();
    for (kind, file) in KINDS {
        assert_ne!(found["namespaces"][file], own_namespace(file), "{kind} is new");
    }
    assert_eq!(found["namespaces"]["user"], own_namespace("user"));

    let mut bundle = Bundle::prober(&[]);
    bundle.json(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "mount"}]);
        for field in ["sysctl", "seccomp"] {
            spec["linux"].as_object_mut().unwrap().remove(field);
        }
        // Without a network namespace of its own nobody may mount a sysfs.
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    });
    let found = bundle.probe();
    for (kind, file) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        assert_eq!(found["namespaces"][file], own_namespace(file), "{kind} is shared");
    }
}

/// A process with namespaces of its own, to be joined.
struct Other(Child);

impl Other {
    fn new() -> Other {
        let args = ["--mount", "--uts", "--ipc", "--net", "--cgroup", "--time", "--pid", "--fork", "--kill-child"];
        let mut command = Command::new("unshare");
        command.args(args).args(["sh", "-c", "hostname other; echo up; read end"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        Other(child)
    }

    /// The shell; unshare itself is in the old pid namespace.
    fn pid(&self) -> String {
        let list = format!("/proc/{0}/task/{0}/children", self.0.id());
        fs::read_to_string(list).unwrap().trim().to_owned()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

#[test]
fn every_kind_of_namespace_can_be_joined() {
    let (mut bundle, other) = (Bundle::prober(&[]), Other::new());
    let file = |file: &str| format!("/proc/{}/ns/{file}", other.pid());
    bundle.json(|spec| {
        spec["linux"]["namespaces"] =
            KINDS.iter().map(|(kind, name)| json!({"type": kind, "path": file(name)})).collect();
        spec["linux"].as_object_mut().unwrap().remove("sysctl");
    });
    let found = bundle.probe();
    for (kind, name) in KINDS {
        let theirs = fs::read_link(file(name)).unwrap();
        assert_eq!(found["namespaces"][name], theirs.to_str().unwrap(), "{kind}");
    }
    assert_eq!(found["hostname"], "other");

    bundle.json(|spec| spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]));
    let ran = bundle.run();
    assert!(ran.code == 1 && ran.err.contains("given twice"), "{}", ran.err);
    bundle.json(|spec| spec["linux"]["namespaces"] = json!([{"type": "pid"}]));
    assert!(bundle.run().err.contains("mount namespace"));
}

#[test]
fn a_user_namespace_maps_ids_and_can_be_joined() {
    let mut bundle = Bundle::prober(&["/etc/passwd"]);
    let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    for path in [bundle.path().to_path_buf(), bundle.rootfs()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    bundle.json(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
        spec["linux"]["uidMappings"] = mappings.clone();
        spec["linux"]["gidMappings"] = mappings.clone();
        // Half of the groups that docker's default names are not there.
        spec["linux"].as_object_mut().unwrap().remove("sysctl");
        spec["process"]["args"] = json!(["sh", "-c", "/prober /etc/passwd; sleep 60"]);
    });
    // The container's root makes the targets of its mounts.
    let chown = Command::new("chown").args(["-R", "100000:100000"]).arg(bundle.rootfs()).status().unwrap();
    assert!(chown.success());
    let mut child = bundle.spawn();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    let mut why = String::new();
    if line.is_empty() {
        child.stderr.as_mut().unwrap().read_to_string(&mut why).unwrap();
    }
    let found: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {why}"));
    assert_ne!(found["namespaces"]["user"], own_namespace("user"));
    assert_eq!((&found["uids"], &found["paths"]["/etc/passwd"]["uid"]), (&json!([0, 0, 0]), &json!(0)));
    assert!(found["clocks"]["boottime"].as_i64().unwrap() >= 1_000_000);
    let added = bundle.probe_exec(&[]);
    assert_eq!(added["namespaces"], found["namespaces"]);
    let pid = bundle.state()["pid"].to_string();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 100_000);
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
}

#[test]
fn clocks_are_offset() {
    let mut bundle = Bundle::prober(&[]);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    bundle.json(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 3600, "nanosecs": 5}, "boottime": {"secs": 86400}});
    });
    let found = bundle.probe();
    let boottime = found["clocks"]["boottime"].as_i64().unwrap();
    assert!((now + 86_400..now + 86_500).contains(&boottime), "{boottime}");
    let monotonic = found["clocks"]["monotonic"].as_i64().unwrap();
    assert!((now + 3_500..now + 3_700).contains(&monotonic), "{monotonic}");
    bundle.json(|spec| spec["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}}));
    assert!(bundle.run().err.contains("linux.timeOffsets: realtime"));
    bundle.json(|spec| {
        spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}});
        spec["linux"]["namespaces"].as_array_mut().unwrap().pop();
    });
    assert!(bundle.run().err.contains("needs a new time namespace"));
}

#[test]
fn names_and_settings() {
    let mut bundle =
        Bundle::prober(&["/proc/sys/kernel/shmmax", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/mqueue/msg_max"]);
    bundle.json(|spec| {
        spec["hostname"] = "host".into();
        spec["domainname"] = "example.net".into();
        spec["linux"]["sysctl"] =
            json!({"kernel.shmmax": "123456", "net/ipv4/ip_forward": "1", "fs.mqueue.msg_max": "77"});
    });
    let found = bundle.probe();
    assert_eq!((&found["hostname"], &found["domainname"]), (&json!("host"), &json!("example.net")));
    for (path, value) in [
        ("/proc/sys/kernel/shmmax", "123456"),
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        ("/proc/sys/fs/mqueue/msg_max", "77"),
    ] {
        assert_eq!(found["paths"][path]["content"], value);
    }
}

#[test]
fn the_usual_devices_and_links_and_those_of_the_spec() {
    let mut bundle = Bundle::prober(&["/dev/extra/fifo", "/dev/mine"]);
    bundle.json(|spec| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"path": "/dev/disk", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600},
            {"path": "/dev/extra/fifo", "type": "p", "fileMode": 0o622},
        ]);
    });
    let found = bundle.probe();
    for (name, what) in [
        ("null", "c 1:3 666"),
        ("zero", "c 1:5 666"),
        ("full", "c 1:7 666"),
        ("random", "c 1:8 666"),
        ("urandom", "c 1:9 666"),
        ("tty", "c 5:0 666"),
        ("fd", "-> /proc/self/fd"),
        ("stdin", "-> /proc/self/fd/0"),
        ("stdout", "-> /proc/self/fd/1"),
        ("stderr", "-> /proc/self/fd/2"),
        ("ptmx", "-> pts/ptmx"),
        ("mine", "c 1:3 640"),
        ("disk", "b 7:200 600"),
        ("shm", "directory"),
        ("mqueue", "directory"),
        ("pts", "directory"),
    ] {
        assert_eq!(found["devices"][name], what, "{name}");
    }
    let core = std::path::Path::new("/proc/kcore").exists().then(|| json!("-> /proc/kcore"));
    assert_eq!(found["devices"].get("core"), core.as_ref());
    assert_eq!((&found["paths"]["/dev/mine"]["uid"], &found["paths"]["/dev/mine"]["gid"]), (&json!(7), &json!(8)));
    assert_eq!(found["paths"]["/dev/extra/fifo"]["mode"], 0o622);
}

fn mount<'a>(found: &'a Value, target: &str) -> &'a Value {
    let all = found["mounts"].as_array().unwrap();
    all.iter().rev().find(|mount| mount["target"] == target).unwrap_or(&Value::Null)
}

fn has(mount: &Value, option: &str) -> bool {
    mount["options"].as_array().unwrap().iter().any(|have| have == option)
}

#[test]
fn mounts_have_their_options_and_recursion() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().to_str().unwrap();
    fs::create_dir(source.path().join("below")).unwrap();
    let mut bundle = Bundle::prober(&[]);
    for (target, options) in [
        ("/plain", &["bind"][..]),
        ("/ro", &["bind", "ro", "nosuid"]),
        ("/rec", &["rbind", "rro", "rnoexec", "rnodev"]),
        ("/top", &["rbind", "ro"]),
        ("/atime", &["bind", "noatime", "nosymfollow"]),
        ("/slave", &["rbind", "rslave"]),
        ("/shared", &["bind", "shared"]),
    ] {
        bundle.mount(target, "bind", path, options);
    }
    bundle.mount("/tmpfs", "tmpfs", "tmpfs", &["noexec", "size=64k", "mode=711", "strictatime"]);
    bundle.json(|spec| spec["root"]["readonly"] = true.into());
    // A mount below the source, in a namespace of this test's own.
    let own = bundle.command(&["run", &bundle.id]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs below \"$0/below\" && exec \"$@\"", path]);
    command.arg(own.get_program()).args(own.get_args()).current_dir(bundle.path());
    let ran = ran(command.output().unwrap());
    let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));

    assert!(has(mount(&found, "/"), "ro"));
    assert!(has(mount(&found, "/plain"), "rw") && !found.to_string().contains("/plain/below"));
    let ro = mount(&found, "/ro");
    assert!(has(ro, "ro") && has(ro, "nosuid"));
    for target in ["/rec", "/rec/below"] {
        let mount = mount(&found, target);
        assert!(["ro", "noexec", "nodev"].iter().all(|option| has(mount, option)), "{mount}");
    }
    assert!(has(mount(&found, "/top"), "ro") && has(mount(&found, "/top/below"), "rw"));
    assert!(has(mount(&found, "/atime"), "noatime") && has(mount(&found, "/atime"), "nosymfollow"));
    let propagation = |target| mount(&found, target)["propagation"].to_string();
    assert!(propagation("/shared").contains("shared:"), "{}", propagation("/shared"));
    assert_eq!(propagation("/plain"), "[]", "private");
    let tmpfs = mount(&found, "/tmpfs");
    assert!(has(tmpfs, "noexec") && tmpfs["super"].to_string().contains("size=64k"), "{tmpfs}");
    assert!(tmpfs["super"].to_string().contains("mode=711"), "{tmpfs}");
    for (target, kind) in
        [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/mqueue", "mqueue")]
    {
        assert_eq!(mount(&found, target)["type"], kind);
    }
}

#[test]
fn a_tmpfs_begins_with_what_was_below() {
    let mut bundle = Bundle::prober(&["/etc", "/etc/passwd", "/etc/deep/er/file", "/etc/link", "/etc/deep"]);
    let etc = bundle.rootfs().join("etc");
    fs::create_dir_all(etc.join("deep/er")).unwrap();
    fs::write(etc.join("deep/er/file"), "content").unwrap();
    std::os::unix::fs::chown(etc.join("deep/er/file"), Some(11), Some(12)).unwrap();
    fs::set_permissions(etc.join("deep/er/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(etc.join("deep"), fs::Permissions::from_mode(0o750)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(etc.join("deep/er/file")).unwrap().set_modified(old).unwrap();
    symlink("/deep/../passwd", etc.join("link")).unwrap();
    bundle.mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
    let found = bundle.probe();
    assert_eq!(mount(&found, "/etc")["type"], "tmpfs");
    assert!(has(mount(&found, "/etc"), "ro"));
    let paths = &found["paths"];
    assert_eq!(paths["/etc"]["content"], json!(["deep", "group", "link", "passwd"]));
    assert_eq!(paths["/etc/deep"]["mode"], 0o750);
    let file = &paths["/etc/deep/er/file"];
    assert_eq!((&file["content"], &file["uid"], &file["gid"]), (&json!("content"), &json!(11), &json!(12)));
    assert_eq!((&file["mode"], &file["modified"]), (&json!(0o4751), &json!(1_000_000)));
    assert!(paths["/etc/passwd"]["content"].as_str().unwrap().contains("root:x:0"));

    bundle.mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup", "size=4k"]);
    fs::write(etc.join("large"), vec![b'x'; 100_000]).unwrap();
    let ran = bundle.run();
    assert!(ran.code == 1 && ran.err.contains("tmpcopyup") && ran.err.contains("No space left"), "{}", ran.err);
}

#[test]
fn an_idmapped_mount_shows_other_owners() {
    // A tmpfs can be mapped since 6.3, what /tmp is on may be anything.
    let source = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = source.path().to_str().unwrap();
    fs::write(source.path().join("file"), "x").unwrap();
    std::os::unix::fs::chown(source.path().join("file"), Some(1), Some(2)).unwrap();
    let mut bundle = Bundle::prober(&["/mapped/file", "/plain/file"]);
    bundle.mount("/plain", "bind", path, &["bind"]);
    let mappings = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1000}]);
    bundle.json(|spec| {
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/mapped", "type": "bind", "source": path, "options": ["rbind", "ridmap", "ro"],
            "uidMappings": mappings(5000), "gidMappings": mappings(6000),
        }));
    });
    let ran = bundle.run();
    if ran.err.contains("may not support it") {
        eprintln!("SKIPPED an_idmapped_mount_shows_other_owners: this kernel maps no tmpfs");
    } else {
        let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
        let owner = |path: &str| (found["paths"][path]["uid"].clone(), found["paths"][path]["gid"].clone());
        assert_eq!(owner("/mapped/file"), (json!(5001), json!(6002)));
        assert_eq!(owner("/plain/file"), (json!(1), json!(2)));
        assert!(has(mount(&found, "/mapped"), "ro"));
    }

    for (edit, why) in [
        (json!({"gidMappings": null}), "go together"),
        (json!({"uidMappings": null, "gidMappings": null}), "no mappings"),
        (json!({"type": "tmpfs", "options": ["idmap"]}), "only a bind mount"),
    ] {
        bundle.json(|spec| {
            let mount = spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            for (name, value) in edit.as_object().unwrap() {
                mount[name] = value.clone();
            }
        });
        let ran = bundle.run();
        assert!(ran.code == 1 && ran.err.contains(why), "{why}: {}", ran.err);
    }
}

#[test]
fn paths_are_masked_and_read_only() {
    let mut bundle = Bundle::prober(&["/etc/passwd", "/tmp", "/secrets", "/proc/sys"]);
    fs::create_dir(bundle.rootfs().join("secrets")).unwrap();
    fs::write(bundle.rootfs().join("secrets/key"), "secret").unwrap();
    bundle.json(|spec| {
        spec["linux"]["maskedPaths"] = json!(["/etc/passwd", "/secrets", "/not/there"]);
        spec["linux"]["readonlyPaths"] = json!(["/tmp", "/proc/sys", "/not/there"]);
    });
    let paths = bundle.probe()["paths"].clone();
    assert_eq!(paths["/secrets"]["content"], json!([]));
    assert_eq!(paths["/etc/passwd"]["content"], Value::Null, "a device");
    for path in ["/tmp", "/proc/sys", "/secrets"] {
        assert_eq!(paths[path]["writable"], false, "{path}");
    }
}

#[test]
fn a_chroot_of_the_runtime_s_own_is_left_behind() {
    let bundle = Bundle::prober(&["/", "/.."]);
    // A folder that is no mount point, with what a runtime needs in it.
    let cave = tempfile::tempdir().unwrap();
    let _config = bundle.command(&["list"]);
    fs::copy(env!("CARGO_BIN_EXE_ctr-runtime"), cave.path().join("ctr-runtime")).unwrap();
    let script = "set -e; cd \"$0\"; mkdir proc sys dev bundle; mount --rbind /proc proc; mount --rbind /sys sys; mount --rbind /dev dev
        mount --bind \"$1\" bundle; exec chroot . /ctr-runtime --root /state run --bundle /bundle \"$2\" </dev/null";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(cave.path()).arg(bundle.path()).arg(&bundle.id);
    let ran = ran(command.output().unwrap());
    let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    for path in ["/", "/.."] {
        let names = found["paths"][path]["content"].to_string();
        assert!(names.contains("prober") && !names.contains("home"), "{path}: {names}");
    }
    let targets: Vec<&str> =
        found["mounts"].as_array().unwrap().iter().map(|m| m["target"].as_str().unwrap()).collect();
    assert!(!targets.iter().any(|target| target.contains(cave.path().to_str().unwrap())), "{targets:?}");
    assert!(targets.len() < 40, "nothing of the host's is left: {targets:?}");
}

#[test]
fn without_pivot_the_root_is_entered_all_the_same() {
    let bundle = Bundle::prober(&["/", "/..", "/../../.."]);
    let ran = bundle.runtime(&["run", "--no-pivot", &bundle.id]);
    let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    for path in ["/", "/..", "/../../.."] {
        assert!(found["paths"][path]["content"].to_string().contains("prober"), "{path}");
    }
    // The way out of a chroot that everybody knows.
    let mut bundle = Bundle::sh(
        "mkdir -p /tmp/x; /bin/busybox chroot /tmp/x /prober 2>/dev/null; cd /proc/self/root/..; ls; ls ../../..",
    );
    bundle.json(|spec| spec["linux"]["maskedPaths"] = json!([]));
    let ran = bundle.runtime(&["run", "--no-pivot", &bundle.id]);
    assert!(!ran.out.contains("boot") && !ran.out.contains("home"), "{}", ran.out);
}

#[test]
fn hooks_see_what_their_moment_has() {
    let mut bundle = Bundle::sh("true");
    let out = bundle.path().join("hooks");
    fs::create_dir(&out).unwrap();
    let inside = bundle.rootfs().join("tmp");
    let hook = |name: &str, folder: &Path| {
        let folder = folder.to_str().unwrap();
        let script = format!(
            "cat > {folder}/{name}.json; for n in mnt net; do readlink /proc/self/ns/$n; done > {folder}/{name}.ns; test -e /prober && echo inside > {folder}/{name}.where; echo $X > {folder}/{name}.env; true"
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["X=y", "PATH=/bin:/usr/bin"], "timeout": 10}])
    };
    fs::write(bundle.rootfs().join("prober"), "").unwrap();
    bundle.json(|spec| {
        spec["annotations"] = json!({"key": "value"});
        spec["hooks"] = json!({
            "prestart": hook("prestart", &out), "createRuntime": hook("createRuntime", &out),
            "createContainer": hook("createContainer", &out), "startContainer": hook("startContainer", Path::new("/tmp")),
            "poststart": hook("poststart", &out), "poststop": hook("poststop", &out),
        });
        spec["linux"]["maskedPaths"] = json!([]);
    });
    let ran = bundle.run();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let read = |name: &str, what: &str| {
        let folder = if name == "startContainer" { &inside } else { &out };
        fs::read_to_string(folder.join(format!("{name}.{what}"))).unwrap_or_default()
    };
    for (name, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let state: Value = serde_json::from_str(&read(name, "json")).unwrap_or_else(|e| panic!("{name}: {e}"));
        // A container that ends at once may have done so by then.
        assert!(state["status"] == status || name == "poststart", "{name}: {state}");
        assert_eq!((&state["id"], &state["bundle"]), (&json!(bundle.id), &json!(bundle.path())), "{name}");
        assert_eq!((&state["ociVersion"], &state["annotations"]["key"]), (&json!("1.3.0"), &json!("value")), "{name}");
        assert_eq!(read(name, "env"), "y\n");
        let own: Vec<Value> = vec![own_namespace("mnt"), own_namespace("net")];
        let in_container = matches!(name, "createContainer" | "startContainer");
        let namespaces = read(name, "ns");
        for (line, own) in namespaces.lines().zip(own) {
            assert_eq!(own != line, in_container, "{name}: {line}");
        }
        assert_eq!(read(name, "where") == "inside\n", name == "startContainer", "{name}");
    }
    let started: Value = serde_json::from_str(&read("createRuntime", "json")).unwrap();
    assert!(started["pid"].as_i64().unwrap() > 1);

    for name in ["createContainer", "startContainer"] {
        bundle.json(|spec| spec["hooks"] = json!({name: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]}));
        let ran = bundle.run();
        assert!(ran.code == 1 && ran.err.contains("hook /bin/sh"), "{name}: {} {}", ran.code, ran.err);
        assert!(bundle.cgroups_left().is_empty());
    }
    bundle.json(|spec| {
        spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1}]});
    });
    assert!(bundle.run().err.contains("did not end within 1 s"));
    bundle.json(|spec| spec["hooks"] = json!({"poststop": [{"path": "/bin/false"}]}));
    assert_eq!(bundle.run().code, 0, "a poststop hook only warns");
    let mut bundle = Bundle::sh("sleep 60");
    bundle.json(|spec| spec["hooks"] = json!({"poststart": [{"path": "/bin/false"}]}));
    let ran = bundle.run();
    assert!(ran.code == 1 && ran.err.contains("/bin/false"), "a failing poststart hook ends it: {}", ran.err);
}

#[test]
fn an_agent_answers_for_the_filter() {
    let mut bundle = Bundle::sh("mkdir /tmp/asked; echo $?; test -d /tmp/asked; echo $?; sleep 60");
    let socket = bundle.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    bundle.json(|spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "for the agent",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
    });
    // Nobody answers: the end of the descriptor makes the call fail with ENOSYS.
    let serve = move || {
        let (connection, _) = listener.accept().unwrap();
        let mut text = vec![0; 65536];
        let (length, fds) = linux::socket::receive_fds(&connection, &mut text).unwrap();
        let state: Value = serde_json::from_slice(&text[..length]).unwrap();
        let ready = rustix::event::poll(
            &mut [rustix::event::PollFd::new(&fds[0], rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 }),
        );
        (state, fds.len(), ready.unwrap())
    };
    let agent = std::thread::spawn(move || [serve(), serve()]);
    let mut child = bundle.spawn();
    let mut lines = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut lines).unwrap();
    let added = bundle.exec(&["mkdir", "/tmp/added"]);
    assert!(added.code == 1 && added.err.contains("Function not implemented"), "{} {}", added.code, added.err);
    let init = bundle.state()["pid"].clone();
    let [first, second] = agent.join().unwrap();
    assert_eq!(&lines, b"1\n1\n");
    for (state, descriptors, ready) in [&first, &second] {
        assert_eq!((*descriptors, *ready), (1, 1), "a call was announced");
        assert_eq!((&state["metadata"], &state["fds"]), (&json!("for the agent"), &json!(["seccompFd"])));
        assert_eq!((&state["state"]["id"], &state["state"]["pid"]), (&json!(bundle.id), &init));
    }
    assert_eq!((&first.0["state"]["status"], &first.0["pid"]), (&json!("creating"), &init));
    assert_eq!(second.0["state"]["status"], "running");
    assert!(second.0["pid"].as_i64().unwrap() > 1 && second.0["pid"] != init, "{}", second.0);
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();

    for (edit, why) in [
        (json!({"listenerPath": null}), "needs a listenerPath"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "default action"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere"}), "connect to the seccomp agent"),
        (json!({"syscalls": [{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}), "sendmsg"),
    ] {
        bundle.json(|spec| {
            for (name, value) in edit.as_object().unwrap() {
                spec["linux"]["seccomp"][name] = value.clone();
            }
        });
        let ran = bundle.run();
        assert!(ran.code == 1 && ran.err.contains(why), "{why}: {}", ran.err);
    }
}

#[test]
fn rules_of_the_filter_have_their_own_errors() {
    let mut bundle = Bundle::sh("mkdir /tmp/x 2>&1; rmdir /tmp 2>&1; true");
    bundle.json(|spec| {
        let syscalls = spec["linux"]["seccomp"]["syscalls"].as_array_mut().unwrap();
        syscalls.insert(0, json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}));
        for rule in syscalls.iter_mut().skip(1) {
            rule["names"]
                .as_array_mut()
                .unwrap()
                .retain(|name| name != "mkdir" && name != "mkdirat" && name != "rmdir");
        }
    });
    let out = bundle.run().out;
    assert!(out.contains("No space left on device") && out.contains("Operation not permitted"), "{out}");
}

#[test]
fn what_can_t_be_done_is_refused() {
    for (place, value, why) in [
        ("intelRdt", json!({"closID": "a/b"}), "plain name"),
        ("intelRdt", json!({"schemata": ["L3:0=f\nMB:0=1"]}), "one line"),
        ("intelRdt", json!({"closID": "ok", "schemata": ["L3:0=f"]}), "not supported"),
        ("netDevices", json!({"no-such-link": {}}), "no such network interface"),
        ("rootfsPropagation", json!("sideways"), "not a propagation"),
        ("personality", json!({"domain": "LINUX", "flags": ["X"]}), "no flags"),
    ] {
        let mut bundle = Bundle::sh("true");
        bundle.raw = Some((format!("/linux/{place}"), value));
        let ran = bundle.run();
        assert!(ran.code == 1 && ran.err.contains(why) && ran.err.lines().count() == 1, "{place}: {}", ran.err);
        assert!(bundle.cgroups_left().is_empty());
    }
    let mut bundle = Bundle::sh("true");
    bundle.mount("/x", "tmpfs", "tmpfs", &["bogus"]);
    assert!(bundle.run().err.contains("bogus"));
    eventually("nothing is left", || bundle.cgroups_left().is_empty());
}
