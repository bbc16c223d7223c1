//! linux.netDevices: interfaces of the maker's network that become the container's. Each test has a network of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::json;
use std::process::{Command, Stdio};
use support::{Bundle, Ran, ran};

/// A pair of interfaces with addresses, `da` and `db`, in a new network: then the container.
const NETWORK: &str = "ip link set lo up && ip link add da type veth peer name db && ip link set db up && ip link set da up mtu 1400 &&
    ip address add 10.9.8.7/24 brd + dev da && ip address add 10.9.9.1/32 dev da && ip address add fd00:9::7/64 dev da nodad &&
    ip route add 10.7.0.0/16 via 10.9.8.1 && exec \"$0\" \"$@\"";

fn bundle(script: &str, devices: &serde_json::Value) -> Bundle {
    let mut bundle = Bundle::sh(script);
    bundle.raw = Some(("/linux/netDevices".to_owned(), devices.clone()));
    bundle
}

fn run_in_network(bundle: &Bundle) -> Ran {
    let direct = bundle.command(&["run", &bundle.id]);
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", NETWORK]).arg(direct.get_program()).args(direct.get_args());
    ran(command.current_dir(bundle.path()).stdin(Stdio::null()).output().unwrap())
}

#[test]
fn an_interface_comes_with_its_addresses() {
    let script = "ip address show dev inside; ip -o link | wc -l; ip route";
    let ran = run_in_network(&bundle(script, &json!({"da": {"name": "inside"}})));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    for expected in [
        "mtu 1400",
        ",UP",
        "inet 10.9.8.7/24 brd 10.9.8.255 scope global",
        "inet 10.9.9.1/32 scope global",
        "inet6 fd00:9::7/64 scope global",
        "\n2\n",
        "10.9.8.0/24 dev inside",
    ] {
        assert!(ran.out.contains(expected), "{expected:?}: {}", ran.out);
    }
    // Routes are the network's, not the interface's.
    assert!(!ran.out.contains("10.7.0.0"), "{}", ran.out);
}

#[test]
fn names_stay_or_are_made_by_the_kernel() {
    let script = "ip -o link | cut -d: -f2 | cut -d@ -f1 | sort | xargs";
    let ran = run_in_network(&bundle(script, &json!({"da": {}, "db": {"name": "net%d"}})));
    assert_eq!((ran.code, ran.out.as_str()), (0, "da lo net0\n"), "{}", ran.err);
}

#[test]
fn what_can_t_be_moved_is_an_error() {
    for (devices, why) in [
        (json!({"none0": {}}), "linux.netDevices: none0: there is no such network interface"),
        (json!({"da": {"name": "lo"}}), "linux.netDevices: da: the container has a network interface lo already"),
        (json!({"da": {"name": "a/b"}}), "linux.netDevices: da: \"a/b\" is no name for a network interface"),
        (json!({"da": {"name": "x"}, "db": {"name": "x"}}), "another's new name"),
        (json!({"lo": {"name": "loop"}}), "linux.netDevices: lo: move it"),
    ] {
        let bundle = bundle("true", &devices);
        let ran = run_in_network(&bundle);
        assert!(ran.code == 1 && ran.err.contains(why) && ran.err.lines().count() == 1, "{devices}: {}", ran.err);
        assert!(bundle.cgroups_left().is_empty());
    }
    let mut shared = bundle("true", &json!({"da": {}}));
    shared.json(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        spec["linux"]["sysctl"] = json!({});
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs");
    });
    let ran = run_in_network(&shared);
    assert!(ran.code == 1 && ran.err.contains("needs a network namespace of the container's own"), "{}", ran.err);
}
