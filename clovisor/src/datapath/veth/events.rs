//! Changes among the host's interfaces, as they happen: RTNLGRP_LINK and RTNLGRP_NSID.
//!
//! What happens between two looks of the reader is put together, so a reader that is slow costs no memory but
//! the indexes of interfaces that went (at most [`MAX_GONE`], then it is told to look at everything). Where the
//! kernel's socket buffer overflowed, messages are lost: that is said as [`Change::resync`].
//!
//! It refuses to say what changed of an interface: the reader looks for itself, by a snapshot.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt as _};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::AsyncSocket as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::error::VethError;

/// Interfaces that went and were not told yet: more than a node has pods.
pub const MAX_GONE: usize = 4096;
/// Receive buffer asked for; 300 pods that come at once are some 2,000 messages of 1.5 KB. Beyond
/// net.core.rmem_max the kernel takes that.
const RECEIVE_BUFFER: u32 = 4 << 20;

/// What happened since the last time that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Indexes of interfaces that went.
    pub gone: BTreeSet<u32>,
    /// Messages were lost: anything may have changed, and interfaces may have gone untold.
    pub resync: bool,
    /// The subscription has ended; nothing more will come. [`LinkEvents::new`] makes another.
    pub ended: bool,
}

#[derive(Default)]
struct Shared {
    /// `None`: nothing happened.
    pending: Mutex<Option<Change>>,
    wake: Notify,
}

impl Shared {
    fn add(&self, change: impl FnOnce(&mut Change)) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        change(pending.get_or_insert_default());
        drop(pending);
        self.wake.notify_one();
    }

    fn take(&self) -> Option<Change> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A subscription. Dropping it ends it.
pub struct LinkEvents {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

impl LinkEvents {
    /// Subscribes in the network namespace of the calling thread, within a tokio runtime. Take a snapshot
    /// after this, and nothing falls between. Needs no capability.
    ///
    /// # Errors
    /// [`VethError::Connection`].
    pub async fn new() -> Result<Self, VethError> {
        Self::with_buffer(RECEIVE_BUFFER).await
    }

    /// The same, with a receive buffer of `bytes` (the kernel doubles that, up to twice net.core.rmem_max).
    ///
    /// # Errors
    /// [`VethError::Connection`].
    #[expect(clippy::unused_async, reason = "it needs the runtime, which an async function cannot lack")]
    pub async fn with_buffer(bytes: u32) -> Result<Self, VethError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Nsid];
        let opened = rtnetlink::new_multicast_connection(&groups);
        let (mut connection, handle, messages) = opened.map_err(VethError::Connection)?;
        // A smaller buffer only makes a resync likelier.
        let _ = connection.socket_mut().socket_ref().set_rx_buf_sz(bytes);
        let shared = Arc::new(Shared::default());
        let drain = follow(messages.map(|(message, _)| message), Arc::clone(&shared));
        let drain = async move {
            // The connection ends when its last handle goes.
            let _handle = handle;
            drain.await;
        };
        let tasks = [tokio::spawn(connection).abort_handle(), tokio::spawn(drain).abort_handle()];
        Ok(Self { shared, tasks })
    }

    /// Waits for something to happen, and says all that has happened since the last call. Dropping the future
    /// before it is ready loses nothing.
    pub async fn changed(&self) -> Change {
        loop {
            if let Some(change) = self.shared.take() {
                if change.ended {
                    // A reader that goes on asking must not spin, nor miss it.
                    self.shared.add(|pending| pending.ended = true);
                    tokio::task::yield_now().await;
                }
                return change;
            }
            self.shared.wake.notified().await;
        }
    }
}

impl Drop for LinkEvents {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn follow(
    mut messages: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
    shared: Arc<Shared>,
) {
    while let Some(message) = messages.next().await {
        match message.payload {
            // A port that leaves its bridge is told as a deletion, too, of the bridge's family.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                if link.header.interface_family == AddressFamily::Unspec =>
            {
                shared.add(|change| {
                    change.gone.insert(link.header.index);
                    if change.gone.len() > MAX_GONE {
                        change.gone.clear();
                        change.resync = true;
                    }
                });
            }
            NetlinkPayload::Overrun(_) => shared.add(|change| change.resync = true),
            NetlinkPayload::InnerMessage(_) => shared.add(|_| {}),
            _ => {}
        }
    }
    shared.add(|change| {
        change.resync = true;
        change.ended = true;
    });
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use netlink_packet_route::link::LinkMessage;
    use rtnetlink::packet_core::NetlinkHeader;

    use super::*;

    fn deleted(index: u32) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        NetlinkMessage::from(RouteNetlinkMessage::DelLink(link))
    }

    fn left_bridge(index: u32) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.interface_family = AddressFamily::Bridge;
        NetlinkMessage::from(RouteNetlinkMessage::DelLink(link))
    }

    fn overrun() -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Overrun(Vec::new()))
    }

    #[tokio::test]
    async fn what_happens_between_two_looks_is_put_together() {
        let shared = Arc::new(Shared::default());
        assert_eq!(shared.take(), None);
        follow(stream::iter([deleted(3), deleted(5), left_bridge(7), deleted(3)]), Arc::clone(&shared)).await;
        let change = shared.take().unwrap();
        assert_eq!(change.gone, BTreeSet::from([3, 5]), "7 only left its bridge");
        assert!(change.ended && change.resync);

        follow(stream::iter([deleted(3), overrun()]), Arc::clone(&shared)).await;
        let change = shared.take().unwrap();
        assert!(change.resync && change.gone.contains(&3), "{change:?}");

        let many = (0..=u32::try_from(MAX_GONE).unwrap()).map(deleted);
        follow(stream::iter(many), Arc::clone(&shared)).await;
        let change = shared.take().unwrap();
        assert!(change.resync && change.gone.is_empty(), "{change:?}");
    }
}
