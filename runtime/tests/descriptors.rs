//! Descriptors as ways out (CVE-2024-21626), and the runtime's own binary as a thing to overwrite (CVE-2019-5736).
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Bundle, eventually, ran};

/// A folder of the host with a program in it that a container must never get to run.
fn evil() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy("/bin/busybox", dir.path().join("busybox")).unwrap();
    symlink("busybox", dir.path().join("hostname")).unwrap();
    fs::write(dir.path().join("secret"), "ESCAPED\n").unwrap();
    dir
}

/// The runtime started by a careless caller: a folder of the host stays open at 7.
fn careless(bundle: &Bundle, host: &Path, args: &[&str]) -> Command {
    let runtime = bundle.command(args);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec 7< {}; exec \"$@\"", host.display()), "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.current_dir(bundle.path()).stdin(Stdio::null());
    command
}

/// Several things stand in the way: descriptors are closed where the command begins, before the container is entered and before
/// the directory is, the kernel must be able to name it, and `run` looks it up without following magic links.
///
/// Seen to succeed with all of them taken out, and not with any one left: ESCAPED from run, the host's root listed from exec.
#[test]
fn an_inherited_descriptor_is_no_working_directory() {
    let (mut bundle, host) = (Bundle::sh("cat secret; pwd"), evil());
    bundle.process(|process| {
        process.set_cwd("/proc/self/fd/7".into());
    });
    let ran_once = ran(careless(&bundle, host.path(), &["run", &bundle.id]).output().unwrap());
    assert!(ran_once.code != 0 && !ran_once.out.contains("ESCAPED"), "{}{}", ran_once.out, ran_once.err);

    let bundle = Bundle::sh("echo up; sleep 60");
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let args = ["exec", "--cwd", &cwd, &bundle.id, "sh", "-c", "cat secret; ls ../../../.."];
        let ran = ran(careless(&bundle, host.path(), &args).output().unwrap());
        assert!(ran.code != 0 && ran.out.is_empty(), "{number}: {}{}", ran.out, ran.err);
    }
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
}

/// Seen to succeed without `close_others`: the host's program ran, through the caller's descriptor.
#[test]
fn no_descriptor_leads_to_a_program_of_the_host() {
    let host = evil();
    let up = "../".repeat(12);
    let inside = |number: u32| {
        let (own, up) = (format!("/proc/self/fd/{number}/hostname"), host.path().display());
        [own, format!("/proc/self/fd/{number}/{}{up}/hostname", "../".repeat(12))]
    };
    let _ = up;
    let running = Bundle::sh("echo up; sleep 60");
    let mut child = running.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    for program in (3..24).flat_map(inside) {
        let bundle = Bundle::new(&[&program]);
        let ran_once = ran(careless(&bundle, host.path(), &["run", &bundle.id]).output().unwrap());
        assert_eq!((ran_once.code, ran_once.out.as_str()), (127, ""), "run {program}: {}", ran_once.err);
        let ran = ran(careless(&running, host.path(), &["exec", &running.id, &program]).output().unwrap());
        assert_eq!((ran.code, ran.out.as_str()), (127, ""), "exec {program}: {}", ran.err);
    }
    assert_eq!(running.runtime(&["kill", &running.id, "KILL"]).code, 0);
    child.wait().unwrap();
}

/// The runtime's file as a victim: a copy, for the attack may succeed.
struct Victim {
    dir: tempfile::TempDir,
}

impl Victim {
    fn new() -> Victim {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_ctr-runtime"), dir.path().join("ctr-runtime")).unwrap();
        Victim { dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("ctr-runtime")
    }

    fn command(&self, bundle: &Bundle, args: &[&str]) -> Command {
        let own = bundle.command(args);
        let mut command = Command::new(self.path());
        command.args(own.get_args()).current_dir(bundle.path()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn is_untouched(&self) {
        let (now, before) = (fs::read(self.path()).unwrap(), fs::read(env!("CARGO_BIN_EXE_ctr-runtime")).unwrap());
        assert!(now == before, "the runtime's binary was overwritten");
    }
}

/// The container's program is /proc/self/exe: the runtime itself, executed once more inside, where it waits for a reader of its
/// "log". An accomplice opens that process's binary, lets it end, and writes through the descriptor it has kept.
///
/// Seen to succeed (the copy began with "#!OWNED") with `seal` taken out of main.
#[test]
fn the_runtime_s_binary_can_t_be_overwritten() {
    let accomplice = "mkfifo /tmp/go; touch /tmp/up; \
        while :; do for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in /proc/self/exe*) break 2;; esac; done; done; \
        exec 5< $p/exe || touch /tmp/refused; cat /tmp/go > /tmp/said; \
        n=0; until (echo '#!OWNED' 1<> /proc/self/fd/5) 2> /tmp/why || [ $n -gt 300 ]; do n=$((n+1)); sleep 0.001; done; \
        touch /tmp/tried; sleep 60";
    // In the background: a runtime that still ran would keep its binary busy.
    let (victim, bundle) = (Victim::new(), Bundle::sh(accomplice));
    let null = || (Stdio::null(), Stdio::null());
    let (out, err) = null();
    assert!(victim.command(&bundle, &["create", &bundle.id]).stdout(out).stderr(err).status().unwrap().success());
    assert!(victim.command(&bundle, &["start", &bundle.id]).status().unwrap().success());
    let made = |name: &str| bundle.rootfs().join("tmp").join(name).exists();
    eventually("the accomplice waits", || made("up"));
    let ran = ran(victim
        .command(&bundle, &["exec", &bundle.id, "/proc/self/exe", "--log", "/tmp/go", "nosuch"])
        .output()
        .unwrap());
    assert!(ran.err.contains("no such command"), "the attack took place: {}{}", ran.out, ran.err);
    eventually("the accomplice tried", || made("tried"));
    assert!(!made("refused"));
    let why = fs::read_to_string(bundle.rootfs().join("tmp/why")).unwrap();
    assert_eq!(bundle.runtime(&["delete", "--force", &bundle.id]).code, 0);
    victim.is_untouched();
    assert!(why.contains("Read-only file system"), "{why}");
}

/// Without the privilege to mount, a binary that the user could write is run from a sealed copy in memory.
#[test]
fn an_ordinary_user_s_binary_is_copied_and_sealed() {
    let victim = Victim::new();
    let id = Some(65_534);
    std::os::unix::fs::chown(victim.path(), id, id).unwrap();
    let fifo = victim.dir.path().join("log");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::chown(&fifo, id, id).unwrap();
    let mut command = Command::new(victim.path());
    command.args(["--log", fifo.to_str().unwrap(), "exec", "nosuch", "true"]).uid(65_534).gid(65_534);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let exe = format!("/proc/{}/exe", child.id());
    eventually("it runs from memory", || {
        fs::read_link(&exe).is_ok_and(|name| name.to_str().unwrap().starts_with("/memfd:"))
    });
    let refused = fs::OpenOptions::new().write(true).open(&exe).and_then(|mut file| file.write_all(b"#!OWNED"));
    assert!(refused.is_err());
    fs::read(&fifo).unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    assert!(ran.code == 1 && ran.err.contains("does not exist"), "{}", ran.err);
    victim.is_untouched();
}

/// A container that may trace processes looks for those that enter it: neither the host's root nor what they have open may be
/// in reach through /proc, from their first moment on.
///
/// Seen to succeed with the namespaces joined after the fork (16 reads in 100 execs), and with descriptors closed after it.
#[test]
fn a_process_that_enters_shows_nothing_of_the_host() {
    let host = evil();
    let secret = host.path().join("secret");
    let watch = format!(
        "echo up; for i in 1 2; do (while :; do cat /proc/[0-9]*/root{0} /proc/[0-9]*/cwd{0} /proc/[0-9]*/fd/*{0}; done) & done; wait",
        secret.display()
    );
    let mut bundle = Bundle::new(&["sh", "-c", &format!("({watch}) 2>/dev/null")]);
    bundle.json(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_PTRACE".into());
        }
    });
    let mut child = bundle.spawn();
    let mut out = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut out, &mut [0; 3]).unwrap();
    for _ in 0..100 {
        assert_eq!(bundle.exec(&["true"]).code, 0);
    }
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
    assert_eq!(std::io::read_to_string(out).unwrap(), "");
}
