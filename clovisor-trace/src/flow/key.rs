//! What names a flow.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use crate::packet::{Endpoint, Packet, Segment, Side, Toward};

/// What tells one flow from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) interface: u32,
    pub(crate) side: Side,
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
}

impl Key {
    /// Of a connection seen at an interface.
    pub(super) fn of(interface: u32, side: Side, client: SocketAddr, server: SocketAddr) -> Self {
        let [client, server] = [client, server].map(|end| (end.ip(), end.port()));
        Self { interface, side, client, server }
    }

    pub(crate) fn new(packet: &Packet<'_>, segment: &Segment<'_>) -> Self {
        let (client, server) = match packet.toward {
            Toward::Server => (segment.source, segment.destination),
            Toward::Client => (segment.destination, segment.source),
        };
        Self { interface: packet.interface, side: packet.side, client, server }
    }
}

/// In as few words as there are: it is hashed for each packet. The seed of the tables' hasher is random, so nobody can choose
/// addresses and ports that collide.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { interface, side: _, client, server } = *self;
        match (client.0, server.0) {
            (IpAddr::V4(client), IpAddr::V4(server)) => {
                state.write_u64(u64::from(client.to_bits()) << 32 | u64::from(server.to_bits()));
            }
            (client, server) => [client, server].into_iter().for_each(|ip| match ip {
                IpAddr::V4(ip) => state.write_u32(ip.to_bits()),
                IpAddr::V6(ip) => state.write_u128(ip.to_bits()),
            }),
        }
        state.write_u64(u64::from(interface) << 32 | u64::from(client.1) << 16 | u64::from(server.1));
    }
}
