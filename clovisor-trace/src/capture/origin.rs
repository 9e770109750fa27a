//! What Clovisor writes into comments of its own captures, so that a file is read as the live run was.
//!
//! On an interface, one line: `clovisor`, then `port=PORT=PROTOCOL` and `egress=[ADDRESS:]PORT=PROTOCOL` as often as
//! there are rules (an IPv6 address in brackets), `join` if clients were traced elsewhere, then `service=NAME`, whose name goes on to the end:
//!
//! ```text
//! clovisor port=8080=http egress=192.0.2.7:80=http service=shop
//! ```
//!
//! On a packet, only where rules and order alone would take it otherwise: `clovisor`, then
//! `side=server` or `side=client` with `protocol=PROTOCOL`, and `late=NANOSECONDS`. On statistics,
//! where packets were lost: `clovisor`, then `lost=PACKETS`, `from=` and `until=` in nanoseconds since the Unix epoch, and `anywhere` if it may
//! have been at any interface. A comment that is not of these forms is not ours, and means nothing.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{
    packet::Side,
    protocol::Protocol,
    select::{EgressRule, PortRule, Rules},
};

/// In front of every comment of ours.
const MARK: &str = "clovisor";

/// How the packets of an interface were picked, and whose spans theirs are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The rules that were in force.
    pub rules: Rules,
    /// Whether clients were traced elsewhere, so that their spans are parents.
    pub join: bool,
    /// Name of the service; never empty.
    pub service: Option<String>,
}

/// What tells how a packet was taken, where nothing else in the file does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Side of the pod, and protocol: a later fragment does not show the ports that the first one was picked by.
    pub role: Option<(Side, Protocol)>,
    /// So many nanoseconds after its own time the tracer's clock stood when it came: above zero for a packet that came too late
    /// for its place.
    pub late_ns: u64,
}

/// Packets that were wanted and lost, before the statistics that this is a comment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub packets: u64,
    /// None of them is older: nanoseconds since the Unix epoch.
    pub from_ns: u64,
    /// None of them is younger: nanoseconds since the Unix epoch.
    pub until_ns: u64,
    /// Whether they may have been at any interface, not only at that of the statistics.
    pub anywhere: bool,
}

/// It is not a comment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        for PortRule { port, protocol } in &self.rules.ports {
            write!(f, " port={port}={}", protocol.name())?;
        }
        for EgressRule { address, port, protocol } in &self.rules.egress {
            f.write_str(" egress=")?;
            match address {
                Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
                Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
                None => {}
            }
            write!(f, "{port}={}", protocol.name())?;
        }
        if self.join {
            f.write_str(" join")?;
        }
        match &self.service {
            Some(service) => write!(f, " service={service}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Origin {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let mut origin = Self::default();
        let mut rest = ours(text)?;
        while !rest.is_empty() {
            if let Some(service) = rest.strip_prefix("service=") {
                origin.service = Some(service.to_owned()).filter(|service| !service.is_empty());
                break;
            }
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after;
            if word == "join" {
                origin.join = true;
                continue;
            }
            match word.split_once('=').ok_or(NotOurs)? {
                ("port", rule) => origin.rules.ports.push(port(rule)?),
                ("egress", rule) => origin.rules.egress.push(egress(rule)?),
                _ => return Err(NotOurs),
            }
        }
        Ok(origin)
    }
}

impl Note {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        if let Some((side, protocol)) = self.role {
            write!(f, " side={} protocol={}", side_name(side), protocol.name())?;
        }
        if self.late_ns > 0 {
            write!(f, " late={}", self.late_ns)?;
        }
        Ok(())
    }
}

impl FromStr for Note {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let (mut side, mut protocol, mut late_ns) = (None, None, 0);
        for word in ours(text)?.split_terminator(' ') {
            match word.split_once('=').ok_or(NotOurs)? {
                ("side", "server") => side = Some(Side::Server),
                ("side", "client") => side = Some(Side::Client),
                ("protocol", name) => protocol = Some(name.parse().map_err(|_| NotOurs)?),
                ("late", nanoseconds) => late_ns = nanoseconds.parse().map_err(|_| NotOurs)?,
                _ => return Err(NotOurs),
            }
        }
        match (side, protocol) {
            (Some(side), Some(protocol)) => Ok(Self { role: Some((side, protocol)), late_ns }),
            (None, None) => Ok(Self { role: None, late_ns }),
            _ => Err(NotOurs),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, from_ns, until_ns, anywhere } = self;
        write!(f, "{MARK} lost={packets} from={from_ns} until={until_ns}")?;
        f.write_str(if *anywhere { " anywhere" } else { "" })
    }
}

impl FromStr for Lost {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let mut words = ours(text)?.split(' ');
        let mut number = |name| {
            let (key, value) = words.next().and_then(|word| word.split_once('=')).ok_or(NotOurs)?;
            if key == name { value.parse().map_err(|_| NotOurs) } else { Err(NotOurs) }
        };
        let (packets, from_ns, until_ns) = (number("lost")?, number("from")?, number("until")?);
        let anywhere = words.next();
        match (anywhere, words.next()) {
            (None | Some("anywhere"), None) => {
                Ok(Self { packets, from_ns, until_ns, anywhere: anywhere.is_some() })
            }
            _ => Err(NotOurs),
        }
    }
}

/// What stands behind the mark.
fn ours(text: &str) -> Result<&str, NotOurs> {
    match text.strip_prefix(MARK).ok_or(NotOurs)? {
        "" => Ok(""),
        rest => rest.strip_prefix(' ').ok_or(NotOurs),
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Server => "server",
        Side::Client => "client",
    }
}

fn port(text: &str) -> Result<PortRule, NotOurs> {
    let (port, protocol) = text.split_once('=').ok_or(NotOurs)?;
    Ok(PortRule {
        port: port.parse().map_err(|_| NotOurs)?,
        protocol: protocol.parse().map_err(|_| NotOurs)?,
    })
}

fn egress(text: &str) -> Result<EgressRule, NotOurs> {
    let (target, protocol) = text.split_once('=').ok_or(NotOurs)?;
    let (address, port) = match target.rsplit_once(':') {
        None => (None, target),
        Some((address, port)) => {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            (Some(bare.parse().map_err(|_| NotOurs)?), port)
        }
    };
    Ok(EgressRule {
        address,
        port: port.parse().map_err(|_| NotOurs)?,
        protocol: protocol.parse().map_err(|_| NotOurs)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        let egress = |address: Option<&str>, port, protocol| EgressRule {
            address: address.map(|address| address.parse().unwrap()),
            port,
            protocol,
        };
        Origin {
            join: true,
            rules: Rules {
                ports: vec![
                    PortRule { port: 8080, protocol: Protocol::Http },
                    PortRule { port: 5432, protocol: Protocol::Tcp },
                ],
                egress: vec![
                    egress(Some("192.0.2.7"), 80, Protocol::Http),
                    egress(Some("fd00::1"), 81, Protocol::Tcp),
                    egress(None, 82, Protocol::Http),
                ],
            },
            service: Some("my shop=1 egress=80=http".to_owned()),
        }
    }

    #[test]
    fn an_origin_is_one_line_and_comes_back() {
        let text = origin().to_string();
        assert_eq!(
            text,
            "clovisor port=8080=http port=5432=tcp egress=192.0.2.7:80=http egress=[fd00::1]:81=tcp \
             egress=82=http join service=my shop=1 egress=80=http"
        );
        assert_eq!(text.parse(), Ok(origin()));
        assert_eq!("clovisor".parse(), Ok(Origin::default()));
        for other in
            ["", "clovisorport=80=http", "clovisor port=80", "clovisor port=x=http", "tea", "clovisor a=b"]
        {
            assert_eq!(other.parse::<Origin>(), Err(NotOurs), "{other}");
        }
    }

    #[test]
    fn a_loss_comes_back() {
        for anywhere in [false, true] {
            let lost = Lost { packets: 3, from_ns: 1, until_ns: u64::MAX, anywhere };
            assert_eq!(lost.to_string().parse(), Ok(lost));
        }
        for other in [
            "clovisor",
            "clovisor lost=1",
            "clovisor lost=1 from=2 until=3 x",
            "clovisor lost=-1 from=2 until=3",
        ] {
            assert_eq!(other.parse::<Lost>(), Err(NotOurs), "{other}");
        }
    }

    #[test]
    fn a_note_comes_back() {
        for role in [None, Some((Side::Server, Protocol::Tcp)), Some((Side::Client, Protocol::Http))] {
            for late_ns in [0, 17, u64::MAX] {
                let note = Note { role, late_ns };
                assert_eq!(note.to_string().parse(), Ok(note));
            }
        }
        for other in ["", "clovisor side=server", "clovisor late=-1", "clovisor protocol=http", "clovisor x"]
        {
            assert_eq!(other.parse::<Note>(), Err(NotOurs), "{other}");
        }
    }
}
