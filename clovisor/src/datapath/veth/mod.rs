//! Which interface of the host is a pod's, with no command run in the pod and without entering its namespace; and
//! where none of the host will do, which one is it in the pod's namespace (`inside`, which enters it).
//!
//! In order, until one is sure: the CNI cache names the pod's network namespace; `/proc` does, where the
//! agent sees the pod's processes; the namespaces at the other ends of the host's veths are asked which has
//! the pod's address; a route to exactly that address goes out of a veth. A namespace that the cache gives to
//! another pod's UID is never taken for an address, for addresses are used again.
//!
//! Rights: CAP_NET_ADMIN. The files are root's own (`/var/lib/cni/results/*` 0600, namespaces 0444), so user
//! 0 needs no CAP_DAC_OVERRIDE; another user does not see the cache, and addresses decide. `/proc/PID/ns/net`
//! needs CAP_SYS_PTRACE (and `hostPID`), without which that way finds nothing.
//!
//! It refuses to guess: where two ways remain, the pod is not found. It holds no state of pods.

mod cache;
mod error;
pub mod events;
mod inside;
mod links;
mod processes;
mod snapshot;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use rtnetlink::Handle;
use tokio::task::AbortHandle;

use super::interface::Interface;

pub use self::error::VethError;
pub use self::snapshot::Snapshot;

/// Where the host's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Directory of named network namespaces.
    pub netns: PathBuf,
    /// Directory of libcni's result files.
    pub cni_cache: PathBuf,
    /// The process file system.
    pub proc: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            netns: PathBuf::from("/run/netns"),
            cni_cache: PathBuf::from("/var/lib/cni/results"),
            proc: PathBuf::from("/proc"),
        }
    }
}

/// The pod whose interface is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
    /// `status.podIPs`; empty where not known yet.
    pub addresses: &'a [IpAddr],
}

impl Wanted<'_> {
    fn text(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// How a pod's interface was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The CNI cache has the pod's UID.
    CniCache,
    /// The CNI cache has the pod's name, and the namespace that it names has the pod's address: static pods.
    CniCacheByName,
    /// A process of the pod is in the namespace.
    Process,
    /// The namespace at the interface's other end has the pod's address.
    Address,
    /// The route to exactly the pod's address.
    Route,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CniCache => "the CNI cache",
            Self::CniCacheByName => "the CNI cache, by name and address",
            Self::Process => "a process of the pod",
            Self::Address => "the address in the pod",
            Self::Route => "the route to the pod's address",
        })
    }
}

/// A pod's interface, on the host or its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
    /// The interface.
    pub interface: Interface,
    /// How it was found.
    pub found: Found,
    /// Whether the pod's namespace has an address that was wanted; `None` where none was wanted, or the
    /// kernel (before 4.20) cannot tell. `false`: the UID says that it is the pod, and its status is behind.
    pub has_address: Option<bool>,
}

/// Finds pods' interfaces. Cheap to keep: it holds one netlink socket.
pub struct PodInterfaces {
    paths: Paths,
    netlink: Handle,
    connection: AbortHandle,
}

impl PodInterfaces {
    /// Opens a netlink connection in the network namespace of the calling thread: the host's. Its own, for it
    /// needs the kernel's strict checking, which others may not want. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`VethError::Connection`].
    #[expect(clippy::unused_async, reason = "it needs the runtime, which an async function cannot lack")]
    pub async fn new(paths: Paths) -> Result<Self, VethError> {
        let opened = rtnetlink::new_connection_with_strict_check();
        let (mut connection, netlink, _) = opened.map_err(VethError::Connection)?;
        // A question about another namespace that is refused ends as an empty dump with an error at its end.
        connection.set_forward_done(true);
        Ok(Self { paths, netlink, connection: tokio::spawn(connection).abort_handle() })
    }

    /// The host's own addresses; none, if the kernel does not tell.
    pub async fn own_addresses(&self) -> HashSet<IpAddr> {
        let all = links::addresses_here(&self.netlink).await.unwrap_or_default();
        all.into_iter().map(|(address, _)| address.to_canonical()).collect()
    }

    /// The state of now, for finding many pods: one reading of the cache, one dump of the links.
    ///
    /// # Errors
    /// [`VethError::Netlink`].
    pub async fn snapshot(&self) -> Result<Snapshot, VethError> {
        Snapshot::take(self.netlink.clone(), self.paths.clone()).await
    }

    /// Finds one pod in the state of now.
    ///
    /// # Errors
    /// See [`VethError`].
    pub async fn find(&self, pod: &Wanted<'_>) -> Result<PodInterface, VethError> {
        self.snapshot().await?.find(pod).await
    }
}

impl Drop for PodInterfaces {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
