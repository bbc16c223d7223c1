//! The program: how it is found, as whom it runs, how it ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use support::{Bundle, eventually, inside, ran};

#[test]
fn exit_codes_come_through() {
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; sleep 9", 0), ("sh -c 'kill -9 $$'; exit $?", 137)]
    {
        // pid 1 takes no signal from within, not even SIGKILL: the first kill changes nothing.
        let script = script.replace("sleep 9", "exit 0");
        assert_eq!(Bundle::sh(&script).run().code, code, "{script}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let write = |bundle: &Bundle, name: &str, text: &str, mode: u32| {
        let path = bundle.rootfs().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let cases: &[(&str, &str, u32, i32, &str)] = &[
        ("nosuch", "", 0, 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", "", 0, 127, "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        ("/etc", "", 0, 126, "exec: \"/etc\": is a directory: permission denied"),
        ("/script", "#!/bin/sh\n", 0o644, 126, "exec: \"/script\": permission denied"),
        ("/script", "#!/bin/bash\n", 0o755, 127, "the interpreter /bin/bash of its first line is not in the image"),
        ("/script", "#!/bin/sh\r\n", 0o755, 127, "its first line ends in CRLF"),
        ("/script", "echo\n", 0o755, 126, "exec format error"),
    ];
    for (program, text, mode, code, message) in cases {
        let bundle = Bundle::new(&[program]);
        if *mode != 0 {
            write(&bundle, program.trim_start_matches('/'), text, *mode);
        }
        let ran = bundle.run();
        assert_eq!(ran.code, *code, "{}", ran.err);
        assert!(ran.err.contains(message) && ran.err.lines().count() == 1, "{program}: {}", ran.err);
        assert!(bundle.cgroups_left().is_empty());
    }
}

#[test]
fn it_runs_as_the_user_with_groups_umask_and_limits() {
    let mut bundle =
        Bundle::sh("id; umask; ulimit -n; pwd; echo $HOME; grep CapEff /proc/self/status; touch /dev/stdout");
    bundle.json(|spec| {
        spec["process"]["user"] =
            serde_json::json!({"uid": 1000, "gid": 1000, "additionalGids": [4, 5], "umask": 0o27});
        spec["process"]["rlimits"] = serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        spec["process"]["cwd"] = "/made/for/it".into();
        spec["process"]["env"] = serde_json::json!(["PATH=/bin", "HOME=/h"]);
    });
    let ran = bundle.run();
    let expected = "uid=1000(user) gid=1000(user) groups=4,5\n0027\n100\n/made/for/it\n/h\nCapEff:\t0000000000000000\n";
    assert_eq!((ran.out.as_str(), ran.err.as_str()), (expected, ""));
}

#[test]
fn a_limit_that_can_t_be_raised_is_no_failure() {
    let mut bundle = Bundle::sh("ulimit -H -n");
    bundle.json(|spec| {
        spec["process"]["rlimits"] =
            serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 1u64 << 30, "hard": 1u64 << 30}]);
        spec["process"]["oomScoreAdj"] = (-999).into();
    });
    let ran = ran(bundle.command(&["--log", "log", "run", &bundle.id]).output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.trim().parse::<u64>().is_ok(), "{}", ran.out);
}

#[test]
fn no_new_privileges_and_dropped_capabilities_hold() {
    let mut bundle = Bundle::sh("grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; chown 5 /etc/passwd 2>&1");
    bundle.json(|spec| {
        spec["process"]["noNewPrivileges"] = true.into();
        spec["process"]["capabilities"] = serde_json::json!({"bounding": [], "effective": [], "permitted": []});
    });
    let out = bundle.run().out;
    assert!(out.contains("NoNewPrivs:\t1\nSeccomp:\t2\n") && out.contains("CapBnd:\t0000000000000000"), "{out}");
    assert!(out.contains("Operation not permitted"), "{out}");
}

#[test]
fn a_terminal_is_a_real_one() {
    let mut bundle = Bundle::sh("test -t 0 && test -t 1 && tty && ls -l /dev/console && stty size; echo in > /dev/tty");
    bundle.json(|spec| {
        spec["process"]["terminal"] = true.into();
        spec["process"]["consoleSize"] = serde_json::json!({"height": 33, "width": 99});
    });
    let ran = bundle.run();
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(
        ran.out.contains("/dev/pts/0\r\n") && ran.out.contains("33 99\r\n") && ran.out.contains("in\r\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("136,   0"), "the console is the pty: {}", ran.out);
}

#[test]
fn init_reaps_and_forwards() {
    let mut bundle = Bundle::sh(
        "echo pid $$; (sh -c 'sleep 0.01 &' &); trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
    );
    bundle.process(|_| {});
    let mut child =
        bundle.command(&["run", "--init", &bundle.id]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        line
    };
    assert_eq!((line().as_str(), line().as_str()), ("pid 2\n", "ready\n"));
    eventually("orphans are reaped", || !bundle.exec(&["ps", "-o", "stat,comm"]).out.contains("Z "));
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "TERM"]).code, 0);
    assert_eq!(line(), "term\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn init_passes_errors_and_codes_on() {
    for (script, code) in [("exit 3", 3), ("kill -9 $$", 137)] {
        let bundle = Bundle::sh(script);
        assert_eq!(bundle.runtime(&["run", "--init", &bundle.id]).code, code);
    }
    let bundle = Bundle::new(&["/script"]);
    fs::write(bundle.rootfs().join("script"), "#!/no\n").unwrap();
    fs::set_permissions(bundle.rootfs().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let ran = bundle.runtime(&["run", "--init", &bundle.id]);
    assert_eq!(ran.code, 127, "{}", ran.err);
}

#[test]
fn exec_joins_everything() {
    let bundle = Bundle::sh("echo up; sleep 60");
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let ran = bundle.exec(&["sh", "-c", "echo $$; hostname; ls -l /proc/1/ns /proc/self/ns | grep -o '[a-z]*:\\[.*' | sort | uniq -c | grep -c ' 1 '; cat /proc/self/cgroup; grep -E 'CapEff|Seccomp:' /proc/self/status; exit 4"]);
    assert_eq!((ran.code, ran.err.as_str()), (4, ""), "{}", ran.out);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_ne!(lines[0], "1");
    assert_eq!(lines[2], "0", "every namespace is the init's: {}", ran.out);
    assert!(ran.out.contains("memory:/\n") || !ran.out.contains("memory"), "{}", ran.out);
    assert!(ran.out.contains("CapEff:\t00000000a80425fb\nSeccomp:\t2\n"), "{}", ran.out);

    let tty = bundle.exec(&["-t", "sh", "-c", "tty; test -t 1 && echo yes"]);
    assert!(tty.out.contains("/dev/pts/") && tty.out.contains("yes"), "{}{}", tty.out, tty.err);
    assert_eq!(
        bundle.exec(&["--user", "1000:5", "--cwd", "/tmp", "sh", "-c", "id -u; id -g; pwd"]).out,
        "1000\n5\n/tmp\n"
    );
    assert_eq!(bundle.exec(&["nosuch"]).code, 127);
    assert_eq!(bundle.exec(&["/etc"]).code, 126);
    assert_eq!(bundle.exec(&["--cwd", "/nowhere", "true"]).code, 126);
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(bundle.exec(&["true"]).code, 1);
}

#[test]
fn preserved_descriptors_arrive_in_their_places() {
    let bundle = Bundle::sh("cat <&3; ls /proc/self/fd | tr '\\n' ' '");
    fs::write(bundle.path().join("data"), "kept\n").unwrap();
    let script = format!("exec 3< {0}/data 4< /dev/null; exec \"$@\"", bundle.path().display());
    let own = bundle.command(&["run", "--preserve-fds", "1", &bundle.id]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).arg(own.get_program()).args(own.get_args()).current_dir(bundle.path());
    let out = ran(command.output().unwrap()).out;
    assert_eq!(out, "kept\n0 1 2 3 4 ", "4 is ls's own");
}

#[test]
fn the_environment_is_the_spec_s_alone() {
    assert_eq!(
        inside("env | grep -v -E '^(PWD|SHLVL|OLDPWD|_)='"),
        "HOME=/root\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    );
}

#[test]
fn a_working_directory_that_only_root_may_enter_is_entered() {
    let mut bundle = Bundle::sh("pwd; id -u; ls");
    fs::set_permissions(bundle.rootfs().join("root"), fs::Permissions::from_mode(0o700)).unwrap();
    bundle.json(|spec| {
        spec["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
        spec["process"]["cwd"] = "/root".into();
    });
    let ran = bundle.run();
    assert_eq!(ran.out, "/root\n1000\n", "{}", ran.err);
    assert!(ran.err.contains("Permission denied"), "reading it is another matter: {}", ran.err);
}

#[test]
fn a_tmpfs_of_no_said_mode_takes_that_of_the_folder_or_is_everybody_s() {
    let mut bundle = Bundle::sh("stat -c '%a %n' /new /etc /said");
    fs::set_permissions(bundle.rootfs().join("etc"), fs::Permissions::from_mode(0o750)).unwrap();
    bundle.mount("/new", "tmpfs", "tmpfs", &[]).mount("/etc", "tmpfs", "tmpfs", &[]);
    bundle.mount("/said", "tmpfs", "tmpfs", &["mode=700"]);
    assert_eq!(bundle.run().out, "1777 /new\n750 /etc\n700 /said\n");
}

#[test]
fn a_file_on_a_folder_is_told_as_such() {
    for (source, target) in [("etc/passwd", "/bin"), ("etc", "/etc/passwd")] {
        let mut bundle = Bundle::sh("true");
        let source = bundle.rootfs().join(source);
        bundle.mount(target, "bind", source.to_str().unwrap(), &["bind"]);
        let ran = bundle.run();
        assert!(ran.code == 1 && ran.err.contains("not a directory: a file can't be mounted"), "{}", ran.err);
    }
}

/// No machine here has SELinux on; that it is asked at all is what can be seen.
#[test]
fn a_label_that_the_kernel_does_not_know_is_refused() {
    let mut bundle = Bundle::sh("echo up; sleep 60");
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let ran = bundle.exec(&["--process-label", "system_u:system_r:none_t:s0", "echo", "ran"]);
    assert!(ran.code != 0 && ran.out.is_empty() && ran.err.contains("security label"), "{}{}", ran.out, ran.err);
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    child.wait().unwrap();
    bundle.json(|spec| spec["process"]["selinuxLabel"] = "system_u:system_r:none_t:s0".into());
    let ran = bundle.run();
    assert!(ran.code == 1 && ran.err.contains("security label"), "{}", ran.err);
}
