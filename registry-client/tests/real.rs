//! Against Debian's docker-registry, with skopeo on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Login, client, client_as, quick};
use oci::{Descriptor, Digest, Document, Manifest, MediaType, Reference};
use registry_client::{BlobPush, Cause, ClientConfig, Credential, Registry, TlsFiles};
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use test_support::{Registry as Server, RegistryKind};

const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;

fn image(server: &Server, name: &str) -> Reference {
    format!("{}/{name}", server.address()).parse().unwrap()
}

fn skopeo(words: &[&str]) -> String {
    let out = Command::new("skopeo").args(words).output().expect("skopeo is installed");
    assert!(out.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn push_bytes(registry: &Registry, to: &Reference, media_type: &str, bytes: &[u8]) -> (Descriptor, BlobPush) {
    let blob = Descriptor::of(media_type, bytes);
    let mut open = |_| Ok(Box::new(Cursor::new(bytes.to_vec())) as Box<dyn Read>);
    let outcome = registry.push_blob(to, &blob, &[], &mut open, &|_| {}).unwrap();
    (blob, outcome)
}

/// An image without layers, and one blob of some size that nobody calls a layer.
fn push_image(registry: &Registry, to: &Reference) -> Digest {
    let (config, _) = push_bytes(registry, to, MediaType::OCI_CONFIG, CONFIG);
    let manifest = serde_json::to_vec(&Manifest::oci(config, Vec::new())).unwrap();
    registry.push_manifest(to, MediaType::OCI_MANIFEST, &manifest).unwrap()
}

#[test]
fn what_we_push_skopeo_reads_and_we_read_back() {
    let server = Server::start(RegistryKind::Plain);
    let registry = client();
    let to = image(&server, "team/app:1");
    let digest = push_image(&registry, &to);
    let shown: serde_json::Value =
        serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", &format!("docker://{to}")])).unwrap();
    assert_eq!(shown["Digest"], digest.as_str());

    let manifest = registry.manifest(&to).unwrap();
    assert_eq!((manifest.digest.clone(), manifest.media_type.as_str()), (digest.clone(), MediaType::OCI_MANIFEST));
    assert_eq!(registry.head_manifest(&to).unwrap().unwrap().digest, digest);
    assert_eq!(registry.tags(&to).unwrap(), ["1"]);
    let Document::Manifest(inner) = &manifest.document else { panic!("an index?") };
    assert_eq!(registry.blob_bytes(&to, &inner.config, 1 << 20).unwrap(), CONFIG);
    assert!(registry.blob_exists(&to, &inner.config.digest).unwrap());
}

#[test]
fn the_readmes_steps_list_tags_and_fetch_an_image() {
    let server = Server::start(RegistryKind::Plain);
    let (registry, to) = (client(), image(&server, "team/app:1"));
    push_image(&registry, &to);
    assert_eq!(registry.tags(&to).unwrap(), ["1"]);
    let found = registry.manifest(&to).unwrap();
    let (_, manifest) = registry.manifest_for(&to, found, &oci::Platform::host()).unwrap();
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let mut bytes = Vec::new();
        registry.copy_blob(&to, blob, &mut bytes).unwrap();
        assert!(blob.digest.matches(&bytes));
    }
    // A place that takes nothing is not the registry's fault.
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = registry.copy_blob(&to, &manifest.config, &mut Full).unwrap_err();
    assert!(matches!(error.cause(), Cause::Sink(_)), "{error}");
}

#[test]
fn blobs_are_skipped_mounted_or_sent() {
    let server = Server::start(RegistryKind::Plain);
    let registry = client();
    let (first, second) = (image(&server, "first"), image(&server, "second"));
    let bytes = vec![7; 3_000_000];
    assert_eq!(push_bytes(&registry, &first, MediaType::OCI_LAYER, &bytes).1, BlobPush::Uploaded);
    assert_eq!(push_bytes(&registry, &first, MediaType::OCI_LAYER, &bytes).1, BlobPush::Existing);
    let blob = Descriptor::of(MediaType::OCI_LAYER, &bytes);
    let mut open = |_| panic!("a mount needs no content");
    let outcome = registry.push_blob(&second, &blob, &["first".to_owned()], &mut open, &|_| {}).unwrap();
    assert_eq!(outcome, BlobPush::Mounted("first".to_owned()));
    let mut back = Vec::new();
    registry.blob(&second, &blob, 1_000_000).unwrap().read_to_end(&mut back).unwrap();
    assert!(back == bytes[1_000_000..]);
    // Nothing at all is a blob, too.
    assert_eq!(push_bytes(&registry, &first, MediaType::OCI_LAYER, b"").1, BlobPush::Uploaded);
}

#[test]
fn content_that_is_not_its_digest_is_refused_by_the_registry() {
    let server = Server::start(RegistryKind::Plain);
    let blob = Descriptor::new(MediaType::OCI_LAYER, Digest::sha256("one thing"), 7);
    let mut open = |_| Ok(Box::new(&b"another"[..]) as Box<dyn Read>);
    let error = client().push_blob(&image(&server, "a"), &blob, &[], &mut open, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
}

#[test]
fn what_is_not_there_is_said_so() {
    let server = Server::start(RegistryKind::Plain);
    let error = client().manifest(&image(&server, "nothing:here")).unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().contains("not found (404 MANIFEST_UNKNOWN)"), "{error}");
    assert!(client().head_manifest(&image(&server, "nothing")).unwrap().is_none());
}

#[test]
fn a_password_lets_in_and_nothing_else_does() {
    let server = Server::start(RegistryKind::Password);
    let to = image(&server, "a");
    let me = client_as(Login::basic(Server::USER, Server::PASSWORD));
    push_image(&me, &to);
    me.manifest(&to).unwrap();
    let error = client().manifest(&to).unwrap_err();
    assert!(error.is_denied());
    assert_eq!(error.hint(), Some(format!("log in first: ctr login {}", server.address()).as_str()));
    assert!(client_as(Login::basic(Server::USER, "wrong")).manifest(&to).unwrap_err().is_denied());

    let credential =
        |password: &str| Credential::Basic { username: Server::USER.to_owned(), password: password.to_owned() };
    client().verify_login(&server.address(), &credential(Server::PASSWORD)).unwrap();
    let error = client().verify_login(&server.address(), &credential("wrong")).unwrap_err();
    assert_eq!(error.hint(), Some("check the user name and the password"));
}

fn with_tls(tls: TlsFiles) -> Registry {
    let credentials = Arc::new(Login::basic(Server::USER, Server::PASSWORD));
    Registry::new(ClientConfig { tls, credentials, ..quick() })
}

#[test]
fn an_unknown_authority_is_named_and_a_known_one_trusted() {
    let server = Server::start(RegistryKind::TlsPassword);
    let to = image(&server, "a");
    let error = with_tls(TlsFiles::default()).manifest(&to).unwrap_err();
    assert!(matches!(error.cause(), Cause::Certificate(_)), "{error}");
    let place = format!("/etc/containers/certs.d/{}/ca.crt", server.address());
    assert!(error.hint().unwrap().contains(&place), "{error:?}");

    // By certs.d, by a bundle, by a directory, and not at all.
    let certs_d = tempfile::tempdir().unwrap();
    let own = certs_d.path().join(server.address());
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(server.ca(), own.join("ca.crt")).unwrap();
    let registry = with_tls(TlsFiles { certs_d: vec![certs_d.path().to_owned()], ..TlsFiles::default() });
    let digest = push_image(&registry, &to);
    assert_eq!(registry.manifest(&to).unwrap().digest, digest);
    with_tls(TlsFiles { cert_file: Some(server.ca()), ..TlsFiles::default() }).manifest(&to).unwrap();
    with_tls(TlsFiles { cert_dirs: vec![own], ..TlsFiles::default() }).manifest(&to).unwrap();
    let credentials = Arc::new(Login::basic(Server::USER, Server::PASSWORD));
    Registry::new(ClientConfig { tls_verify: false, credentials, ..quick() }).manifest(&to).unwrap();
    // By name, too: the certificate is for both.
    let named: Reference = format!("localhost:{}/a", server.port()).parse().unwrap();
    with_tls(TlsFiles { cert_file: Some(server.ca()), ..TlsFiles::default() }).manifest(&named).unwrap();
    // But not for just any name.
    let other: Reference = format!("registry.example:{}/a", server.port()).parse().unwrap();
    let error =
        with_tls(TlsFiles { cert_file: Some(server.ca()), ..TlsFiles::default() }).manifest(&other).unwrap_err();
    assert!(matches!(error.cause(), Cause::Certificate(_)), "{error}");
}

#[test]
fn certificate_files_that_are_none_are_named() {
    let server = Server::start(RegistryKind::Tls);
    let dir = tempfile::tempdir().unwrap();
    let junk = dir.path().join("junk.pem");
    std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    for file in [&junk, Path::new("/nonexistent.pem")] {
        let tls = TlsFiles { cert_file: Some(file.to_owned()), ..TlsFiles::default() };
        let error = with_tls(tls).manifest(&image(&server, "a")).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}

#[test]
fn many_threads_share_one_client() {
    let server = Server::start(RegistryKind::Plain);
    let registry = client();
    let to = image(&server, "many");
    let blobs: Vec<Vec<u8>> = (0..8u8).map(|n| vec![n; 400_000 + usize::from(n)]).collect();
    std::thread::scope(|scope| {
        for bytes in &blobs {
            scope.spawn(|| push_bytes(&registry, &to, MediaType::OCI_LAYER, bytes));
        }
    });
    std::thread::scope(|scope| {
        for bytes in &blobs {
            scope.spawn(|| {
                let blob = Descriptor::of(MediaType::OCI_LAYER, bytes);
                assert!(registry.blob_bytes(&to, &blob, 1 << 20).unwrap() == *bytes);
            });
        }
    });
}
