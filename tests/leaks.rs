//! Nothing is left on the machine: looked at from outside, before and after.

use std::collections::BTreeSet;
use test_support::{Leaks, TestEnv, cgroup_mounts, eventually};

#[test]
fn an_engine_at_work_is_seen_and_at_rest_is_not() {
    let env = TestEnv::new();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = mounts();
    env.ctr("run -d --name aa -p 127.0.0.1::80 -v vol:/v -m 64m busybox sleep 1000").ok();
    let at_work = env.leaks();
    assert!(!at_work.processes.is_empty(), "a monitor and a container: {at_work:#?}");
    assert!(!at_work.cgroups.is_empty() && !at_work.links.is_empty(), "{at_work:#?}");
    // Not even a running container has a mount on the host.
    assert_eq!((mounts(), at_work.mounts.as_slice()), (before, &[][..]));
    env.ctr("exec aa true").ok();
    env.ctr("rm -f aa").ok();
    eventually("nothing is left", || env.leaks().is_empty().then_some(()));
}

#[test]
fn after_every_way_to_end() {
    let env = TestEnv::new();
    env.ctr("run --rm busybox true").ok();
    env.ctr("run --rm busybox false").fails(1);
    env.ctr("run --rm busybox no-such-program").fails(127);
    env.ctr("run --rm -p 0:99999 busybox true").fails(125);
    env.ctr("run -d --name killed busybox sleep 1000").ok();
    env.ctr("kill killed").ok();
    env.ctr("run -d --name stopped busybox sleep 1000").ok();
    env.ctr("stop -t 0 stopped").ok();
    env.build("app", "ctx", "FROM busybox\nRUN true\n").ok();
    env.build("bad", "ctx", "FROM busybox\nRUN false\n").fails(1);
    // Stopped containers cost nothing but their folder.
    eventually("no process, cgroup, link or table", || env.leaks().is_empty().then_some(()));
    assert_eq!(env.ctr("ps -aq").ok().lines().len(), 2);
}

#[test]
fn the_last_user_of_a_root_may_be_older_than_its_network() {
    let env = TestEnv::new();
    env.ctr("run -d --name first --network none busybox sleep 1000").ok();
    env.ctr("run --rm busybox true").ok();
    assert!(!env.leaks().links.is_empty(), "the bridge stays while somebody is there");
    // What is left after this one the end of the test finds.
    env.ctr("rm -f first").ok();
}

#[test]
fn a_failing_test_is_swept() {
    let (tag, root) = {
        let env = TestEnv::new();
        env.ctr("run -d busybox sleep 1000").ok();
        let known = (env.tag().to_owned(), env.root());
        let fails = std::thread::spawn(move || {
            let _env = env;
            std::panic::resume_unwind(Box::new("a test that fails"));
        });
        assert!(fails.join().is_err());
        known
    };
    eventually("swept", || Leaks::of(&root, &tag).is_empty().then_some(()));
    assert!(!root.exists());
}

#[test]
fn cgroups_are_empty_of_us() {
    // Old roots' parents would stay for ever: the name has the root's tag, and no test's root comes back.
    let env = TestEnv::new();
    env.ctr("run --rm busybox true").ok();
    let ours: BTreeSet<_> = cgroup_mounts().into_iter().map(|mount| mount.join(format!("ctr-{}", env.tag()))).collect();
    eventually("the parent cgroup goes with the last container", || {
        ours.iter().all(|path| !path.exists()).then_some(())
    });
}
