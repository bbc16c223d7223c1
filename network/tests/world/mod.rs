//! A small world of network namespaces: a "host" with an "outside" at the other end of a cable.
//!
//! Namespaces belong to threads, so each test runs in a thread of its own that is the host; the machine's own network is
//! never touched. All of it vanishes with the threads and descriptors.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use network::{BridgeNetwork, Endpoint, connect, ensure, new_namespace};
use nix::sched::{CloneFlags, setns, unshare};

pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const HOST6: &str = "2001:db8::1";
pub const OUTSIDE6: &str = "2001:db8::2";

pub struct World {
    pub host: OwnedFd,
    pub outside: OwnedFd,
    pub network: BridgeNetwork,
}

pub struct Container {
    pub namespace: OwnedFd,
    pub address: Ipv4Addr,
}

pub fn own_namespace() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

fn fresh_namespace() -> OwnedFd {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        own_namespace()
    })
    .join()
    .unwrap()
}

/// Runs `test` in a world of its own.
pub fn in_world(test: impl FnOnce(&World) + Send + 'static) {
    std::thread::spawn(move || {
        let outside = fresh_namespace();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let host = own_namespace();
        run("ip link set lo up");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&outside);
        run(&format!(
            "ip link add up0 mtu 1400 type veth peer name up0 mtu 1400 netns /proc/{}/fd/{fd}",
            std::process::id()
        ));
        run("ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 nodad dev up0; ip link set up0 up");
        run("ip route add default via 192.0.2.2");
        within(&outside, || {
            run("ip link set lo up; ip link set up0 up");
            run("ip addr add 192.0.2.2/24 dev up0; ip addr add 2001:db8::2/64 nodad dev up0");
        });
        let network = BridgeNetwork::default_for("", "172.17.0.0/16".parse().unwrap());
        test(&World { host, outside, network });
    })
    .join()
    .unwrap();
}

impl World {
    /// A world whose default network stands.
    pub fn ensure(&self) -> &World {
        ensure(&self.network).unwrap();
        self
    }

    pub fn container(&self, last: u8) -> Container {
        let address = Ipv4Addr::new(172, 17, 0, last);
        let namespace = new_namespace(None).unwrap();
        connect(namespace.as_fd(), &self.network, &Endpoint { container: "test".into(), address }).unwrap();
        Container { namespace, address }
    }
}

/// Runs `work` in a thread of the namespace.
pub fn within<T: Send>(namespace: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// Runs shell commands in the calling thread's namespace; they must succeed.
pub fn run(commands: &str) -> String {
    let (ok, text) = try_run(commands);
    assert!(ok, "{commands}: {text}");
    text
}

pub fn try_run(commands: &str) -> (bool, String) {
    let child = spawn(Command::new("sh").arg("-ec").arg(commands).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

static SPAWNING: RwLock<()> = RwLock::new(());

/// Starts a program. (Returns when it has been executed, so its copies of our descriptors are closed.)
pub fn spawn(command: &mut Command) -> Child {
    let _alone = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// While this is held no other test starts a program: between its fork and its exec it would hold the listeners that a test
/// closes. (A monitor has one thread.)
pub fn no_spawning() -> RwLockReadGuard<'static, ()> {
    SPAWNING.read().unwrap_or_else(PoisonError::into_inner)
}
