//! Images over the wire: `pull`, `push`, `login`, `logout`, against Debian's docker-registry, with skopeo on the
//! other side.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on says so by a panic.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, channel};
use test_support::http::{MemoryRegistry, TokenServer};
use test_support::{Invocation, PATIENCE, Registry, RegistryKind, TestEnv};

/// Runs skopeo, which trusts this test's registries whatever they show.
#[track_caller]
fn skopeo(words: &[&str]) -> Vec<u8> {
    let out = Command::new("skopeo").args(words).output().expect("skopeo is installed: see scripts/test-deps");
    assert!(out.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[track_caller]
fn remote(image: &str) -> Value {
    let raw = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{image}")]);
    serde_json::from_slice(&raw).expect("skopeo inspect prints JSON")
}

fn image_id(env: &TestEnv, name: &str) -> String {
    env.inspect(name, "/Id").as_str().expect("a text").to_owned()
}

/// What a transfer left half-made in a store; lock files are not content.
fn half_made(env: &TestEnv) -> Vec<String> {
    let entries = std::fs::read_dir(env.root().join("ingest")).expect("a store has it");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.ends_with(".lock") && !name.starts_with("lease.")).collect()
}

/// `busybox`, with a layer of ours on it.
fn build_app(env: &TestEnv, tag: &str) {
    env.write("app/hello.txt", "hello from the registry\n");
    env.build(tag, "app", "FROM busybox\nCOPY hello.txt /hello.txt\nRUN echo made > /made\nCMD cat /hello.txt /made\n")
        .ok();
}

#[test]
fn what_is_pushed_others_can_read_and_pull_and_run() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/team/app:1", registry.address());
    build_app(&here, &name);
    let out = here.ctr(["push", &name]).ok();
    let repository = format!("The push refers to repository [{}/team/app]", registry.address());
    let out = out.prints(&repository).prints("Pushed").prints("1: digest: sha256:");

    let seen = remote(&name);
    let digest = seen["Digest"].as_str().expect("a text");
    assert!(out.stdout().contains(digest), "{} is not in {}", digest, out.stdout());
    assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(3));
    // All of it comes out whole, and the config is our image's id.
    let copy = here.path("copy");
    skopeo(&["copy", "--src-tls-verify=false", &format!("docker://{name}"), &format!("dir:{}", copy.display())]);
    let manifest: Value = serde_json::from_slice(&std::fs::read(copy.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["config"]["digest"].as_str().unwrap(), image_id(&here, &name));

    // Again: nothing is sent.
    let again = here.ctr(["push", &name]).ok().prints("Layer already exists");
    assert!(!again.stdout().contains("Pushed"), "{}", again.stdout());
    assert!(again.stdout().contains(digest), "the digest stays");

    there.ctr(["pull", &name]).ok().prints("Pull complete").prints(&format!("Digest: {digest}"));
    assert_eq!(image_id(&there, &name), image_id(&here, &name));
    there.ctr(["run", "--rm", &name]).ok().prints("hello from the registry\nmade");
}

#[test]
fn what_skopeo_pushes_is_pulled_and_runs() {
    let (env, other, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/busybox:skopeo", registry.address());
    env.ctr("save -o busybox.tar busybox").ok();
    let archive = format!("docker-archive:{}", env.path("busybox.tar").display());
    skopeo(&["copy", "--dest-tls-verify=false", &archive, &format!("docker://{name}")]);

    let out = other.ctr(["pull", &name]).ok();
    let out = out.prints("skopeo: Pulling from busybox").prints("Status: Downloaded newer image for");
    assert!(out.text().ends_with(&name), "the last line is the name: {}", out.text());
    assert_eq!(image_id(&other, &name), image_id(&env, "busybox"));
    other.ctr(["run", "--rm", &name, "echo", "works"]).ok().prints("works");
    other.ctr(["pull", &name]).ok().prints("Status: Image is up to date for");
    assert_eq!(other.ctr(["pull", "-q", &name]).ok().text(), name);
    let repository = format!("{}/busybox", registry.address());
    let all = TestEnv::empty();
    all.ctr(["pull", "-a", &repository]).ok().prints("skopeo: Pulling from busybox");
    all.ctr(["pull", "-a", &name]).fails(125).says("tag can't be used with --all-tags");

    // Docker's older manifest format, by digest.
    let v2s2 = format!("{}/busybox:v2s2", registry.address());
    skopeo(&["copy", "--format", "v2s2", "--dest-tls-verify=false", &archive, &format!("docker://{v2s2}")]);
    let digest = remote(&v2s2)["Digest"].as_str().unwrap().to_owned();
    let by_digest = format!("{}/busybox@{digest}", registry.address());
    other.ctr(["pull", &by_digest]).ok().prints(&format!("Digest: {digest}"));
    other.ctr(["run", "--rm", &by_digest, "true"]).ok();
    // It was pulled as it is, and is pushed on as it is.
    let copy = format!("{}/copy:1", registry.address());
    other.ctr(["tag", &by_digest, &copy]).ok();
    other.ctr(["push", &copy]).ok().prints(&digest).prints("Mounted from busybox");
}

#[test]
fn a_second_pull_of_an_unchanged_image_is_one_request() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), MemoryRegistry::default());
    let name = registry.image("team/app:1").to_string();
    here.ctr(["tag", "busybox", &name]).ok();
    here.ctr(["push", &name]).ok();
    there.ctr(["pull", &name]).ok().prints("Downloaded newer image");
    registry.forget();
    there.ctr(["pull", &name]).ok().prints("up to date");
    assert_eq!(registry.requests(), ["HEAD /v2/team/app/manifests/1"], "what is not counted as a pull");
    // By digest it takes none.
    let by_digest = there.inspect(&name, "/RepoDigests/0").as_str().unwrap().to_owned();
    registry.forget();
    there.ctr(["pull", &by_digest]).ok().prints("up to date");
    assert!(registry.requests().is_empty());
    // A tag that has moved is seen.
    here.build("new", "new", "FROM busybox\nLABEL a=b\n").ok();
    here.ctr(["tag", "new", &name]).ok();
    here.ctr(["push", &name]).ok();
    there.ctr(["pull", &name]).ok().prints("Downloaded newer image");
    assert_eq!(image_id(&there, &name), image_id(&here, "new"));
}

#[test]
fn an_index_gives_the_image_for_this_machine() {
    let (env, registry) = (TestEnv::new(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/app:one", registry.address());
    env.ctr(["tag", "busybox", &name]).ok();
    env.ctr(["push", &name]).ok();
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let digest = remote(&name)["Digest"].clone();
    let entry = |os: &str, architecture: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": raw.len(),
            "platform": { "os": os, "architecture": architecture },
        })
    };
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let put = |tag: &str, entries: Vec<Value>| {
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        });
        let file = env.write("index.json", index.to_string());
        let url = format!("http://{}/v2/app/manifests/{tag}", registry.address());
        let mut curl = Command::new("curl");
        curl.args([
            "-sSf",
            "-X",
            "PUT",
            "-H",
            "Content-Type: application/vnd.oci.image.index.v1+json",
            "--data-binary",
        ]);
        assert!(curl.arg(format!("@{}", file.display())).arg(url).status().unwrap().success());
        format!("{}/app:{tag}", registry.address())
    };
    // Attestations are no platform.
    let multi = put("multi", vec![entry("unknown", "unknown"), entry("linux", "s390x"), entry("linux", host)]);
    let other = TestEnv::empty();
    other.ctr(["pull", &multi]).ok().prints("Downloaded newer image");
    other.ctr(["pull", &multi]).ok().prints("up to date");
    other.ctr(["run", "--rm", &multi, "true"]).ok();

    let foreign = put("foreign", vec![entry("linux", "s390x"), entry("windows", host)]);
    let message = other.ctr(["pull", &foreign]).fails(1).says_it_plainly();
    message.says(&format!("no matching manifest for linux/{host}")).says("linux/s390x");
    // Asked for by name, the other platform is taken at its word – and this one is not what it says.
    other.ctr(["pull", "--platform", "linux/s390x", &foreign]).fails(1).says("which is not the requested platform");
}

#[test]
fn a_password_is_asked_for_tried_and_kept() {
    let (env, registry) = (TestEnv::new(), Registry::start(RegistryKind::Password));
    let host = registry.address();
    let name = format!("{host}/private:1");
    env.ctr(["tag", "busybox", &name]).ok();
    env.ctr(["push", &name]).fails(1).says(&format!("ctr login {host}")).says_it_plainly();
    let login =
        |password: &str| env.invoke(["login", "-u", Registry::USER, "--password-stdin", &host]).stdin(password).run();
    login("wrong").fails(1).says("unauthorized").says_it_plainly();
    assert!(!env.path("home/.docker/config.json").exists(), "a refused login is not kept");
    login(&format!("{}\n", Registry::PASSWORD)).ok().prints("Login Succeeded");
    let mode = std::fs::metadata(env.path("home/.docker/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    env.ctr(["push", &name]).ok().prints("1: digest: sha256:");
    env.ctr(["rmi", &name]).ok();
    env.ctr(["pull", &name]).ok();
    env.ctr(["logout", &host]).ok().prints("Removing login credentials for");
    env.ctr(["pull", &name]).fails(1).says("pull access denied").says_it_plainly();
    // What skopeo or podman keep is found as well.
    let auth = env.path("auth.json").display().to_string();
    let me = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let words =
        ["login", "--tls-verify=false", "--authfile", &auth, "-u", Registry::USER, "-p", Registry::PASSWORD, &host];
    skopeo(&words);
    env.invoke(["pull", &name]).env("REGISTRY_AUTH_FILE", &auth).run().ok();
    // And what we keep is found by skopeo.
    login(Registry::PASSWORD).ok();
    let ours = env.path("home/.docker/config.json").display().to_string();
    skopeo(&["inspect", "--tls-verify=false", "--authfile", &ours, &format!("docker://{name}")]);
    assert!(!std::fs::read_to_string(&ours).unwrap().contains(&me), "no plain password in the file");
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named() {
    let (env, registry) = (TestEnv::new(), Registry::start(RegistryKind::Tls));
    let name = format!("{}/secure:1", registry.address());
    env.ctr(["tag", "busybox", &name]).ok();
    let message = env.ctr(["push", &name]).fails(1).says("certificate is not trusted").says_it_plainly();
    message.says(&format!("certs.d/{}/ca.crt", registry.address()));

    env.ctr(["push", "--tls-verify=false", &name]).ok();
    let ca = std::fs::read(registry.ca()).unwrap();
    env.write(&format!("home/.config/containers/certs.d/{}/ca.crt", registry.address()), ca);
    env.ctr(["push", &name]).ok();
    env.ctr(["pull", &name]).ok();
    // By variable, as for every other program.
    let elsewhere = TestEnv::empty();
    let with_ca = |words: [&str; 2]| -> Invocation { elsewhere.invoke(words).env("SSL_CERT_FILE", registry.ca()) };
    with_ca(["pull", &name]).run().ok();
}

#[test]
fn run_fetches_what_is_missing() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/busybox:1", registry.address());
    here.ctr(["tag", "busybox", &name]).ok();
    here.ctr(["push", &name]).ok();
    let out =
        there.ctr(["run", "--rm", &name, "echo", "ran"]).ok().says(&format!("Unable to find image '{name}' locally"));
    assert_eq!(out.text(), "ran", "the pull's progress is not in the container's output");
    let quiet = there.ctr(["run", "--rm", "--pull=never", &format!("{name}x"), "true"]);
    quiet.fails(125).says("No such image");
}

#[test]
fn what_cannot_be_had_is_said_in_a_line() {
    let (env, registry) = (TestEnv::new(), Registry::start(RegistryKind::Plain));
    let host = registry.address();
    env.ctr(["pull", &format!("{host}/nothing:here")])
        .fails(1)
        .says("not found")
        .says("nothing:here")
        .says_it_plainly();
    env.ctr(["push", &format!("{host}/never:tagged")]).fails(1).says("does not exist locally").says_it_plainly();
    env.ctr("pull 127.0.0.1:1/x").fails(1).says("connection refused").says_it_plainly();
    env.ctr("pull Upper/Case").fails(1).says("lower").says_it_plainly();
    env.ctr("pull no-such-host.invalid/x").fails(1).says("no-such-host.invalid").says_it_plainly();
    assert_eq!(env.ctr("images -q").ok().lines().len(), 1, "nothing came of it");
}

/// The one blob file of a registry's storage with this digest.
fn stored_blob(registry: &Registry, digest: &str) -> std::path::PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    registry.data().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

#[test]
fn damaged_content_leaves_nothing_behind() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/app:1", registry.address());
    build_app(&here, &name);
    here.ctr(["push", &name]).ok();
    let layers = remote(&name)["Layers"].clone();
    let layer = layers[0].as_str().unwrap().to_owned();
    let blob = stored_blob(&registry, &layer);
    let good = std::fs::read(&blob).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x55;
    std::fs::write(&blob, &bad).unwrap();
    there.ctr(["pull", &name]).fails(1).says_it_plainly();
    assert_eq!(there.ctr("images -aq").ok().text(), "");
    // The good layers may stay for the next try; nothing half-made does.
    std::fs::write(&blob, &good).unwrap();
    there.ctr(["pull", &name]).ok().prints("Downloaded newer image");
    assert_eq!(half_made(&there), [""; 0]);
    there.ctr(["run", "--rm", &name]).ok().prints("hello from the registry\n");
}

#[test]
fn a_registry_that_dies_is_an_error_and_the_next_try_works() {
    let (here, there) = (TestEnv::new(), TestEnv::empty());
    let mut registry = Registry::start(RegistryKind::Plain);
    let name = format!("{}/busybox:1", registry.address());
    here.ctr(["tag", "busybox", &name]).ok();
    here.ctr(["push", &name]).ok();
    registry.kill();
    there.ctr(["pull", &name]).fails(1).says("connection refused").says_it_plainly();
    here.ctr(["push", &name]).fails(1).says("connection refused").says_it_plainly();
    let again = Registry::start(RegistryKind::Plain);
    let name = format!("{}/busybox:1", again.address());
    here.ctr(["tag", "busybox", &name]).ok();
    here.ctr(["push", &name]).ok();
    there.ctr(["pull", &name]).ok();
}

/// A way to a registry that lets a number of bytes through and then holds what follows back, or cuts the connection.
struct Narrow {
    address: String,
    blocked: Receiver<()>,
    open: Arc<AtomicBool>,
}

impl Narrow {
    fn start(registry: &Registry, limit_bytes: u64, cut: bool) -> Narrow {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (send, blocked) = channel();
        let (open, upstream) = (Arc::new(AtomicBool::new(false)), registry.address());
        let (gate, passed) = (open.clone(), Arc::new(AtomicU64::new(0)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if cut && passed.load(SeqCst) > limit_bytes {
                    return; // nobody listens here any more
                }
                let server = TcpStream::connect(&upstream).expect("the registry listens");
                let (mut requests, mut forward) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut requests, &mut forward));
                let (passed, gate, send) = (passed.clone(), gate.clone(), send.clone());
                std::thread::spawn(move || {
                    let (mut server, mut client, mut buffer) = (server, client, [0; 4096]);
                    while let Ok(count @ 1..) = server.read(&mut buffer) {
                        if passed.fetch_add(count as u64, SeqCst) > limit_bytes && !gate.load(SeqCst) {
                            let _ = send.send(());
                            let _ = if cut { client.shutdown(Shutdown::Both) } else { Ok(()) };
                            return std::mem::forget((server, client)); // held open, as a dead network does
                        }
                        if client.write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Narrow { address, blocked, open }
    }
}

#[test]
fn a_pull_cut_or_killed_in_the_middle_leaves_nothing_and_goes_on_later() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/app:1", registry.address());
    build_app(&here, &name);
    here.ctr(["push", &name]).ok();

    let cut = Narrow::start(&registry, 300_000, true);
    let message = there.ctr(["pull", &format!("{}/app:1", cut.address)]).fails(1).says_it_plainly();
    message.says("cannot fetch blob");
    assert_eq!(there.ctr("images -aq").ok().text(), "");

    let narrow = Narrow::start(&registry, 300_000, false);
    let name = format!("{}/app:1", narrow.address);
    let pull = there.invoke(["pull", &name]).spawn();
    narrow.blocked.recv_timeout(PATIENCE).expect("the pull gets that far");
    pull.kill();
    assert_eq!(there.ctr("images -aq").ok().text(), "");
    narrow.open.store(true, SeqCst);
    there.ctr(["pull", &name]).ok().prints("Downloaded newer image");
    there.ctr(["run", "--rm", &name]).ok().prints("hello from the registry\n");
    assert_eq!(half_made(&there), [""; 0]);
}

#[test]
fn many_pulls_of_one_image_at_once() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), Registry::start(RegistryKind::Plain));
    let name = format!("{}/app:1", registry.address());
    build_app(&here, &name);
    here.ctr(["push", &name]).ok();
    let pulls: Vec<_> = (0..8).map(|_| there.invoke(["pull", &name]).spawn()).collect();
    for pull in pulls {
        pull.wait().ok();
    }
    assert_eq!(there.ctr("images -q").ok().lines().len(), 1);
    there.ctr(["run", "--rm", &name]).ok().prints("hello from the registry\n");
}

#[test]
fn registries_conf_says_where_names_lead() {
    let (here, there) = (TestEnv::new(), TestEnv::empty());
    let (registry, mirror) = (MemoryRegistry::default(), Registry::start(RegistryKind::Plain));
    for name in [registry.image("team/app:1").to_string(), format!("{}/proxy/team/app:1", mirror.address())] {
        here.ctr(["tag", "busybox", &name]).ok();
        here.ctr(["push", &name]).ok();
    }
    let conf = |text: String| {
        there.write("home/.config/containers/registries.conf", text);
    };
    let place = format!("[[registry]]\nprefix = \"r.example\"\nlocation = \"{}\"\n", registry.address());
    conf(format!("{place}[[registry.mirror]]\nlocation = \"{}/proxy\"\n", mirror.address()));
    registry.forget();
    there.ctr("pull r.example/team/app:1").ok().prints("Downloaded newer image for r.example/team/app:1");
    assert!(registry.seen().is_empty(), "the mirror has it all");
    there.ctr("run --rm r.example/team/app:1 true").ok();
    there.ctr("push r.example/team/app:1").ok();
    assert!(!registry.seen().is_empty(), "pushed is to the registry");

    // Short names, in their order.
    conf(format!("unqualified-search-registries = [\"{}\", \"r.example\"]\n{place}", mirror.address()));
    there.ctr("rmi -f r.example/team/app:1").ok();
    there.ctr("run --rm team/app:1 echo here").ok().prints("here").says("Unable to find image");
    let again = there.ctr("run --rm --pull=never team/app:1 echo here").ok();
    again.prints("here");
    there.ctr("pull proxy/team/app:1").ok().prints(&format!("{}/proxy/team/app:1", mirror.address()));
    // In a Containerfile too, here and fetched, searched for and by an alias.
    there.build("by-search", "search", "FROM team/app:1\nRUN echo here\n").ok();
    there.ctr("rmi -f r.example/team/app:1").ok();
    there.build("by-search", "search", "FROM team/app:1\nRUN echo fetched\n").ok();
    conf(format!(
        "unqualified-search-registries = [\"nobody.invalid\"]\n[aliases]\nnick = \"r.example/team/app\"\n{place}"
    ));
    there.build("by-alias", "alias", "FROM nick:1\nRUN echo alias\n").ok();
    there.build("by-alias", "alias", "FROM nick:2\nRUN echo alias\n").fails(1).says("r.example/team/app:2");

    conf("[[registry]]\nlocation = \"r.example\"\nblocked = true\n".to_owned());
    there.ctr("pull r.example/x").fails(1).says("the registry is blocked in").says("registries.conf").says_it_plainly();
    conf("[[registry]\n".to_owned());
    there.ctr("pull r.example/x").fails(1).says("registries.conf").says_it_plainly();
}

#[test]
fn a_token_service_lets_in_who_is_known_to_it() {
    let (env, tokens) = (TestEnv::new(), TokenServer::start());
    let registry = Registry::start_with_tokens(RegistryKind::Plain, &tokens);
    let host = registry.address();
    let [private, public] = ["team/app:1", "public/app:1"].map(|name| format!("{host}/{name}"));
    for name in [&private, &public] {
        env.ctr(["tag", "busybox", name]).ok();
        env.ctr(["push", name]).fails(1).says(&format!("ctr login {host}")).says_it_plainly();
    }
    let authfile = env.path("logins.json").display().to_string();
    let login = |password: &str| {
        let words = ["login", "--authfile", &authfile, "-u", Registry::USER, "--password-stdin", &host];
        env.invoke(words).stdin(password).run()
    };
    login("wrong").fails(1).says("incorrect username or password").says_it_plainly();
    login(Registry::PASSWORD).ok().prints("Login Succeeded");
    env.ctr(["push", "--authfile", &authfile, &private]).ok();
    env.ctr(["push", "--authfile", &authfile, &public]).ok().prints("Mounted from team/app");
    env.ctr(["rmi", &private, &public]).ok();
    // Out of date at once: got anew.
    tokens.expire_next(1);
    env.ctr(["pull", "--authfile", &authfile, &private]).ok();
    env.ctr(["pull", &public]).ok();
    env.ctr(["pull", &private]).fails(1).says("pull access denied").says_it_plainly();
    env.ctr(["logout", "--authfile", &authfile, &host]).ok().prints("Removing login credentials");
    env.ctr(["pull", "--authfile", &authfile, &private]).fails(1).says("pull access denied");
}

#[test]
fn all_tags_go_and_come() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), MemoryRegistry::default());
    let repository = format!("{}/team/app", registry.address());
    here.ctr(["push", "-a", &repository]).fails(1).says("does not exist locally").says_it_plainly();
    for tag in ["1", "2", "latest"] {
        here.ctr(["tag", "busybox", &format!("{repository}:{tag}")]).ok();
    }
    here.ctr(["push", "-a", &repository]).ok().prints("latest: digest: ");
    there.ctr(["pull", "-a", "-q", &repository]).ok().prints(&format!("{repository}:2"));
    let tags = there.ctr(["images", "--format", "{{.Tag}}", &repository]).ok();
    let mut tags: Vec<String> = tags.lines().iter().map(ToString::to_string).collect();
    tags.sort();
    assert_eq!(tags, ["1", "2", "latest"]);
}

#[test]
fn indexes_in_indexes_and_digests_of_another_kind() {
    let (here, there, registry) = (TestEnv::new(), TestEnv::empty(), MemoryRegistry::default());
    let name = |tag: &str| registry.image(&format!("app:{tag}")).to_string();
    build_app(&here, &name("1"));
    here.ctr(["push", &name("1")]).ok();
    let (kind, bytes) = registry.manifest("app", "1").unwrap();

    // The same layers under the names that sha512 gives them.
    let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        let blob = registry.blob("app", &layer["digest"].as_str().unwrap().parse().unwrap()).unwrap();
        let mut hasher = oci::Hasher::sha512();
        hasher.update(&blob);
        let digest = hasher.finish();
        registry.put_blob("app", &digest, &blob);
        layer["digest"] = digest.to_string().into();
    }
    let long = manifest.to_string();
    let digest = registry.put_manifest("app", "long", &kind, long.as_bytes());
    there.ctr(["pull", &name("long")]).ok().prints(digest.as_str());
    there.ctr(["run", "--rm", &name("long")]).ok().prints("hello from the registry");
    there.ctr(["tag", &name("long"), &name("again")]).ok();
    there.ctr(["push", &name("again")]).ok().prints(digest.as_str());

    // An index in an index, beside an attestation and something from the future.
    let index = |entries: &[Value]| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        })
        .to_string()
    };
    let entry = |kind: &str, bytes: &str, platform: Value| {
        let digest = oci::Digest::sha256(bytes);
        serde_json::json!({ "mediaType": kind, "digest": digest, "size": bytes.len(), "platform": platform })
    };
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let inner = index(&[
        entry(&kind, "an attestation", serde_json::json!({ "os": "unknown", "architecture": "unknown" })),
        entry(&kind, &long, serde_json::json!({ "os": "linux", "architecture": host })),
    ]);
    let index_kind = "application/vnd.oci.image.index.v1+json";
    registry.put_manifest("app", "inner", index_kind, inner.as_bytes());
    let future = entry("application/vnd.example.future+json", "who knows", Value::Null);
    let outer = index(&[future, entry(index_kind, &inner, Value::Null)]);
    let digest = registry.put_manifest("app", "outer", index_kind, outer.as_bytes());
    there.ctr(["pull", &name("outer")]).ok().prints(digest.as_str());
    there.ctr(["run", "--rm", &name("outer")]).ok().prints("hello from the registry");
    // By digest; a tag beside it is for show.
    let by_digest = format!("{}:whatever@{digest}", registry.image("app").repository());
    there.ctr(["pull", &by_digest]).ok().prints(digest.as_str());
    there.ctr(["run", "--rm", &by_digest, "true"]).ok();
}
