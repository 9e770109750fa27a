//! Sessions to spans, in the names of a convention.
//!
//! It refuses to export what nobody asked for: no headers but those in [`Limits::headers`](crate::Limits), no
//! bodies, no credentials (see [`redact`]).

mod anatomy;
mod http;
mod legacy;
mod redact;

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr, sync::Arc};

use smol_str::{SmolStr, ToSmolStr as _};

use crate::{
    context,
    id::Ids,
    outcome::{Outcome, Pairing},
    packet::Side,
    protocol::Detail,
    session::Session,
    span::{Attributes, Key, Kind, Resource, Span, Status, Value},
};

/// Which names spans carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Semconv {
    /// OpenTelemetry's stable HTTP conventions.
    #[default]
    Stable,
    /// Both, with OpenTelemetry's operation name.
    Dup,
    /// The original Clovisor's operation name and tags.
    Legacy,
}

/// A convention that Clovisor does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSemconv(pub String);

impl fmt::Display for UnknownSemconv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a convention for names of attributes; use stable, dup or legacy", self.0)
    }
}

impl std::error::Error for UnknownSemconv {}

impl FromStr for Semconv {
    type Err = UnknownSemconv;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "stable" => Ok(Self::Stable),
            "dup" => Ok(Self::Dup),
            "legacy" => Ok(Self::Legacy),
            _ => Err(UnknownSemconv(name.to_owned())),
        }
    }
}

/// Attributes of an ordinary HTTP span, and some of the pods at its ends.
const USUAL_ATTRIBUTES: usize = 32;

/// Makes spans of sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanBuilder {
    /// Which names they carry.
    pub semconv: Semconv,
}

/// Whether the other side of a session may be traced, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherSide {
    /// Nobody traces it.
    #[default]
    Untraced,
    /// Somebody may: then the client's span is the parent of the server's.
    Traced,
}

impl SpanBuilder {
    /// The span of a session. `epoch_ns` is what added to the session's times gives nanoseconds since the
    /// Unix epoch; `resource` is the pod behind the interface.
    #[must_use]
    pub fn span(
        &self,
        session: &Session,
        epoch_ns: u64,
        resource: &Arc<Resource>,
        other_side: OtherSide,
    ) -> Span {
        let ids = Ids::of(session);
        let asked = session.side == Side::Server && other_side == OtherSide::Traced;
        let other_span = asked.then(|| ids.span(Side::Client));
        let parent = match &session.detail {
            Detail::Http(exchange) => {
                exchange.request.as_ref().and_then(|request| context::parent(&request.trace_headers))
            }
            Detail::Tcp => None,
        };
        let mut attributes = Attributes::with_capacity(USUAL_ATTRIBUTES);
        if self.semconv != Semconv::Legacy {
            stable(&mut attributes, session);
        }
        if self.semconv != Semconv::Stable {
            legacy::attributes(&mut attributes, session, resource);
        }
        Span {
            trace_id: parent.as_ref().map_or(ids.trace, |parent| parent.trace_id),
            span_id: ids.span(session.side),
            parent_span_id: parent.as_ref().map_or(other_span, |parent| Some(parent.span_id)),
            parent_sampled: parent.as_ref().and_then(|parent| parent.sampled),
            trace_state: parent.map(|parent| parent.state).unwrap_or_default(),
            name: if self.semconv == Semconv::Legacy {
                legacy::operation(session).into()
            } else {
                name(session)
            },
            kind: match session.side {
                Side::Server => Kind::Server,
                Side::Client => Kind::Client,
            },
            start_ns: session.start_ns.wrapping_add(epoch_ns),
            end_ns: session.end_ns.wrapping_add(epoch_ns),
            status: status(session),
            attributes,
            events: anatomy::events(session, epoch_ns),
            events_dropped: session.anatomy.more_incidents,
            resource: Arc::clone(resource),
        }
    }
}

/// Sets an attribute.
fn set(attributes: &mut Attributes, key: impl Into<Key>, value: impl Into<Value>) {
    attributes.push((key.into(), value.into()));
}

/// Sets an attribute if there is a value.
fn set_some(attributes: &mut Attributes, key: &'static str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        set(attributes, key, value);
    }
}

fn name(session: &Session) -> Cow<'static, str> {
    match &session.detail {
        Detail::Tcp => "TCP".into(),
        Detail::Http(exchange) => http::name(exchange),
    }
}

/// OpenTelemetry's attributes, and Clovisor's own facts.
fn stable(attributes: &mut Attributes, session: &Session) {
    match &session.detail {
        Detail::Tcp => addresses(attributes, session),
        Detail::Http(exchange) => http::attributes(attributes, session, exchange),
    }
    set_some(attributes, "error.type", session.error_type());
    set(attributes, "clovisor.protocol", session.protocol.name());
    set(attributes, "clovisor.outcome", session.outcome.name());
    set_some(attributes, "clovisor.pairing", session.pairing.map(Pairing::name));
    anatomy::attributes(attributes, session);
    if session.missing_bytes > 0 {
        set(attributes, "clovisor.missing_bytes", session.missing_bytes);
    }
    if session.overlaps_loss {
        set(attributes, "clovisor.overlaps_loss", true);
    }
}

/// Who spoke to whom: the connection's own ends, whatever the request calls them (`url.domain` and `url.full`
/// say that), so that a session can always be found by its four numbers.
fn addresses(attributes: &mut Attributes, session: &Session) {
    let (client, server) = (address(session.client.ip()), address(session.server.ip()));
    let (peer, peer_port) = match session.side {
        Side::Server => (client.clone(), session.client.port()),
        Side::Client => (server.clone(), session.server.port()),
    };
    set(attributes, "client.address", client);
    set(attributes, "client.port", session.client.port());
    set(attributes, "server.address", server);
    set(attributes, "server.port", session.server.port());
    set(attributes, "network.peer.address", peer);
    set(attributes, "network.peer.port", peer_port);
    set(attributes, "network.transport", "tcp");
    set(attributes, "network.type", if session.server.is_ipv4() { "ipv4" } else { "ipv6" });
}

/// An address as its `Display` writes it; that of IPv4 without the detour.
fn address(ip: IpAddr) -> SmolStr {
    let IpAddr::V4(ip) = ip else { return ip.to_smolstr() };
    let (mut text, mut len) = ([b'.'; "255.255.255.255".len()], 0);
    for part in ip.octets() {
        for (least, digit) in [(100, part / 100), (10, part / 10 % 10), (0, part % 10)] {
            if part >= least {
                text[len] = b'0' + digit;
                len += 1;
            }
        }
        // A dot stands there already.
        len += 1;
    }
    SmolStr::new(str::from_utf8(&text[..len - 1]).unwrap_or_default())
}

fn status(session: &Session) -> Status {
    if session.error_type().is_none() {
        return Status::Unset;
    }
    Status::Error {
        message: match session.outcome {
            Outcome::Reset => "the connection was reset before the response ended".into(),
            Outcome::Closed => "the connection was closed before the response ended".into(),
            Outcome::Timeout => "nothing more was seen before the idle time was over".into(),
            _ => "".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_the_library_writes_them() {
        for ip in [
            "0.0.0.0",
            "10.0.200.3",
            "255.255.255.255",
            "1.20.99.100",
            "::1",
            "::ffff:10.0.0.1",
            "2001:db8::1",
        ] {
            assert_eq!(address(ip.parse().expect(ip)), ip);
        }
    }
}
