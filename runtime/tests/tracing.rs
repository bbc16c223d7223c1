//! Containers with CAP_SYS_PTRACE: to them a process among them is open from its first moment on, whatever the dumpable flag
//! says. So none of ours may have more than they have.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::io::Read;
use support::Bundle;

/// The fourteen and CAP_SYS_PTRACE.
const OWN: &str = "00000000a80c25fb";

fn tracing(script: &str) -> Bundle {
    let mut bundle = Bundle::sh(script);
    bundle.json(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_PTRACE".into());
        }
    });
    bundle
}

/// Who can open a process's memory for writing can have it do whatever it may do. It is opened before its capabilities are
/// read, and these only ever become less.
///
/// Seen to succeed with the process born before it has dropped its own: each exec was caught, with all the capabilities there are.
#[test]
fn a_process_that_enters_has_nothing_to_be_taken() {
    let watch = format!(
        "echo up; for i in 1 2; do (while :; do for p in /proc/[0-9]*; do {{ \
         while read -r name value; do case $name in \
         CapPrm:) [ $value = {OWN} ] || [ $value = 0000000000000000 ] || echo $p could do $value;; \
         Seccomp:) [ $value = 2 ] || echo $p was free to call;; \
         esac; done; }} < $p/status 5<> $p/mem; done; done) & done; wait"
    );
    let bundle = tracing(&format!("({watch}) 2>/dev/null"));
    let mut child = bundle.spawn();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 3]).unwrap();
    for user in [&[][..], &["--user", "1000"]] {
        for _ in 0..30 {
            assert_eq!(bundle.runtime(&[&["exec"], user, &[bundle.id.as_str(), "true"]].concat()).code, 0);
        }
    }
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
    assert_eq!(std::io::read_to_string(out).unwrap(), "");
}

/// Seen to succeed with a pid 1 that keeps what it had: it could do everything, and was free to call anything.
#[test]
fn the_init_has_nothing_to_be_taken() {
    let script = "{ grep -E '^(CapPrm|Seccomp):'; } < /proc/1/status 5<> /proc/1/mem";
    let bundle = tracing(script);
    let ran = bundle.runtime(&["run", "--init", &bundle.id]);
    assert_eq!(ran.out, format!("CapPrm:\t{OWN}\nSeccomp:\t2\n"), "{}", ran.err);
}

#[test]
fn it_is_entered_as_any_other() {
    let bundle = tracing("echo up; sleep 60");
    let mut child = bundle.spawn();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    assert_eq!(bundle.exec(&["sh", "-c", "echo here; exit 3"]).code, 3);
    assert_eq!(bundle.exec(&["sh", "-c", "kill -9 $$"]).code, 137);
    let ran = bundle.exec(&["nosuch"]);
    assert!(ran.code == 127 && ran.err.contains("executable file not found"), "{}", ran.err);
    std::fs::write(bundle.rootfs().join("bin/none"), "#!/none\n").unwrap();
    std::fs::set_permissions(bundle.rootfs().join("bin/none"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let ran = bundle.exec(&["none"]);
    assert!(ran.code == 127 && ran.err.contains("interpreter /none"), "{}", ran.err);
    let ran = bundle.exec(&["--user", "1000:1000", "--tty", "sh", "-c", "id -u; tty; : > /dev/tty && ps -o pid"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!((ran.code, &lines[..2]), (0, &["1000", "/dev/pts/0"][..]), "{}{}", ran.out, ran.err);
    let detached =
        bundle.exec(&["--detach", "--pid-file", "exec.pid", "sh", "-c", "exec > /dev/null 2>&1; exec sleep 60"]);
    assert_eq!(detached.code, 0, "{}", detached.err);
    let pid = std::fs::read_to_string(bundle.path().join("exec.pid")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(OWN) && status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
}
