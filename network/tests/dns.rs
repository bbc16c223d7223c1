//! The resolver against a name server, and a container that is lent the host's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use network::dns::{Forwarder, Resolver};
use world::{in_world, within};

/// A name server of a few names, at an address of the calling thread's namespace.
///
/// web.example: 10.0.0.1, fd00::1. alias.example → web.example. long.example: truncated by UDP. far.example → alias.example
/// without its addresses. only4.example never answers AAAA. broken.example: SERVFAIL. forged.example: junk first.
fn name_server(address: &str) {
    let udp = UdpSocket::bind((address, 53)).unwrap();
    let tcp = TcpListener::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 600];
        while let Ok((len, peer)) = udp.recv_from(&mut buffer) {
            let query = &buffer[..len];
            if question(query).0 == "forged.example" {
                let mut forged = answer(query, false).unwrap();
                forged[0] ^= 0xff;
                udp.send_to(&forged, peer).unwrap();
                udp.send_to(b"junk", peer).unwrap();
            }
            if let Some(answer) = answer(query, false) {
                udp.send_to(&answer, peer).unwrap();
            }
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut query).unwrap();
            let answer = answer(&query, true).unwrap();
            stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
}

fn question(query: &[u8]) -> (String, u16) {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let len = usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..=at + len].to_vec()).unwrap());
        at += len + 1;
    }
    (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]))
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

fn answer(query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let (name, kind) = question(query);
    let address = |last: u8| match kind {
        1 => (1, vec![10, 0, 0, last]),
        _ => (28, vec![0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
    };
    let (mut flags, mut records) = (0x8180_u16, Vec::new());
    match name.as_str() {
        "web.example" | "forged.example" => records.push((name.clone(), address(1))),
        "alias.example" => {
            records.push((name.clone(), (5, wire("web.example"))));
            records.push(("web.example".to_owned(), address(1)));
        }
        "far.example" => records.push((name.clone(), (5, wire("alias.example")))),
        "long.example" if tcp => records.extend((0..60).map(|last| (name.clone(), address(last)))),
        "long.example" => flags |= 0x0200,
        "only4.example" if kind == 28 => return None,
        "only4.example" => records.push((name.clone(), address(4))),
        "empty.example" => {}
        "silent.example" => return None,
        "broken.example" => flags |= 2,
        _ => flags |= 3,
    }
    let mut bytes = query.to_vec();
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    for (owner, (kind, data)) in records {
        bytes.extend(wire(&owner));
        for field in [kind, 1, 0, 60, u16::try_from(data.len()).unwrap()] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(data);
    }
    Some(bytes)
}

fn resolver_of(dir: &Path, resolv_conf: &str) -> Resolver {
    let resolver = Resolver { hosts: dir.join("hosts"), resolv_conf: dir.join("resolv.conf") };
    std::fs::write(&resolver.hosts, "10.9.9.9 db.internal db\n").unwrap();
    std::fs::write(&resolver.resolv_conf, resolv_conf).unwrap();
    resolver
}

fn addresses(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn names_are_resolved_as_the_c_library_would() {
    in_world(|_| {
        name_server("127.0.0.1");
        let dir = tempfile::tempdir().unwrap();
        let short = "search example\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        let resolver = resolver_of(dir.path(), short);
        let both = addresses(&["10.0.0.1", "fd00::1"]);
        for host in ["web.example", "WEB.example.", "web", "alias.example", "far.example", "forged.example"] {
            assert_eq!(resolver.resolve(host).unwrap(), both, "{host}");
        }
        assert_eq!(resolver.resolve("long").unwrap().len(), 120);
        assert_eq!(resolver.resolve("db").unwrap(), addresses(&["10.9.9.9"]));
        assert_eq!(resolver.resolve("127.0.0.1").unwrap(), addresses(&["127.0.0.1"]));
        assert_eq!(resolver.resolve("[::1]").unwrap(), addresses(&["::1"]));
        assert_eq!(resolver.resolve("a.localhost").unwrap(), addresses(&["127.0.0.1", "::1"]));
        let patient = resolver_of(dir.path(), "nameserver 127.0.0.1\noptions timeout:10\n");
        let start = Instant::now();
        assert_eq!(patient.resolve("only4.example").unwrap(), addresses(&["10.0.0.4"]));
        assert!(start.elapsed() < Duration::from_secs(8), "what is known is not held back");
        let resolver = resolver_of(dir.path(), short);
        for (host, part) in [
            ("nothing.example", "no such host"),
            ("empty.example", "it has no address"),
            ("broken.example", "error 2"),
            ("silent.example", "no answer in time"),
            ("a b", "no such host"),
            ("", "no such host"),
        ] {
            let error = resolver.resolve(host).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(&format!("{host:?}")), "{host}: {error}");
        }
    });
}

#[test]
fn a_dead_server_is_passed_over() {
    in_world(|_| {
        name_server("127.0.0.2");
        let dir = tempfile::tempdir().unwrap();
        let resolver = resolver_of(dir.path(), "nameserver 127.0.0.3\nnameserver 127.0.0.2\n");
        assert_eq!(resolver.resolve("web.example").unwrap().len(), 2);
    });
}

/// Not a test: the child that serves the forwarder. Its namespace is the host's, from its parent; the container's comes by socket.
#[test]
#[ignore = "started by another test"]
fn forwarder_process() {
    let Ok((len, fds)) = linux::socket::receive_fds(std::io::stdin(), &mut [0; 16]) else { return };
    if len == 0 {
        return;
    }
    let forwarder = Forwarder::bind(fds[0].as_fd()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let resolver = resolver_of(dir.path(), "nameserver 127.0.0.53\nnameserver 127.0.0.1\n");
    linux::socket::send_fds(std::io::stdin(), b"x", &[]).unwrap();
    forwarder.serve(&resolver).unwrap();
}

#[test]
fn a_container_is_lent_the_hosts_loopback_servers() {
    in_world(|world| {
        world.ensure();
        name_server("127.0.0.1");
        let container = world.container(2);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut child = world::spawn(
            std::process::Command::new(std::env::current_exe().unwrap())
                // It is killed, and takes nothing away.
                .env("TMPDIR", dir.path())
                .args(["forwarder_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
                .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(theirs)))
                .stdout(std::process::Stdio::null()),
        );
        linux::socket::send_fds(&ours, b"x", &[container.namespace.as_fd()]).unwrap();
        assert_eq!(linux::socket::receive_fds(&ours, &mut [0; 1]).unwrap().0, 1);
        let resolver = resolver_of(dir.path(), "nameserver 127.0.0.11\nnameserver 127.0.0.12\noptions timeout:1\n");
        within(&container.namespace, || {
            // A name server of the container's own is not in the way.
            let _own = UdpSocket::bind("0.0.0.0:53").unwrap();
            assert_eq!(resolver.resolve("web.example").unwrap().len(), 2);
            assert_eq!(resolver.resolve("long.example").unwrap().len(), 120);
        });
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
