//! Bridges, addresses, published ports and the name service.
//!
//! The kernel is spoken to directly – rtnetlink for interfaces, nfnetlink for the firewall – because a
//! fork of `ip` and `nft` costs more than the whole start of a container, and their output is no interface.
//!
//! A container's way out: a veth pair from its network namespace to a bridge, a route over the bridge's
//! address, masquerading in our own nftables table. Its way in: a **listener** on the host for each published
//! port. The listener is what makes a conflict visible at start and what the kernel frees on death; it serves
//! whoever connects from the host itself or from another container ([`proxy`]), while traffic from outside
//! never reaches it – one nftables map rewrites its destination, so the container sees the client's address.
//!
//! Nothing here keeps state of its own: the kernel's interfaces and table are the state, and every set-up
//! is written so that any number of processes may do it at once.

mod bridge;
mod conntrack;
pub mod dns;
mod endpoint;
mod error;
mod files;
mod filter;
mod link;
mod namespace;
mod nft;
mod ports;
mod privileges;
pub mod proxy;
mod publish;
mod random;
mod table;
pub mod usermode;

pub use bridge::{BridgeNetwork, choose_subnet, ensure, forward_warnings, reload, remove};
pub use endpoint::{Endpoint, connect, mac_address, new_namespace};
pub use error::{NetworkError, Result};
pub use files::{ContainerFiles, FilesRequest, container_files};
pub use ipnet::Ipv4Net;
pub use ports::{PortError, PortRange, PortRequest, PortSpec, Protocol, parse_expose, parse_publish};
pub use proxy::{serve_proxy, serve_proxy_within};
pub use publish::{Lingering, Published, listen, publish, unpublish};
pub use usermode::UserNetwork;
