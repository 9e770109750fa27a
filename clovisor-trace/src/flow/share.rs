//! Shares: interfaces of which only a part of the connections is traced, because there is not enough for all.
//!
//! Each connection has a lot, and is left out while its interface's share is not above it: so the same ones stay in for as long as the
//! share stays. It is left out between two sessions only, and whoever picks packets is told, so that no more of them come. Packets that
//! were picked before that are left out here; those that were picked later are of a connection that was given back. It refuses to judge
//! how large a share should be.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use super::{Endpoint, Key};
use crate::packet::Side;

/// Lots are below this, and a share of this is all.
pub const ALL_LOTS: u32 = 1 << 31;

/// A connection that is left out from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// Number of the interface.
    pub interface: u32,
    /// Whether the pod there is server or client.
    pub side: Side,
    /// Address of the client.
    pub client: SocketAddr,
    /// Address of the server.
    pub server: SocketAddr,
    /// Its lot: it is given back when its interface's share is above it.
    pub lot: u32,
}

impl Shed {
    pub(super) fn new(key: &Key) -> Self {
        let Key { interface, side, client, server } = *key;
        let client = client.into();
        Self { interface, side, client, server: server.into(), lot: Self::lot_of(client) }
    }

    /// The lot of a client's connection: the same wherever it is seen, as long as nobody changes the client's address, so that both of its
    /// ends are traced or none. The kernel side draws it the same way (`select::lot`), and a test watches that.
    #[must_use]
    pub fn lot_of(client: SocketAddr) -> u32 {
        lot((client.ip(), client.port()))
    }

    pub(super) fn key(&self) -> Key {
        Key::of(self.interface, self.side, self.client, self.server)
    }
}

/// Shares by interface; those that are not there have all.
#[derive(Default)]
pub(super) struct Shares(HashMap<u32, u32>);

impl Shares {
    pub(super) fn set(&mut self, interface: u32, share: Option<u32>) {
        match share {
            Some(share) => self.0.insert(interface, share),
            None => self.0.remove(&interface),
        };
    }

    /// Whether a connection is traced. Its lot is only drawn where it matters.
    pub(super) fn takes(&self, key: &Key) -> bool {
        self.0.is_empty() || self.0.get(&key.interface).is_none_or(|share| lot(key.client) < *share)
    }
}

fn lot((address, port): Endpoint) -> u32 {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mix = |hash: u32, word: u32| (hash ^ word ^ (hash >> 15)).wrapping_mul(0x9e37_79b1);
    let words = address.octets();
    let (words, _) = words.as_chunks::<4>();
    let hash = words.iter().fold(0, |hash, word| mix(hash, u32::from_be_bytes(*word)));
    // The last steps of MurmurHash3, after which each bit depends on all.
    let hash = mix(hash, port.into());
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    (hash ^ (hash >> 16)) % ALL_LOTS
}
