//! Registries that answer late, wrongly, too much, or in bad faith.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Login, MANIFEST, OCI, blob_of, client, client_as, content, quick, read_all};
use oci::Digest;
use registry_client::{BlobPush, Cause, ClientConfig, Registry};
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use test_support::http::{MemoryRegistry, Reply, Server, answer};

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let server = Server::start(|_, count| match count {
        0 => answer(429, "Retry-After: 1", "{}"),
        1 => answer(503, "", "later"),
        2 => Reply::Bytes(Vec::new()), // hangs up
        _ => answer(200, OCI, MANIFEST),
    });
    let begun = Instant::now();
    let manifest = client().manifest(&server.image("a")).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After was not waited for");
    assert_eq!(manifest.digest, Digest::sha256(MANIFEST));
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_limit_told_to_one_thread_holds_for_all() {
    let server = Server::start(|_, count| match count {
        0 => answer(429, "Retry-After: 1", ""),
        _ => answer(200, OCI, MANIFEST),
    });
    let registry = client();
    std::thread::scope(|scope| {
        scope.spawn(|| registry.manifest(&server.image("a")).unwrap());
        while server.seen().is_empty() {
            std::thread::yield_now();
        }
        // The first thread reads its answer and says so to the others: they begin when it has begun to wait.
        let begun = Instant::now();
        while registry.manifest(&server.image("b")).is_ok() && begun.elapsed() < Duration::from_millis(900) {}
    });
    let early = server.seen().len();
    assert!(early < 20, "{early} requests within the second that was asked for");
}

#[test]
fn patience_with_a_busy_registry_ends() {
    let server =
        Server::start(|_, _| answer(429, "", r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#));
    let error = client().manifest(&server.image("a")).unwrap_err();
    assert_eq!(error.status(), Some(429));
    assert!(error.to_string().contains("TOOMANYREQUESTS): slow down"), "{error}");
    assert_eq!(server.seen().len(), 4, "one try and three retries");

    // A wait that nobody would sit through is an error at once.
    let server = Server::start(|_, _| answer(429, "Retry-After: 3600", ""));
    assert_eq!(client().manifest(&server.image("a")).unwrap_err().status(), Some(429));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn what_is_missing_or_forbidden_is_not_asked_for_twice() {
    for status in [404, 403, 400] {
        let server = Server::start(move |_, _| answer(status, "", "{}"));
        assert_eq!(client().manifest(&server.image("a")).unwrap_err().status(), Some(status));
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let whole = content(100_000);
    let blob = blob_of(&whole);
    let served = whole.clone();
    let server = Server::start(move |seen, count| {
        let start = seen.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')?.parse().ok());
        let start: usize = start.unwrap_or(0);
        let rest = &served[start..];
        // Each connection ends after 30,000 bytes of what it promised.
        let sent = &rest[..rest.len().min(30_000)];
        let total = served.len();
        let head = match count {
            0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"),
            _ => format!(
                "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{total}\r\n\r\n",
                rest.len(),
                total - 1
            ),
        };
        Reply::Bytes([head.as_bytes(), sent].concat())
    });
    assert!(read_all(&client(), &server, &blob).unwrap() == whole);
    let ranges: Vec<String> = server.seen().iter().map(|s| s.header("range").to_owned()).collect();
    assert_eq!(ranges, ["", "bytes=30000-", "bytes=60000-", "bytes=90000-"]);
}

#[test]
fn a_server_that_ignores_ranges_is_skipped_through() {
    let whole = content(50_000);
    let blob = blob_of(&whole);
    let served = whole.clone();
    let server = Server::start(move |_, count| match count {
        0 => Reply::Bytes([b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n", &served[..20_000]].concat()),
        _ => answer(200, "", &served),
    });
    assert!(read_all(&client(), &server, &blob).unwrap() == whole);
    // Also when the caller has the beginning already.
    let mut bytes = Vec::new();
    client().blob(&server.image("a"), &blob, 49_990).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == whole[49_990..]);
}

#[test]
fn another_range_than_asked_for_is_refused() {
    let whole = content(1000);
    let blob = blob_of(&whole);
    for range in ["bytes 0-899/1000", "bytes 100-999/2000", "nonsense", ""] {
        let body = whole[100..].to_vec();
        let server = Server::start(move |_, _| answer(206, &format!("Content-Range: {range}"), &body));
        let error = client().blob(&server.image("a"), &blob, 100).err().unwrap().to_string();
        assert!(error.contains("asked for bytes from 100"), "{error}");
    }
}

#[test]
fn sizes_and_digests_are_held_to_their_word() {
    let blob = blob_of(b"expected");
    // Longer or shorter than the descriptor says.
    for wrong in ["expected and more", "short"] {
        let server = Server::start(move |_, _| answer(200, "", wrong));
        let error = read_all(&client(), &server, &blob).unwrap_err().to_string();
        assert!(error.contains("its descriptor says 8"), "{error}");
    }
    // The size is right, the content is not.
    let server = Server::start(|_, _| answer(200, "", "eXpected"));
    let error = client().blob_bytes(&server.image("a"), &blob, 100).unwrap_err();
    assert!(matches!(error.cause(), Cause::Digest { .. }), "{error}");
    // A body without an end is cut at the descriptor's size.
    let server = Server::start(|_, _| {
        let endless = "expected".repeat(100_000);
        Reply::Bytes(format!("HTTP/1.1 200 OK\r\n\r\n{endless}").into_bytes())
    });
    assert_eq!(read_all(&client(), &server, &blob).unwrap(), b"expected");
    // What is too large to be taken whole is not even asked for.
    let error = client().blob_bytes(&server.image("a"), &blob, 7).unwrap_err();
    assert!(matches!(error.cause(), Cause::TooLarge(7)), "{error}");
}

#[test]
fn a_manifest_is_what_it_says_it_is() {
    let image = |server: &Server| server.image("a");
    let server = Server::start(|_, _| {
        answer(200, "Content-Type: application/vnd.docker.distribution.manifest.v2+json", MANIFEST)
    });
    let error = client().manifest(&image(&server)).unwrap_err();
    assert!(matches!(error.cause(), Cause::Manifest(_)), "{error}");

    let server = Server::start(|_, _| answer(200, OCI, MANIFEST));
    let other = Digest::sha256("another");
    let error = client().manifest(&image(&server).at_digest(other)).unwrap_err();
    assert!(matches!(error.cause(), Cause::Digest { .. }), "{error}");
    let right = image(&server).at_digest(Digest::sha256(MANIFEST));
    assert_eq!(client().manifest(&right).unwrap().bytes, MANIFEST.as_bytes());

    for junk in ["", "<html>", "[1", "{}"] {
        let server = Server::start(move |_, _| answer(200, OCI, junk));
        assert!(matches!(client().manifest(&image(&server)).unwrap_err().cause(), Cause::Manifest(_)));
    }
}

#[test]
fn schema_one_is_refused_by_name() {
    for (kind, body) in [
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#,
        ),
        ("application/vnd.docker.distribution.manifest.v1+json", MANIFEST),
        ("application/json", r#"{"schemaVersion":1}"#),
    ] {
        let server = Server::start(move |_, _| answer(200, &format!("Content-Type: {kind}"), body));
        let error = client().manifest(&server.image("a")).unwrap_err().to_string();
        assert!(error.contains("schema 1 format"), "{error}");
    }
}

#[test]
fn a_digest_is_none_before_it_is_looked_at() {
    // It would be part of a path: on a disk, or of a URL.
    for bad in ["sha256:../../../etc/passwd", "sha256:ABC", "md5:d41d8cd98f00b204e9800998ecf8427e", "x/../y"] {
        let text = MANIFEST.replace("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", bad);
        let server = Server::start(move |_, _| answer(200, OCI, &text));
        let error = client().manifest(&server.image("a")).unwrap_err();
        assert!(matches!(error.cause(), Cause::Manifest(_)), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
    // One in a header is no better.
    let server = Server::start(|_, _| answer(200, &format!("{OCI}\nDocker-Content-Digest: sha256:../x"), MANIFEST));
    assert!(client().head_manifest(&server.image("a")).unwrap().is_none());
}

#[test]
fn answers_without_measure_are_cut_off() {
    let flood =
        |head: &'static str| Server::start(move |_, _| Reply::Bytes([head.as_bytes(), &vec![b' '; 6 << 20]].concat()));
    // With and without a length that gives it away.
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 6291456\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
    ] {
        let error = client().manifest(&flood(head).image("a")).unwrap_err();
        assert!(matches!(error.cause(), Cause::TooLarge(_)), "{error}");
    }
    // An error page is no more than an error.
    let error = client().manifest(&flood("HTTP/1.1 404 No\r\n\r\n").image("a")).unwrap_err();
    assert_eq!(error.status(), Some(404));
    // Headers without an end.
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X-Fill: aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(10_000));
    let server = Server::start(move |_, _| Reply::Bytes(endless.clone().into_bytes()));
    assert!(client().manifest(&server.image("a")).is_err());
}

#[test]
fn silence_and_dripping_end() {
    let begun = Instant::now();
    let impatient = || ClientConfig { idle_timeout: Duration::from_millis(300), retries: 1, ..quick() };
    let client = || Registry::new(impatient());
    let server = Server::start(|_, _| Reply::Silence);
    let error = client().manifest(&server.image("a")).unwrap_err();
    assert!(matches!(error.cause(), Cause::Timeout(_)), "{error}");

    let dripping = |head: String| {
        let bytes = [head.into_bytes(), vec![b'x'; 2000]].concat();
        Server::start(move |_, _| Reply::Drip(bytes.clone(), Duration::from_millis(10)))
    };
    let server = dripping(format!("HTTP/1.1 200 OK\r\n{OCI}\r\nContent-Length: 2000\r\n\r\n"));
    let error = client().manifest(&server.image("a")).unwrap_err();
    assert!(matches!(error.cause(), Cause::Timeout(_)), "{error}");
    let server = dripping("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n".to_owned());
    let registry = Registry::new(impatient());
    let blob = blob_of(&[b'x'; 2000]);
    // Slow, but each connection brings something: it either finishes or gives up, in bounded time.
    let _ = read_all(&registry, &server, &blob);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn nobody_there_is_said_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let registry = Registry::new(ClientConfig { backoff: Duration::from_secs(60), ..quick() });
    let begun = Instant::now();
    let error = registry.manifest(&format!("{free}/a").parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_upload_starts_over_after_a_break() {
    let whole = content(300_000);
    let blob = blob_of(&whole);
    let broke = AtomicBool::new(false);
    let server = Server::start(move |seen, count| match seen.method.as_str() {
        "HEAD" => answer(404, "", ""),
        // Relative, with a query of its own.
        "POST" => answer(202, &format!("Location: session{count}?state=a%2Fb"), ""),
        _ if !broke.swap(true, Ordering::SeqCst) => Reply::Bytes(Vec::new()),
        _ => answer(201, "", ""),
    });
    let source = whole.clone();
    let mut opened = 0;
    let sent = AtomicUsize::new(0);
    let mut open = |_| {
        opened += 1;
        Ok(Box::new(Cursor::new(source.clone())) as Box<dyn Read>)
    };
    let progress = |bytes: u64| sent.store(usize::try_from(bytes).unwrap(), Ordering::SeqCst);
    let outcome = client().push_blob(&server.image("a"), &blob, &[], &mut open, &progress).unwrap();
    assert_eq!(outcome, BlobPush::Uploaded);
    assert_eq!(opened, 2);
    assert_eq!(sent.load(Ordering::SeqCst), 300_000);
    let puts: Vec<_> = server.seen().into_iter().filter(|s| s.method == "PUT").collect();
    assert_eq!(puts.len(), 2);
    assert!(puts[1].body == whole);
    assert_eq!(puts[1].header("content-length"), "300000");
    let expected = format!("/v2/a/blobs/uploads/session4?state=a%2Fb&digest=sha256%3A{}", blob.digest.hex());
    assert_eq!(puts[1].target, expected);
}

#[test]
fn a_source_that_fails_is_not_the_registrys_fault() {
    let blob = blob_of(b"four");
    let server = Server::start(|seen, _| match seen.method.as_str() {
        "HEAD" => answer(404, "", ""),
        _ => answer(202, "Location: /session", ""),
    });
    let mut short = |_| Ok(Box::new(&b"fo"[..]) as Box<dyn Read>);
    let error = client().push_blob(&server.image("a"), &blob, &[], &mut short, &|_| {}).unwrap_err();
    assert!(matches!(error.cause(), Cause::Source(_)), "{error}");
    assert!(error.to_string().contains("ends 2 bytes before"), "{error}");
    let mut gone = |_| Err(std::io::Error::other("the file is gone"));
    let error = client().push_blob(&server.image("a"), &blob, &[], &mut gone, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("the file is gone"), "{error}");
}

#[test]
fn an_upload_sent_elsewhere_goes_without_credentials() {
    let bucket = Arc::new(Server::start(|_, _| answer(201, "", "")));
    let place = bucket.address.clone();
    let server = Server::start(move |seen, _| match (seen.header("authorization"), seen.method.as_str()) {
        ("", _) => answer(401, "WWW-Authenticate: Basic realm=\"r\"", ""),
        (_, "HEAD") => answer(404, "", ""),
        _ => answer(202, &format!("Location: http://{place}/bucket/x"), ""),
    });
    let mut open = |_| Ok(Box::new(&b"data"[..]) as Box<dyn Read>);
    let registry = client_as(Login::basic("me", "secret"));
    registry.push_blob(&server.image("a"), &blob_of(b"data"), &[], &mut open, &|_| {}).unwrap();
    assert_eq!(bucket.seen()[0].header("authorization"), "");
    assert_eq!(bucket.seen()[0].body, b"data");
}

#[test]
fn a_mount_that_is_not_allowed_becomes_an_upload() {
    let server = Server::start(|seen, _| match seen.method.as_str() {
        "HEAD" => answer(404, "", ""),
        "POST" if seen.target.contains("mount=") => answer(403, "", ""),
        "POST" => answer(202, "Location: /session", ""),
        _ => answer(201, "", ""),
    });
    let mut open = |_| Ok(Box::new(&b"data"[..]) as Box<dyn Read>);
    let from = ["a".to_owned(), "b/c".to_owned()];
    let outcome = client().push_blob(&server.image("a"), &blob_of(b"data"), &from, &mut open, &|_| {}).unwrap();
    assert_eq!(outcome, BlobPush::Uploaded);
    let posts: Vec<_> = server.seen().into_iter().filter(|s| s.method == "POST").map(|s| s.target).collect();
    assert!(posts[0].ends_with("from=b%2Fc"), "never from itself: {posts:?}");
}

#[test]
fn warnings_reach_the_user_once() {
    let server =
        Server::start(|_, _| answer(200, &format!("{OCI}\nWarning: 299 - \"this tag is \\\"old\\\"\""), MANIFEST));
    let registry = client();
    registry.manifest(&server.image("a")).unwrap();
    registry.manifest(&server.image("a")).unwrap();
    assert_eq!(registry.take_warnings(), ["this tag is \"old\""]);
    assert!(registry.take_warnings().is_empty());
}

#[test]
fn tags_are_read_page_by_page() {
    let server = Server::start(|seen, _| match seen.target.contains("last=") {
        false => answer(200, "Link: </v2/a/tags/list?n=1000&last=b>; rel=\"next\"", r#"{"name":"a","tags":["a","b"]}"#),
        true => answer(200, "", r#"{"name":"a","tags":["c"]}"#),
    });
    assert_eq!(client().tags(&server.image("a")).unwrap(), ["a", "b", "c"]);
    let server = Server::start(|_, _| answer(200, "Link: </v2/a/tags/list>; rel=\"next\"", r#"{"tags":null}"#));
    assert!(client().tags(&server.image("a")).unwrap().is_empty());
}

#[test]
fn a_host_elsewhere_must_speak_tls() {
    // The name is not loopback's, though the test's resolver leads it here.
    let server = Server::start(|_, _| answer(200, OCI, MANIFEST));
    let port = server.address.rsplit_once(':').unwrap().1.to_owned();
    let image: oci::Reference = format!("registry.example:{port}/a").parse().unwrap();
    let error = client().manifest(&image).unwrap_err();
    assert!(matches!(error.cause(), Cause::PlainHttp), "{error}");
    assert!(error.hint().unwrap().contains("--tls-verify=false"));
    assert!(server.seen().is_empty());
    // Marked insecure, it may.
    let insecure = vec![format!("registry.example:{port}")];
    Registry::new(ClientConfig { insecure, ..quick() }).manifest(&image).unwrap();
    Registry::new(ClientConfig { tls_verify: false, ..quick() }).manifest(&image).unwrap();
}

#[test]
fn a_proxy_is_used_and_carries_no_registry_credentials() {
    let proxy = Server::start(|_, _| answer(502, "", ""));
    let proxies = registry_client::Proxies { https: Some(format!("http://{}", proxy.address)), ..Default::default() };
    let registry = Registry::new(ClientConfig { proxies, ..quick() });
    let error = registry.manifest(&"registry.example/a".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("proxy"), "{error}");
    let seen = proxy.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("CONNECT", "registry.example:443"));
}

#[test]
fn one_host_is_asked_for_so_many_bodies_at_a_time_by_all_clients_together() {
    const MOST: usize = 8;
    let registry = MemoryRegistry::default();
    let blob = blob_of(b"layer");
    registry.put_blob("a", &blob.digest, b"layer");
    let image = registry.image("a");
    let mut held: Vec<_> = (0..MOST).map(|_| client().blob(&image, &blob, 0).unwrap()).collect();
    let (sender, arrived) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn({
        let (image, blob) = (image.clone(), blob.clone());
        move || {
            let mut late = client().blob(&image, &blob, 0).unwrap();
            sender.send(()).unwrap();
            std::io::read_to_string(&mut late).unwrap()
        }
    });
    // Small things and other hosts don't wait.
    let other = MemoryRegistry::default();
    other.put_blob("a", &blob.digest, b"layer");
    assert_eq!(client().blob_bytes(&other.image("a"), &blob, 100).unwrap(), b"layer");
    client().blob_exists(&image, &blob.digest).unwrap();
    assert!(arrived.recv_timeout(std::time::Duration::from_millis(300)).is_err(), "it does not wait");
    // Read to its end, one has made room.
    assert_eq!(std::io::read_to_string(&mut held[0]).unwrap(), "layer");
    assert_eq!(waiting.join().unwrap(), "layer");
    arrived.recv().unwrap();
}
