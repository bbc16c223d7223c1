//! Uploads that break, and registries that take them in their own way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{client, content, quick};
use oci::{Descriptor, Digest, Hasher, MediaType, Reference};
use registry_client::{BlobPush, ClientConfig, Registry, RegistryError};
use std::io::{Cursor, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use test_support::http::{MemoryRegistry, Quirks, Reply, Server, answer};

/// Pushes, and gives back the offsets at which the content was opened.
fn push(client: &Registry, to: &Reference, blob: &Descriptor, whole: &[u8]) -> Result<Vec<u64>, RegistryError> {
    let opened = Mutex::new(Vec::new());
    let mut open = |offset: u64| {
        opened.lock().unwrap().push(offset);
        let rest = whole[usize::try_from(offset).unwrap()..].to_vec();
        Ok(Box::new(Cursor::new(rest)) as Box<dyn Read>)
    };
    let outcome = client.push_blob(to, blob, &[], &mut open, &|_| {})?;
    assert_eq!(outcome, BlobPush::Uploaded);
    Ok(opened.into_inner().unwrap())
}

fn pushed(registry: &MemoryRegistry, bytes: usize) -> Vec<u64> {
    let whole = content(bytes);
    let blob = Descriptor::of(MediaType::OCI_LAYER, &whole);
    let opened = push(&client(), &registry.image("a"), &blob, &whole).unwrap();
    assert!(registry.blob("a", &blob.digest).unwrap() == whole);
    opened
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_stands() {
    let registry = MemoryRegistry::default();
    let broken = AtomicUsize::new(0);
    registry.cut(move |seen| {
        let large = seen.header("content-length").len() > 4;
        (large && broken.fetch_add(1, Ordering::SeqCst) < 2).then_some(100_000)
    });
    assert_eq!(pushed(&registry, 300_000), [0, 100_000, 200_000, 300_000], "not a byte twice");
    let patches: Vec<_> = registry.seen().into_iter().filter(|seen| seen.method == "PATCH").collect();
    assert_eq!(patches[0].header("content-range"), "100000-299999");
    assert_eq!(patches[1].header("content-range"), "200000-299999");
}

#[test]
fn a_session_that_is_lost_is_followed_by_another() {
    let registry = MemoryRegistry::default();
    let broken = AtomicBool::new(false);
    registry.cut(move |seen| (seen.method == "PUT" && !broken.swap(true, Ordering::SeqCst)).then_some(5000));
    registry.fault(|seen| (seen.method == "GET").then(|| answer(404, "", "")));
    assert_eq!(pushed(&registry, 30_000), [0, 0]);
}

#[test]
fn what_is_too_large_goes_in_chunks() {
    let registry = MemoryRegistry::start(Quirks { body_max_bytes: 600_000, ..Quirks::default() });
    let opened = pushed(&registry, 3_000_000);
    let chunk = 512 << 10;
    let chunks = [0, chunk, 2 * chunk, 3 * chunk, 4 * chunk, 5 * chunk, 3_000_000];
    assert!(opened.ends_with(&chunks), "{opened:?}");
    let refused = registry.seen().into_iter().filter(|seen| seen.header("content-length").len() > 6);
    assert!(refused.into_iter().all(|seen| seen.body.len() <= 600_000), "asked before it was sent");
    // A registry's wish counts for more than our own size.
    let quirks = Quirks { body_max_bytes: 1_200_000, chunk_min_bytes: 1_100_000, ..Quirks::default() };
    let opened = pushed(&MemoryRegistry::start(quirks), 3_000_000);
    assert_eq!(opened[opened.len() - 4..], [0, 1_100_000, 2_200_000, 3_000_000]);
    // Nothing small enough: its answer is the error.
    let registry = MemoryRegistry::start(Quirks { body_max_bytes: 1000, ..Quirks::default() });
    let whole = content(2_000_000);
    let blob = Descriptor::of(MediaType::OCI_LAYER, &whole);
    let error = push(&client(), &registry.image("a"), &blob, &whole).unwrap_err();
    assert_eq!(error.status(), Some(413), "{error}");
}

#[test]
fn a_chunk_that_was_taken_in_part_is_sent_on() {
    let whole = content(1_000_000);
    let blob = Descriptor::of(MediaType::OCI_LAYER, &whole);
    let server = Server::start(|seen, _| match (seen.method.as_str(), seen.header("content-range")) {
        ("HEAD", _) => answer(404, "", ""),
        ("POST", _) => answer(202, "Location: /v2/a/blobs/uploads/1\nOCI-Chunk-Min-Length: 10", ""),
        // Too large at first; then a part of it is taken, then it stands elsewhere.
        ("PUT", _) if seen.body.len() == 1_000_000 => answer(413, "", ""),
        ("PATCH", "0-524287") => answer(202, "Location: /v2/a/blobs/uploads/2\nRange: 0-299999", ""),
        ("PATCH", "300000-824287") => answer(416, "Location: /v2/a/blobs/uploads/3\nRange: 0-599999", ""),
        ("PATCH", "600000-999999") => {
            answer(202, "Location: http://HOST/v2/a/blobs/uploads/4?x=%2F\nRange: 0-999999", "")
        }
        ("PUT", _) => answer(201, "", ""),
        _ => answer(500, "", ""),
    });
    // The last Location names a host that does not exist: it is used as it is.
    let error = push(&client(), &server.image("a"), &blob, &whole).unwrap_err().to_string();
    assert!(error.contains("refused to go on to http://host"), "{error}");
    let seen: Vec<_> = server.seen().iter().map(|s| format!("{} {}", s.method, s.target)).collect();
    let uploads = "/v2/a/blobs/uploads/";
    let expected = ["1", "2", "3"].map(|n| format!("PATCH {uploads}{n}"));
    assert_eq!(seen[seen.len() - 3..], expected, "{seen:?}");
}

#[test]
fn a_registry_that_claims_more_than_it_was_sent_is_not_believed() {
    let whole = content(1000);
    let blob = Descriptor::of(MediaType::OCI_LAYER, &whole);
    for range in ["0-2000", "5-9", "x", "0-0"] {
        let server = Server::start(move |seen, _| match seen.method.as_str() {
            "HEAD" => answer(404, "", ""),
            "POST" => answer(202, "Location: /v2/a/blobs/uploads/1", ""),
            "GET" => answer(204, &format!("Range: {range}"), ""),
            "PUT" if seen.body.len() == 1000 => Reply::Bytes(Vec::new()),
            _ => answer(500, "", ""),
        });
        push(&client(), &server.image("a"), &blob, &whole).unwrap_err();
        assert!(server.seen().iter().all(|seen| seen.method != "PATCH"), "{range}");
    }
}

#[test]
fn nor_one_that_claims_a_chunk_it_did_not_get() {
    let whole = content(1_000_000);
    let blob = Descriptor::of(MediaType::OCI_LAYER, &whole);
    for range in ["0-999999", "0-99999999"] {
        let server = Server::start(move |seen, _| match seen.method.as_str() {
            "HEAD" => answer(404, "", ""),
            "POST" => answer(202, "Location: /v2/a/blobs/uploads/1", ""),
            "PUT" if seen.body.len() == 1_000_000 => answer(413, "", ""),
            "PATCH" => answer(202, &format!("Location: /v2/a/blobs/uploads/2\nRange: {range}"), ""),
            _ => answer(201, "", ""),
        });
        let error = push(&client(), &server.image("a"), &blob, &whole).unwrap_err().to_string();
        assert!(error.contains("were sent, the registry says it has"), "{error}");
    }
}

#[test]
fn locations_with_a_host_do_as_well() {
    let registry = MemoryRegistry::start(Quirks { relative: false, ..Quirks::default() });
    assert_eq!(pushed(&registry, 1000), [0]);
}

#[test]
fn sha512_is_a_digest_like_any_other() {
    let registry = MemoryRegistry::default();
    let whole = content(100_000);
    let mut hasher = Hasher::sha512();
    hasher.update(&whole);
    let digest: Digest = hasher.finish();
    let blob = Descriptor::new(MediaType::OCI_LAYER, digest, 100_000);
    push(&client(), &registry.image("a"), &blob, &whole).unwrap();
    assert!(client().blob_bytes(&registry.image("a"), &blob, 1 << 20).unwrap() == whole);
    registry.put_blob("a", &blob.digest, &whole[1..]);
    let shorter = Descriptor { size: 99_999, ..blob };
    client().blob_bytes(&registry.image("a"), &shorter, 1 << 20).unwrap_err();
}

#[test]
fn an_upload_waits_as_long_as_it_is_told() {
    let registry = MemoryRegistry::default();
    let first = AtomicBool::new(true);
    registry.fault(move |seen| {
        (seen.method == "PUT" && first.swap(false, Ordering::SeqCst)).then(|| answer(429, "Retry-After: 1", ""))
    });
    let begun = std::time::Instant::now();
    assert_eq!(pushed(&registry, 1000).len(), 2);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1));
    let none = Registry::new(ClientConfig { retries: 0, ..quick() });
    registry.fault(|seen| (seen.method == "PUT").then(|| answer(503, "", "")));
    let whole = content(10);
    let blob = Descriptor::of(MediaType::OCI_LAYER, &whole);
    assert_eq!(push(&none, &registry.image("b"), &blob, &whole).unwrap_err().status(), Some(503));
}
