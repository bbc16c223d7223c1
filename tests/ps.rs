//! `ctr ps`, `inspect`, `port`, `top`: looking at containers.

use test_support::TestEnv;

#[test]
fn the_table() {
    let env = TestEnv::new();
    let id = env.ctr("run -d --name web busybox sh -c 'sleep 1000; echo a long command line'").ok().text();
    let lines = env.ctr("ps").ok().lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let titles: Vec<_> = lines[0].split("   ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(titles, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert!(lines[1].starts_with(&id[..12]), "{}", lines[1]);
    for part in ["busybox", "\"sh -c 'sleep 1000; …\"", "Up ", "web"] {
        assert!(lines[1].contains(part), "{part:?} in {}", lines[1]);
    }
}

#[test]
fn all_running_last_quiet() {
    let env = TestEnv::new();
    env.ctr("run --name done busybox sh -c 'exit 3'").fails(3);
    env.ctr("create --name new busybox true").ok();
    env.ctr("run -d --name up busybox sleep 1000").ok();
    let names = |args: &str| env.ctr(format!("ps --format '{{{{.Names}}}}' {args}")).ok().lines();
    assert_eq!(names(""), ["up"]);
    assert_eq!(names("-a"), ["up", "new", "done"]);
    assert_eq!(names("-l"), ["up"]);
    assert_eq!(names("-n 2"), ["up", "new"]);
    assert_eq!(env.ctr("ps -aq").ok().lines().len(), 3);
    let status = env.ctr("ps -a --format '{{.Names}}={{.Status}}'").ok();
    status.prints("done=Exited (3) ").prints("new=Created").prints("up=Up ");
    assert_eq!(env.ctr("container ls -q").ok().lines().len(), 1);
    assert_eq!(env.ctr("container list -aq").ok().lines().len(), 3);
}

#[test]
fn filters() {
    let env = TestEnv::new();
    env.ctr("run -d --name red -l colour=red busybox sleep 1000").ok();
    env.ctr("run --name blue -l colour=blue busybox sh -c 'exit 2'").fails(2);
    let names = |filter: &str| env.ctr(["ps", "-a", "--format", "{{.Names}}", "-f", filter]).ok().lines();
    assert_eq!(names("name=ed"), ["red"]);
    assert_eq!(names("status=exited"), ["blue"]);
    assert_eq!(names("label=colour=red"), ["red"]);
    assert_eq!(names("exited=2"), ["blue"]);
    assert_eq!(names("ancestor=busybox").len(), 2);
    env.ctr("ps -f colour=red").either(&[1, 125]).says("colour").says_it_plainly();
}

#[test]
fn json_a_line_each() {
    let env = TestEnv::new();
    env.ctr("run -d --name one busybox sleep 1000").ok();
    let line = env.ctr("ps --format json").ok().text();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&value["Names"], &value["Image"], &value["State"]),
        (&"one".into(), &"busybox".into(), &"running".into())
    );
}

#[test]
fn inspect() {
    let env = TestEnv::new();
    let id = env.ctr("run -d --name ii -e A=1 -p 127.0.0.1::80 busybox sleep 1000").ok().text();
    assert_eq!(env.inspect("ii", "/Id"), id.as_str());
    assert_eq!(env.inspect("ii", "/Name"), "/ii");
    assert_eq!(env.inspect("ii", "/State/Running"), true);
    assert_eq!(env.inspect("ii", "/Config/Image"), "busybox");
    assert!(env.inspect("ii", "/Config/Env").as_array().unwrap().contains(&"A=1".into()));
    assert!(env.inspect("ii", "/NetworkSettings/Ports/80~1tcp/0/HostPort").as_str().unwrap().parse::<u16>().is_ok());
    env.ctr("inspect -f '{{.State.Status}} {{.Config.Image}}' ii").ok().prints("running busybox");
    env.ctr("exec ii dd if=/dev/zero of=/written bs=1000 count=5").ok();
    let sizes = env.ctr("inspect --size ii").ok().json();
    assert_eq!(sizes[0]["SizeRw"], 5000);
    assert!(sizes[0]["SizeRootFs"].as_u64().unwrap() > 1_000_000);
    let missing = env.ctr("inspect missing").fails(1).says("No such object: missing");
    assert_eq!(missing.text(), "[]");
}

#[test]
fn prefixes() {
    let env = TestEnv::new();
    let mut ids = Vec::new();
    // Seventeen ids: two begin with the same digit.
    for _ in 0..17 {
        ids.push(env.ctr("create busybox true").ok().text());
    }
    let first = |id: &String| id.as_bytes()[0];
    let doubled = ids.iter().find(|a| ids.iter().filter(|b| first(a) == first(b)).count() > 1).unwrap();
    let message = env.ctr(["inspect", &doubled[..1]]).fails(1);
    assert!(!message.stderr().is_empty());
    env.ctr(["start", &doubled[..1]]).fails(1).says_it_plainly();
    env.ctr(["start", &doubled[..12]]).ok();
    env.ctr(["start", doubled]).ok();
}

#[test]
fn made_up_names() {
    let env = TestEnv::new();
    let id = env.ctr("create busybox true").ok().text();
    let name = env.inspect(&id, "/Name").as_str().unwrap().trim_start_matches('/').to_owned();
    let (left, right) = name.split_once('_').expect("adjective_surname");
    assert!(left.chars().chain(right.chars()).all(|c| c.is_ascii_lowercase()), "{name}");
    env.ctr(["rm", &name]).ok();
}

#[test]
fn top_and_rename() {
    let env = TestEnv::new();
    env.ctr("run -d --name old busybox sleep 1234").ok();
    env.ctr("top old").ok().prints("sleep 1234");
    env.ctr("rename old new").ok();
    env.ctr("inspect new").ok();
    env.ctr("inspect old").fails(1);
}
