//! `ctr run`: the process and what surrounds it.

use test_support::{TestEnv, eventually};

#[test]
fn prints_what_the_command_prints() {
    let env = TestEnv::new();
    let out = env.ctr("run --rm busybox sh -c 'echo out; echo err >&2'").ok();
    assert_eq!((out.stdout(), out.stderr()), ("out\n".to_owned(), "err\n".to_owned()));
}

#[test]
fn takes_all_of_a_long_output_and_of_a_long_input() {
    let env = TestEnv::new();
    let lines = env.ctr("run --rm busybox seq 1 200000").ok().lines();
    assert_eq!((lines.len(), lines.last().unwrap().as_str()), (200_000, "200000"));
    let input = vec![b'x'; 3 << 20];
    env.invoke("run --rm -i busybox wc -c").stdin(input).run().ok().prints("3145728");
}

#[test]
fn exits_as_the_command_did() {
    let env = TestEnv::new();
    env.ctr("run --rm busybox true").ok();
    env.ctr("run --rm busybox false").fails(1);
    env.ctr("run --rm busybox sh -c 'exit 42'").fails(42);
    env.ctr("run --rm --init busybox sh -c 'kill -TERM $$'").fails(143);
}

#[test]
fn tells_engine_errors_from_the_commands_own() {
    let env = TestEnv::new();
    env.ctr("run --rm busybox no-such-program").fails(127).says("not found");
    env.ctr("run --rm busybox /no/such/program").fails(127).says("no such file or directory");
    env.ctr("run --rm busybox /etc/passwd").fails(126).says("permission denied");
    env.ctr("run --rm busybox /etc").fails(126);
    env.ctr("run --no-such-flag busybox true").fails(125).says("--no-such-flag").says_it_plainly();
    env.ctr("run --rm -w /etc/passwd busybox true").either(&[125, 126]);
}

#[test]
fn leaves_nothing_half_made_when_the_program_is_missing() {
    let env = TestEnv::new();
    env.ctr("run --rm --name xx busybox no-such-program").fails(127);
    env.ctr("ps -aq").ok().prints_nothing();
    // The name is free at once.
    env.ctr("run --rm --name xx busybox true").ok();
}

#[test]
fn stops_reading_flags_at_the_image() {
    let env = TestEnv::new();
    env.ctr("run --rm busybox echo --rm -it --help").ok().prints("--rm -it --help");
    env.ctr("run --rm -h box busybox hostname").ok().prints("box");
    env.ctr("container run --rm busybox echo -- x").ok().prints("-- x");
}

#[test]
fn detached_prints_the_id_and_goes_on() {
    let env = TestEnv::new();
    let id = env.ctr("run -d --name sleeper busybox sleep 1000").ok().text();
    assert!(id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()), "{id}");
    assert_eq!(env.ctr("ps -q --no-trunc").ok().text(), id);
    assert_eq!(env.ctr("ps -q").ok().text(), id[..12]);
    env.ctr(["rm", "-f", &id[..6]]).ok();
    env.ctr("ps -aq").ok().prints_nothing();
}

#[test]
fn removes_itself_with_rm() {
    let env = TestEnv::new();
    env.ctr("run --rm --name once busybox true").ok();
    env.ctr("run --rm --name once busybox true").ok();
    env.ctr("run -d --rm --name once busybox true").ok();
    eventually("the detached one removes itself", || env.ctr("ps -aq").ok().text().is_empty().then_some(()));
}

#[test]
fn a_name_is_given_once() {
    let env = TestEnv::new();
    let id = env.ctr("run -d --name web busybox sleep 1000").ok().text();
    let conflict = env.ctr("run -d --name web busybox true").fails(125).says_it_plainly();
    let message = format!("The container name \"/web\" is already in use by container \"{id}\"");
    conflict.says(&message);
    env.ctr("run -d --name -bad busybox true").fails(125);
}

#[test]
fn sets_the_environment() {
    let env = TestEnv::new();
    let vars = env.invoke("run --rm -e A=1 -e B= -e CALLER -e UNSET busybox env").env("CALLER", "c").run().ok().lines();
    for expected in ["A=1", "B=", "CALLER=c", "HOME=/root"] {
        assert!(vars.iter().any(|line| line == expected), "{expected} in {vars:?}");
    }
    assert!(!vars.iter().any(|line| line.starts_with("UNSET") || line.starts_with("TERM=")), "{vars:?}");
    assert!(vars.iter().any(|line| line.starts_with("PATH=/usr/local/sbin:")), "{vars:?}");
    assert!(vars.iter().any(|line| line.starts_with("HOSTNAME=")), "{vars:?}");
}

#[test]
fn reads_env_files_as_docker_does() {
    let env = TestEnv::new();
    env.write(
        "a.env",
        "\u{feff}# comment\n  LEADING=kept \nQUOTED=\"q\"\r\nEMPTY=\nCALLER\nGONE\nHASH=a#b\nLAST=file\n\n",
    );
    let out = env.invoke("run --rm --env-file a.env -e LAST=flag busybox env").env("CALLER", "c").run().ok();
    let vars = out.lines();
    for expected in ["LEADING=kept ", "QUOTED=\"q\"", "EMPTY=", "CALLER=c", "HASH=a#b", "LAST=flag"] {
        assert!(vars.iter().any(|line| line == expected), "{expected:?} in {vars:?}");
    }
    assert!(!vars.iter().any(|line| line.starts_with("GONE")), "{vars:?}");
    for (content, message) in [
        (&b"=x\n"[..], "no variable name on line '=x'"),
        (b"a b=1\n", "variable 'a b' contains whitespaces"),
        (b"A=1\nB=\xff\xfe\n", "invalid utf8 bytes at line 2"),
    ] {
        env.write("bad.env", content);
        let failed = env.ctr("run --rm --env-file bad.env busybox true").fails(125).says_it_plainly();
        failed.says("invalid env file (bad.env): ").says(message);
    }
    env.ctr("run --rm --env-file missing.env busybox true").fails(125).says("missing.env").says_it_plainly();
}

#[test]
fn user_and_folder() {
    let env = TestEnv::new();
    env.ctr("run --rm -u nobody busybox id").ok().prints("uid=65534(nobody)");
    env.ctr("run --rm -u 1234:2345 busybox id").ok().prints("uid=1234 gid=2345");
    env.ctr("run --rm -u www-data:users busybox id -gn").ok().prints("users");
    let unknown = env.ctr("run --rm -u ghost busybox true");
    unknown.either(&[125, 126]).says("unable to find user ghost: no matching entries in passwd file");
    env.ctr("run --rm -w /made/here busybox pwd").ok().prints("/made/here");
    env.ctr("run --rm -u nobody -w /made busybox ls -ld /made").ok().prints("root");
    env.ctr("run --rm -w relative busybox true").fails(125);
}

#[test]
fn entrypoint() {
    let env = TestEnv::new();
    env.ctr("run --rm --entrypoint echo busybox a b").ok().prints("a b");
    // The image's CMD is not the arguments of another entrypoint.
    assert_eq!(env.ctr("run --rm --entrypoint echo busybox").ok().stdout(), "\n");
    env.ctr("run --rm --entrypoint '' busybox echo plain").ok().prints("plain");
}

#[test]
fn its_own_namespaces() {
    let env = TestEnv::new();
    let inside =
        env.ctr("run --rm busybox sh -c 'for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done'");
    for line in inside.ok().lines() {
        let kind = line.split(':').next().unwrap();
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(host.to_str().unwrap(), line);
    }
    env.ctr("run --rm busybox sh -c 'echo $$'").ok().prints("1\n");
    let name = env.ctr("run --rm busybox hostname").ok().text();
    assert_eq!(name.len(), 12, "the short id: {name}");
}

#[test]
fn a_root_of_its_own() {
    let env = TestEnv::new();
    env.ctr("run --name first busybox sh -c 'echo mine > /etc/mine; rm -f /bin/vi'").ok();
    env.ctr("run --rm busybox sh -c 'test ! -e /etc/mine && test -e /bin/vi'").ok();
    env.ctr("start -a first").ok();
    env.ctr("run --rm --read-only busybox touch /x").fails(1).says("Read-only file system");
    env.ctr("run --rm --read-only --tmpfs /tmp busybox touch /tmp/x /dev/shm/y").ok();
    let mounts = env.ctr("run --rm busybox cat /proc/self/mountinfo").ok().stdout();
    assert!(mounts.contains(" / / ") && mounts.contains("overlay"), "{mounts}");
    // pivot_root, and the old root gone: nothing of the host's own mounts is to be seen.
    assert!(!mounts.contains("/sys/fs/cgroup/unified /") && !mounts.contains(" ext4 "), "{mounts}");
}

#[test]
fn docker_s_default_privileges() {
    let env = TestEnv::new();
    let status = env.ctr("run --rm busybox cat /proc/self/status").ok().stdout();
    assert!(status.contains("CapEff:\t00000000a80425fb"), "docker's fourteen: {status}");
    assert!(status.contains("CapBnd:\t00000000a80425fb") && status.contains("Seccomp:\t2"), "{status}");
    let status = env.ctr("run --rm -u nobody busybox cat /proc/self/status").ok().stdout();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let status = env.ctr("run --rm --cap-drop ALL --cap-add chown busybox cat /proc/self/status").ok().stdout();
    assert!(status.contains("CapEff:\t0000000000000001"), "{status}");
    let status = env.ctr("run --rm --privileged busybox cat /proc/self/status").ok().stdout();
    assert!(status.contains("Seccomp:\t0") && !status.contains("CapEff:\t00000000a80425fb"), "{status}");
    env.ctr("run --rm --cap-add NO_SUCH busybox true").fails(125).says("NO_SUCH").says_it_plainly();
}

#[test]
fn the_kernel_is_masked() {
    let env = TestEnv::new();
    env.ctr("run --rm busybox sh -c 'cat /proc/kcore | wc -c'").ok().prints("0\n");
    env.ctr("run --rm busybox sh -c 'ls -A /sys/firmware /proc/acpi 2>/dev/null | grep -v -e : -e ^$'")
        .either(&[0, 1])
        .prints_nothing();
    env.ctr("run --rm busybox sh -c 'echo 1 > /proc/sys/kernel/printk'").fails(1).says("Read-only file system");
    env.ctr("run --rm busybox sh -c 'echo b > /proc/sysrq-trigger'").fails(1);
    env.ctr("run --rm busybox mount -t tmpfs none /mnt").fails(1).says("permission denied");
    env.ctr("run --rm busybox unshare -U true").fails(1);
    env.ctr("run --rm busybox mknod /dev/sda b 8 0").either(&[0, 1]);
    env.ctr("run --rm busybox sh -c 'mknod /x b 8 0 && head -c 1 /x'").fails(1);
}

#[test]
fn devices_and_mounts() {
    let env = TestEnv::new();
    env.ctr("run --rm busybox sh -c 'echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c'")
        .ok();
    let shm = env.ctr("run --rm busybox df -k /dev/shm").ok();
    shm.prints("65536");
    env.ctr("run --rm --shm-size 16m busybox df -k /dev/shm").ok().prints("16384");
    env.ctr("run --rm busybox sh -c 'ls -ld /dev/shm /tmp; ls -l /dev/fd /dev/stdin /dev/ptmx'")
        .ok()
        .prints("/proc/self/fd");
}

#[test]
fn limits_are_set_in_the_cgroup() {
    let env = TestEnv::new();
    env.ctr("run -d --name small -m 64m --cpus 0.5 --pids-limit 20 busybox sleep 1000").ok();
    let state = env.inspect("small", "/HostConfig");
    assert_eq!(state["Memory"], 67_108_864);
    let value = |v1: &str, v2: &str| {
        let name = format!("ctr-{}", env.tag());
        let id = env.inspect("small", "/Id").as_str().unwrap().to_owned();
        let of = |mount: std::path::PathBuf, file: &str| {
            std::fs::read_to_string(mount.join(&name).join(&id).join(file)).ok()
        };
        let found = test_support::cgroup_mounts().into_iter().find_map(|m| of(m.clone(), v1).or_else(|| of(m, v2)));
        found.unwrap_or_else(|| panic!("no {v1} nor {v2}")).trim().to_owned()
    };
    assert_eq!(value("memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value("pids.max", "pids.max"), "20");
    assert!(["50000", "50000 100000"].contains(&value("cpu.cfs_quota_us", "cpu.max").as_str()));
    env.ctr("run --rm -m 1k busybox true").fails(125).says_it_plainly();
    env.ctr("run --rm -m lots busybox true").fails(125).says("lots").says_it_plainly();
}

#[test]
fn out_of_memory_is_told() {
    let env = TestEnv::new();
    let script = "run --name greedy -m 16m --memory-swap 16m busybox sh -c 'tail -c 64m /dev/zero > /dev/null'";
    let out = env.ctr(script);
    assert_ne!(out.code(), 0, "{out}");
    assert_eq!(env.inspect("greedy", "/State/OOMKilled"), true);
}

#[test]
fn a_fork_bomb_stays_small() {
    let env = TestEnv::new();
    let script = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; echo forked";
    let out = env.ctr(["run", "--rm", "--pids-limit", "12", "busybox", "sh", "-c", script]);
    assert!(out.stderr().contains("can't fork"), "{out}");
}

#[test]
fn an_init_reaps() {
    let env = TestEnv::new();
    env.ctr("run -d --name tidy --init busybox sh -c 'sleep 0 & exec sleep 1000'").ok();
    env.ctr("exec tidy sh -c 'cat /proc/1/comm'").ok();
    let comm = env.ctr("exec tidy cat /proc/1/cmdline").ok().stdout();
    assert!(!comm.starts_with("sleep"), "an init before the command: {comm:?}");
    // The init passes the signal on: no ten seconds to wait.
    let start = std::time::Instant::now();
    env.ctr("stop tidy").ok();
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn terminal_of_the_right_size() {
    let env = TestEnv::new();
    let mut tty = env.invoke("run --rm -it busybox sh").terminal(33, 99);
    tty.expect("#");
    tty.send("stty size; tty; echo $TERM\n");
    tty.expect("33 99");
    tty.expect("/dev/pts/0");
    tty.expect("xterm");
    tty.resize(44, 111);
    tty.send("stty size\n");
    tty.expect("44 111");
    tty.send("exit 7\n");
    tty.wait().fails(7);
}

#[test]
fn terminal_with_job_control() {
    let env = TestEnv::new();
    let mut tty = env.invoke("run --rm -it busybox sh").terminal(24, 80);
    tty.expect("#");
    // The quotes keep the shell's echo of the line apart from what the job says. Only when the job speaks does the
    // terminal belong to it: a key before that would be the shell's.
    tty.send("sh -c 'trap \"echo con\"\"tinued\" CONT; echo st\"\"arted; while :; do sleep 1; done'\n");
    tty.expect("started");
    tty.send("\u{1a}"); // ctrl-Z
    tty.expect("Stopped");
    tty.send("fg\n");
    tty.expect("continued");
    tty.send("\u{3}"); // ctrl-C
    tty.expect("#");
    tty.send("echo code=$?\n");
    tty.expect("code=130");
    tty.send("\u{4}"); // ctrl-D
    tty.wait();
}

#[test]
fn terminal_detaches_by_keys() {
    let env = TestEnv::new();
    let mut tty = env.invoke("run -it --name shell busybox sh").terminal(24, 80);
    tty.expect("#");
    tty.send("\u{10}\u{11}"); // ctrl-P ctrl-Q
    tty.wait().ok();
    assert_eq!(env.inspect("shell", "/State/Status"), "running");
    let mut tty = env.invoke("attach shell").terminal(24, 80);
    tty.send("echo again-$((40+2))\n");
    tty.expect("again-42");
    tty.send("exit 3\n");
    tty.wait().fails(3);
}

#[test]
fn terminal_needs_a_terminal() {
    let env = TestEnv::new();
    let out = env.ctr("run --rm -it busybox true");
    assert_ne!(out.code(), 0, "{out}");
    out.clone().says_it_plainly();
    assert!(out.stderr().contains("TTY") || out.stderr().contains("terminal"), "{out}");
    env.ctr("ps -aq").ok().prints_nothing();
}

#[test]
fn signals_are_passed_on() {
    let env = TestEnv::new();
    let script = "trap \"echo got it; exit 5\" TERM; echo ready; while :; do sleep 1 & wait $!; done";
    let mut running = env.spawn(["run", "--rm", "busybox", "sh", "-c", script]);
    running.line_with("ready");
    running.signal(rustix::process::Signal::TERM);
    running.line_with("got it");
    running.wait().fails(5);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let env = TestEnv::new();
    let out = env.invoke("run --rm busybox seq 1 1000000").through_shell(r#""$@" | head -n 1"#).run().ok();
    assert_eq!(out.text(), "1");
    assert!(!out.stderr().contains("panicked"), "{out}");
}

#[test]
fn network_none_and_host() {
    let env = TestEnv::new();
    let links = env.ctr("run --rm --network none busybox ls /sys/class/net").ok().text();
    assert_eq!(links, "lo");
    env.ctr("run --rm --network none busybox ping -c 1 -W 2 127.0.0.1").ok();
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = env.ctr("run --rm --network host busybox readlink /proc/self/ns/net").ok().text();
    assert_eq!(inside, host.to_str().unwrap());
    env.ctr("run --rm --network nowhere busybox true").fails(125).says("network nowhere not found").says_it_plainly();
}

#[test]
fn ulimits_and_warnings() {
    let env = TestEnv::new();
    env.ctr("run --rm --ulimit nofile=512:1024 busybox sh -c 'ulimit -n; ulimit -Hn'").ok().prints("512\n1024\n");
    env.ctr("run --rm --ulimit nonsense=1 busybox true").fails(125).says("nonsense").says_it_plainly();
}

#[test]
fn cidfile_and_labels() {
    let env = TestEnv::new();
    let id = env.ctr("run -d --cidfile id.txt -l a=b --label c busybox sleep 1000").ok().text();
    assert_eq!(std::fs::read_to_string(env.path("id.txt")).unwrap().trim(), id);
    assert_eq!(env.inspect(&id, "/Config/Labels/a"), "b");
    assert_eq!(env.inspect(&id, "/Config/Labels/c"), "");
    env.ctr("run -d --cidfile id.txt busybox true").fails(125).says("id.txt").says_it_plainly();
}

#[test]
fn restarts_on_failure_so_many_times() {
    let env = TestEnv::new();
    env.ctr("run -d --name flaky --restart on-failure:2 busybox sh -c 'echo try; exit 1'").ok();
    eventually("three tries", || (env.ctr("logs flaky").ok().lines().len() == 3).then_some(()));
    env.until_status("flaky", "exited");
    assert_eq!(env.inspect("flaky", "/RestartCount"), 2);
    env.ctr("run --rm --restart always busybox true").fails(125).says_it_plainly();
}

/// EPERM would tell a program that it may not, and it gives up; ENOSYS that it must do without.
#[test]
fn a_call_younger_than_the_filter_is_one_the_kernel_lacks() {
    let env = TestEnv::with_debian();
    let script = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        for call in (9999, 167):\n  print(libc.syscall(call, 0, 0, 0), ctypes.get_errno())";
    // 167 is swapoff's, which the filter knows and forbids.
    let ran = env.ctr(["run", "--rm", "--network", "none", "debian:bookworm", "python3", "-c", script]).ok();
    assert_eq!(ran.stdout(), "-1 38\n-1 1\n");
}
