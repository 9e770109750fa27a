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
    describe::{
        AttributeWriter, Describe, EventRef, Head,
        ValueRef::{self, Plain},
        write_all,
    },
    id::Ids,
    outcome::{Outcome, Pairing},
    packet::Side,
    protocol::Detail,
    session::Session,
    span::{Key, Kind, Resource, Span, SpanId, TraceId, Value},
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

/// Says what spans say of sessions.
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
    /// What the span of a session says. `epoch_ns` is what added to the session's times gives nanoseconds since the
    /// Unix epoch; `resource` is the pod behind the interface.
    #[must_use]
    pub fn describe<'a>(
        &self,
        session: &'a Session,
        epoch_ns: u64,
        resource: &'a Arc<Resource>,
        other_side: OtherSide,
    ) -> SessionSpan<'a> {
        let ids = Ids::of(session);
        let asked = session.side == Side::Server && other_side == OtherSide::Traced;
        let other_span = asked.then(|| ids.span(Side::Client));
        let parent = match &session.detail {
            Detail::Http(exchange) => {
                exchange.request.as_ref().and_then(|request| context::parent(&request.trace_headers))
            }
            Detail::Tcp => None,
        };
        SessionSpan {
            session,
            semconv: self.semconv,
            epoch_ns,
            resource,
            more: &[],
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
        }
    }

    /// The span of a session, built: as [`Self::describe`] has it.
    #[must_use]
    pub fn span(
        &self,
        session: &Session,
        epoch_ns: u64,
        resource: &Arc<Resource>,
        other_side: OtherSide,
    ) -> Span {
        self.describe(session, epoch_ns, resource, other_side).to_span()
    }
}

/// A session as the span that it will be.
#[derive(Clone, Debug)]
pub struct SessionSpan<'a> {
    session: &'a Session,
    semconv: Semconv,
    epoch_ns: u64,
    resource: &'a Arc<Resource>,
    more: &'a [(Key, Value)],
    trace_id: TraceId,
    span_id: SpanId,
    parent_span_id: Option<SpanId>,
    parent_sampled: Option<bool>,
    trace_state: String,
    name: Cow<'static, str>,
}

impl<'a> SessionSpan<'a> {
    /// The same, with attributes that others know.
    #[must_use]
    pub fn with(self, more: &'a [(Key, Value)]) -> Self {
        Self { more, ..self }
    }
}

impl Describe for SessionSpan<'_> {
    fn head(&self) -> Head<'_> {
        let session = self.session;
        Head {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            parent_sampled: self.parent_sampled,
            trace_state: &self.trace_state,
            name: &self.name,
            kind: match session.side {
                Side::Server => Kind::Server,
                Side::Client => Kind::Client,
            },
            start_ns: session.start_ns.wrapping_add(self.epoch_ns),
            end_ns: session.end_ns.wrapping_add(self.epoch_ns),
            error: error(session),
            events_dropped: session.anatomy.more_incidents,
        }
    }

    fn attributes(&self, out: &mut impl AttributeWriter) {
        if self.semconv != Semconv::Legacy {
            stable(out, self.session);
        }
        if self.semconv != Semconv::Stable {
            legacy::attributes(out, self.session, self.resource);
        }
        write_all(self.more, out);
    }

    fn events(&self, each: impl FnMut(EventRef<'_>)) {
        anatomy::events(self.session, self.epoch_ns, each);
    }

    fn resource(&self) -> &Arc<Resource> {
        self.resource
    }
}

/// Tells an attribute. In line, so that what is known of the key when compiling is known where it is written.
#[inline(always)]
fn set<'v>(out: &mut impl AttributeWriter, key: &'static str, value: impl Into<ValueRef<'v>>) {
    out.write(key, value.into());
}

/// Tells an attribute if there is a value.
#[inline(always)]
fn set_some<'v>(out: &mut impl AttributeWriter, key: &'static str, value: Option<impl Into<ValueRef<'v>>>) {
    if let Some(value) = value {
        set(out, key, value);
    }
}

fn name(session: &Session) -> Cow<'static, str> {
    match &session.detail {
        Detail::Tcp => "TCP".into(),
        Detail::Http(exchange) => http::name(exchange),
    }
}

/// OpenTelemetry's attributes, and Clovisor's own facts.
fn stable(out: &mut impl AttributeWriter, session: &Session) {
    match &session.detail {
        Detail::Tcp => addresses(out, session),
        Detail::Http(exchange) => http::attributes(out, session, exchange),
    }
    set_some(out, "error.type", session.error_type().as_ref());
    set(out, "clovisor.protocol", Plain(session.protocol.name()));
    set(out, "clovisor.outcome", Plain(session.outcome.name()));
    set_some(out, "clovisor.pairing", session.pairing.map(Pairing::name).map(Plain));
    anatomy::attributes(out, session);
    if session.missing_bytes > 0 {
        set(out, "clovisor.missing_bytes", session.missing_bytes);
    }
    if session.overlaps_loss {
        set(out, "clovisor.overlaps_loss", true);
    }
}

/// Who spoke to whom: the connection's own ends, whatever the request calls them (`url.domain` and `url.full`
/// say that), so that a session can always be found by its four numbers.
fn addresses(out: &mut impl AttributeWriter, session: &Session) {
    let (client, server) = (address(session.client.ip()), address(session.server.ip()));
    let (peer, peer_port) = match session.side {
        Side::Server => (&client, session.client.port()),
        Side::Client => (&server, session.server.port()),
    };
    set(out, "client.address", Plain(&client));
    set(out, "client.port", session.client.port());
    set(out, "server.address", Plain(&server));
    set(out, "server.port", session.server.port());
    set(out, "network.peer.address", Plain(peer));
    set(out, "network.peer.port", peer_port);
    set(out, "network.transport", Plain("tcp"));
    set(out, "network.type", Plain(if session.server.is_ipv4() { "ipv4" } else { "ipv6" }));
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

/// How it failed, if it did.
fn error(session: &Session) -> Option<&'static str> {
    session.error_type()?;
    Some(match session.outcome {
        Outcome::Reset => "the connection was reset before the response ended",
        Outcome::Closed => "the connection was closed before the response ended",
        Outcome::Timeout => "nothing more was seen before the idle time was over",
        _ => "",
    })
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
