//! What a container must not get at through the kernel's own file systems: /proc, /sys/fs/cgroup, /dev.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Child;
use support::Bundle;

fn without_mounts(spec: &mut Value, gone: &[&str]) {
    spec["mounts"].as_array_mut().unwrap().retain(|mount| {
        let place = mount["destination"].as_str().unwrap();
        !gone.iter().any(|gone| place == *gone || place.starts_with(&format!("{gone}/")))
    });
}

fn up(bundle: &Bundle) -> Child {
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    child
}

fn end(bundle: &Bundle, mut child: Child) {
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
}

/// CVE-2019-16884, CVE-2025-52881: a /proc of the image's making swallows what the runtime writes, or leads it elsewhere.
///
/// Seen to succeed with the writes going to "/proc/…" by path: the fake files were written, the real value stayed.
#[test]
fn a_faked_proc_gets_nothing_written() {
    let fake = tempfile::tempdir().unwrap();
    let victim = fake.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    for folder in ["self", "thread-self", "sys/kernel", "1"] {
        fs::create_dir_all(fake.path().join(folder)).unwrap();
    }
    for file in ["self/oom_score_adj", "sys/kernel/msgmax"] {
        symlink("/proc/victim", fake.path().join(file)).unwrap();
    }
    let mut bundle = Bundle::sh("echo up; sleep 60");
    bundle.json(|spec| {
        without_mounts(spec, &["/proc"]);
        spec["process"]["oomScoreAdj"] = 567.into();
        spec["linux"]["sysctl"] = json!({"kernel.msgmax": "12345"});
    });
    bundle.mount("/proc", "bind", fake.path().to_str().unwrap(), &["rbind", "rw"]);
    let child = up(&bundle);
    let pid = bundle.state()["pid"].to_string();
    let real = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(real(&pid), "567\n");
    // exec into it, too.
    let exec = bundle.exec(&["--pid-file", "exec.pid", "-d", "sh", "-c", "exec > /dev/null 2>&1; exec sleep 60"]);
    assert_eq!(exec.code, 0, "{}", exec.err);
    assert_eq!(real(&fs::read_to_string(bundle.path().join("exec.pid")).unwrap()), "567\n");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    end(&bundle, child);
}

/// CVE-2023-27561, CVE-2023-28642: a volume mounted over a part of /proc takes its protection away.
///
/// Seen to succeed without `outside_proc`: the container's own files stood in /proc/self/attr, and at the masked path.
#[test]
fn nothing_is_mounted_into_proc() {
    let source = tempfile::tempdir().unwrap();
    for target in ["/proc/self/attr", "/proc/sys", "/proc/sys/kernel", "/linked", "/linked/attr", "/proc"] {
        for (kind, from) in [("bind", source.path().to_str().unwrap()), ("tmpfs", "tmpfs")] {
            let mut bundle = Bundle::sh("true");
            symlink("/proc/1", bundle.rootfs().join("linked")).unwrap();
            bundle.mount(target, kind, from, &[]);
            let ran = bundle.run();
            assert!(ran.code == 1 && ran.err.contains("inside /proc"), "{kind} {target}: {} {}", ran.code, ran.err);
        }
    }
    // What lxcfs puts there is allowed.
    fs::write(source.path().join("meminfo"), "own\n").unwrap();
    let mut bundle = Bundle::sh("cat /proc/meminfo");
    bundle.mount("/proc/meminfo", "bind", source.path().join("meminfo").to_str().unwrap(), &["bind", "ro"]);
    assert_eq!(bundle.run().out, "own\n");
}

/// CVE-2022-0811: one setting smuggled into another.
///
/// Seen to succeed without the check of a name's parts: "net/../kernel/core_pattern" changed the host's.
#[test]
fn a_setting_carries_no_other() {
    let pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = pattern();
    for (name, value) in [
        ("kernel.msgmax", "1\nkernel.core_pattern=|/evil"),
        ("kernel.msgmax", "1+kernel.core_pattern=|/evil"),
        ("kernel.msgmax+kernel.core_pattern", "|/evil"),
        ("kernel.msgmax=1 kernel.core_pattern", "|/evil"),
        ("kernel/shm_rmid_forced/../core_pattern", "|/evil"),
        ("net.ipv4.../.../kernel/core_pattern", "|/evil"),
        ("net/../kernel/core_pattern", "|/evil"),
        ("kernel.core_pattern", "|/evil"),
        ("/proc/sys/kernel/core_pattern", "|/evil"),
    ] {
        let mut bundle = Bundle::sh("true");
        bundle.json(|spec| spec["linux"]["sysctl"] = json!({ name: value }));
        let ran = bundle.run();
        assert_eq!(ran.code, 1, "{name}={value}: {}", ran.err);
        assert_eq!(pattern(), before, "{name}={value}");
    }
}

/// CVE-2023-25809: with the host's cgroup namespace, a writable /sys/fs/cgroup is the host's.
///
/// Seen to succeed without the rule in `attach_cgroups`: they were mounted writable.
#[test]
fn control_groups_are_read_only_without_a_namespace_of_their_own() {
    let mut bundle = Bundle::sh(
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/made 2>&1; done; grep cgroup /proc/self/mounts",
    );
    bundle.json(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.push(json!({"type": "user"}));
        spec["linux"]["sysctl"] = json!({});
        for kind in ["uidMappings", "gidMappings"] {
            spec["linux"][kind] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        }
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["rw", "nosuid", "nodev", "noexec"]);
            }
        }
    });
    let ran = bundle.run();
    let mounts: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("cgroup")).collect();
    assert!(!mounts.is_empty() && mounts.iter().all(|line| line.contains(" ro,")), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("Read-only file system") && bundle.cgroups_left().is_empty(), "{}", ran.out);
}

/// CVE-2026-41579, CVE-2026-47766: without a mount at /dev its nodes are made in the image's own, wherever that leads to.
///
/// Seen to succeed with `mknod` by path in the bundle's rootfs: the host's folder had the six devices.
#[test]
fn no_device_is_made_on_the_host() {
    let host = tempfile::tempdir().unwrap();
    for target in [host.path().display().to_string(), format!("../../../../../../..{}", host.path().display())] {
        let mut bundle = Bundle::sh("ls /dev/null");
        bundle.json(|spec| without_mounts(spec, &["/dev"]));
        symlink(&target, bundle.rootfs().join("dev")).unwrap();
        let _either_way = bundle.run();
        assert!(fs::read_dir(host.path()).unwrap().next().is_none(), "{target}");
    }
    // A file in place of the device is not taken for it.
    let mut bundle = Bundle::sh("true");
    bundle.json(|spec| without_mounts(spec, &["/dev"]));
    fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    symlink(host.path().join("null"), bundle.rootfs().join("dev/null")).unwrap();
    let ran = bundle.run();
    assert!(ran.code == 1 && ran.err.contains("in the way"), "{}", ran.err);
}

/// CVE-2025-52565, CVE-2025-62161: the console's device replaced by something of the image's. races.rs has what a
/// process beside it can do.
///
/// Seen to succeed with /dev/console made by its name: the file appeared in the host's folder.
#[test]
fn a_console_is_the_terminal_or_there_is_none() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("secret"), "secret").unwrap();
    let terminal = |make: &dyn Fn(&std::path::Path)| {
        let mut bundle = Bundle::sh("ls -l /dev/console; readlink /dev/console");
        bundle.json(|spec| {
            without_mounts(spec, &["/dev"]);
            spec["process"]["terminal"] = true.into();
        });
        fs::create_dir(bundle.rootfs().join("dev")).unwrap();
        make(&bundle.rootfs().join("dev"));
        bundle
    };
    // No devpts where it should be: a folder, a link out, a file for the multiplexer.
    for make in [
        (&|dev: &std::path::Path| fs::create_dir(dev.join("pts")).unwrap()) as &dyn Fn(&std::path::Path),
        &|dev| symlink(host.path(), dev.join("pts")).unwrap(),
        &|dev| {
            fs::create_dir(dev.join("pts")).unwrap();
            fs::write(dev.join("pts/ptmx"), "").unwrap();
        },
    ] {
        let ran = terminal(make).run();
        assert_ne!(ran.code, 0, "{}", ran.out);
    }
    // The console's name leads out: the file is made, and mounted on, in the root.
    let mut bundle = terminal(&|dev| symlink(host.path().join("made"), dev.join("console")).unwrap());
    bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=620"]);
    let _either_way = bundle.run();
    let names: Vec<_> = fs::read_dir(host.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["secret"]);
}

/// The terminal of whoever starts a container without giving it one: through /dev/tty it could be read, and (TIOCSTI) typed at.
///
/// Seen to succeed without a session of the program's own: it opened the terminal.
#[test]
fn the_caller_s_terminal_is_out_of_reach() {
    let pts = fs::File::open("/dev/pts").unwrap();
    let terminal = linux::pty::open(std::os::fd::AsFd::as_fd(&pts)).unwrap();
    let within = |bundle: &Bundle, args: &[&str]| {
        let inner = bundle.command(args);
        let mut command = std::process::Command::new("setsid");
        command.args(["--wait", "--ctty"]).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(bundle.path()).stdin(terminal.slave.try_clone().unwrap());
        support::ran(command.output().unwrap())
    };
    let script = "if (: < /dev/tty) 2> /dev/null; then echo taken; else echo none; fi";
    let bundle = Bundle::sh(script);
    let ran = within(&bundle, &["run", &bundle.id]);
    assert_eq!(ran.out, "none\n", "{}", ran.err);
    let bundle = Bundle::sh("echo up; sleep 60");
    let child = up(&bundle);
    let ran = within(&bundle, &["exec", &bundle.id, "sh", "-c", script]);
    assert_eq!(ran.out, "none\n", "{}", ran.err);
    end(&bundle, child);
}

/// A container that may mount puts its own things at /proc and /dev/pts; who enters it believes none of them.
///
/// Seen to succeed with the write going to "/proc/…" by path: it went into the container's own file.
#[test]
fn exec_believes_no_mount_of_the_container() {
    let script = "mount -t tmpfs t /proc; mkdir /proc/self /proc/1; ln -s /bin /proc/self/fd; ln -s /bin /proc/1/ns; \
        mount -t tmpfs t /dev/pts; : > /dev/pts/ptmx; echo up; sleep 60";
    let mut bundle = Bundle::sh(script);
    bundle.json(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
        }
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
        spec["process"]["oomScoreAdj"] = 432.into();
    });
    let child = up(&bundle);
    let ran = bundle.exec(&["sh", "-c", "id -u; ls /proc"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "0\n1\nself\n"), "{}", ran.err);
    assert_eq!(
        bundle.exec(&["--pid-file", "exec.pid", "-d", "sh", "-c", "exec > /dev/null 2>&1; exec sleep 60"]).code,
        0
    );
    let pid = fs::read_to_string(bundle.path().join("exec.pid")).unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "432\n");
    let tty = bundle.exec(&["-t", "tty"]);
    assert!(tty.code != 0 && tty.err.contains("not devpts"), "{}{}", tty.out, tty.err);
    end(&bundle, child);
}

/// Gives a program every capability of a container, for those who have it in their inheritable set.
fn grant(program: &Path) {
    let (revision, effective, default) = (0x0200_0000u32, 1u32, 0xa804_25fbu32);
    let words = [revision | effective, 0, default, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(program, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// CVE-2022-29162, CVE-2022-27650: inheritable capabilities come back through a file's, to whoever may execute it.
///
/// Seen to succeed with the inheritable set made as the others are: an ordinary user got them all through the file.
#[test]
fn the_inheritable_set_is_empty() {
    let bundle = Bundle::sh("echo up; sleep 60");
    let granting = bundle.rootfs().join("bin/busybox-granting");
    fs::copy("/bin/busybox", &granting).unwrap();
    grant(&granting);
    let child = up(&bundle);
    let pid = bundle.state()["pid"].to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb"), "{status}");
    let gained = ["busybox-granting", "grep", "CapEff", "/proc/self/status"];
    for options in [&["--user", "1000"][..], &["--user", "1000", "--cap", "CAP_NET_RAW"]] {
        let ran = bundle.runtime(&[&["exec"], options, &[bundle.id.as_str()], &gained].concat());
        assert_eq!(ran.out, "CapEff:\t0000000000000000\n", "{options:?} {}", ran.err);
    }
    for options in [&[][..], &["--cap", "CAP_SYS_ADMIN"], &["--user", "1000"], &["--no-new-privs"]] {
        let args = [options, &[bundle.id.as_str(), "grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"]].concat();
        let ran = bundle.runtime(&[&["exec"], args.as_slice()].concat());
        assert_eq!(ran.out, "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n", "{options:?} {}", ran.err);
    }
    end(&bundle, child);
}

/// CVE-2025-31133: what masks are made of is the host's null device, whatever the container calls so.
///
/// Seen to succeed with the root's own /dev/null, unverified, for a cover: the masked file read as what the link led to.
#[test]
fn a_false_null_device_unmasks_nothing() {
    let volume = tempfile::tempdir().unwrap();
    symlink("/kept", volume.path().join("null")).unwrap();
    let mut bundle = Bundle::sh("cat /proc/keys /proc/timer_list; echo ended");
    fs::write(bundle.rootfs().join("kept"), "secret\n").unwrap();
    bundle.json(|spec| without_mounts(spec, &["/dev"])).mount(
        "/dev",
        "bind",
        volume.path().to_str().unwrap(),
        &["rbind", "rw"],
    );
    let ran = bundle.run();
    assert_eq!(ran.out, "ended\n", "{}", ran.err);
}

/// Seen to succeed without masks.
#[test]
fn a_mask_is_the_null_device() {
    let mut bundle = Bundle::sh("echo up; sleep 60");
    bundle.json(|spec| without_mounts(spec, &["/dev"]));
    fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    fs::write(bundle.rootfs().join("kept"), "secret").unwrap();
    bundle.json(|spec| spec["linux"]["maskedPaths"].as_array_mut().unwrap().push("/kept".into()));
    let child = up(&bundle);
    let root = format!("/proc/{}/root", bundle.state()["pid"]);
    for masked in ["kept", "proc/keys", "proc/timer_list"] {
        let file = fs::metadata(format!("{root}/{masked}")).unwrap();
        assert!(file.file_type().is_char_device(), "{masked}");
        assert_eq!(std::os::unix::fs::MetadataExt::rdev(&file), 0x103, "{masked}");
    }
    end(&bundle, child);
}
