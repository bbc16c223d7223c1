//! What can go wrong, said so that the user knows what was tried and on what.

use std::io;
use std::net::IpAddr;

/// The result of everything that talks to the kernel here.
pub type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// Why a network could not be set up, joined or published on.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A request to the kernel failed.
    #[error("network: cannot {operation}: {source}")]
    Kernel {
        /// What was tried, with the name of the interface, table or address.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody else holds the port.
    #[error("Bind for {}:{port} failed: port is already allocated", host(*.address))]
    PortTaken {
        /// The host's address asked for; None means all.
        address: Option<IpAddr>,
        /// The port that is taken.
        port: u16,
    },
    /// An ordinary user may not listen on it.
    #[error(
        "cannot publish port {port}: an ordinary user may not listen below {first}: publish a higher one, or as root: \
         sysctl -w net.ipv4.ip_unprivileged_port_start={port}"
    )]
    PortReserved {
        /// The port asked for.
        port: u16,
        /// The first one that anybody may listen on.
        first: u16,
    },
    /// There is no network for an ordinary user's container.
    #[error("bridge networking for an ordinary user: {0}; or use --network host or none")]
    UserNetwork(String),
    /// The address to publish on is not one of this host's.
    #[error("cannot publish on {address}: not an address of this host")]
    NoSuchAddress {
        /// The address asked for.
        address: IpAddr,
    },
    /// Every port of the range is taken.
    #[error("all ports of {first}-{last} are already allocated")]
    RangeTaken {
        /// The range's first port.
        first: u16,
        /// The range's last port.
        last: u16,
    },
    /// No subnet is left that the host does not route already.
    #[error(
        "no free subnet among 172.17.0.0/16 - 172.31.0.0/16 and 192.168.0.0/20 - 192.168.240.0/20: remove unused networks or give one a subnet"
    )]
    NoSubnet,
    /// A name that cannot be used for an interface or table.
    #[error("invalid {what} {name:?}: {reason}")]
    InvalidName {
        /// What the name is for.
        what: &'static str,
        /// The name.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// `--add-host` that is no NAME:IP.
    #[error("invalid --add-host {text:?}: {reason}")]
    AddHost {
        /// The text as given.
        text: String,
        /// Why it is none.
        reason: &'static str,
    },
}

fn host(address: Option<IpAddr>) -> String {
    match address {
        None => "0.0.0.0".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("[{address}]"),
    }
}

/// Turns an error of the kernel into ours, naming the operation.
pub(crate) fn during<E: Into<io::Error>>(operation: impl FnOnce() -> String) -> impl FnOnce(E) -> NetworkError {
    move |source| NetworkError::Kernel { operation: operation(), source: source.into() }
}
