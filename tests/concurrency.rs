//! Many at once.

use std::collections::HashSet;
use std::time::Duration;
use test_support::TestEnv;

#[test]
fn a_hundred_containers_from_eight_shells() {
    let env = TestEnv::new();
    let shells: Vec<_> = (0..8)
        .map(|shell| {
            // Each shell starts its share; one failure is the shell's failure.
            let count = if shell < 4 { 13 } else { 12 };
            let script = format!("for i in $(seq {count}); do \"$@\" || exit 1; done");
            env.invoke("run -d busybox sleep 1000").through_shell(&script).spawn()
        })
        .collect();
    for shell in shells {
        shell.wait_within(Duration::from_secs(120)).ok();
    }
    let ids = env.ctr("ps -q --no-trunc").ok().lines();
    assert_eq!(ids.len(), 100);
    let words: Vec<&str> = ["inspect"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    let all = env.ctr(words).ok().json();
    let texts = |pointer: &str| -> HashSet<String> {
        let values =
            all.as_array().unwrap().iter().map(|one| one.pointer(pointer).unwrap().as_str().unwrap().to_owned());
        values.filter(|text| !text.is_empty()).collect()
    };
    assert_eq!(texts("/NetworkSettings/IPAddress").len(), 100, "distinct addresses");
    assert_eq!(texts("/NetworkSettings/MacAddress").len(), 100, "distinct hardware addresses");
    assert_eq!(texts("/Name").len(), 100, "distinct names");
    // They reach one another.
    let last = env.address_of(&ids[99]);
    env.ctr(["exec", &ids[0], "ping", "-c", "1", "-W", "5", &last]).ok();
    let words: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    env.invoke(words).limit(Duration::from_secs(120)).run().ok();
    env.ctr("ps -aq").ok().prints_nothing();
}

#[test]
fn one_name_is_won_once() {
    let env = TestEnv::new();
    let tries: Vec<_> = (0..8).map(|_| env.spawn("run -d --name prize busybox sleep 1000")).collect();
    let won = tries.into_iter().map(|run| run.wait().code()).filter(|code| *code == 0).count();
    assert_eq!(won, 1);
    assert_eq!(env.ctr("ps -aq").ok().lines().len(), 1);
}

#[test]
fn one_container_is_started_once() {
    let env = TestEnv::new();
    env.ctr("create --name one busybox sh -c 'echo started; sleep 1000'").ok();
    let tries: Vec<_> = (0..8).map(|_| env.spawn("start one")).collect();
    for run in tries {
        run.wait().ok();
    }
    env.spawn("logs -f one").line_with("started");
    assert_eq!(env.ctr("logs one").ok().lines().len(), 1);
}

#[test]
fn start_stop_and_remove_race() {
    let env = TestEnv::new();
    for _ in 0..5 {
        env.ctr("run -d --name busy busybox sleep 1000").ok();
        let all: Vec<_> =
            ["stop -t 0 busy", "kill busy", "rm -f busy", "exec busy true", "logs busy", "start busy", "ps -a"]
                .into_iter()
                .map(|words| env.spawn(words))
                .collect();
        for one in all {
            let out = one.wait();
            assert!(!out.stderr().contains("panicked"), "{out}");
        }
        env.ctr("rm -f busy").ok();
        env.ctr("ps -aq").ok().prints_nothing();
    }
}

#[test]
fn builds_side_by_side() {
    let env = TestEnv::new();
    let file = "FROM busybox\nARG N\nRUN echo common > /common\nRUN echo $N > /n\n";
    env.write("ctx/Containerfile", file);
    let all: Vec<_> = (0..6).map(|n| env.spawn(format!("build -t app:{n} --build-arg N={n} ctx"))).collect();
    for one in all {
        one.wait_within(Duration::from_secs(60)).ok();
    }
    for n in 0..6 {
        env.ctr(format!("run --rm app:{n} cat /common /n")).ok().prints(&format!("common\n{n}\n"));
    }
}

#[test]
fn environments_live_side_by_side() {
    let (left, right) = (TestEnv::new(), TestEnv::new());
    left.ctr("run -d --name same busybox sleep 1000").ok();
    right.ctr("run -d --name same busybox sleep 1000").ok();
    let (a, b) = (left.address_of("same"), right.address_of("same"));
    assert_ne!(a.rsplit_once('.').unwrap().0, b.rsplit_once('.').unwrap().0, "subnets of their own");
    left.ctr("rm -f same").ok();
    right.ctr("exec same true").ok();
}
