//! HTTP spans: OpenTelemetry semantic conventions, "HTTP spans" (stable).

use std::borrow::Cow;

use super::{addresses, redact, set, set_some};
use crate::{
    describe::{
        AttributeWriter,
        ValueRef::{self, Plain},
    },
    packet::Side,
    protocol::http1::{Exchange, RequestHead},
    session::Session,
};

/// `{method}`; no route is known from packets, and the path would make the name unbounded.
pub(super) fn name(exchange: &Exchange) -> Cow<'static, str> {
    exchange.request.as_ref().and_then(RequestHead::known_method).unwrap_or("HTTP").into()
}

pub(super) fn attributes(out: &mut impl AttributeWriter, session: &Session, exchange: &Exchange) {
    addresses(out, session);
    if let Some(request) = &exchange.request {
        method(out, request);
        target(out, session, request);
    }
    if let Some(response) = &exchange.response {
        set(out, "http.response.status_code", response.status);
    }
    // The lower one is what was used: a 1.0 answer to a 1.1 request makes a conversation in 1.0.
    let request = exchange.request.as_ref().and_then(|request| request.minor_version);
    let response = exchange.response.as_ref().and_then(|response| response.minor_version);
    let version = request.into_iter().chain(response).min().map(|minor| match minor {
        0 => Cow::from("1.0"),
        1 => "1.1".into(),
        other => format!("1.{other}").into(),
    });
    set_some(out, "network.protocol.version", version.as_deref().map(Plain));
    set(out, "network.protocol.name", Plain("http"));
    captured(out, "http.request.header.", exchange.request.as_ref().map_or(&[], |head| &head.captured));
    captured(out, "http.response.header.", exchange.response.as_ref().map_or(&[], |head| &head.captured));
}

fn method(out: &mut impl AttributeWriter, request: &RequestHead) {
    if let Some(known) = request.known_method() {
        set(out, "http.request.method", Plain(known));
    } else {
        set(out, "http.request.method", Plain("_OTHER"));
        set(out, "http.request.method_original", &request.method);
    }
    set_some(out, "user_agent.original", request.user_agent.as_ref());
}

/// What was asked for, in the form of the side: path and query at the server, the whole URL at the client.
fn target(out: &mut impl AttributeWriter, session: &Session, request: &RequestHead) {
    let (authority, path_and_query) = split_target(request);
    let authority = authority.map(redact::userinfo);
    set_some(out, "url.domain", authority.as_deref().and_then(host));
    let target = redact::target(path_and_query);
    match session.side {
        Side::Server => {
            let (path, query) =
                target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
            if !path.is_empty() {
                set(out, "url.path", path);
            }
            set_some(out, "url.query", query.filter(|query| !query.is_empty()));
            set(out, "url.scheme", Plain("http"));
        }
        Side::Client => {
            let authority = authority.unwrap_or_else(|| session.server.to_string().into());
            let path = if target == "*" { "" } else { &*target };
            if path.is_empty() || path.starts_with(['/', '?']) {
                set(out, "url.full", &format!("http://{authority}{path}"));
            } else {
                // In none of the forms, so it makes no URL.
                set(out, "url.path", path);
            }
            set(out, "url.scheme", Plain("http"));
        }
    }
}

/// Authority, and path with query, of a request target in any of its forms (RFC 9112 section 3.2).
fn split_target(request: &RequestHead) -> (Option<&str>, &str) {
    let target = request.target.as_str();
    let host = request.host.as_deref().filter(|host| !host.is_empty());
    if request.method == "CONNECT" {
        return (Some(target), "");
    }
    if target.starts_with('/') {
        return (host, target);
    }
    let absolute =
        target.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()));
    match absolute {
        Some((_, rest)) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        None => (host, target),
    }
}

/// Host of an authority, the brackets of an IPv6 address left out (RFC 3986 section 3.2.2).
fn host(authority: &str) -> Option<&str> {
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    host.filter(|host| !host.is_empty())
}

/// Headers that were asked for, the values of one name as a list.
fn captured(out: &mut impl AttributeWriter, prefix: &str, headers: &[(String, String)]) {
    // None, mostly, which takes no memory.
    let mut names: Vec<&String> = headers.iter().map(|(name, _)| name).collect();
    names.dedup();
    for name in names {
        let values = headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let values: Vec<&str> = values.collect();
        out.write_named(&format!("{prefix}{name}"), ValueRef::List(&values));
    }
}
