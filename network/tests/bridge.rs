//! Bridges, namespaces and the table, against the real kernel; nft and ip are the oracles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::net::Ipv4Addr;
use std::time::Instant;

use network::{ensure, forward_warnings, remove};
use world::{in_world, run, try_run, within};

#[test]
fn a_bridge_comes_with_address_mtu_and_table() {
    in_world(|world| {
        world.ensure();
        let link = run("ip -d addr show ctr0");
        for part in ["mtu 1400", "172.17.0.1/16", "02:42:ac:11:00:01", "UP", "brd 172.17.255.255"] {
            assert!(link.contains(part), "{part}: {link}");
        }
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
        let rules = run("nft list ruleset");
        for part in [
            "iifname @bridges oifname != @bridges masquerade",
            "fib daddr type != local return",
            "socket mark 0x63000000 socket wildcard 1 jump dnat_any",
            "ct status dnat accept",
            "\"ctr0\" . \"ctr0\"",
            "elements = { \"ctr0\" }",
            "dnat ip to ip daddr . meta l4proto . th dport map @published_on",
        ] {
            assert!(rules.contains(part), "{part}: {rules}");
        }
    });
}

#[test]
fn a_container_reaches_the_outside_and_its_neighbour() {
    in_world(|world| {
        world.ensure();
        let (one, two) = (world.container(2), world.container(3));
        within(&one.namespace, || {
            let shown = run("ip addr; ip route");
            for part in ["eth0", "172.17.0.2/16", "02:42:ac:11:00:02", "default via 172.17.0.1", "mtu 1400"] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
            assert!(!shown.contains("inet6 fe80"), "{shown}");
            assert!(shown.contains("inet6 ::1"), "{shown}");
            assert_eq!(run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start").trim(), "0");
            assert_eq!(run("cat /proc/sys/net/ipv4/ping_group_range"), "0\t2147483647\n");
        });
        // Outside has no route back to 172.17/16: what it answers was masqueraded.
        within(&one.namespace, || {
            for target in [world::OUTSIDE, two.address, world.network.gateway, world::HOST, Ipv4Addr::LOCALHOST] {
                let reply = within_tcp_refused(target);
                assert!(reply, "{target}");
            }
        });
    });
}

/// A refused connection proves the way there and back.
fn within_tcp_refused(target: Ipv4Addr) -> bool {
    let error =
        std::net::TcpStream::connect_timeout(&(target, 9).into(), std::time::Duration::from_secs(2)).unwrap_err();
    error.kind() == std::io::ErrorKind::ConnectionRefused
}

#[test]
fn racing_set_ups_make_one_of_everything() {
    in_world(|world| {
        for round in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..24 {
                    scope.spawn(|| {
                        nix::sched::setns(&world.host, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                        ensure(&world.network).unwrap();
                    });
                }
            });
            let rules = run("nft list table inet ctr");
            assert_eq!(rules.matches("masquerade").count(), 1, "round {round}: {rules}");
            assert_eq!(rules.matches("jump dnat_any").count(), 2, "{rules}");
            assert_eq!(run("ip addr show ctr0").matches("172.17.0.1/16").count(), 1);
            remove(&world.network, true).unwrap();
            assert!(!try_run("ip link show ctr0").0);
            assert_eq!(run("nft list ruleset"), "");
        }
    });
}

#[test]
fn the_second_time_costs_next_to_nothing() {
    in_world(|world| {
        world.ensure();
        let mut best = u128::MAX;
        for _ in 0..50 {
            let start = Instant::now();
            ensure(&world.network).unwrap();
            best = best.min(start.elapsed().as_micros());
        }
        assert!(best < 500, "{best} µs");
    });
}

#[test]
fn what_was_flushed_by_hand_is_set_up_again() {
    in_world(|world| {
        world.ensure();
        run("nft flush ruleset");
        world.ensure();
        assert!(run("nft list table inet ctr").contains("masquerade"));
        run("ip link del ctr0");
        world.ensure();
        assert!(run("ip addr show ctr0").contains("172.17.0.1"));
        run("echo 0 > /proc/sys/net/ipv4/ip_forward");
        world.ensure();
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    });
}

#[test]
fn a_bridge_of_an_earlier_life_gets_the_new_address() {
    in_world(|world| {
        world.ensure();
        let mut later = world.network.clone();
        later.subnet = "172.18.0.0/16".parse().unwrap();
        later.gateway = Ipv4Addr::new(172, 18, 0, 1);
        ensure(&later).unwrap();
        let shown = run("ip addr show ctr0");
        assert!(shown.contains("172.18.0.1/16") && shown.contains("02:42:ac:12:00:01"), "{shown}");
        let namespace = network::new_namespace(None).unwrap();
        let endpoint = network::Endpoint { container: "x".into(), address: Ipv4Addr::new(172, 18, 0, 2) };
        network::connect(std::os::fd::AsFd::as_fd(&namespace), &later, &endpoint).unwrap();
        assert!(within(&namespace, || within_tcp_refused(world::OUTSIDE)));
    });
}

#[test]
fn several_roots_share_a_host() {
    in_world(|world| {
        world.ensure();
        let other = network::BridgeNetwork::default_for("ab12cd", "172.18.0.0/16".parse().unwrap());
        ensure(&other).unwrap();
        assert!(run("nft list ruleset").contains("table inet ctr_ab12cd"));
        remove(&other, true).unwrap();
        remove(&other, true).unwrap();
        assert!(!run("nft list ruleset").contains("ab12cd"));
        assert!(run("nft list ruleset").contains("table inet ctr "));
    });
}

#[test]
fn a_foreign_forward_drop_is_told() {
    in_world(|world| {
        assert_eq!(ensure(&world.network).unwrap(), Vec::<String>::new());
        run("nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'");
        let warnings = forward_warnings(&world.network).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("FORWARD of table ip filter") && !warnings[0].contains('\n'), "{warnings:?}");
        // What it advises is what helps.
        world.ensure();
        let container = world.container(2);
        let refused = || within(&container.namespace, || within_tcp_refused(world::OUTSIDE));
        assert!(!refused());
        let command = warnings[0]
            .split('`')
            .nth(1)
            .unwrap()
            .replace("iptables -I FORWARD -i", "nft insert rule ip filter FORWARD iifname");
        run(&command
            .replace("iptables -I FORWARD -o", "nft insert rule ip filter FORWARD oifname")
            .replace("-j ACCEPT", "accept"));
        assert!(refused());
    });
}

#[test]
fn a_subnet_that_the_host_routes_is_not_chosen() {
    in_world(|_| {
        assert_eq!(network::choose_subnet(&[]).unwrap().to_string(), "172.17.0.0/16");
        run("ip route add 172.16.0.0/14 via 192.0.2.2; ip route add 172.20.5.0/24 via 192.0.2.2 table 77");
        assert_eq!(network::choose_subnet(&[]).unwrap().to_string(), "172.21.0.0/16");
    });
}

#[test]
fn networks_are_apart() {
    in_world(|world| {
        world.ensure();
        let mut second = network::BridgeNetwork::default_for("", "172.18.0.0/16".parse().unwrap());
        second.bridge = "br-second".to_owned();
        ensure(&second).unwrap();
        let (one, two) = (world.container(2), network::new_namespace(None).unwrap());
        let endpoint = network::Endpoint { container: "two".into(), address: Ipv4Addr::new(172, 18, 0, 2) };
        network::connect(std::os::fd::AsFd::as_fd(&two), &second, &endpoint).unwrap();
        assert!(within(&two, || within_tcp_refused(world::OUTSIDE)));
        assert!(!within(&two, || within_tcp_refused(one.address)));
        remove(&second, false).unwrap();
        let rules = run("nft list ruleset");
        assert!(!rules.contains("br-second") && rules.contains("ctr0"), "{rules}");
    });
}

#[test]
fn the_table_is_rewritten_in_place() {
    in_world(|world| {
        world.ensure();
        let port = |host_port| network::PortSpec {
            host_ip: None,
            host_port,
            container_port: 80,
            protocol: network::Protocol::Sctp,
        };
        let ports = [port(8080), port(8081)];
        for _ in 0..2 {
            network::reload(std::slice::from_ref(&world.network), &[(Ipv4Addr::new(172, 17, 0, 2), &ports)]).unwrap();
            let rules = run("nft list table inet ctr");
            for part in ["sctp . 8080 : 172.17.0.2 . 80", "sctp . 8081", "elements = { \"ctr0\" }", "masquerade"] {
                assert_eq!(rules.matches(part).count(), 1, "{part}: {rules}");
            }
            run("nft flush ruleset");
        }
    });
}
