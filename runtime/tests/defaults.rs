//! What a container nobody said anything about looks like from inside.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use support::{Bundle, inside};

#[test]
fn capabilities_are_docker_s_fourteen_and_a_filter_is_on() {
    let status = inside("cat /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("Seccomp:").as_str(), field("NoNewPrivs:").as_str()), ("2", "0"));
    assert_eq!(field("SigBlk"), "0000000000000000");
}

#[test]
fn what_the_filter_and_the_capabilities_forbid_is_forbidden() {
    let out = inside(
        "mount -t tmpfs x /tmp 2>&1; unshare -U true 2>&1; mknod /tmp/sda b 8 0 && cat /tmp/sda 2>&1; \
         (echo x > /proc/sys/kernel/hostname) 2>&1; hostname x 2>&1; true",
    );
    assert!(out.contains("mount: permission denied") || out.contains("Operation not permitted"), "{out}");
    assert!(out.contains("unshare: unshare(0x10000000): Operation not permitted"), "{out}");
    assert!(out.contains("can't open '/tmp/sda': Operation not permitted"), "{out}");
    assert!(out.contains("sethostname: Operation not permitted"), "{out}");
}

/// Opened as by a writer, but not written: where the attack succeeds it is the host's.
///
/// Seen to succeed without masks, and without read-only paths.
#[test]
fn masked_paths_read_empty_and_read_only_ones_refuse_writes() {
    let out = inside(
        "for f in kcore keys timer_list interrupts; do [ -e /proc/$f ] && wc -c < /proc/$f; done; ls /proc/acpi /sys/firmware; \
         for f in /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/uevent_seqnum; do \
         (: >> $f) 2>&1 | grep -o 'Read-only file system'; done; true",
    );
    assert!(!out.contains(|c: char| c.is_ascii_digit() && c != '0'), "{out}");
    assert!(out.matches("Read-only file system").count() >= 3, "{out}");
}

#[test]
fn what_covers_a_masked_file_can_t_be_changed() {
    // It is the host's /dev/null, whose owner, mode and times a container must not set: tried with a date, which does no harm.
    let out = inside(
        "for f in kcore keys timer_list; do [ -c /proc/$f ] || continue; echo covered; \
         for change in 'touch -d 2001-01-01' 'chmod 666' 'chown 0:0'; do $change /proc/$f 2>&1 && echo changed; done; done; true",
    );
    assert!(out.contains("covered"), "{out}");
    assert_eq!(out.matches("Read-only file system").count(), 3 * out.matches("covered").count(), "{out}");
}

#[test]
fn mounts_devices_and_links_are_docker_s() {
    let out = inside(
        "cat /proc/self/mounts; ls -l /dev; stat -c '%a %n' /dev /dev/shm /dev/null; for l in ptmx fd stdin core; do readlink /dev/$l; done; true",
    );
    for line in [
        "/proc proc rw,nosuid,nodev,noexec",
        "/dev tmpfs rw,nosuid,size=65536k,mode=755",
        "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
        "/sys sysfs ro,nosuid,nodev,noexec",
        "/dev/mqueue mqueue rw,nosuid,nodev,noexec",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
        "755 /dev\n1777 /dev/shm\n666 /dev/null\n",
        "pts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert_eq!(out.contains("/proc/kcore\n"), std::path::Path::new("/proc/kcore").exists(), "{out}");
    let cgroups: Vec<&str> = out.lines().filter(|line| line.starts_with("cgroup")).collect();
    assert!(!cgroups.is_empty() && cgroups.iter().all(|line| line.contains(" ro,")), "{cgroups:?}");
}

#[test]
fn it_is_alone_in_its_namespaces() {
    let out = inside("echo $$; ls -d /proc/[0-9]* | wc -l; ls /sys/class/net; cat /proc/self/cgroup; ls /proc/self/fd");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "1");
    assert_eq!(lines[2], "lo");
    assert!(
        out.lines().filter(|line| line.contains("memory:") || line.starts_with("0::")).all(|line| line.ends_with(":/")),
        "{out}"
    );
    assert_eq!(&lines[lines.len() - 4..], ["0", "1", "2", "3"], "3 is ls's own: {out}");
}

#[test]
fn nothing_is_left_behind() {
    let bundle = Bundle::sh("true");
    assert_eq!(bundle.run().code, 0);
    assert_eq!(bundle.cgroups_left(), Vec::<std::path::PathBuf>::new());
    assert!(!bundle.path().join("state").join(&bundle.id).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.path().to_str().unwrap()));
}

#[test]
fn a_read_only_root_takes_no_writes_but_its_mounts_do() {
    let mut bundle = Bundle::sh("touch /x 2>&1; touch /data/x && echo written; mkdir /etc/y 2>&1");
    bundle.json(|spec| spec["root"]["readonly"] = true.into()).mount("/data", "tmpfs", "tmpfs", &[]);
    let out = bundle.run().out;
    assert_eq!(out.matches("Read-only file system").count(), 2, "{out}");
    assert!(out.contains("written"), "{out}");
}

#[test]
fn sysctls_of_own_namespaces_are_set_others_refused() {
    let mut bundle = Bundle::sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax");
    bundle.json(|spec| spec["linux"]["sysctl"]["kernel.msgmax"] = "12345".into());
    assert_eq!(bundle.run().out, "0\n12345\n");
    bundle.json(|spec| spec["linux"]["sysctl"]["kernel.core_pattern"] = "|/x".into());
    let ran = bundle.run();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("kernel.core_pattern") && ran.err.contains("would change the host"), "{}", ran.err);
}
