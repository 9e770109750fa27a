//! Which packets of a capture file are wanted, by the rules that the kernel side applies to live ones.
//!
//! A file does not say on which side of a packet the pod is, so a port rule takes both directions of every
//! connection to the port, and an egress rule those to the target that no port rule takes.

use std::net::IpAddr;

use etherparse::{LaxIpSlice, TcpSlice};

use crate::{
    packet::{Packet, Side, Toward},
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
        let Ok((ip, _)) = LaxIpSlice::from_slice(data) else { return Some(unclear) };
        let Ok(tcp) = TcpSlice::from_slice(ip.payload().payload) else { return Some(unclear) };
        if ip.payload().ip_number != etherparse::IpNumber::TCP {
            return Some(unclear);
        }
        let (source, destination) = (tcp.source_port(), tcp.destination_port());
        let (toward, side, protocol) = self
            .port(destination)
            .map(|protocol| (Toward::Server, Side::Server, protocol))
            .or_else(|| self.port(source).map(|protocol| (Toward::Client, Side::Server, protocol)))
            .or_else(|| {
                let protocol = self.egress(ip.destination_addr(), destination)?;
                Some((Toward::Server, Side::Client, protocol))
            })
            .or_else(|| Some((Toward::Client, Side::Client, self.egress(ip.source_addr(), source)?)))?;
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
