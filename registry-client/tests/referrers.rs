//! What refers to an image, with and without a registry's help.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::client;
use oci::{Descriptor, Digest, Manifest, MediaType, Reference};
use std::io::{Cursor, Read};
use test_support::http::{MemoryRegistry, Quirks};
use test_support::{Registry, RegistryKind};

fn put(to: &Reference, bytes: &'static [u8]) -> Descriptor {
    let blob = Descriptor::of(MediaType::OCI_EMPTY, bytes);
    let mut open = |_| Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read>);
    client().push_blob(to, &blob, &[], &mut open, &|_| {}).unwrap();
    blob
}

fn push(to: &Reference, manifest: &Manifest) -> Descriptor {
    let bytes = serde_json::to_vec(manifest).unwrap();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
    let to = to.at_digest(descriptor.digest.clone());
    client().push_manifest(&to, MediaType::OCI_MANIFEST, &bytes).unwrap();
    descriptor
}

/// An image and two things that refer to it; returns the image's digest.
fn fill(to: &Reference) -> Digest {
    let image = push(to, &Manifest::oci(put(to, b"{}"), Vec::new()));
    for (kind, content) in [("application/spdx+json", &b"sbom"[..]), ("application/signature", b"signature")] {
        let mut artifact = Manifest::oci(put(to, b"{}"), vec![put(to, content)]);
        artifact.artifact_type = Some(kind.to_owned());
        artifact.subject = Some(image.clone());
        artifact.annotations.insert("made-by".to_owned(), "a test".to_owned());
        push(to, &artifact);
        push(to, &artifact); // twice is once
    }
    image.digest
}

fn check(to: &Reference) {
    let image = fill(to);
    let kinds = |kind: Option<&str>| {
        let mut found: Vec<_> = client().referrers(to, &image, kind).unwrap();
        assert!(found.iter().all(|entry| entry.annotations["made-by"] == "a test"));
        found.sort_by(|a, b| a.artifact_type.cmp(&b.artifact_type));
        found.into_iter().map(|entry| entry.artifact_type.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(None), ["application/signature", "application/spdx+json"]);
    assert_eq!(kinds(Some("application/spdx+json")), ["application/spdx+json"]);
    assert!(kinds(Some("text/plain")).is_empty());
    assert!(client().referrers(to, &Digest::sha256("another"), None).unwrap().is_empty());
}

#[test]
fn a_registry_that_keeps_track_is_asked() {
    let registry = MemoryRegistry::default();
    check(&registry.image("a"));
    assert!(registry.requests().iter().all(|request| !request.contains("sha256-")), "no tag is needed");
}

#[test]
fn where_a_registry_keeps_no_track_a_tag_does() {
    let registry = MemoryRegistry::start(Quirks { referrers: false, ..Quirks::default() });
    check(&registry.image("a"));
    let debian = Registry::start(RegistryKind::Plain);
    check(&format!("{}/team/app", debian.address()).parse().unwrap());
}

/// Something of that content that refers to the image.
fn artifact(to: &Reference, image: &Descriptor, content: &'static [u8]) -> Manifest {
    let mut artifact = Manifest::oci(put(to, b"{}"), vec![put(to, content)]);
    artifact.artifact_type = Some("text/plain".to_owned());
    artifact.subject = Some(image.clone());
    artifact
}

#[test]
fn a_list_that_is_replaced_meanwhile_is_written_again() {
    let registry = std::sync::Arc::new(MemoryRegistry::start(Quirks { referrers: false, ..Quirks::default() }));
    let to = registry.image("a");
    let image = push(&to, &Manifest::oci(put(&to, b"{}"), Vec::new()));
    let tag = image.digest.as_str().replace(':', "-");
    let other = push(&to, &Manifest::oci(put(&to, b"{}"), vec![put(&to, b"another's")]));
    let others = oci::Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.to_owned()),
        manifests: vec![other.clone()],
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&others).unwrap();
    // Just before it looks whether its own is there, another's older view is written.
    let (reads, place, list) =
        (std::sync::atomic::AtomicUsize::new(0), std::sync::Arc::downgrade(&registry), tag.clone());
    registry.fault(move |seen| {
        let is_list = seen.method == "GET" && seen.target.ends_with(&list);
        if is_list && reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            place.upgrade().unwrap().put_manifest("a", &list, MediaType::OCI_INDEX, &bytes);
        }
        None
    });
    let ours = push(&to, &artifact(&to, &image, b"ours"));
    registry.mend();
    let mut found: Vec<_> =
        client().referrers(&to, &image.digest, None).unwrap().into_iter().map(|e| e.digest).collect();
    let mut expected = vec![other.digest, ours.digest];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
