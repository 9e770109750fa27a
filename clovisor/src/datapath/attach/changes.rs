//! Which interfaces are worth a look: what the kernel tells of filters, qdiscs and links that change (RTNLGRP_TC,
//! RTNLGRP_LINK).
//!
//! The socket is read when somebody asks. So a change wakes nobody, and many changes wait in a buffer that bounds them;
//! where it overflowed the kernel says so, and anything may have changed. Changes of our own are told as any others are.
//!
//! It refuses to say what has changed, which is for who looks; and to be all there is to rely on: a message that the kernel
//! could not make is lost without a word, and of tcx it tells nothing. It is never opened inside a pod's network
//! namespace, which an open socket would keep alive.

use std::collections::BTreeSet;
use std::io;

use nix::libc;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkBuffer;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// Receive buffer asked for: a second in which hundreds of pods come. Beyond net.core.rmem_max the kernel takes that, and a
/// smaller one only makes a look at everything likelier.
const RECEIVE_BUFFER: u32 = 1 << 20;
/// Of one datagram; the kernel's own are shorter.
const LONGEST: usize = 32 << 10;
/// Datagrams that are read at once: more than the buffer holds, so that only a flood ends it.
const MOST: usize = 8_192;
/// Where `struct ifinfomsg` and `struct tcmsg` (linux/rtnetlink.h) have the index of the interface.
const INDEX: std::ops::Range<usize> = 4..8;
/// TCM_IFINDEX_MAGIC_BLOCK: filters of a block that several interfaces share.
const BLOCK: u32 = u32::MAX;

/// What may have changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// At these interfaces; they may be none of ours, and may be gone.
    At(BTreeSet<u32>),
    /// Anywhere.
    Anywhere,
}

/// A subscription in the network namespace in which it was opened.
pub(super) struct Changes {
    /// `None`: it could not be opened.
    socket: Option<Socket>,
    datagram: Vec<u8>,
}

impl Changes {
    /// Subscribes in the network namespace of the calling thread, without any capability. Where that fails, all is taken
    /// for changed, always.
    pub(super) fn new() -> Self {
        let socket = subscribe()
            .inspect_err(|error| {
                tracing::warn!(
                    "all interfaces are looked at each second: the kernel tells no changes: {error}"
                );
            })
            .ok();
        Self { socket, datagram: Vec::with_capacity(LONGEST) }
    }

    /// What may have changed since the last call.
    pub(super) fn take(&mut self) -> Changed {
        let Some(socket) = &self.socket else { return Changed::Anywhere };
        let (mut indexes, mut all_told) = (BTreeSet::new(), true);
        for _ in 0..MOST {
            self.datagram.clear();
            match socket.recv(&mut self.datagram, libc::MSG_TRUNC) {
                Ok(length) => {
                    all_told &= length == self.datagram.len() && note(&self.datagram, &mut indexes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if all_told { Changed::At(indexes) } else { Changed::Anywhere };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing more is taken in until the buffer is empty: so it is read on to its end.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => all_told = false,
                Err(_) => return Changed::Anywhere,
            }
        }
        Changed::Anywhere
    }
}

fn subscribe() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // A smaller one does, too.
    _ = socket.set_rx_buf_sz(RECEIVE_BUFFER);
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    for group in [MulticastGroup::Tc, MulticastGroup::Link] {
        socket.add_membership(group as u32)?;
    }
    Ok(socket)
}

/// Notes the interfaces that the messages of a datagram are of; false if they do not tell.
fn note(mut datagram: &[u8], indexes: &mut BTreeSet<u32>) -> bool {
    while !datagram.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(datagram) else { return false };
        if is_change(message.message_type()) {
            let index = message.payload().get(INDEX).and_then(|bytes| bytes.try_into().ok());
            match index.map(u32::from_ne_bytes) {
                None | Some(BLOCK) => return false,
                Some(index) => indexes.insert(index),
            };
        }
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

fn is_change(kind: u16) -> bool {
    let link = [libc::RTM_NEWLINK, libc::RTM_DELLINK].contains(&kind);
    let qdisc = [libc::RTM_NEWQDISC, libc::RTM_DELQDISC].contains(&kind);
    link || qdisc || [libc::RTM_NEWTFILTER, libc::RTM_DELTFILTER].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a kind, with the index of an interface in its place.
    fn message(kind: u16, index: u32) -> Vec<u8> {
        let mut bytes = vec![0; 36];
        bytes[0..4].copy_from_slice(&36_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[20..24].copy_from_slice(&index.to_ne_bytes());
        bytes
    }

    #[test]
    fn messages_name_their_interfaces_or_all() {
        let cut = message(libc::RTM_NEWTFILTER, 9)[..20].to_vec();
        let short = [&20_u32.to_ne_bytes()[..], &message(libc::RTM_NEWTFILTER, 9)[4..20]].concat();
        let two = [message(libc::RTM_DELQDISC, 7), message(libc::RTM_NEWQDISC, 8)].concat();
        let cases: [(&str, Vec<u8>, bool, &[u32]); 8] = [
            ("nothing", Vec::new(), true, &[]),
            ("a link", message(libc::RTM_DELLINK, 3), true, &[3]),
            ("a filter", message(libc::RTM_NEWTFILTER, 4), true, &[4]),
            ("two in one", two, true, &[7, 8]),
            ("something else", message(libc::RTM_NEWADDR, 5), true, &[]),
            ("a shared block", message(libc::RTM_NEWTFILTER, BLOCK), false, &[]),
            ("cut", cut, false, &[]),
            ("too short for an index", short, false, &[]),
        ];
        for (name, datagram, told, expected) in cases {
            let mut indexes = BTreeSet::new();
            assert_eq!(note(&datagram, &mut indexes), told, "{name}");
            assert_eq!(indexes, expected.iter().copied().collect(), "{name}");
        }
    }

    #[test]
    fn without_a_socket_all_is_taken_for_changed() {
        let mut changes = Changes { socket: None, datagram: Vec::new() };
        assert_eq!((changes.take(), changes.take()), (Changed::Anywhere, Changed::Anywhere));
    }
}
