//! Published ports as users meet them: from outside, from the host, from other containers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use network::{NetworkError, PortSpec, Published, parse_publish, publish, serve_proxy, unpublish};
use world::{Container, HOST, HOST6, OUTSIDE, World, in_world, run, within};

const WAIT: Duration = Duration::from_secs(10);

/// The proxy's process: this test binary again, in the role of the monitor's child.
struct Proxy(Child, #[allow(dead_code)] UnixStream);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Proxy {
    fn start(published: &[Published], container: Ipv4Addr) -> Proxy {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let specs: Vec<&PortSpec> = published.iter().map(|one| &one.spec).collect();
        let counts: Vec<usize> = published.iter().map(|one| one.listeners.len()).collect();
        let fds: Vec<BorrowedFd<'_>> = published.iter().flat_map(|one| &one.listeners).map(AsFd::as_fd).collect();
        let message = serde_json::to_vec(&(specs, counts, container)).unwrap();
        linux::socket::send_fds(&ours, &message, &fds).unwrap();
        let child = world::spawn(
            Command::new(std::env::current_exe().unwrap())
                .args(["proxy_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null()),
        );
        Proxy(child, ours)
    }
}

/// Not a test: what [`Proxy`] starts.
#[test]
#[ignore = "started by other tests"]
fn proxy_process() {
    let mut buffer = [0; 4096];
    let Ok((len, fds)) = linux::socket::receive_fds(std::io::stdin(), &mut buffer) else { return };
    let (specs, counts, container): (Vec<PortSpec>, Vec<usize>, Ipv4Addr) =
        serde_json::from_slice(&buffer[..len]).unwrap();
    let mut fds = fds.into_iter();
    let published = specs
        .into_iter()
        .zip(counts)
        .map(|(spec, count)| Published { spec, listeners: fds.by_ref().take(count).collect() })
        .collect();
    serve_proxy(published, container).unwrap();
}

fn ports(world: &World, container: &Container, texts: &[&str]) -> Result<Vec<Published>, NetworkError> {
    let requests: Vec<_> = texts.iter().flat_map(|text| parse_publish(text).unwrap()).collect();
    publish(&world.network, container.address, &requests)
}

/// Serves TCP in a container: answers each connection with the peer's address, a line, and then all it was sent.
fn serve_tcp(container: &Container, port: u16) {
    let listener = within(&container.namespace, || TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                writeln!(stream, "{}", stream.peer_addr().unwrap().ip()).unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
        }
    });
}

/// Serves UDP in a container: answers with the peer's address and what it was sent.
fn serve_udp(container: &Container, port: u16) {
    let socket = within(&container.namespace, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{} ", peer.ip()).into_bytes();
            answer.extend(&buffer[..len]);
            socket.send_to(&answer, peer).unwrap();
        }
    });
}

/// Connects, sends, half-closes, reads: (the address that the container saw, what came back).
fn talk(target: impl Into<IpAddr>, port: u16, data: &[u8]) -> std::io::Result<(IpAddr, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(target.into(), port), WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut writer = stream.try_clone()?;
    let data = data.to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&data).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    writing.join().unwrap();
    let end = all.iter().position(|byte| *byte == b'\n').ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((std::str::from_utf8(&all[..end]).unwrap().parse().unwrap(), all[end + 1..].to_vec()))
}

fn talk_udp(target: impl Into<IpAddr>, port: u16, data: &[u8]) -> std::io::Result<(IpAddr, Vec<u8>)> {
    let target = SocketAddr::new(target.into(), port);
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected: an answer from another address than the one asked would not arrive.
    socket.connect(target)?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut buffer = vec![0; 65_536];
    socket.send(data)?;
    let len = socket.recv(&mut buffer)?;
    let space = buffer.iter().position(|byte| *byte == b' ').unwrap();
    Ok((std::str::from_utf8(&buffer[..space]).unwrap().parse().unwrap(), buffer[space + 1..len].to_vec()))
}

#[test]
fn tcp_from_everywhere() {
    in_world(|world| {
        world.ensure();
        let (web, other) = (world.container(2), world.container(3));
        serve_tcp(&web, 80);
        let published = ports(world, &web, &["8080:80"]).unwrap();
        assert_eq!(published[0].listeners.len(), 2);
        // From outside no proxy is needed, and the client's address survives.
        within(&world.outside, || {
            assert_eq!(talk(HOST, 8080, b"hello").unwrap(), (OUTSIDE.into(), b"hello".to_vec()));
        });
        let _proxy = Proxy::start(&published, web.address);
        let gateway = IpAddr::V4(world.network.gateway);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        for target in [IpAddr::from([127, 0, 0, 1]), HOST.into(), gateway, v6("::1"), v6(HOST6)] {
            assert_eq!(talk(target, 8080, &large).unwrap(), (gateway, large.clone()), "{target}");
        }
        for container in [&other, &web] {
            within(&container.namespace, || {
                assert_eq!(talk(HOST, 8080, b"hairpin").unwrap(), (gateway, b"hairpin".to_vec()));
            });
        }
        within(&world.outside, || {
            assert_eq!(talk(v6(HOST6), 8080, b"six").unwrap(), (gateway, b"six".to_vec()));
            // Never directly, not even with a route.
            run("ip route add 172.17.0.0/16 via 192.0.2.1");
            let direct = TcpStream::connect_timeout(&(web.address, 80).into(), Duration::from_millis(500));
            assert_eq!(direct.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        });
        within(&other.namespace, || {
            assert_eq!(talk(web.address, 80, b"neighbour").unwrap().0, IpAddr::V4(other.address));
        });
    });
}

#[test]
fn udp_from_everywhere() {
    in_world(|world| {
        world.ensure();
        let (dns, other) = (world.container(2), world.container(3));
        serve_udp(&dns, 53);
        let published = ports(world, &dns, &["5353:53/udp"]).unwrap();
        within(&world.outside, || {
            assert_eq!(talk_udp(HOST, 5353, b"q").unwrap(), (OUTSIDE.into(), b"q".to_vec()));
        });
        let _proxy = Proxy::start(&published, dns.address);
        let gateway = IpAddr::V4(world.network.gateway);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        for target in [IpAddr::from([127, 0, 0, 1]), [127, 9, 9, 9].into(), HOST.into(), gateway, v6("::1"), v6(HOST6)]
        {
            assert_eq!(talk_udp(target, 5353, &[7; 1200]).unwrap(), (gateway, vec![7; 1200]), "{target}");
        }
        for container in [&other, &dns] {
            within(&container.namespace, || {
                assert_eq!(talk_udp(HOST, 5353, b"hairpin").unwrap(), (gateway, b"hairpin".to_vec()));
            });
        }
        within(&world.outside, || assert_eq!(talk_udp(v6(HOST6), 5353, b"6").unwrap().0, gateway));
    });
}

#[test]
fn a_flow_that_began_before_finds_the_new_container() {
    in_world(|world| {
        world.ensure();
        let (one, two) = (world.container(2), world.container(3));
        serve_udp(&one, 53);
        serve_udp(&two, 53);
        let quiet = world::no_spawning();
        within(&world.outside, || {
            let client = UdpSocket::bind(("0.0.0.0", 4000)).unwrap();
            client.connect((HOST, 5353)).unwrap();
            client.set_read_timeout(Some(WAIT)).unwrap();
            // Without a listener: the host's "nobody there", and an entry in connection tracking.
            let mut buffer = [0; 100];
            client.send(b"a").unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            for container in [&one, &two, &one] {
                let published = within(&world.host, || ports(world, container, &["5353:53/udp"])).unwrap();
                client.send(b"b").unwrap();
                let len = client.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], b"192.0.2.2 b");
                let specs: Vec<_> = published.iter().map(|one| one.spec.clone()).collect();
                within(&world.host, || drop(unpublish(&world.network, container.address, &specs).unwrap()));
                drop(published);
                client.send(b"c").unwrap();
                assert_eq!(client.recv(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            }
        });
        drop(quiet);
        assert!(!run("nft list table inet ctr").contains("5353"));
    });
}

#[test]
fn a_taken_port_is_named_and_nothing_stays() {
    in_world(|world| {
        world.ensure();
        let _quiet = world::no_spawning();
        let web = world.container(2);
        let taken = TcpListener::bind("0.0.0.0:81").unwrap();
        let error = ports(world, &web, &["80:80", "81:81"]).unwrap_err();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:81 failed: port is already allocated");
        drop(taken);
        let first = ports(world, &web, &["80:80", "81:81"]).unwrap();
        let error = ports(world, &web, &["80:80"]).unwrap_err();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:80 failed: port is already allocated");
        let error = ports(world, &web, &["127.0.0.1:80:80"]).unwrap_err();
        assert_eq!(error.to_string(), "Bind for 127.0.0.1:80 failed: port is already allocated");
        let error = ports(world, &web, &["8.8.8.8:99:80"]).unwrap_err();
        assert!(error.to_string().contains("8.8.8.8: not an address of this host"), "{error}");
        // The other protocol's ports are others.
        let udp = ports(world, &web, &["80:80/udp"]).unwrap();
        assert!(matches!(ports(world, &web, &["80:80/udp"]), Err(NetworkError::PortTaken { port: 80, .. })));
        drop((first, udp));
        ports(world, &web, &["80:80", "81:81", "80:80/udp"]).unwrap();
    });
}

#[test]
fn ranges_and_random_ports() {
    in_world(|world| {
        world.ensure();
        let web = world.container(2);
        let one = ports(world, &web, &["8000-8002:80"]).unwrap();
        let two = ports(world, &web, &["8000-8002:80"]).unwrap();
        assert_eq!((one[0].spec.host_port, two[0].spec.host_port), (8000, 8001));
        let three = ports(world, &web, &["8000-8002:80"]).unwrap();
        let error = ports(world, &web, &["8000-8002:80"]).unwrap_err();
        assert!(error.to_string().contains("8000-8002"), "{error}");
        drop(three);
        run("echo 40000 40009 > /proc/sys/net/ipv4/ip_local_port_range");
        let many = ports(world, &web, &["80-89"]).unwrap();
        let mut chosen: Vec<u16> = many.iter().map(|one| one.spec.host_port).collect();
        chosen.sort_unstable();
        assert_eq!(chosen, (40000..=40009).collect::<Vec<u16>>());
        assert_eq!(many[3].spec.container_port, 83);
        assert!(ports(world, &web, &["80"]).is_err());
    });
}

#[test]
fn an_address_of_its_own() {
    in_world(|world| {
        world.ensure();
        run("ip addr add 192.0.2.7/24 dev up0");
        let (one, two) = (world.container(2), world.container(3));
        serve_tcp(&one, 80);
        serve_tcp(&two, 8080);
        let a = ports(world, &one, &["192.0.2.7:80:80", "127.0.0.1:81:80"]).unwrap();
        let _b = ports(world, &two, &["192.0.2.1:80:8080"]).unwrap();
        within(&world.outside, || {
            assert_eq!(talk(Ipv4Addr::new(192, 0, 2, 7), 80, b"x").unwrap().0, IpAddr::V4(OUTSIDE));
            assert_eq!(talk(HOST, 80, b"x").unwrap().0, IpAddr::V4(OUTSIDE));
            assert!(talk(HOST, 81, b"x").is_err());
        });
        let _proxy = Proxy::start(&a, one.address);
        assert_eq!(talk(Ipv4Addr::LOCALHOST, 81, b"x").unwrap().1, b"x");
        assert!(talk(HOST, 81, b"x").is_err());
    });
}

#[test]
fn a_lost_monitor_steals_no_port() {
    in_world(|world| {
        world.ensure();
        let (one, two) = (world.container(2), world.container(3));
        serve_tcp(&one, 80);
        serve_tcp(&two, 80);
        // Gone without a word: the elements stay behind, the listeners do not.
        let lost = ports(world, &one, &["8080:80", "192.0.2.1:8081:80"]).unwrap();
        assert!(run("nft list table inet ctr").contains("8080"));
        let _quiet = world::no_spawning();
        drop(lost);
        // Somebody else's server gets its own connections.
        let foreign = TcpListener::bind(("0.0.0.0", 8080)).unwrap();
        let client = within(&world.outside, || TcpStream::connect_timeout(&(HOST, 8080).into(), WAIT).unwrap());
        assert_eq!(foreign.accept().unwrap().1, client.local_addr().unwrap());
        drop((foreign, client));
        within(&world.outside, || assert!(talk(HOST, 8081, b"").is_err()));
        // The next container's ports replace the stale ones; also where a specific address was before.
        let _ports = ports(world, &two, &["8080:80", "8081:80"]).unwrap();
        for port in [8080, 8081] {
            within(&world.outside, || assert_eq!(talk(HOST, port, b"y").unwrap().1, b"y", "{port}"));
        }
        // A late clean-up for the lost one leaves the new one's alone.
        let stale = PortSpec { host_ip: None, host_port: 8080, container_port: 80, protocol: network::Protocol::Tcp };
        drop(unpublish(&world.network, one.address, &[stale]).unwrap());
        within(&world.outside, || assert_eq!(talk(HOST, 8080, b"z").unwrap().1, b"z"));
    });
}

#[test]
fn the_proxy_is_nobody_and_resets_what_cannot_be_served() {
    in_world(|world| {
        world.ensure();
        let web = world.container(2);
        let published = ports(world, &web, &["8080:80"]).unwrap();
        let proxy = Proxy::start(&published, web.address);
        // Nothing listens in the container.
        let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], 8080).into(), WAIT).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        // Its one test thread is what a monitor's child would be.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.0.id())).unwrap();
        let newest = tasks.map(|task| task.unwrap().path()).max().unwrap();
        let status = std::fs::read_to_string(newest.join("status")).unwrap();
        for line in [
            "Uid:\t65534\t65534\t65534\t65534",
            "Gid:\t65534\t65534",
            "NoNewPrivs:\t1",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "Groups:\t \n",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        let idle = std::fs::read_dir(format!("/proc/{}/fd", proxy.0.id())).unwrap().count();
        serve_tcp(&web, 80);
        let streams: Vec<_> = (0..200)
            .map(|n: u32| {
                let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], 8080).into(), WAIT).unwrap();
                stream.write_all(&n.to_ne_bytes()).unwrap();
                stream
            })
            .collect();
        for (n, mut stream) in (0_u32..).zip(streams) {
            stream.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert!(all.ends_with(&n.to_ne_bytes()), "{n}");
        }
        // A client that goes away in the middle leaves nothing behind.
        for _ in 0..20 {
            drop(TcpStream::connect_timeout(&([127, 0, 0, 1], 8080).into(), WAIT).unwrap());
        }
        let (_, all) = talk(Ipv4Addr::LOCALHOST, 8080, b"still there").unwrap();
        assert_eq!(all, b"still there");
        let now = std::fs::read_dir(format!("/proc/{}/fd", proxy.0.id())).unwrap().count();
        // Spare pipes may stay, connections not.
        assert!(now <= idle + 2 * 32 + 4, "{idle} then {now}");
    });
}

#[test]
fn a_hundred_at_once() {
    in_world(|world| {
        let won = std::sync::atomic::AtomicUsize::new(0);
        let barrier = std::sync::Barrier::new(100);
        std::thread::scope(|scope| {
            for n in 0..100_u8 {
                let (won, barrier) = (&won, &barrier);
                scope.spawn(move || {
                    nix::sched::setns(&world.host, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    world.ensure();
                    let container = world.container(n + 2);
                    serve_tcp(&container, 80);
                    let own = ports(world, &container, &[&format!("{}:80", 9000 + u16::from(n)), "80"]).unwrap();
                    // One port that all want: exactly one gets it.
                    match ports(world, &container, &["7777:80"]) {
                        Ok(published) => {
                            won.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            barrier.wait();
                            drop(published);
                        }
                        Err(NetworkError::PortTaken { port: 7777, .. }) => {
                            barrier.wait();
                        }
                        Err(error) => panic!("{error}"),
                    }
                    for one in &own {
                        let seen = within(&world.outside, || talk(HOST, one.spec.host_port, &[n])).unwrap();
                        assert_eq!(seen, (OUTSIDE.into(), vec![n]));
                    }
                    let specs: Vec<_> = own.iter().map(|one| one.spec.clone()).collect();
                    drop(unpublish(&world.network, container.address, &specs).unwrap());
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
        let rules = run("nft list table inet ctr");
        assert!(!rules.contains("90"), "{rules}");
    });
}

#[test]
fn a_slow_reader_holds_up_nobody_and_loses_nothing() {
    in_world(|world| {
        world.ensure();
        let web = world.container(2);
        let listener = within(&web.namespace, || TcpListener::bind(("0.0.0.0", 80)).unwrap());
        let published = ports(world, &web, &["8080:80"]).unwrap();
        let proxy = Proxy::start(&published, web.address);
        // The container sends far more than all buffers hold.
        let mut client = TcpStream::connect_timeout(&([127, 0, 0, 1], 8080).into(), WAIT).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        let sender = std::thread::spawn(move || {
            let mut writer = std::io::BufWriter::with_capacity(100_000, &mut served);
            for n in 0..4_000_000_u32 {
                writer.write_all(&n.to_ne_bytes()).unwrap();
            }
            writer.flush().unwrap();
        });
        // Meanwhile another is served, and once all buffers are full the process does not spin.
        let time = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.0.id())).unwrap();
            let fields: Vec<u64> = stat.rsplit(')').next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
            fields[10] + fields[11]
        };
        let other = TcpStream::connect_timeout(&([127, 0, 0, 1], 8080).into(), WAIT).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        second.write_all(b"x").unwrap();
        let mut byte = [0];
        (&other).read_exact(&mut byte).unwrap();
        let rests = |_| {
            let before = time();
            std::thread::sleep(Duration::from_millis(100));
            time() == before
        };
        assert!((0..50).any(rests));
        let mut expected = 0_u32;
        let mut reader = std::io::BufReader::new(&mut client);
        let mut word = [0; 4];
        while reader.read_exact(&mut word).is_ok() {
            assert_eq!(u32::from_ne_bytes(word), expected);
            expected += 1;
        }
        assert_eq!(expected, 4_000_000);
        sender.join().unwrap();
    });
}
