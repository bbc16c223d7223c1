//! `copy`, `manifest` and `image referrers`: images as they are, between registries, archives, layouts and the store –
//! with skopeo, umoci and docker-registry on the other side.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on says so by a panic.

use serde_json::Value;
use std::os::unix::fs::symlink;
use std::process::Command;
use test_support::http::{MemoryRegistry, Quirks, answer};
use test_support::{Registry, RegistryKind, TestEnv};

#[track_caller]
fn tool(words: &[&str]) -> String {
    let out = Command::new(words[0]).args(&words[1..]).output().expect("it is installed: see scripts/test-deps");
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The digest that skopeo finds at a place.
#[track_caller]
fn digest(place: &str) -> String {
    let out = tool(&["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", place]);
    out.trim().to_owned()
}

/// `busybox` with a layer of ours on it.
fn build_app(env: &TestEnv, tag: &str) {
    env.write("app/hello.txt", "hello from afar\n");
    env.build(tag, "app", "FROM busybox\nCOPY hello.txt /hello.txt\nCMD cat /hello.txt\n").ok();
}

#[test]
fn an_image_goes_round_and_stays_the_same() {
    let (env, other, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    build_app(&env, "app:1");
    let at = |name: &str| format!("docker://{}/{name}", registry.address());
    let file = |kind: &str, name: &str| format!("{kind}:{}", env.path(name).display());
    env.ctr(["copy", "app:1", &at("team/app:1")]).ok().prints("Copied");
    let first = digest(&at("team/app:1"));

    let (layout, archive) = (file("oci", "layout"), file("oci-archive", "app.tar"));
    env.ctr(["copy", &at("team/app:1"), &format!("{layout}:v1")]).ok().prints(&first);
    env.ctr(["copy", &format!("{layout}:v1"), &format!("{archive}:app:1")]).ok();
    env.ctr(["copy", &archive, &format!("{}:app:2", file("docker-archive", "docker.tar"))]).ok();
    let out = env.ctr(["copy", "-q", &file("docker-archive", "docker.tar"), &at("team/copy:2")]).ok();
    assert_eq!(out.text(), first);
    for place in [format!("{layout}:v1"), format!("{archive}:app:1"), at("team/copy:2")] {
        assert_eq!(digest(&place), first, "{place}");
    }
    tool(&["umoci", "stat", "--image", &format!("{}:v1", env.path("layout").display())]);
    // Again: nothing is sent, and between repositories of one registry nothing travels.
    env.ctr(["copy", &layout, &at("team/app:1")]).ok().prints("Already exists");
    env.ctr(["copy", &at("team/app:1"), &at("third:1")]).ok().prints("Mounted from team/app");

    // Into the store, from all of them.
    let docker = file("docker-archive", "docker.tar");
    for (place, name) in [(&at("third:1"), "a:1"), (&layout, "b:1"), (&archive, "c:1"), (&docker, "d:1")] {
        other.ctr(["copy", place, name]).ok();
        other.ctr(["run", "--rm", name]).ok().prints("hello from afar");
    }
    // What skopeo makes of it: plain tars in docker's old way.
    let old = file("docker-archive", "old.tar");
    tool(&["skopeo", "copy", "-q", "--src-tls-verify=false", &at("team/app:1"), &format!("{old}:app:old")]);
    env.ctr(["copy", &format!("{old}:app:old"), &at("old:1")]).ok();
    other.ctr(["pull", &format!("{}/old:1", registry.address())]).ok();
    assert_eq!(
        other.inspect(&format!("{}/old:1", registry.address()), "/Id"),
        env.inspect("app:1", "/Id"),
        "the same image, whatever became of its layers' compression"
    );
}

#[test]
fn an_index_is_copied_whole_or_for_one_platform() {
    let (env, registry) = (TestEnv::new(), MemoryRegistry::default());
    let at = |name: &str| format!("docker://{}", registry.image(name));
    let list = registry.image("team/multi:1").to_string();
    // A variant of the image for another machine: its config says so.
    env.build("other", "other", "FROM busybox\nLABEL of=another\n").ok();
    env.ctr("tag busybox here").ok();
    env.ctr(["copy", "other", &at("other:1")]).ok();
    let (kind, manifest) = registry.manifest("other", "1").unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let id: oci::Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let mut config: Value = serde_json::from_slice(&registry.blob("other", &id).unwrap()).unwrap();
    config["architecture"] = "s390x".into();
    let config = config.to_string();
    let blob = oci::Descriptor::of("application/vnd.oci.image.config.v1+json", config.as_bytes());
    registry.put_blob("other", &blob.digest, config.as_bytes());
    manifest["config"] = serde_json::to_value(&blob).unwrap();
    registry.put_manifest("other", "s390x", &kind, manifest.to_string().as_bytes());

    env.ctr(["manifest", "create", &list, "here", &registry.image("other:s390x").to_string()]).ok();
    env.ctr(["manifest", "create", &list, "here"]).fails(1).says("exists").says_it_plainly();
    env.ctr(["manifest", "create", "--amend", &list, "here", "other"]).fails(1).says("and so is another image");
    let shown: Value = serde_json::from_str(&env.ctr(["manifest", "inspect", &list]).ok().text()).unwrap();
    assert_eq!(shown["manifests"][1]["platform"]["architecture"], "s390x");
    env.ctr(["push", &list]).ok().prints("1: digest: sha256:");
    let index = digest(&at("team/multi:1"));
    let raw: Value =
        serde_json::from_str(&tool(&["skopeo", "inspect", "--raw", "--tls-verify=false", &at("team/multi:1")]))
            .unwrap();
    assert_eq!(raw, shown);
    env.ctr(["manifest", "push", "--purge", &list, &registry.image("team/multi:2").to_string()]).ok().prints(&index);
    env.ctr(["manifest", "push", &list]).fails(1).says("No such manifest list").says_it_plainly();

    let layout = format!("oci:{}", env.path("layout").display());
    let out = env.ctr(["copy", "--all", &at("team/multi:1"), &format!("{layout}:all")]).ok();
    out.prints(&index);
    env.ctr(["copy", "--all", "-q", &format!("{layout}:all"), &at("again/multi:1")]).ok().prints(&index);
    assert_eq!(registry.manifest("again/multi", "1"), registry.manifest("team/multi", "1"));
    // One platform of it.
    env.ctr(["copy", "--platform", "linux/s390x", &at("team/multi:1"), &at("one:1")]).ok();
    assert_eq!(registry.manifest("one", "1"), registry.manifest("other", "s390x"));
    env.ctr(["copy", &at("team/multi:1"), "local:1"]).ok();
    assert_eq!(env.inspect("local:1", "/Id"), env.inspect("busybox", "/Id"));
    env.ctr(["copy", "--platform", "linux/mips", &at("team/multi:1"), &at("one:1")])
        .fails(1)
        .says("no matching manifest for linux/mips")
        .says_it_plainly();
    env.ctr(["copy", "--all", &at("team/multi:1"), "local:2"]).fails(1).says("name a platform").says_it_plainly();
    env.ctr(["run", "--rm", &list, "true"]).ok();
}

#[test]
fn what_is_attached_is_listed_and_fetched() {
    let (env, debian) = (TestEnv::new(), Registry::start(RegistryKind::Plain));
    let modern = MemoryRegistry::default();
    let none = MemoryRegistry::start(Quirks { referrers: false, ..Quirks::default() });
    let sbom = env.write("sbom.spdx.json", "{\"spdxVersion\":\"SPDX-2.3\"}").display().to_string();
    for address in [debian.address(), modern.address().to_owned(), none.address().to_owned()] {
        let image = format!("{address}/team/app:1");
        env.ctr(["tag", "busybox", &image]).ok();
        env.ctr(["push", &image]).ok();
        let attach = ["image", "referrers", "--attach", &sbom, "--artifact-type", "application/spdx+json"];
        let artifact = env.ctr([&attach[..], &["--annotation", "by=me", &image]].concat()).ok().text().to_owned();
        env.ctr(["image", "referrers", &image]).ok().prints("application/spdx+json").prints(&artifact[..19]);
        let out = env.ctr(["image", "referrers", "--format", "{{.Digest}} {{.Annotations.by}}", &image]).ok();
        assert_eq!(out.text(), format!("{artifact} me"), "{address}");
        assert_eq!(env.ctr(["image", "referrers", "-q", "--type", "text/plain", &image]).ok().text(), "");
        let folder = env.path(&format!("fetched-{address}")).display().to_string();
        env.ctr(["image", "referrers", "--fetch", &artifact, "-o", &folder, &image]).ok().prints("sbom.spdx.json");
        let read = std::fs::read_to_string(format!("{folder}/sbom.spdx.json")).unwrap();
        assert_eq!(read, "{\"spdxVersion\":\"SPDX-2.3\"}");
        // Nothing that is there is replaced.
        let again = env.ctr(["image", "referrers", "--fetch", "all", "-o", &folder, &image]);
        again.fails(1).says("File exists").says_it_plainly();
        env.ctr(["image", "referrers", "--fetch", "sha256:0000", &image]).fails(1).says("nothing like that");
    }
}

#[test]
fn a_layout_reaches_nothing_outside_of_it() {
    let env = TestEnv::new();
    let layout = format!("oci:{}", env.path("layout").display());
    env.ctr(["copy", "busybox", &layout]).ok();
    let index: Value = serde_json::from_slice(&std::fs::read(env.path("layout/index.json")).unwrap()).unwrap();
    let hex = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let blob = env.path("layout/blobs/sha256").join(&hex);
    let stolen = env.path("stolen");
    std::fs::rename(&blob, &stolen).unwrap();
    // The very content, but outside.
    symlink(&stolen, &blob).unwrap();
    env.ctr(["copy", &layout, "x:1"]).fails(1).says("No such file").says_it_plainly();
    // A folder of blobs that leads elsewhere is not written through.
    let elsewhere = env.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::remove_dir_all(env.path("layout/blobs/sha256")).unwrap();
    symlink(&elsewhere, env.path("layout/blobs/sha256")).unwrap();
    env.ctr(["copy", "busybox", &layout]).fails(1).says_it_plainly();
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    // Nor is anything that is no layout.
    env.write("other/file", "mine");
    env.ctr(["copy", "busybox", &format!("oci:{}", env.path("other").display())])
        .fails(1)
        .says("neither empty nor an OCI image layout")
        .says_it_plainly();
}

#[test]
fn damage_on_the_way_is_seen_and_leaves_nothing() {
    let (env, registry) = (TestEnv::new(), MemoryRegistry::default());
    let from = format!("docker://{}", registry.image("a:1"));
    env.ctr(["copy", "busybox", &from]).ok();
    registry.fault(|seen| {
        let is_layer = seen.method == "GET" && seen.target.contains("/blobs/");
        is_layer.then(|| answer(200, "", vec![b'x'; 100]))
    });
    for to in ["oci-archive:out.tar", "oci:out", "new:1"] {
        let to = to.replace("out", &env.path("out").display().to_string());
        env.ctr(["copy", &from, &to]).fails(1).says_it_plainly();
    }
    assert!(!env.path("out.tar").exists());
    assert!(
        std::fs::read_dir(env.path(""))
            .unwrap()
            .flatten()
            .all(|e| !e.file_name().to_string_lossy().contains("partial"))
    );
    assert_eq!(env.ctr("images -q new").ok().text(), "");
}

#[test]
fn programs_are_told_in_json() {
    let (env, there, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/busybox:1", registry.address());
    env.ctr(["tag", "busybox", &name]).ok();
    let objects = |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let pushed = objects(&env.ctr(["push", "--progress=json", &name]).ok().stdout());
    assert!(pushed.iter().any(|o| o["status"] == "Pushed"), "{pushed:?}");
    let digest = pushed.last().unwrap()["aux"]["Digest"].clone();
    let pulled = objects(&there.ctr(["pull", "--progress", "json", &name]).ok().stdout());
    assert!(pulled.iter().any(|o| o["progressDetail"]["total"].as_u64().is_some_and(|t| t > 0)), "{pulled:?}");
    assert_eq!(pulled.last().unwrap()["aux"]["Digest"], digest);
    let failed = there.ctr(["pull", "--progress=json", &format!("{name}x")]).fails(1);
    assert!(objects(&failed.stdout()).last().unwrap()["error"].as_str().unwrap().contains("not found"));
    env.ctr("search busybox").fails(1).says("search is not supported").says("hub.docker.com");
}
