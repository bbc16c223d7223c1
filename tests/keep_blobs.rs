//! `--keep-blobs=false`: what was pulled is not kept compressed too, and fetched again when it is to leave.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use test_support::{Finished, Registry, RegistryKind, TestEnv};

/// `ctr` of a server that is short of disk.
fn short(env: &TestEnv, words: &[&str]) -> Finished {
    env.invoke(words.to_vec()).env("CTR_KEEP_BLOBS", "false").run()
}

fn blobs(env: &TestEnv) -> Vec<PathBuf> {
    fs::read_dir(env.root().join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// An image of three layers in a registry, and its name there.
fn publish(registry: &Registry) -> String {
    let (maker, name) = (TestEnv::new(), format!("{}/team/app:1", registry.address()));
    maker.write("app/data", vec![7; 100_000]);
    maker.build(&name, "app", "FROM busybox\nCOPY data /data\nRUN echo pulled > /file\nCMD cat /file\n").ok();
    maker.ctr(["push", &name]).ok();
    name
}

/// The digest at the end of `1: digest: sha256:… size: 527`, or of `Digest: sha256:…`.
fn digest(out: &Finished) -> String {
    let text = out.stdout();
    let at = text.rfind("igest: sha256:").unwrap();
    text[at..].split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn what_is_not_kept_is_fetched_again_when_it_leaves() {
    let (source, target) = (Registry::start(RegistryKind::Plain), Registry::start(RegistryKind::Plain));
    let (env, there) = (TestEnv::empty(), TestEnv::empty());
    let name = publish(&source);
    let pulled = short(&env, &["pull", &name]).ok();
    assert_eq!(blobs(&env).len(), 2, "manifest and config: {:?}", blobs(&env));
    short(&env, &["run", "--rm", &name]).ok().prints("pulled");
    short(&env, &["pull", &name]).ok().prints("Image is up to date");
    short(&env, &["system", "check"]).ok().prints("Nothing is wrong.");
    short(&env, &["system", "prune", "-f"]).ok();

    // Out by an archive, to another registry, and as the base of an image.
    short(&env, &["save", "-o", "app.tar", &name]).ok();
    there.ctr(["load", "-i", env.path("app.tar").to_str().unwrap()]).ok();
    there.ctr(["run", "--rm", &name]).ok().prints("pulled");
    let other = format!("{}/copy:1", target.address());
    short(&env, &["tag", &name, &other]).ok();
    let pushed = short(&env, &["push", &other]).ok();
    assert_eq!(digest(&pushed), digest(&pulled), "the very same image");
    env.write("derived/Containerfile", format!("FROM {name}\nRUN echo built >> /file\n"));
    let derived = format!("{}/derived:1", target.address());
    short(&env, &["build", "-t", &derived, "derived"]).ok();
    short(&env, &["rmi", &name, &other]).ok();
    short(&env, &["copy", &derived, "oci:layout:x"]).ok();
    short(&env, &["push", &derived]).ok();
    there.ctr(["run", "--rm", &derived]).ok().prints("pulled\nbuilt");
    // One more blob: that of the layer built here, with the manifest and config of its image.
    assert_eq!(blobs(&env).len(), 3, "{:?}", blobs(&env));
}

#[test]
fn where_it_cannot_be_fetched_that_is_said() {
    let (mut source, target) = (Registry::start(RegistryKind::Plain), Registry::start(RegistryKind::Plain));
    let env = TestEnv::empty();
    let name = publish(&source);
    short(&env, &["pull", &name]).ok();
    let other = format!("{}/copy:1", target.address());
    short(&env, &["tag", &name, &other]).ok();
    // What the database knew of it is known without.
    fs::write(env.root().join("db.sqlite"), "no database").unwrap();
    short(&env, &["system", "check", "--repair"]).ok();
    short(&env, &["push", &other]).ok();

    source.kill();
    let said = "is not kept here (keep-blobs=false) and cannot be fetched again from";
    short(&env, &["save", "-o", "app.tar", &name]).fails(1).says(said).says(&source.address()).says_it_plainly();
    let third = format!("{}/third:1", target.address());
    short(&env, &["tag", &name, &third]).ok();
    // Its layers are at this registry: nothing is needed.
    short(&env, &["push", &other]).ok().prints("Layer already exists");
    short(&env, &["run", "--rm", &name]).ok().prints("pulled");
    short(&env, &["system", "check"]).ok().prints("Nothing is wrong.");
}

#[test]
fn prune_drops_what_can_be_had_again_and_nothing_else() {
    let source = Registry::start(RegistryKind::Plain);
    let (env, loader) = (TestEnv::empty(), TestEnv::empty());
    let name = publish(&source);
    env.ctr(["pull", &name]).ok();
    assert_eq!(blobs(&env).len(), 5);
    env.ctr(["save", "-o", "app.tar", &name]).ok();
    env.ctr("system prune -f").ok();
    assert_eq!(blobs(&env).len(), 5);
    env.ctr("--keep-blobs=false system prune -f").ok();
    assert_eq!(blobs(&env).len(), 2);
    env.ctr(["run", "--rm", &name]).ok().prints("pulled");
    // Kept again from now on: what is fetched for an archive goes by, though.
    env.ctr(["save", "-o", "again.tar", &name]).ok();
    assert_eq!(fs::read(env.path("app.tar")).unwrap(), fs::read(env.path("again.tar")).unwrap());

    // An archive is no place to fetch from again.
    let archive = env.path("app.tar");
    short(&loader, &["load", "-i", archive.to_str().unwrap()]).ok();
    short(&loader, &["system", "prune", "-f"]).ok();
    assert_eq!(blobs(&loader).len(), 5);
    loader.ctr("--keep-blobs=maybe images").fails(125).says("expected true or false").says_it_plainly();
}
