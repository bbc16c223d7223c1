//! `registries.conf` at work: mirrors, blocked and insecure registries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{MANIFEST, blob_of, quick};
use oci::MediaType;
use registry_client::{Cause, ClientConfig, Registry};
use test_support::http::{MemoryRegistry, answer};

/// A client with a `registries.conf`.
fn with_rules(text: &str) -> Registry {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("registries.conf");
    std::fs::write(&file, text).unwrap();
    let rules = registry_client::Rules::read(&registry_client::RuleFiles { files: vec![file], ..Default::default() });
    Registry::new(ClientConfig { rules: rules.unwrap(), ..quick() })
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_where_it_fails() {
    let (mirror, registry) = (MemoryRegistry::default(), MemoryRegistry::default());
    let blob = blob_of(b"layer");
    for (place, repository) in [(&mirror, "proxy/team/app"), (&registry, "team/app")] {
        place.put_manifest(repository, "1", MediaType::OCI_MANIFEST, MANIFEST.as_bytes());
        place.put_blob(repository, &blob.digest, b"layer");
    }
    registry.put_manifest("team/app", "2", MediaType::OCI_MANIFEST, MANIFEST.as_bytes());
    let text = format!(
        "[[registry]]\nprefix = \"r.example\"\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/proxy\"\n",
        registry.address(),
        mirror.address()
    );
    let client = with_rules(&text);
    let image = |tag: &str| format!("r.example/team/app:{tag}").parse::<oci::Reference>().unwrap();
    client.manifest(&image("1")).unwrap();
    assert_eq!(client.blob_bytes(&image("1"), &blob, 100).unwrap(), b"layer");
    assert!(registry.seen().is_empty(), "{:?}", registry.requests());
    // It does not have this one: nothing to be told to anybody.
    client.manifest(&image("2")).unwrap();
    assert!(client.take_warnings().is_empty());
    // It breaks off in the middle.
    mirror.fault(|seen| Some(answer(if seen.target.contains("blobs") { 500 } else { 403 }, "", "")));
    client.manifest(&image("1")).unwrap();
    assert_eq!(client.blob_bytes(&image("1"), &blob, 100).unwrap(), b"layer");
    let warnings = client.take_warnings();
    assert!(warnings[0].contains("was passed over: forbidden (403)"), "{warnings:?}");
    // Pushed is to the registry itself.
    mirror.forget();
    client.push_manifest(&image("3"), MediaType::OCI_INDEX, br#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    assert!(mirror.seen().is_empty() && registry.manifest("team/app", "3").is_some());
}

#[test]
fn a_blocked_registry_is_not_asked() {
    let registry = MemoryRegistry::default();
    let client = with_rules(&format!("[[registry]]\nlocation = \"{}/team\"\nblocked = true\n", registry.address()));
    let error = client.manifest(&registry.image("team/app")).unwrap_err();
    assert!(error.to_string().contains("the registry is blocked in") && error.to_string().contains("registries.conf"));
    client.push_manifest(&registry.image("team/app"), MediaType::OCI_INDEX, b"{}").unwrap_err();
    assert!(registry.seen().is_empty());
    assert!(client.manifest(&registry.image("other/app")).unwrap_err().is_not_found());
}

#[test]
fn insecure_is_who_is_said_to_be() {
    let registry = MemoryRegistry::default();
    registry.put_manifest("a", "latest", MediaType::OCI_MANIFEST, MANIFEST.as_bytes());
    let port = registry.address().rsplit_once(':').unwrap().1.to_owned();
    let image: oci::Reference = format!("r.corp.example:{port}/a").parse().unwrap();
    let error = with_rules("").manifest(&image).unwrap_err();
    assert!(matches!(error.cause(), Cause::PlainHttp), "{error}");
    for place in [format!("r.corp.example:{port}"), "*.corp.example".to_owned()] {
        with_rules(&format!("[[registry]]\nprefix = \"{place}\"\ninsecure = true\n")).manifest(&image).unwrap();
    }
}
