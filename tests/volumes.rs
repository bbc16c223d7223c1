//! `-v`, `--mount`, `--tmpfs` and `ctr volume`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use test_support::TestEnv;

#[test]
fn binds() {
    let env = TestEnv::new();
    env.write("data/file", "from the host\n");
    let data = env.path("data");
    let data = data.display();
    env.ctr(format!("run --rm -v {data}:/d busybox cat /d/file")).ok().prints("from the host");
    env.ctr(format!("run --rm -v {data}:/d busybox sh -c 'echo inside > /d/new'")).ok();
    assert_eq!(std::fs::read_to_string(env.path("data/new")).unwrap(), "inside\n");
    env.ctr(format!("run --rm -v {data}:/d:ro busybox touch /d/x")).fails(1).says("Read-only file system");
    // Relative to the caller; a file; made where missing.
    env.ctr("run --rm -v ./data/file:/etc/motd busybox cat /etc/motd").ok().prints("from the host");
    env.ctr("run --rm -v ./made/here:/d busybox touch /d/x").ok();
    assert!(env.path("made/here/x").exists());
    let mount = format!("--mount=type=bind,src={data},dst=/d,readonly");
    env.ctr(["run", "--rm", &mount, "busybox", "cat", "/d/file"]).ok().prints("from the host");
    let failed = env.ctr("run --rm --mount type=bind,src=/no/such,dst=/d busybox true").fails(125);
    failed.says("/no/such").says_it_plainly();
}

#[test]
fn named_ones_outlive_their_containers() {
    let env = TestEnv::new();
    env.ctr("run --rm -v store:/data busybox sh -c 'echo kept > /data/f'").ok();
    env.ctr("run --rm -v store:/data busybox cat /data/f").ok().prints("kept");
    env.ctr("volume ls").ok().prints("store");
    env.ctr("volume inspect store").ok().prints("Mountpoint");
    env.ctr("create --name user -v store:/data busybox true").ok();
    env.ctr("volume rm store").fails(1).says("in use").says_it_plainly();
    env.ctr("rm user").ok();
    env.ctr("volume rm store").ok();
    env.ctr("volume rm store").fails(1).says("no such volume: store").says_it_plainly();
}

#[test]
fn an_empty_one_is_filled_from_the_image() {
    let env = TestEnv::new();
    let file =
        "FROM busybox\nRUN mkdir /site && echo page > /site/index.html && chown -R 33:33 /site && chmod 750 /site\n";
    env.build("site", "ctx", file).ok();
    env.ctr("run --rm -v web:/site site ls -ln /site").ok().prints("33");
    let folder = env.root().join("volumes/web/_data");
    let meta = folder.metadata().unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o777), (33, 0o750));
    // What holds something is left alone; nocopy leaves it empty.
    env.ctr("run --rm -v web:/site site sh -c 'echo new > /site/index.html'").ok();
    env.ctr("run --rm -v web:/site site cat /site/index.html").ok().prints("new");
    env.ctr("run --rm -v bare:/site:nocopy site ls -A /site").ok().prints_nothing();
}

#[test]
fn anonymous_ones_go_with_rm() {
    let env = TestEnv::new();
    env.build("declares", "ctx", "FROM busybox\nVOLUME /data\n").ok();
    env.ctr("run --rm declares touch /data/x").ok();
    env.ctr("volume ls -q").ok().prints_nothing();
    env.ctr("run --name keep -v /more declares true").ok();
    assert_eq!(env.ctr("volume ls -q").ok().lines().len(), 2);
    env.ctr("rm -v keep").ok();
    env.ctr("volume ls -q").ok().prints_nothing();
}

#[test]
fn tmpfs() {
    let env = TestEnv::new();
    env.ctr("run --rm --tmpfs /t:size=1m,mode=1777 busybox df -k /t").ok().prints("1024");
    let out =
        env.ctr("run --rm --mount type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=0700 busybox sh -c 'df -k /t; ls -ld /t'");
    out.ok().prints("2048").prints("drwx------");
}

#[test]
fn grammar_errors() {
    let env = TestEnv::new();
    for (flag, value, word) in [
        ("-v", "a:b:c:d", "a:b:c:d"),
        ("-v", "x:relative", "relative"),
        ("-v", "xx:/y:sideways", "sideways"),
        ("--mount", "type=carpet,dst=/x", "carpet"),
        ("--mount", "type=bind,src=/tmp", "target"),
        ("--mount", "type=bind,source=/tmp,dst=/x,colour=red", "colour"),
    ] {
        env.ctr(["run", "--rm", flag, value, "busybox", "true"]).fails(125).says(word).says_it_plainly();
    }
}

#[test]
fn a_link_in_the_image_does_not_lead_out() {
    let env = TestEnv::new();
    env.build("trap", "ctx", "FROM busybox\nRUN ln -s /../../../../../.. /out && mkdir /d\n").ok();
    env.write("data/f", "x");
    // The mount point resolves inside the container's root.
    let data = env.path("data");
    let place = format!("{}:/out/landed", data.display());
    env.ctr(["run", "--rm", "-v", &place, "trap", "cat", "/landed/f"]).ok().prints("x");
    assert!(!std::path::Path::new("/landed").exists());
}
