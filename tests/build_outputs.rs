//! `ctr build`: what its result becomes, what it tells, and what other machines get of its cache.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use serde_json::Value;
use std::fs;
use std::process::Command;

use test_support::{Registry, RegistryKind, TestEnv};

const FILE: &str = "FROM busybox AS base\nRUN echo made > /made\n# app is what comes out\nFROM scratch AS app\n# NAME is who is meant\n\
                    ARG NAME=world\nCOPY --from=base /made /out/\nLABEL name=$NAME\n";

fn tool(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(_) => {
            eprintln!("SKIPPED: {program} is not installed; scripts/test-deps installs it");
            return None;
        }
    };
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn files_go_to_a_folder_or_a_tar() {
    let env = TestEnv::new();
    env.write("ctx/Containerfile", FILE);
    env.ctr("build -o out ctx").ok();
    assert_eq!(fs::read_to_string(env.path("out/out/made")).unwrap(), "made\n");
    env.ctr("build -t named --output type=local,dest=out2 ctx").ok();
    assert!(env.path("out2/out/made").exists());
    env.ctr("images -q").ok().prints("").lines().iter().for_each(|id| assert!(!id.is_empty()));
    env.ctr("image inspect named").fails(1);
    env.ctr("build -o type=tar,dest=x.tar ctx").ok();
    let listed = tool("tar", &["-tf", env.path("x.tar").to_str().unwrap()]).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["out/", "out/made"]);
    let piped = env.ctr("build -q -o - ctx").ok();
    assert_eq!(piped.bytes(), fs::read(env.path("x.tar")).unwrap(), "nothing else goes to standard output");
    env.ctr("build -o type=zip ctx").fails(125).says("expected local");
}

#[test]
fn archives_are_what_others_read() {
    let env = TestEnv::new();
    env.write("ctx/Containerfile", FILE);
    let before = env.ctr("images -aq").ok().lines().len();
    env.ctr("build -t app:1 -o type=oci,dest=a.oci.tar --annotation org.opencontainers.image.title=Title ctx").ok();
    env.ctr("build -t app:1 -o type=docker,dest=a.docker.tar ctx").ok();
    env.ctr("build -t app:1 -o type=oci,tar=false,dest=layout ctx").ok();
    assert_eq!(env.ctr("images -aq").ok().lines().len(), before, "an archive leaves no image behind");
    let path = |name: &str| env.path(name).display().to_string();
    let inspect = |from: String| tool("skopeo", &["inspect", "--raw", &from]);
    if let Some(raw) = inspect(format!("oci-archive:{}", path("a.oci.tar"))) {
        let raw: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!(raw["annotations"]["org.opencontainers.image.title"], "Title");
        inspect(format!("docker-archive:{}", path("a.docker.tar")));
        inspect(format!("oci:{}:1", path("layout")));
        let copied = format!("dir:{}", path("copied"));
        tool("skopeo", &["copy", &format!("oci:{}:1", path("layout")), &copied]);
    }
    if tool("umoci", &["unpack", "--image", &format!("{}:1", path("layout")), &path("bundle")]).is_some() {
        assert!(env.path("bundle/rootfs/out/made").exists());
    }
    env.ctr("load -i a.docker.tar").ok().prints("app:1");
}

#[test]
fn what_was_built_is_described() {
    let env = TestEnv::new();
    env.write("ctx/Containerfile", FILE);
    env.ctr("build -t app --metadata-file m.json --iidfile id ctx").ok();
    let metadata: Value = serde_json::from_slice(&fs::read(env.path("m.json")).unwrap()).unwrap();
    let id = fs::read_to_string(env.path("id")).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert_eq!(metadata["image.name"], "docker.io/library/app:latest");
    let out = env.ctr("build --progress=rawjson -t app ctx").ok();
    let lines: Vec<Value> = out.stderr().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cached = |line: &&Value| line["vertexes"][0]["cached"] == true;
    assert!(lines.iter().filter(cached).count() >= 3, "{out}");
}

#[test]
fn a_recipe_is_outlined() {
    let env = TestEnv::empty();
    env.write("ctx/Containerfile", FILE);
    let out = env.ctr("build --call=outline ctx").ok();
    out.prints("TARGET:      app")
        .prints("DESCRIPTION: is what comes out")
        .prints("NAME        world   is who is meant");
    let json = env.ctr("build --call=outline,format=json ctx").ok().json();
    assert_eq!((&json["name"], &json["args"][0]["value"]), (&"app".into(), &"world".into()));
    let json = env.ctr("build --call=targets,format=json ctx").ok().json();
    assert_eq!(json["targets"][1]["default"], true);
    let json = env.ctr("build --print=json ctx").ok().json();
    assert_eq!(json["stages"][1]["instructions"][2]["instruction"], "COPY");
    assert_eq!(json["stages"][1]["instructions"][2]["line"], 7);
    env.write("ctx/Containerfile", "FROM busybox\nWORKDIR x\nCMD echo\n");
    let json = env.ctr("build --call=check,format=json ctx").fails(1).json();
    assert_eq!(json["warnings"][0]["ruleName"], "WorkdirRelativePath");
    env.ctr("build --call=nonsense ctx").fails(125).says("outline");
    env.write("ctx/Containerfile", "# check=error=true\nFROM busybox\nCMD echo\n");
    env.ctr("build ctx").fails(1).says("JSONArgsRecommended").says_it_plainly();
}

#[test]
fn another_machine_gets_the_cache() {
    let (here, there) = (TestEnv::new(), TestEnv::empty());
    let registry = Registry::start(RegistryKind::Plain);
    let file = "FROM busybox AS base\nRUN cat /proc/sys/kernel/random/uuid > /once\nFROM busybox\nCOPY --from=base /once /\nCOPY f /\nRUN cat /proc/sys/kernel/random/uuid > /twice\n";
    for env in [&here, &there] {
        env.write("ctx/Containerfile", file);
        env.write("ctx/f", "f");
    }
    let read = |env: &TestEnv| env.ctr("run --rm app cat /once /twice").ok().lines();
    let folder = here.path("cache").display().to_string();
    let name = format!("{}/cache:max", registry.address());
    here.ctr(["build", "-t", "app", "--cache-to", &format!("type=local,dest={folder},mode=max"), "ctx"]).ok();
    here.ctr(["build", "-t", "app", "--cache-to", &format!("type=registry,ref={name},mode=max"), "ctx"]).ok();
    let image = format!("{}/app:inline", registry.address());
    here.ctr(["build", "-t", &image, "--cache-to", "type=inline", "--push", "ctx"]).ok();
    here.ctr(["tag", &image, "app"]).ok();
    let made = read(&here);
    // The same base to the byte, as one pulled from a registry would be.
    here.ctr("save -o base.tar busybox").ok();
    let base = here.path("base.tar").display().to_string();
    for from in [format!("type=local,src={folder}"), name] {
        let fresh = TestEnv::empty();
        fresh.ctr(["load", "-i", &base]).ok();
        fresh.write("ctx/Containerfile", file);
        fresh.write("ctx/f", "f");
        let out = fresh.ctr(["build", "-t", "app", "--cache-from", &from, "ctx"]).ok();
        assert_eq!(read(&fresh), made, "{from}: {out}");
    }
    // An image holds its own steps alone: the stage is built anew, and what comes after it.
    there.ctr(["load", "-i", &base]).ok();
    there.write(
        "ctx/Containerfile",
        "FROM busybox\nCOPY f /\nRUN cat /proc/sys/kernel/random/uuid > /once; cp /once /twice\n",
    );
    here.write(
        "ctx/Containerfile",
        "FROM busybox\nCOPY f /\nRUN cat /proc/sys/kernel/random/uuid > /once; cp /once /twice\n",
    );
    here.ctr(["build", "-t", &image, "--cache-to", "type=inline", "--push", "ctx"]).ok();
    here.ctr(["tag", &image, "app"]).ok();
    there.ctr(["build", "-t", "app", "--cache-from", &image, "ctx"]).ok();
    assert_eq!(read(&there), read(&here));
    // A cache that is not there is told, and no more.
    let out = there
        .ctr(["build", "--no-cache-filter", "0", "--cache-from", "type=local,src=/nowhere", "-t", "app", "ctx"])
        .ok();
    assert!(!out.stderr().contains("panicked"), "{out}");
    there.write("ctx/f", "changed");
    there.ctr("build --cache-from type=local,src=/nowhere -t app ctx").ok().says("build cache is not imported");
}

#[test]
fn several_platforms_make_an_index() {
    let env = TestEnv::new();
    let registry = Registry::start(RegistryKind::Plain);
    let file = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n";
    env.write("ctx/Containerfile", file);
    env.write("ctx/amd64", "amd64");
    env.write("ctx/arm64", "arm64");
    let name = format!("{}/multi:1", registry.address());
    env.ctr(["build", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push", "--metadata-file", "m", "ctx"])
        .ok();
    let metadata: Value = serde_json::from_slice(&fs::read(env.path("m")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    let shown = format!("docker://{name}");
    if let Some(raw) = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &shown]) {
        let raw: Value = serde_json::from_str(&raw).unwrap();
        let architecture = |n: usize| raw["manifests"][n]["platform"]["architecture"].clone();
        assert_eq!((architecture(0), architecture(1)), ("amd64".into(), "arm64".into()));
    }
    env.ctr("build --platform linux/amd64,linux/arm64 -o files ctx").ok();
    assert_eq!(fs::read_to_string(env.path("files/linux_arm64/arch")).unwrap(), "arm64");
    // What an earlier result left in the folder leads nowhere.
    fs::create_dir(env.path("away")).unwrap();
    fs::remove_dir_all(env.path("files/linux_amd64")).unwrap();
    std::os::unix::fs::symlink("../away", env.path("files/linux_amd64")).unwrap();
    let refused = env.ctr("build --platform linux/amd64,linux/arm64 -o files ctx").fails(1);
    refused.says("linux_amd64: it is a link");
    assert_eq!(fs::read_dir(env.path("away")).unwrap().count(), 0);
    env.ctr("build --platform linux/amd64,linux/arm64 -t multi -o type=oci,dest=m.tar ctx").ok();
    env.ctr("build --platform linux/amd64,linux/arm64 -o type=docker,dest=m.tar ctx").fails(125).says("one platform");
    env.write("ctx/Containerfile", "FROM scratch\nCOPY amd64 /x\nRUN [\"/x\"]\n");
    if !fs::exists("/proc/sys/fs/binfmt_misc/qemu-riscv64").unwrap_or(false) && cfg!(target_arch = "x86_64") {
        env.ctr("build --platform linux/riscv64 ctx").fails(1).says("emulator");
    }
}

#[test]
fn two_copies_of_a_context_give_one_image() {
    let env = TestEnv::new();
    let mut ids = Vec::new();
    for (name, second) in [("one", 1_600_000_000), ("two", 1_700_000_000)] {
        let folder = format!("{name}/deep");
        env.write(
            &format!("{folder}/Containerfile"),
            "FROM busybox\nCOPY . /c/\nRUN mkdir /r && touch /r/a && date > /dev/null\nWORKDIR /w/x\nENV A=b\n",
        );
        env.write(&format!("{folder}/sub/f"), "f");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
        fs::File::open(env.path(&format!("{folder}/sub/f"))).unwrap().set_modified(time).unwrap();
        env.ctr(["build", "--no-cache", "--reproducible", "-t", "app", &folder]).ok();
        ids.push(env.ctr("images -q --no-trunc app").ok().text());
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_failed_step_can_be_looked_at() {
    let env = TestEnv::new();
    env.write("ctx/f", "of the context");
    env.write(
        "ctx/Containerfile",
        "FROM busybox\nARG WHO=me\nWORKDIR /w\nRUN --mount=type=bind,source=f,target=/f echo left > /w/behind && exit 7\n",
    );
    let script = "cat behind /f; echo; echo $WHO $PWD; touch /w/more; exit 3\n";
    let out = env.invoke("build --debug -t app ctx").stdin(script).run().fails(1);
    out.prints("left\nof the context\nme /w\n").says("exit code: 7");
    env.ctr("image inspect app").fails(1);
    let mut terminal = env.invoke("build --debug ctx").terminal(24, 100);
    terminal.send("cat behind; stty size; exit\n");
    terminal.expect("left");
    terminal.expect("24 100");
    terminal.wait().fails(1);
}
