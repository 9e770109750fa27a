//! Datagrams put together from their fragments (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Bounded: at most `limit` datagrams are open at once, the oldest makes room, and one that is not whole after
//! [`LIFETIME_NS`] is given up. Every fragment that led to nothing is counted by the caller through
//! [`Datagrams::dropped`].

use std::net::IpAddr;

use etherparse::{
    IpFragOffset, IpNumber,
    defrag::{IpDefragBuf, IpDefragError},
};
use hashlink::LinkedHashMap;

use super::Toward;

/// How long fragments wait for the rest: Linux's `net.ipv4.ipfrag_time`, 30 s.
const LIFETIME_NS: u64 = 30_000_000_000;

/// One fragment of an IP datagram.
pub(crate) struct Fragment<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) id: u32,
    pub(crate) offset: IpFragOffset,
    pub(crate) more: bool,
    pub(crate) interface: u32,
    pub(crate) toward: Toward,
    pub(crate) payload: &'a [u8],
}

impl Fragment<'_> {
    fn key(&self) -> Key {
        Key {
            source: self.source,
            destination: self.destination,
            id: self.id,
            interface: self.interface,
            toward: self.toward,
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    interface: u32,
    toward: Toward,
}

struct Datagram {
    buffer: IpDefragBuf,
    first_ns: u64,
    fragments: u64,
}

/// Datagrams of which some fragments are here, oldest first.
pub(crate) struct Datagrams {
    open: LinkedHashMap<Key, Datagram>,
    limit: usize,
    /// Fragments that led to nothing: expired, evicted, or contradicting one another.
    dropped: u64,
}

impl Datagrams {
    pub(crate) fn new(limit: usize) -> Self {
        Self { open: LinkedHashMap::new(), limit, dropped: 0 }
    }

    /// Adds a fragment; the payload of the datagram if that made it whole.
    pub(crate) fn add(&mut self, fragment: &Fragment<'_>, now_ns: u64) -> Option<Vec<u8>> {
        let key = fragment.key();
        if !self.open.contains_key(&key) {
            while self.open.len() >= self.limit.max(1) {
                self.drop_oldest();
            }
        }
        let datagram = self.open.entry(fragment.key()).or_insert_with(|| Datagram {
            buffer: IpDefragBuf::new(IpNumber::TCP, Vec::new(), Vec::new()),
            first_ns: now_ns,
            fragments: 0,
        });
        datagram.fragments += 1;
        let added: Result<(), IpDefragError> =
            datagram.buffer.add(fragment.offset, fragment.more, fragment.payload);
        if added.is_err() {
            self.dropped += self.open.remove(&key).map_or(0, |datagram| datagram.fragments);
            return None;
        }
        if !datagram.buffer.is_complete() {
            return None;
        }
        self.open.remove(&key).map(|datagram| datagram.buffer.take_bufs().0)
    }

    /// When the oldest will have waited too long.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.open.front().map(|(_, datagram)| datagram.first_ns.saturating_add(LIFETIME_NS))
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        while self.next_due().is_some_and(|due| due <= now_ns) {
            self.drop_oldest();
        }
    }

    /// Gives up all.
    pub(crate) fn clear(&mut self) {
        while !self.open.is_empty() {
            self.drop_oldest();
        }
    }

    /// Fragments that led to nothing so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self) {
        self.dropped += self.open.pop_front().map_or(0, |(_, datagram)| datagram.fragments);
    }
}
