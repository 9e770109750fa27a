//! The classifiers on an interface's two hooks, first in the chain, and off again without a trace.
//!
//! Two ways: `clsact` filters, cheap and on any kernel, and `tcx` links, for where a foreign tcx program
//! would keep the packets from clsact. [`Way::Auto`] takes the first that will see all packets.
//!
//! Inside a pod's namespace it is clsact always, see `inside`.
//!
//! It refuses to delete what is not its own: see `owner` and `sweep`. Invariants: an interface is
//! attached on both hooks or on none; a failed attach leaves nothing behind.

mod changes;
mod clsact;
mod error;
mod inside;
mod netlink;
mod owner;
mod recheck;
mod sweep;
mod tcx;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, AsRawFd as _};

use clovisor_common::name;
use tokio::task::AbortHandle;

use self::changes::Changes;
use self::clsact::Order;
use self::netlink::TrafficControl;
use self::owner::{Instance, Owner};
use super::interface::{Interface, InterfaceError, Orientation};
use super::kernel::{Kernel, KernelError};
use super::namespace;

pub use self::error::AttachError;
pub use self::netlink::{Asked, Hook};
pub use self::recheck::{Round, TURN};
pub use self::sweep::Swept;

/// How often an interface is attached anew because something came in front, before giving in: another
/// program that also insists on being first would make it go on for ever.
const MAX_REATTACHED: u32 = 8;

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// clsact, or tcx where clsact would not see all packets.
    #[default]
    Auto,
    /// clsact, even behind other filters.
    Clsact,
    /// tcx.
    Tcx,
}

/// How an interface is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By clsact filters.
    Clsact,
    /// By tcx links.
    Tcx,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface.
    pub interface: Interface,
    /// How.
    pub how: How,
    /// Whether no foreign program runs before ours. If not, it may keep packets from us: worth a warning.
    pub first: bool,
}

/// Attaches, and remembers what it attached. Call [`Self::detach_all`] before dropping it: clsact filters
/// outlive the process (and are then removed by the next [`Self::sweep`]).
pub struct Attacher {
    netlink: rtnetlink::Handle,
    tc: TrafficControl,
    instance: Instance,
    /// Inode of the network namespace that this runs in.
    home: u64,
    held: BTreeMap<u32, Held>,
    changes: Changes,
    /// The interface of this network namespace whose turn to be looked at was last.
    turned: u32,
    /// The last number that was given out for an interface inside a pod.
    last_number: u16,
    /// Interfaces inside pods, the one that was looked at longest ago first; some may be held no longer.
    rounds: VecDeque<u32>,
    connection: AbortHandle,
}

struct Held {
    attached: Attached,
    way: Way,
    /// `None`: nothing is attached, for attaching anew failed. See [`Attacher::recheck`].
    hold: Option<Hold>,
    reattached: u32,
    /// Whether it was said that the interface is lost, and not yet that it is back.
    lost: bool,
}

enum Hold {
    Clsact(clsact::Clsact),
    /// Dropping the links detaches.
    Tcx {
        _links: tcx::Tcx,
    },
}

impl Attacher {
    /// Opens a netlink connection in the network namespace of the calling thread, and claims an instance id.
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`AttachError::Connection`] and [`AttachError::Identity`].
    #[expect(clippy::unused_async, reason = "it needs the runtime, which an async function cannot lack")]
    pub async fn new() -> Result<Self, AttachError> {
        let instance = Instance::new().map_err(AttachError::Identity)?;
        let (connection, netlink, _) = rtnetlink::new_connection().map_err(AttachError::Connection)?;
        let connection = tokio::spawn(connection).abort_handle();
        let tc = TrafficControl::new(netlink.clone());
        let home = namespace::own().map_or(0, |(_, inode)| inode);
        let (held, rounds) = (BTreeMap::new(), VecDeque::new());
        let changes = Changes::new();
        Ok(Self { netlink, tc, instance, home, held, changes, turned: 0, last_number: 0, rounds, connection })
    }

    /// Looks up an interface by name.
    ///
    /// # Errors
    /// See [`InterfaceError`].
    pub async fn interface(&self, name: &str) -> Result<Interface, InterfaceError> {
        Interface::find(&self.netlink, name).await
    }

    /// What is attached, by number of the interface.
    pub fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.held.values().filter(|held| !held.lost).map(|held| &held.attached)
    }

    /// What was attached, cannot be attached anew, and is tried again at each [`Self::recheck`].
    pub fn lost(&self) -> impl Iterator<Item = &Interface> {
        self.held.values().filter(|held| held.lost).map(|held| &held.attached.interface)
    }

    /// Numbers of the interfaces that are held, lost ones among them: what [`Self::detach_all`] detaches.
    #[must_use]
    pub fn held(&self) -> Vec<u32> {
        self.held.keys().copied().collect()
    }

    /// What the kernel was asked about traffic control in this network namespace so far: for tests and diagnosis.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.tc.asked()
    }

    /// Takes what the kernel has told of changes for lost without a word: for tests.
    pub fn lose_changes(&mut self) {
        _ = self.changes.take();
    }

    /// Puts both classifiers on an interface. Set its rules before, or packets are not selected yet.
    ///
    /// An index that is remembered, where nothing of ours is any more, has been given to a new interface: the
    /// old one is forgotten. By tcx this blocks the thread for about 25 ms, in two parts. Inside a pod's namespace the way is
    /// clsact, whatever is asked for.
    ///
    /// # Errors
    /// See [`AttachError`]; nothing stays attached then.
    pub async fn attach(
        &mut self,
        kernel: &mut Kernel,
        interface: &Interface,
        way: Way,
    ) -> Result<Attached, AttachError> {
        if self.is_attached(kernel, interface.id).await {
            return Err(AttachError::Already(interface.name.clone()));
        }
        if let Some(namespace) = &interface.namespace {
            return self.attach_inside(kernel, interface, namespace).await;
        }
        // tcx links to an interface that is gone, or that is lost.
        self.held.remove(&interface.id);
        self.attach_anew(kernel, interface, way, 0, true).await
    }

    /// `patient`: waits up to 200 ms a hook for an old tcx link of ours to go.
    async fn attach_anew(
        &mut self,
        kernel: &mut Kernel,
        interface: &Interface,
        way: Way,
        reattached: u32,
        patient: bool,
    ) -> Result<Attached, AttachError> {
        let (hold, how, first) = match way {
            Way::Tcx => by_tcx(kernel, interface, patient).await?,
            Way::Clsact => self.by_clsact(kernel, interface, false).await?,
            Way::Auto => self.by_best(kernel, interface, patient).await?,
        };
        let attached = Attached { interface: interface.clone(), how, first };
        let held = Held { attached: attached.clone(), way, hold: Some(hold), reattached, lost: false };
        self.held.insert(interface.id, held);
        Ok(attached)
    }

    async fn by_best(
        &self,
        kernel: &mut Kernel,
        interface: &Interface,
        patient: bool,
    ) -> Result<Placed, AttachError> {
        let chains = Hook::BOTH.map(|hook| tcx::Chain::of(interface, hook));
        if chains.iter().flatten().any(tcx::Chain::has_foreign) {
            return by_tcx(kernel, interface, patient).await;
        }
        let has_tcx = chains.iter().all(Option::is_some);
        match self.by_clsact(kernel, interface, true).await {
            Err(AttachError::NotFirst { .. } | AttachError::Occupied { .. }) if has_tcx => {
                by_tcx(kernel, interface, patient).await
            }
            Err(AttachError::NotFirst { .. }) => self.by_clsact(kernel, interface, false).await,
            other => other,
        }
    }

    async fn by_clsact(
        &self,
        kernel: &mut Kernel,
        interface: &Interface,
        must_be_first: bool,
    ) -> Result<Placed, AttachError> {
        let [ingress, egress] = programs(interface);
        let programs = [program_fd(kernel, ingress)?, program_fd(kernel, egress)?];
        let owner = Owner { id: self.instance.id, home: None, made_clsact: false };
        let order = Order { owner, programs, class: None, must_be_first };
        let clsact = clsact::attach(&self.tc, interface, order).await?;
        // A foreign tcx program may be there all the same, where the user wants clsact.
        let behind_tcx =
            Hook::BOTH.iter().filter_map(|&hook| tcx::Chain::of(interface, hook)).any(|c| c.has_foreign());
        let first = clsact.first && !behind_tcx;
        Ok((Hold::Clsact(clsact), How::Clsact, first))
    }

    /// Takes both classifiers off an interface and removes its rules. An interface that is not attached, or
    /// gone, is fine.
    ///
    /// # Errors
    /// See [`AttachError`]; the interface is then no longer remembered, and a sweep will find the rest.
    pub async fn detach(&mut self, kernel: &mut Kernel, interface: u32) -> Result<(), AttachError> {
        let detached = match self.held.remove(&interface) {
            Some(held) => self.release(&held).await,
            None => Ok(()),
        };
        let cleared = kernel.clear_rules(interface);
        detached.and(cleared.map_err(AttachError::from))
    }

    /// Detaches all interfaces; goes on after an error, and returns the first.
    ///
    /// # Errors
    /// See [`Self::detach`].
    pub async fn detach_all(&mut self, kernel: &mut Kernel) -> Result<(), AttachError> {
        let mut result = Ok(());
        for interface in self.held() {
            result = result.and(self.detach(kernel, interface).await);
        }
        result
    }

    async fn release(&self, held: &Held) -> Result<(), AttachError> {
        let interface = &held.attached.interface;
        match &held.hold {
            Some(Hold::Clsact(clsact)) => match &interface.namespace {
                Some(namespace) => self.release_inside(clsact, interface, namespace).await,
                None => clsact.detach(&self.tc, interface).await,
            },
            Some(Hold::Tcx { .. }) | None => Ok(()),
        }
    }

    /// Removes the leftovers of Clovisors that are gone, on all interfaces of this network namespace.
    ///
    /// # Errors
    /// [`AttachError::Netlink`].
    pub async fn sweep(&self) -> Result<Swept, AttachError> {
        let swept = sweep::sweep(&self.tc, self.instance.id, None).await;
        swept.map_err(AttachError::netlink("sweep leftovers", "this network namespace"))
    }
}

impl Drop for Attacher {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What holds, how, and whether first.
type Placed = (Hold, How, bool);

async fn by_tcx(kernel: &mut Kernel, interface: &Interface, patient: bool) -> Result<Placed, AttachError> {
    if tcx::Chain::of(interface, Hook::Ingress).is_none() {
        return Err(AttachError::TcxUnsupported);
    }
    let links = tcx::attach(kernel, interface, programs(interface), patient).await?;
    Ok((Hold::Tcx { _links: links }, How::Tcx, true))
}

/// The program for each of [`Hook::BOTH`]. Which way a packet goes depends on the side that the interface is
/// seen from; choosing the program here costs nothing for each packet.
fn programs(interface: &Interface) -> [&'static str; 2] {
    match interface.orientation {
        Orientation::Host => [name::INGRESS, name::EGRESS_PROGRAM],
        Orientation::Pod => [name::EGRESS_PROGRAM, name::INGRESS],
    }
}

fn program_fd(kernel: &mut Kernel, name: &'static str) -> Result<u32, KernelError> {
    let fd = kernel.loaded(name)?.fd();
    let fd = fd.map_err(|source| KernelError::Program { name, source })?;
    Ok(fd.as_fd().as_raw_fd().cast_unsigned())
}
