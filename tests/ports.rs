//! `-p`: published ports, and the default network around them.

use std::net::{TcpListener, UdpSocket};
use test_support::{Namespace, TestEnv, eventually, http_get, udp_ask};

/// A container that answers "name" on port 80 by httpd.
fn serve(env: &TestEnv, name: &str, publish: &[&str]) {
    let script = format!("mkdir /w; echo {name} > /w/index.html; exec httpd -f -h /w -p 80");
    let mut words = vec!["run", "-d", "--name", name];
    for port in publish {
        words.extend(["-p", port]);
    }
    words.extend(["busybox", "sh", "-c", &script]);
    env.ctr(words).ok();
}

#[test]
fn reached_from_this_machine() {
    let env = TestEnv::new();
    serve(&env, "web", &["80"]);
    let port = env.published("web", "80").rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(http_get(&format!("127.0.0.1:{port}"), "/"), "web\n");
    assert_eq!(http_get(&format!("localhost:{port}"), "/"), "web\n");
    assert_eq!(http_get(&format!("[::1]:{port}"), "/"), "web\n");
    assert_eq!(http_get(&format!("{}:80", env.address_of("web")), "/"), "web\n");
    let shown = env.ctr("ps --format '{{.Ports}}'").ok().text();
    assert_eq!(shown, format!("0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp"));
    assert_eq!(
        env.ctr("port web").ok().lines(),
        [format!("80/tcp -> 0.0.0.0:{port}"), format!("80/tcp -> [::]:{port}")]
    );
}

#[test]
fn reached_from_outside_with_the_client_s_address() {
    let env = TestEnv::new();
    let script = "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /w/cgi-bin/a; chmod +x /w/cgi-bin/a; exec httpd -f -h /w -p 80";
    env.ctr(["run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", script]).ok();
    let port = env.published("web", "80").rsplit_once(':').unwrap().1.to_owned();
    let outside = Namespace::new(11);
    let seen = outside.curl(&format!("http://{}:{port}/cgi-bin/a", outside.host));
    assert!(seen.contains(&outside.client), "the container sees the client itself: {seen}");
}

#[test]
fn reached_from_other_containers() {
    let env = TestEnv::new();
    serve(&env, "web", &["80"]);
    let port = env.published("web", "80").rsplit_once(':').unwrap().1.to_owned();
    http_get(&format!("127.0.0.1:{port}"), "/");
    // By its address, and by the published port at the bridge's own address.
    env.ctr(format!("run --rm busybox wget -qO- http://{}", env.address_of("web"))).ok().prints("web");
    let gateway = env.inspect("web", "/NetworkSettings/Gateway").as_str().unwrap().to_owned();
    env.ctr(format!("run --rm busybox wget -qO- http://{gateway}:{port}")).ok().prints("web");
    env.ctr(format!("exec web wget -qO- http://{gateway}:{port}")).ok().prints("web");
}

#[test]
fn bound_to_one_address() {
    let env = TestEnv::new();
    serve(&env, "web", &["127.0.0.1::80"]);
    let address = env.published("web", "80");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert_eq!(http_get(&address, "/"), "web\n");
    let port = address.rsplit_once(':').unwrap().1.to_owned();
    let outside = Namespace::new(12);
    let url = format!("http://{}:{port}/", outside.host);
    assert!(!outside.run(&["curl", "-s", "--max-time", "1", &url]).status.success(), "it is not for others");
}

#[test]
fn udp() {
    let env = TestEnv::with_debian();
    let script = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 9))\nwhile True: s.sendto(*s.recvfrom(9000))";
    env.ctr([
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        "127.0.0.1::9/udp",
        "-p",
        "9999/udp",
        "debian:bookworm",
        "python3",
        "-c",
        script,
    ])
    .ok();
    let address = env.published("echo", "9/udp");
    assert_eq!(udp_ask(&address, "ping"), "ping");
}

#[test]
fn a_taken_port_is_refused_and_nothing_stays() {
    let env = TestEnv::new();
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let failed = env.ctr(format!("run -d --name late -p {port}:80 busybox sleep 1000")).fails(125).says_it_plainly();
    failed.says(&format!("Bind for 0.0.0.0:{port} failed: port is already allocated"));
    env.ctr("ps -q").ok().prints_nothing();
    drop(holder);
    env.ctr("rm -f late").ok();
    env.ctr(format!("run -d --name late -p {port}:80 busybox sleep 1000")).ok();
    // Ours: the message names who has it.
    let failed = env.ctr(format!("run -d --name later -p {port}:80 busybox sleep 1000")).fails(125);
    failed.says("port is already allocated").says("late");
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    env.ctr(format!("run -d -p {port}:80/udp busybox sleep 1000")).fails(125).says("port is already allocated");
}

#[test]
fn free_again_at_once() {
    let env = TestEnv::new();
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    for _ in 0..3 {
        env.ctr(format!("run --rm --name same -p {port}:80 busybox true")).ok();
    }
    env.ctr(format!("run -d --name same -p {port}:80 busybox sleep 1000")).ok();
    env.ctr("rm -f same").ok();
    TcpListener::bind(("0.0.0.0", port)).expect("the port is free when rm returns");
}

#[test]
fn ranges_and_grammar() {
    let env = TestEnv::new();
    env.ctr("run -d --name ranged -p 127.0.0.1:42180-42182:80-82 busybox sleep 1000").ok();
    assert_eq!(env.ctr("port ranged").ok().lines().len(), 3);
    env.ctr("port ranged 81/tcp").ok().prints("127.0.0.1:42181");
    assert_eq!(env.ctr("ps --format '{{.Ports}}'").ok().text(), "127.0.0.1:42180-42182->80-82/tcp");
    for bad in ["0:80000", "90-80:90-80", "80-81:80-82", "x:80", "80/icmp", "1.2.3:80:80", ""] {
        let failed = env.ctr(["run", "--rm", "-p", bad, "busybox", "true"]).fails(125).says_it_plainly();
        assert!(failed.stderr().contains(bad), "{bad:?} named in {failed}");
    }
    env.ctr("port ranged 99").fails(1).says_it_plainly();
}

#[test]
fn publish_all() {
    let env = TestEnv::new();
    env.build("exposer", "ctx", "FROM busybox\nEXPOSE 80 53/udp\n").ok();
    env.ctr("run -d --name exposed -P --expose 8080 exposer sleep 1000").ok();
    let ports = env.ctr("port exposed").ok().stdout();
    for port in ["80/tcp", "53/udp", "8080/tcp"] {
        assert!(ports.contains(port), "{port} in {ports}");
    }
}

#[test]
fn names_and_the_way_out() {
    let env = TestEnv::new();
    env.ctr("run -d --name named --hostname inside --add-host db:10.1.2.3 --dns 192.0.2.53 --dns-search example.com busybox sleep 1000").ok();
    let hosts = env.ctr("exec named cat /etc/hosts").ok().stdout();
    assert!(hosts.contains("10.1.2.3\tdb") && hosts.contains("inside") && hosts.contains("localhost"), "{hosts}");
    let resolv = env.ctr("exec named cat /etc/resolv.conf").ok().stdout();
    assert!(resolv.contains("nameserver 192.0.2.53") && resolv.contains("search example.com"), "{resolv}");
    env.ctr("exec named cat /etc/hostname").ok().prints("inside");
    env.ctr("run --rm --add-host up:host-gateway busybox grep up /etc/hosts").ok();
    // Out through the bridge, to a machine that has no route back to it: only by translation.
    let outside = Namespace::new(13);
    let reply = env.ctr(format!("run --rm busybox ping -c 1 -W 3 {}", outside.client)).ok();
    reply.prints("1 packets received");
}

#[test]
fn hosts_nameservers_are_used() {
    let env = TestEnv::new();
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let inside = env.ctr("run --rm busybox cat /etc/resolv.conf").ok().stdout();
    let servers = host.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(str::trim);
    for server in servers.filter(|server| !server.starts_with("127.") && *server != "::1" && !server.contains(':')) {
        assert!(inside.contains(server), "{server} in {inside}");
    }
    assert!(!inside.contains("nameserver 127.") || inside.contains("127.0.0.11"), "{inside}");
}

#[test]
fn the_address_is_kept_by_a_restarting_container() {
    let env = TestEnv::new();
    env.ctr("run -d --name again --restart on-failure:1 busybox sh -c 'hostname -i; exit 1'").ok();
    eventually("two runs", || (env.ctr("logs again").ok().lines().len() == 2).then_some(()));
    let lines = env.ctr("logs again").ok().lines();
    assert_eq!(lines[0], lines[1]);
}

#[test]
fn joins_another_s_network() {
    let env = TestEnv::new();
    serve(&env, "web", &[]);
    http_get(&format!("{}:80", env.address_of("web")), "/");
    env.ctr("run --rm --network container:web busybox wget -qO- http://127.0.0.1").ok().prints("web");
    env.ctr("run --rm --network container:missing busybox true").fails(125).says("No such container: missing");
}
