//! Images that try to lead the runtime out of the container. Each class of the known escapes has its test.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use support::{Bundle, inside};

/// A folder of the host with a known content, that must stay as it is.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        Host { dir }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    #[track_caller]
    fn is_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.dir.path().join("secret")).unwrap(), "secret");
    }
}

/// Seen to succeed with names looked up as the host sees them: the mount was made, at the host's folder.
#[test]
fn a_linked_proc_or_sys_is_refused() {
    for name in ["proc", "sys"] {
        let (bundle, host) = (Bundle::sh("true"), Host::new());
        symlink(host.path(), bundle.rootfs().join(name)).unwrap();
        let ran = bundle.run();
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(ran.err.contains("not a directory of the image"), "{}", ran.err);
        host.is_untouched();
    }
}

/// Seen to succeed with names looked up as the host sees them: the folder beside the root was made, and the host's was
/// mounted on, where the container had no /dev/null.
#[test]
fn a_linked_dev_stays_in_the_root() {
    for outside in [true, false] {
        let (bundle, host) = (Bundle::sh("ls /dev/null && cat /dev/null"), Host::new());
        let target = if outside { host.path() } else { "../outside" };
        symlink(target, bundle.rootfs().join("dev")).unwrap();
        let ran = bundle.run();
        assert_eq!(ran.out, "/dev/null\n", "{}", ran.err);
        host.is_untouched();
        assert!(!bundle.path().join("outside").exists());
    }
}

/// Seen to succeed with names looked up as the host sees them: the first mount went to the host's folder, and the file of
/// the second was made there.
#[test]
fn a_linked_mount_target_stays_in_the_root() {
    let host = Host::new();
    let mut bundle = Bundle::sh("cat /data/file; ls /");
    symlink(host.path(), bundle.rootfs().join("data")).unwrap();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "mounted\n").unwrap();
    bundle.mount("/data", "bind", source.path().to_str().unwrap(), &["rbind", "ro"]);
    let ran = bundle.run();
    host.is_untouched();
    assert!(ran.out.starts_with("mounted\n"), "{}{}", ran.out, ran.err);

    // A chain of links in the middle of the path, a file to be made.
    let mut bundle = Bundle::sh("cat /a/b/c/file");
    symlink("/x", bundle.rootfs().join("a")).unwrap();
    fs::create_dir(bundle.rootfs().join("x")).unwrap();
    symlink(format!("../../../../../../../..{}", host.path()), bundle.rootfs().join("x/b")).unwrap();
    bundle.mount("/a/b/c/file", "bind", source.path().join("file").to_str().unwrap(), &["bind"]);
    let ran = bundle.run();
    host.is_untouched();
    assert_eq!(ran.out, "mounted\n", "{}", ran.err);
}

/// Seen to succeed with names looked up as the host sees them: the folder was made on the host.
#[test]
fn a_linked_working_directory_stays_in_the_root() {
    let host = Host::new();
    let mut bundle = Bundle::sh("pwd -P; touch here");
    symlink(format!("{}/made", host.path()), bundle.rootfs().join("work")).unwrap();
    bundle.process(|process| {
        process.set_cwd("/work".into());
    });
    let ran = bundle.run();
    host.is_untouched();
    assert_eq!(ran.out, format!("{}/made\n", host.path()), "{}", ran.err);
}

/// Seen to succeed without masks, and with their targets looked up as the host sees them: the secret was read.
#[test]
fn masks_can_t_be_redirected() {
    // The image's own /dev/null is something else; masks must not be made of it, nor of a link's target.
    let mut bundle = Bundle::sh("cat /proc/keys /masked; ls -l /dev/null | cut -c1");
    fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    fs::write(bundle.rootfs().join("dev/null"), "not null").unwrap();
    fs::write(bundle.rootfs().join("secret"), "secret").unwrap();
    symlink("/secret", bundle.rootfs().join("masked")).unwrap();
    bundle.json(|spec| {
        spec["linux"]["maskedPaths"] = serde_json::json!(["/proc/keys", "/masked", "/nowhere", "/secret/x"])
    });
    assert_eq!(bundle.run().out, "c\n");
}

/// Seen to succeed with a process that stays dumpable: from the loss of its capabilities to its execve it could be looked into.
#[test]
fn the_runtime_s_binary_is_out_of_reach() {
    let bundle = Bundle::sh("echo up; sleep 60");
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    // Nothing but built-ins of the shell, so that the watcher sees each process at as many moments as it can.
    let watch = "trap 'exit 0' TERM; while :; do for p in /proc/[0-9]*; do \
        [ -e $p/exe ] && ! [ $p/exe -ef /bin/busybox ] && [ -e $p/exe ] && echo LEAK; done; done";
    let watcher =
        bundle.command(&["exec", &bundle.id, "sh", "-c", watch]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    for _ in 0..100 {
        assert_eq!(bundle.exec(&["true"]).code, 0);
    }
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    let seen = String::from_utf8(watcher.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(seen, "");
    child.wait().unwrap();
}

/// Seen to succeed with a pid 1 that stays dumpable.
#[test]
fn the_init_s_binary_is_out_of_reach_with_init_too() {
    let bundle = Bundle::sh("cat /proc/1/exe 2>&1 | head -c 4; ls -l /proc/1/exe /proc/1/fd 2>&1; echo > /proc/1/exe");
    let out = bundle.runtime(&["run", "--init", &bundle.id]);
    assert!(!out.out.contains("ELF") && out.out.contains("ermission denied"), "{}{}", out.out, out.err);
}

/// Seen to succeed (7 was a folder of the host) only with all three taken out that stand in its way: `close_others`, a working
/// directory that must have a name, and a lookup of it that follows no magic link.
#[test]
fn no_descriptor_of_the_host_leads_out() {
    let out = inside(
        "for f in /proc/self/fd/*; do ls $f/../../../etc/shadow 2>/dev/null; done; ls -l /proc/self/fd 2>/dev/null; true",
    );
    assert!(!out.contains("shadow"), "{out}");
    for n in 3..12 {
        let mut bundle = Bundle::sh("cat etc/shadow ../etc/shadow ../../etc/shadow 2>/dev/null; pwd");
        bundle.process(|process| {
            process.set_cwd(format!("/proc/self/fd/{n}").into());
        });
        let ran = bundle.run();
        assert!(ran.code != 0 && !ran.out.contains("root:"), "fd {n}: {}", ran.out);
    }
}

#[test]
fn read_only_binds_are_read_only_all_the_way_down() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("sub")).unwrap();
    let mut bundle =
        Bundle::sh("touch /data/x 2>&1; touch /data/sub/x 2>&1; touch /rec/sub/x 2>&1; mount -o remount,rw /data 2>&1");
    let path = source.path().to_str().unwrap();
    bundle.mount("/data", "bind", path, &["rbind", "ro"]).mount("/rec", "bind", path, &["rbind", "rro"]);
    let out = bundle.run().out;
    assert_eq!(out.matches("Read-only file system").count(), 3, "{out}");
    assert!(!source.path().join("x").exists() && !source.path().join("sub/x").exists());
}

/// Seen to succeed without `check_ids`: setresuid takes 4294967295 as "unchanged", and the program ran as uid 0.
#[test]
fn no_number_of_a_user_means_root() {
    let id = |user: serde_json::Value| {
        let mut bundle = Bundle::sh("id -u; id -g");
        bundle.json(|spec| spec["process"]["user"] = user);
        bundle.run()
    };
    for (uid, gid, groups) in [(u32::MAX, 0, 0), (1, u32::MAX, 0), (1, 1, u32::MAX)] {
        let ran = id(serde_json::json!({"uid": uid, "gid": gid, "additionalGids": [groups]}));
        assert!(ran.code == 1 && ran.out.is_empty() && ran.err.contains("is no id"), "{}{}", ran.out, ran.err);
    }
    assert_eq!(id(serde_json::json!({"uid": 1, "gid": 2})).out, "1\n2\n");
    assert_eq!(id(serde_json::json!({"uid": 4_294_967_294u32, "gid": 2})).out, "4294967294\n2\n");

    let bundle = Bundle::sh("echo up; sleep 60");
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    assert_eq!(bundle.exec(&["-u", "1", "id", "-u"]).out, "1\n");
    assert_eq!(bundle.exec(&["-u", "1:1", "id", "-u"]).out, "1\n");
    for user in
        ["4294967296", "4294967295", "2147483648", "18446744073709551616", "-1", "+1", "0x1", "1 ", "1:4294967296"]
    {
        let ran = bundle.exec(&["--user", user, "id", "-u"]);
        assert!(ran.code != 0 && ran.out.is_empty(), "{user}: {}{}", ran.out, ran.err);
    }
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
}
