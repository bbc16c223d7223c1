//! `ctr exec`: a second process in a running container.

use test_support::TestEnv;

fn with_sleeper() -> TestEnv {
    let env = TestEnv::new();
    env.ctr("run -d --name box -e FROM_RUN=1 -w /tmp busybox sleep 1000").ok();
    env
}

#[test]
fn runs_beside_the_init() {
    let env = with_sleeper();
    let processes = env.ctr("exec box ps -o pid,args").ok();
    processes.clone().prints("sleep 1000").prints("ps -o pid,args");
    assert_eq!(
        env.ctr("exec box readlink /proc/self/ns/net").ok().text(),
        env.ctr("exec box readlink /proc/1/ns/net").ok().text()
    );
    env.ctr("exec box sh -c 'echo out; echo err >&2; exit 4'").fails(4).prints("out\n").says("err\n");
}

#[test]
fn is_in_the_container_s_cgroup_and_under_its_limits() {
    let env = TestEnv::new();
    env.ctr("run -d --name box --pids-limit 30 --cap-drop NET_RAW busybox sleep 1000").ok();
    let id = env.inspect("box", "/Id").as_str().unwrap().to_owned();
    let mut inside = env.spawn("exec box sh -c 'echo up; exec sleep 1000'");
    inside.line_with("up");
    let listed = env.ctr("top box").ok().stdout();
    assert_eq!(listed.matches("sleep 1000").count(), 2, "{listed}");
    // By the host's ps, and of it these two alone.
    let listed = env.ctr("top box -e -o pid,args").ok().lines();
    let is_ours = |line: &String| line.ends_with(" sleep 1000");
    assert!(listed.len() == 3 && listed[0].starts_with("PID") && listed[1..].iter().all(is_ours), "{listed:?}");
    env.ctr("top box -e -o args").fails(1).says("Couldn't find PID field in ps output").says_it_plainly();
    env.ctr("top box --nonsense").fails(1).says("ps --nonsense").says_it_plainly();
    let status = env.ctr("exec box cat /proc/self/status").ok().stdout();
    assert!(status.contains("CapEff:\t00000000a80405fb") && status.contains("Seccomp:\t2"), "{status}");
    assert!(!id.is_empty());
}

#[test]
fn environment_user_and_folder() {
    let env = with_sleeper();
    let vars = env.ctr("exec -e MORE=2 box env").ok();
    vars.prints("FROM_RUN=1").prints("MORE=2");
    env.ctr("exec box pwd").ok().prints("/tmp");
    env.ctr("exec -w /etc box pwd").ok().prints("/etc");
    env.ctr("exec -u nobody box id -un").ok().prints("nobody");
    env.write("v.env", "V=file\n");
    env.ctr("exec --env-file v.env box env").ok().prints("V=file");
    env.ctr("exec -u ghost box true").either(&[1, 125, 126]).says("unable to find user ghost");
    env.ctr("exec -w /nowhere box true").either(&[125, 126, 127]).says_it_plainly();
}

#[test]
fn errors() {
    let env = with_sleeper();
    env.ctr("exec box no-such-program").fails(127).says("not found");
    env.ctr("exec box /etc/passwd").fails(126).says("permission denied");
    env.ctr("exec missing true").fails(1).says("No such container: missing").says_it_plainly();
    env.ctr("exec box").fails(1);
    env.ctr("exec --bad box true").fails(125).says("--bad");
    env.ctr("stop -t 0 box").ok();
    env.ctr("exec box true").fails(1).says("is not running").says_it_plainly();
}

#[test]
fn reads_stdin_with_i_only() {
    let env = with_sleeper();
    env.invoke("exec -i box cat").stdin("through\n").run().ok().prints("through");
    env.invoke("exec box cat").stdin("lost\n").run().ok().prints_nothing();
    let big = vec![b'y'; 2 << 20];
    env.invoke("exec -i box wc -c").stdin(big).run().ok().prints("2097152");
}

#[test]
fn detached_goes_on_alone() {
    let env = with_sleeper();
    env.ctr("exec -d box sh -c 'echo done > /tmp/mark'").ok().prints_nothing();
    test_support::eventually("the mark", || env.ctr("exec box cat /tmp/mark").stdout().contains("done").then_some(()));
}

#[test]
fn a_true_terminal() {
    let env = with_sleeper();
    let mut tty = env.invoke("exec -it box sh").terminal(30, 90);
    tty.expect("#");
    assert!(tty.is_raw(), "keys go through unaltered");
    tty.send("stty size; tty\n");
    tty.expect("30 90");
    tty.expect("/dev/pts/");
    tty.resize(25, 70);
    // The new size travels beside the keys, and may come after them.
    tty.send("until stty size | grep -q '^25 70'; do usleep 1000; done; echo res\"\"ized\n");
    tty.expect("resized");
    tty.send("sh -c 'echo st\"\"arted; sleep 1000'\n");
    tty.expect("started");
    tty.send("\u{3}"); // ctrl-C
    tty.expect("#");
    tty.send("exit 9\n");
    tty.wait().fails(9);
    // The container does not care.
    assert_eq!(env.inspect("box", "/State/Status"), "running");
}

#[test]
fn ends_with_its_container() {
    let env = with_sleeper();
    let mut inside = env.spawn("exec box sh -c 'echo up; sleep 1000'");
    inside.line_with("up");
    env.ctr("kill box").ok();
    inside.wait().fails(137);
}

#[test]
fn the_engine_s_binary_is_out_of_reach() {
    let env = with_sleeper();
    // A process in the container that waits for an exec to appear and tries to write its program file.
    let attack = "for i in 1 2 3 4 5 6 7 8; do for p in /proc/[0-9]*; do \
        if [ $p != /proc/1 ] && [ $p != /proc/$$ ]; then (echo x >> $p/exe) 2>/dev/null && echo WROTE $(readlink $p/exe); fi; done; done; echo tried";
    let before = std::fs::metadata(test_support::ctr_binary()).unwrap().len();
    let mut attacker = env.spawn(["exec", "box", "sh", "-c", attack]);
    for _ in 0..20 {
        env.ctr("exec box true").ok();
    }
    attacker.line_with("tried");
    assert_eq!(std::fs::metadata(test_support::ctr_binary()).unwrap().len(), before);
}
