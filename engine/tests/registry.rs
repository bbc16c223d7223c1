//! Pull and push through the engine's own door, against Debian's docker-registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use engine::{Engine, EngineConfig, EngineError, PullEvent, PullRequest, PullState, PushEvent, PushRequest, PushState};
use oci::{ImageConfig, Platform, Reference};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use store::ImportOptions;
use tempfile::TempDir;
use test_support::{Registry, RegistryKind};

/// An engine with a data root of its own.
fn engine() -> (TempDir, Engine) {
    let base = Path::new("/dev/shm");
    let dir = tempfile::tempdir_in(if base.is_dir() { base } else { Path::new("/tmp") }).unwrap();
    let engine = Engine::open(EngineConfig::new(dir.path().join("root"), dir.path().join("state"))).unwrap();
    (dir, engine)
}

/// An image of one layer with a file, a folder and a link in it.
fn import(engine: &Engine, dir: &TempDir, name: &Reference) -> oci::Digest {
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/hello"), "hello ".repeat(100_000)).unwrap();
    std::fs::write(
        tree.join("random"),
        (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<u8>>(),
    )
    .unwrap();
    std::os::unix::fs::symlink("etc/hello", tree.join("link")).unwrap();
    let tar = dir.path().join("tree.tar");
    assert!(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg(".").status().unwrap().success());
    let host = Platform::host();
    let config = ImageConfig { os: host.os, architecture: host.architecture, ..ImageConfig::default() };
    let options = ImportOptions { config, message: None };
    engine.store().import_tar(&mut File::open(tar).unwrap(), std::slice::from_ref(name), &options).unwrap()
}

fn push(engine: &Engine, name: &Reference) -> (engine::Pushed, Vec<PushEvent>) {
    let events = Mutex::new(Vec::new());
    let request = PushRequest { reference: name.clone(), tls_verify: true };
    let pushed = engine.push(&request, &|event| events.lock().unwrap().push(event)).unwrap();
    (pushed, events.into_inner().unwrap())
}

fn pull(engine: &Engine, name: &Reference) -> Result<(engine::Pulled, Vec<PullEvent>), EngineError> {
    let events = Mutex::new(Vec::new());
    let pulled = engine.pull(&PullRequest::new(name.clone()), &|event| events.lock().unwrap().push(event))?;
    Ok((pulled, events.into_inner().unwrap()))
}

/// The last state of each layer.
fn ends(events: &[PullEvent]) -> BTreeMap<String, PullState> {
    let states = events.iter().filter_map(|event| match event {
        PullEvent::Layer { id, state } => Some((id.clone(), *state)),
        _ => None,
    });
    states.collect()
}

#[test]
fn an_image_goes_out_and_comes_back_the_same() {
    let registry = Registry::start(RegistryKind::Plain);
    let name: Reference = format!("{}/team/app:1", registry.address()).parse().unwrap();
    let ((here_dir, here), (_there_dir, there)) = (engine(), engine());
    let id = import(&here, &here_dir, &name);

    let (pushed, events) = push(&here, &name);
    assert_eq!(events[0], PushEvent::Started { repository: format!("{}/team/app", registry.address()) });
    assert!(events.iter().any(|e| matches!(e, PushEvent::Layer { state: PushState::Pushing { .. }, .. })));
    assert!(matches!(events.last().unwrap(), PushEvent::Layer { state: PushState::Pushed, .. }));
    let (again, events) = push(&here, &name);
    assert_eq!(again, pushed, "the same image has the same digest");
    assert!(matches!(events.last().unwrap(), PushEvent::Layer { state: PushState::AlreadyExists, .. }));

    let (pulled, events) = pull(&there, &name).unwrap();
    assert_eq!((pulled.image_id.clone(), pulled.digest.clone()), (id.clone(), pushed.digest.clone()));
    assert!(!pulled.up_to_date);
    assert_eq!(events[0], PullEvent::Started { version: "1".to_owned(), repository: "team/app".to_owned() });
    assert!(ends(&events).values().all(|state| *state == PullState::Complete), "{events:?}");
    let image = there.store().image(&name.to_string()).unwrap();
    assert_eq!(image.repo_digests, [name.at_digest(pushed.digest.clone())]);
    let layer = &there.store().image_layers(&image).unwrap()[0];
    assert_eq!(
        std::fs::read(layer.join("random")).unwrap(),
        std::fs::read(here_dir.path().join("tree/random")).unwrap()
    );
    assert_eq!(std::fs::read_link(layer.join("link")).unwrap(), Path::new("etc/hello"));

    // Nothing new: one request, no layers.
    let (pulled, events) = pull(&there, &name).unwrap();
    assert!(pulled.up_to_date);
    assert_eq!(events.len(), 1, "{events:?}");
    // What was pulled is pushed elsewhere to the byte, by mounting.
    let copy: Reference = format!("{}/copy:2", registry.address()).parse().unwrap();
    there.store().tag(&id, &copy).unwrap();
    let (copied, events) = push(&there, &copy);
    assert_eq!(copied, pushed);
    let mounted = PushState::Mounted { from: "team/app".to_owned() };
    assert!(matches!(events.last().unwrap(), PushEvent::Layer { state, .. } if *state == mounted), "{events:?}");
    // By digest.
    let (_dir, third) = engine();
    let by_digest = name.at_digest(pushed.digest);
    assert_eq!(pull(&third, &by_digest).unwrap().0.image_id, id);
    assert!(third.store().image(&by_digest.to_string()).unwrap().names.is_empty());
}

#[test]
fn a_pull_that_fails_says_what_the_registry_said() {
    let registry = Registry::start(RegistryKind::Password);
    let (_dir, engine) = engine();
    let name: Reference = format!("{}/x", registry.address()).parse().unwrap();
    let error = pull(&engine, &name).unwrap_err();
    assert!(error.to_string().starts_with("pull access denied for "), "{error}");
    assert_eq!(error.hint().unwrap(), format!("log in first: ctr login {}", registry.address()));
    assert!(engine.store().images().unwrap().is_empty());
}

#[test]
fn damaged_layers_are_not_let_in() {
    let registry = Registry::start(RegistryKind::Plain);
    let name: Reference = format!("{}/app:1", registry.address()).parse().unwrap();
    let ((here_dir, here), (_there_dir, there)) = (engine(), engine());
    import(&here, &here_dir, &name);
    push(&here, &name);
    let image = here.store().image(&name.to_string()).unwrap();
    let blob = here.store().layer_blob(&image.config.rootfs.diff_ids[0]).unwrap();
    let hex = blob.digest.hex();
    let stored = registry.data().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
    let mut bytes = std::fs::read(&stored).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&stored, &bytes).unwrap();
    assert!(pull(&there, &name).is_err());
    assert!(there.store().images().unwrap().is_empty());
    assert!(!there.store().has_layer(&image.config.rootfs.diff_ids[0]));
    // Cut short.
    bytes.truncate(middle);
    std::fs::write(&stored, &bytes).unwrap();
    assert!(pull(&there, &name).is_err());
    // Mended.
    std::io::copy(&mut here.store().blob(&blob.digest).unwrap(), &mut File::create(&stored).unwrap()).unwrap();
    pull(&there, &name).unwrap();
}
