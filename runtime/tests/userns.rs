//! User namespaces: given in the config, as root and as an ordinary user.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};
use support::{Bundle, ran};

/// Nobody's ids: no user of a machine has them.
const FIRST: u32 = 3_000_000;
const COUNT: u32 = 65_536;
/// An ordinary user without a name.
const USER: u32 = 3_900_000;

fn in_user_namespace(bundle: &mut Bundle, first: u32, count: u32) {
    bundle.json(|spec| {
        let linux = &mut spec["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": first, "size": count}]);
        (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
        // Of groups that are not there.
        linux["sysctl"].as_object_mut().unwrap().remove("net.ipv4.ping_group_range");
    });
}

/// Gives a bundle's root file system to a user, as an engine would have unpacked it.
fn give(bundle: &Bundle, uid: u32) {
    let status = Command::new("chown").arg("-hR").arg(format!("{uid}:{uid}")).arg(bundle.path()).status().unwrap();
    assert!(status.success());
}

#[test]
fn root_maps_any_ids() {
    let script = "cat /proc/self/uid_map; id -u; touch /made; chown 5:6 /made; ls /dev/null /dev/pts /proc/sys; \
                  echo x > /dev/null && cat /sys/class/net/lo/operstate >/dev/null && echo all";
    let mut bundle = Bundle::sh(script);
    in_user_namespace(&mut bundle, FIRST, COUNT);
    give(&bundle, FIRST);
    let ran = bundle.run();
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert_eq!(words[..4], ["0", &FIRST.to_string(), &COUNT.to_string(), "0"]);
    assert!(ran.out.contains("all"), "{}", ran.out);
    let made = fs::metadata(bundle.rootfs().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (FIRST + 5, FIRST + 6));
    assert!(bundle.cgroups_left().is_empty());
}

#[test]
fn another_process_joins_it() {
    let mut bundle = Bundle::sh("echo up; exec sleep 100");
    in_user_namespace(&mut bundle, FIRST, COUNT);
    give(&bundle, FIRST);
    let mut child = bundle.spawn();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let ran = bundle.exec(&["sh", "-c", "cat /proc/self/uid_map; id -u"]);
    assert!(
        ran.code == 0 && ran.out.contains(&FIRST.to_string()) && ran.out.ends_with("0\n"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert_eq!(bundle.runtime(&["delete", "-f", &bundle.id]).code, 0);
    child.wait().unwrap();
}

#[test]
fn an_ordinary_user_runs_with_his_own_id() {
    let mut bundle = Bundle::sh("id -u; cat /proc/self/uid_map; echo made > /made");
    in_user_namespace(&mut bundle, USER, 1);
    give(&bundle, USER);
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where it was built he may not be able to look; his own state folder he needs as well.
    let program = bundle.path().join("ctr-runtime");
    fs::copy(env!("CARGO_BIN_EXE_ctr-runtime"), &program).unwrap();
    let state = bundle.path().join("state");
    fs::create_dir_all(&state).unwrap();
    chown(&state, Some(USER), Some(USER)).unwrap();
    // Writes the config.
    drop(bundle.command(&[]));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
    command.arg(&program).arg("--root").arg(&state).args(["run", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
    let ran = ran(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &USER.to_string(), "1"]);
    assert_eq!(fs::metadata(bundle.rootfs().join("made")).unwrap().uid(), USER);
}

/// A process in a namespace that was made for the test, ended with it.
struct Holder(std::process::Child);

impl Holder {
    fn new(unshare: &[&str]) -> Holder {
        let program = ["sh", "-c", "echo up; exec sleep 1000"];
        let mut command = Command::new("unshare");
        let mut child = command.args(unshare).args(program).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", child.id()), format!("0 {FIRST} {COUNT}")).unwrap();
        }
        Holder(child)
    }

    fn namespace(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// As containerd has it for pods: user and network namespace are there before the container, the one of the other.
#[test]
fn a_user_namespace_and_one_of_its_networks_are_joined() {
    let holder = Holder::new(&["--user", "--net"]);
    // Only who has a say in the network's own user namespace may bring up its loopback.
    let script = "cat /proc/self/uid_map; readlink /proc/self/ns/net; id -u; mkdir /x && mount -t tmpfs t /x && \
                  hostname inside && hostname && ip link set lo up && echo all";
    let mut bundle = Bundle::sh(script);
    in_user_namespace(&mut bundle, FIRST, COUNT);
    bundle.json(|spec| {
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            for (kind, name) in [("user", "user"), ("network", "net")] {
                if namespace["type"] == kind {
                    namespace["path"] = json!(holder.namespace(name));
                }
            }
        }
        spec["linux"].as_object_mut().unwrap().remove("uidMappings");
        spec["linux"].as_object_mut().unwrap().remove("gidMappings");
        for set in ["bounding", "effective", "permitted"] {
            let set = spec["process"]["capabilities"][set].as_array_mut().unwrap();
            set.extend([json!("CAP_SYS_ADMIN"), json!("CAP_NET_ADMIN")]);
        }
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
        spec["root"]["readonly"] = json!(false);
    });
    give(&bundle, FIRST);
    let ran = bundle.run();
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
    let net = fs::read_link(holder.namespace("net")).unwrap();
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert_eq!(words[1..], [&FIRST.to_string(), &COUNT.to_string(), net.to_str().unwrap(), "0", "inside", "all"]);
    assert!(bundle.cgroups_left().is_empty());
}
