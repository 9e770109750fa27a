//! Which packets of a capture file are wanted, by the rules that the kernel side applies to live ones.
//!
//! Most files do not say on which side of a packet the pod is, so a port rule takes both directions of every
//! connection to the port, and an egress rule those to the target that no port rule takes. Where a file does say,
//! the pod's own port decides, as in the kernel.

use std::net::IpAddr;

use etherparse::{LaxIpSlice, TcpSlice};

use crate::{
    packet::{Heading, Packet, Side, Toward},
    protocol::Protocol,
};

/// A listening port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// TCP port.
    pub port: u16,
    /// How its connections are parsed.
    pub protocol: Protocol,
}

/// An outbound target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressRule {
    /// Remote address; `None` means any.
    pub address: Option<IpAddr>,
    /// Remote TCP port.
    pub port: u16,
    /// How its connections are parsed.
    pub protocol: Protocol,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Listening ports.
    pub ports: Vec<PortRule>,
    /// Outbound targets.
    pub egress: Vec<EgressRule>,
}

impl Rules {
    /// The packet, if a rule wants it. What cannot be told from one packet (a later fragment, a packet that
    /// is no TCP) is handed on, for the tracer to put together or count.
    #[must_use]
    pub fn select<'a>(
        &self,
        time_ns: u64,
        interface: u32,
        wire_len: u32,
        data: &'a [u8],
    ) -> Option<Packet<'a>> {
        let unclear = Packet {
            time_ns,
            interface,
            side: Side::Server,
            toward: Toward::Server,
            protocol: Protocol::Tcp,
            wire_len,
            data,
        };
        self.choose(None, unclear)
    }

    /// The packet, if a rule wants one that goes this way at the pod; only its time, interface and lengths are taken from
    /// what is given. What cannot be told from one packet is handed on.
    #[must_use]
    pub fn select_at_pod<'a>(&self, heading: Heading, packet: &Packet<'a>) -> Option<Packet<'a>> {
        let toward = Toward::of(Side::Server, heading);
        self.choose(Some(heading), Packet { side: Side::Server, toward, protocol: Protocol::Tcp, ..*packet })
    }

    fn choose<'a>(&self, heading: Option<Heading>, unclear: Packet<'a>) -> Option<Packet<'a>> {
        let Ok((ip, _)) = LaxIpSlice::from_slice(unclear.data) else { return Some(unclear) };
        let Ok(tcp) = TcpSlice::from_slice(ip.payload().payload) else { return Some(unclear) };
        if ip.payload().ip_number != etherparse::IpNumber::TCP {
            return Some(unclear);
        }
        // The port and the address at either end, and the packet's direction were the server there.
        let ends = [
            (ip.destination_addr(), tcp.destination_port(), Toward::Server),
            (ip.source_addr(), tcp.source_port(), Toward::Client),
        ];
        let at = |side, toward| heading.is_none_or(|heading| Toward::of(side, heading) == toward);
        let served = ends.iter().filter(|(.., toward)| at(Side::Server, *toward));
        let asked = ends.iter().filter(|(.., toward)| at(Side::Client, *toward));
        let (toward, side, protocol) = served
            .filter_map(|(_, port, toward)| Some((*toward, Side::Server, self.port(*port)?)))
            .chain(asked.filter_map(|(address, port, toward)| {
                Some((*toward, Side::Client, self.egress(*address, *port)?))
            }))
            .next()?;
        Some(Packet { side, toward, protocol, ..unclear })
    }

    fn port(&self, port: u16) -> Option<Protocol> {
        self.ports.iter().find(|rule| rule.port == port).map(|rule| rule.protocol)
    }

    /// A rule with an address wins over one without.
    fn egress(&self, address: IpAddr, port: u16) -> Option<Protocol> {
        let matching =
            |wanted| self.egress.iter().find(move |rule| rule.port == port && rule.address == wanted);
        matching(Some(address)).or_else(|| matching(None)).map(|rule| rule.protocol)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn packet(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let mut data = Vec::new();
        let builder = PacketBuilder::ipv4(from.0, to.0, 64).tcp(from.1, to.1, 1, 1);
        builder.write(&mut data, b"").unwrap();
        data
    }

    /// As in the kernel's own test: a pod that listens on 8080 and asks another pod's 8080.
    #[test]
    fn the_pod_s_own_port_decides_where_the_file_says_which_it_is() {
        let rules = Rules {
            ports: vec![PortRule { port: 8080, protocol: Protocol::Http }],
            egress: vec![EgressRule { address: None, port: 8080, protocol: Protocol::Tcp }],
        };
        let (pod, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let http = Protocol::Http;
        for (heading, from, to, expected) in [
            (Heading::ToPod, (other, 50_000), (pod, 8080), Some((Side::Server, Toward::Server, http))),
            (Heading::FromPod, (pod, 8080), (other, 50_000), Some((Side::Server, Toward::Client, http))),
            (
                Heading::FromPod,
                (pod, 50_000),
                (other, 8080),
                Some((Side::Client, Toward::Server, Protocol::Tcp)),
            ),
            (
                Heading::ToPod,
                (other, 8080),
                (pod, 50_000),
                Some((Side::Client, Toward::Client, Protocol::Tcp)),
            ),
            (Heading::ToPod, (other, 50_000), (pod, 81), None),
        ] {
            let data = packet(from, to);
            let given = rules.select(7, 3, 40, &data).unwrap_or(Packet {
                time_ns: 7,
                interface: 3,
                side: Side::Server,
                toward: Toward::Server,
                protocol: http,
                wire_len: 40,
                data: &data,
            });
            let selected = rules.select_at_pod(heading, &given);
            assert_eq!(
                selected.map(|p| (p.side, p.toward, p.protocol)),
                expected,
                "{heading:?} {from:?} {to:?}"
            );
        }
    }
}
