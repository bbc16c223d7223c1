//! A container's network as its monitor holds it: the namespace by descriptor, the published ports' listeners, the children that
//! serve them. All of it stays over restarts and goes with the monitor.

use super::request::NetworkRequest;
use crate::Result;
use linux::process::{Forked, Namespaces, fork_into, reap, send_signal};
use network::dns::{Forwarder, Resolver};
use network::{Endpoint, Lingering, PortRequest, PortSpec, Published, UserNetwork, usermode};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

const SIGKILL: i32 = 9;

#[derive(Debug, Default)]
pub(crate) struct Network {
    namespace: Option<OwnedFd>,
    request: Option<NetworkRequest>,
    /// What connects an ordinary user's container, while it lives.
    connection: Option<OwnedFd>,
    published: Vec<Published>,
    specs: Vec<PortSpec>,
    /// The child that serves the listeners, while it lives.
    proxy: Option<OwnedFd>,
    forwarder: Option<OwnedFd>,
    /// Dropped with this, when nobody waits any more.
    _removal: Option<Lingering>,
    pub(crate) warnings: Vec<String>,
}

impl Network {
    /// Loopback alone, in a namespace of its own. With `users`, here and below, it belongs to that user namespace.
    pub(crate) fn isolated(users: Option<BorrowedFd<'_>>) -> Result<Network> {
        Ok(Network { namespace: Some(network::new_namespace(users)?), ..Network::default() })
    }

    /// The host's, or another container's: nothing of ours.
    pub(crate) fn foreign() -> Network {
        Network::default()
    }

    /// On the default bridge, with these ports published.
    pub(crate) fn bridged(
        request: &NetworkRequest,
        id: &str,
        publish: &[PortRequest],
        users: Option<BorrowedFd<'_>>,
    ) -> Result<Network> {
        let warnings = network::ensure(&request.network)?;
        let namespace = network::new_namespace(users)?;
        let endpoint = Endpoint { container: id.to_owned(), address: request.address };
        network::connect(namespace.as_fd(), &request.network, &endpoint)?;
        let published = network::publish(&request.network, request.address, publish)?;
        let specs = published.iter().map(|port| port.spec.clone()).collect();
        let request = Some(request.clone());
        Ok(Network { namespace: Some(namespace), request, published, specs, warnings, ..Network::default() })
    }

    /// Connected by a program of an ordinary user's own. `folder` is for its start alone; `resolve` is whether the host's name
    /// servers are to be had through it.
    pub(crate) fn of_user(
        programs: &UserNetwork,
        folder: &Path,
        publish: &[PortRequest],
        resolve: bool,
        users: Option<BorrowedFd<'_>>,
    ) -> Result<Network> {
        let published = network::listen(publish)?;
        let namespace = network::new_namespace(users)?;
        let connection = programs.connect(namespace.as_fd(), folder, resolve)?;
        let specs = published.iter().map(|port| port.spec.clone()).collect();
        let (namespace, connection) = (Some(namespace), Some(connection));
        Ok(Network { namespace, connection, published, specs, ..Network::default() })
    }

    /// The namespace, where it is ours.
    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(AsFd::as_fd)
    }

    /// Published ports as they came to be.
    pub(crate) fn specs(&self) -> &[PortSpec] {
        &self.specs
    }

    /// What to poll: the proxy's end, or the first connection that needs one.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.proxy {
            Some(proxy) => vec![proxy.as_fd()],
            None => self.published.iter().flat_map(|port| &port.listeners).map(AsFd::as_fd).collect(),
        }
    }

    /// One of the descriptors is ready: the proxy has gone, or is needed. `in_child` lets go what the child must not hold.
    pub(crate) fn turn(&mut self, in_child: impl FnOnce()) {
        if let Some(proxy) = self.proxy.take() {
            let _gone = reap(proxy.as_fd());
            return;
        }
        match fork_into(Namespaces::none(), None) {
            Ok(Forked::Parent { pidfd, .. }) => self.proxy = Some(pidfd),
            Ok(Forked::Child) => {
                in_child();
                let (published, namespace) = (std::mem::take(&mut self.published), self.namespace.take());
                self.connection = None;
                let served = match (&self.request, namespace) {
                    (Some(request), _) => network::serve_proxy(published, request.address),
                    (None, Some(namespace)) => network::serve_proxy_within(namespace, published, usermode::ADDRESS),
                    (None, None) => Ok(()),
                };
                linux::process::exit_now(u8::from(served.is_err()));
            }
            // No memory for a child: the connection waits for the next turn. (Polling at once again would spin.)
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }

    /// Starts the resolver of a host that has loopback name servers only.
    pub(crate) fn start_forwarder(&mut self, in_child: impl FnOnce()) -> Result<()> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        let forwarder = Forwarder::bind(namespace.as_fd())?;
        match fork_into(Namespaces::none(), None)? {
            Forked::Parent { pidfd, .. } => self.forwarder = Some(pidfd),
            Forked::Child => {
                in_child();
                self.published.clear();
                let served = forwarder.serve(&Resolver::default());
                linux::process::exit_now(u8::from(served.is_err()));
            }
        }
        Ok(())
    }

    /// Frees the ports and the namespace; what the kernel takes its time for waits for the drop of this.
    pub(crate) fn tear_down(&mut self) {
        let children = [self.proxy.take(), self.forwarder.take(), self.connection.take()];
        for child in children.into_iter().flatten() {
            let _dead = send_signal(child.as_fd(), SIGKILL);
            let _gone = reap(child.as_fd());
        }
        self.published.clear();
        if let Some(request) = self.request.as_ref().filter(|_| !self.specs.is_empty()) {
            self._removal = network::unpublish(&request.network, request.address, &self.specs).ok();
        }
        self.specs.clear();
        self.namespace = None;
    }
}
