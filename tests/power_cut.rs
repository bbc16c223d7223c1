//! A power cut: what had not reached the disk is cut short or zeroed, while the database says it is there. Nothing of it is
//! ever served, and what cannot be mended from what is here is mended by pulling it again.

#![allow(clippy::unwrap_used)]

use rusqlite::Connection;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use test_support::{Finished, Registry, RegistryKind, TestEnv};

const TEXT: &str = "all of it, to the last word";

/// What the cut did to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Its size had not reached the disk.
    Empty,
    Half,
    /// Its size had, but not its content.
    Zeroes,
}

fn damage(path: &Path, how: Damage) {
    let length = fs::metadata(path).unwrap().len();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    match how {
        Damage::Empty => file.set_len(0).unwrap(),
        Damage::Half => file.set_len(length / 2).unwrap(),
        Damage::Zeroes => {
            file.set_len(0).unwrap();
            file.set_len(length).unwrap();
        }
    }
}

/// As the machine comes up again: what is marked as not on the disk is of another boot.
fn reboot(env: &TestEnv) {
    let db = Connection::open(env.root().join("db.sqlite")).unwrap();
    db.execute_batch("UPDATE layer SET boot = 'before'; UPDATE image SET boot = 'before'").unwrap();
}

/// The unpacked file of ours, of whichever layer.
fn unpacked(env: &TestEnv) -> PathBuf {
    let layers = fs::read_dir(env.root().join("layers")).unwrap().map(|entry| entry.unwrap().path().join("fs/text"));
    layers.into_iter().find(|path| path.exists()).unwrap()
}

fn blob(env: &TestEnv, digest: &str) -> PathBuf {
    env.root().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

struct Image {
    name: String,
    config: String,
    manifest: String,
    layer: String,
}

/// An image in a registry, whose second layer holds our text.
fn publish(registry: &Registry) -> Image {
    let (maker, name) = (TestEnv::new(), format!("{}/app:1", registry.address()));
    maker.write("app/text", TEXT);
    maker.build(&name, "app", "FROM busybox\nCOPY text /text\nCMD cat /text\n").ok();
    maker.ctr(["push", &name]).ok();
    let image = maker.ctr(["image", "inspect", &name]).ok().json();
    let manifest = image[0]["Descriptor"]["digest"].as_str().unwrap().to_owned();
    let document: serde_json::Value = serde_json::from_slice(&fs::read(blob(&maker, &manifest)).unwrap()).unwrap();
    let layer = document["layers"][1]["digest"].as_str().unwrap().to_owned();
    Image { name, config: image[0]["Id"].as_str().unwrap().to_owned(), manifest, layer }
}

/// It may succeed, and then with the right text, or fail in a line.
#[track_caller]
fn right_or_refused(out: Finished) {
    match out.code() {
        0 => assert_eq!(out.text(), TEXT),
        _ => drop(out.says_it_plainly()),
    }
}

/// Runs, saves and pushes: whatever comes out is right. Then pulls, and all of it is.
fn serves_nothing_broken(env: &TestEnv, image: &Image, what: &str) {
    let other = TestEnv::empty();
    right_or_refused(env.ctr(["run", "--rm", &image.name]));
    let archive = env.path("saved.tar");
    if env.ctr(["save", "-o", archive.to_str().unwrap(), &image.name]).either(&[0, 1]).code() == 0 {
        other.ctr(["load", "-i", archive.to_str().unwrap()]).ok();
        assert_eq!(other.ctr(["run", "--rm", &image.name]).ok().text(), TEXT, "{what}");
    }
    let registry = Registry::start(RegistryKind::Plain);
    let elsewhere = format!("{}/app:1", registry.address());
    if env.ctr(["tag", &image.name, &elsewhere]).either(&[0, 1]).code() == 0
        && env.ctr(["push", &elsewhere]).either(&[0, 1]).code() == 0
    {
        assert_eq!(other.ctr(["run", "--rm", &elsewhere]).ok().text(), TEXT, "{what}");
    }
    env.ctr(["pull", &image.name]).ok();
    assert_eq!(env.ctr(["run", "--rm", &image.name]).ok().text(), TEXT, "{what}");
    env.ctr("system check --repair").ok();
    env.ctr("system check").ok().prints("Nothing is wrong.");
    assert_eq!(env.ctr(["run", "--rm", &image.name]).ok().text(), TEXT, "{what}");
}

#[test]
fn of_a_pulled_image() {
    let registry = Registry::start(RegistryKind::Plain);
    let image = publish(&registry);
    let env = TestEnv::empty();
    for how in [Damage::Empty, Damage::Half, Damage::Zeroes] {
        for parts in ["layer", "blob", "layer blob", "config", "manifest", "manifest layer blob config", "layer.json"] {
            let what = format!("{how:?} {parts}");
            env.ctr("image prune -af").ok();
            env.ctr(["pull", &image.name]).ok();
            for part in parts.split(' ') {
                let path = match part {
                    "layer" => unpacked(&env),
                    "layer.json" => unpacked(&env).parent().unwrap().with_file_name("layer.json"),
                    "blob" => blob(&env, &image.layer),
                    "config" => blob(&env, &image.config),
                    _ => blob(&env, &image.manifest),
                };
                damage(&path, how);
            }
            reboot(&env);
            serves_nothing_broken(&env, &image, &what);
        }
    }
}

#[test]
fn of_a_pulled_image_whose_blobs_are_not_kept() {
    let registry = Registry::start(RegistryKind::Plain);
    let image = publish(&registry);
    for how in [Damage::Empty, Damage::Zeroes] {
        let env = TestEnv::empty();
        env.ctr(["--keep-blobs=false", "pull", &image.name]).ok();
        damage(&unpacked(&env), how);
        reboot(&env);
        serves_nothing_broken(&env, &image, &format!("{how:?}"));
    }
}

#[test]
fn of_a_built_image() {
    for how in [Damage::Empty, Damage::Half, Damage::Zeroes] {
        let env = TestEnv::new();
        env.write("app/text", TEXT);
        let build = || env.build("app", "app", "FROM busybox\nCOPY text /text\nCMD cat /text\n").ok();
        build();
        reboot(&env);
        assert_eq!(env.ctr("run --rm app").ok().text(), TEXT, "what is whole is believed");
        damage(&unpacked(&env), how);
        reboot(&env);
        env.ctr("run --rm app").fails(125).says("is missing").says("build the image again").says_it_plainly();
        env.ctr("save -o app.tar app").fails(1);
        env.ctr("system check").fails(1);
        build();
        assert_eq!(env.ctr("run --rm app").ok().text(), TEXT, "built again");
        env.ctr("system check").ok().prints("Nothing is wrong.");
    }
}
