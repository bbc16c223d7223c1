//! What holds a container back, and what stops it: limits, devices, pausing, killing. On every kind of control groups;
//! `make test-vm` runs these with v2 alone.

use test_support::{TestEnv, eventually};

#[test]
fn a_container_sees_its_limits_on_cpus() {
    let env = TestEnv::new();
    env.ctr("run --rm --cpuset-cpus 0 busybox nproc").ok().prints("1\n");
    env.ctr("run --rm --cpu-shares 512 --cpus 0.5 --memory-reservation 32m -m 64m busybox true").ok();
    env.ctr("run --rm --cpuset-cpus 4000 busybox true").fails(125).says_it_plainly();
}

#[test]
fn devices_are_those_it_was_given() {
    let env = TestEnv::new();
    let open = "mknod /x c 10 229; (: < /x) && echo opened";
    env.ctr(["run", "--rm", "busybox", "sh", "-c", open]).fails(1).says("not permitted").prints_nothing();
    env.ctr(["run", "--rm", "--device-cgroup-rule", "c 1:5 r", "busybox", "sh", "-c", open]).fails(1);
    if std::path::Path::new("/dev/fuse").exists() {
        env.ctr(["run", "--rm", "--device-cgroup-rule", "c 10:229 rw", "busybox", "sh", "-c", open])
            .ok()
            .prints("opened");
        env.ctr("run --rm --device /dev/fuse busybox sh -c ': < /dev/fuse'").ok();
        env.ctr("run --rm --device /dev/fuse:/dev/other:r busybox sh -c ': > /dev/other'").fails(1);
        env.ctr(["run", "--rm", "--privileged", "busybox", "sh", "-c", open]).ok().prints("opened");
    }
}

#[test]
fn paused_it_stands_still_and_can_still_be_removed() {
    let env = TestEnv::new();
    env.ctr("run -d --name clock busybox sh -c 'while :; do echo tick; sleep 0.01; done'").ok();
    eventually("it ticks", || env.ctr("logs clock").ok().stdout().contains("tick").then_some(()));
    env.ctr("pause clock").ok();
    assert_eq!(env.inspect("clock", "/State/Status"), "paused");
    env.ctr("exec clock true").fails(1).says("paused");
    env.ctr("unpause clock").ok();
    env.ctr("exec clock true").ok();
    env.ctr("pause clock").ok();
    env.ctr("rm -f clock").ok();
}

#[test]
fn everything_in_it_dies_with_it() {
    let env = TestEnv::new();
    let script = "trap '' TERM; (trap '' TERM HUP; sleep 1000) & (setsid sleep 1000 &); echo up; sleep 1000";
    let mut running = env.spawn(["run", "--name", "crowd", "--pid", "host", "busybox", "sh", "-c", script]);
    running.line_with("up");
    env.ctr("kill crowd").ok();
    running.wait().fails(137);
    env.ctr("rm crowd").ok();
    // Its monitor may have a last step to do.
    eventually("nothing of it runs", || env.leaks().processes.is_empty().then_some(()));
}
