//! The original Clovisor's operation name and tags (OPNFV Clover, release Hunter).
//!
//! Its `duration` was taken at a 500 ms tick; here it is the session's own.

use std::borrow::Cow;

use super::{redact, set, set_some};
use crate::{
    describe::AttributeWriter, protocol::Detail, protocol::http1::Exchange, session::Session, span::Resource,
};

/// `tracing-<session key>`, the key being the addresses and ports from the request's point of view.
pub(super) fn operation(session: &Session) -> String {
    let (client, server) = (session.client, session.server);
    format!("tracing-{}:{}-{}:{}", client.ip(), client.port(), server.ip(), server.port())
}

pub(super) fn attributes(out: &mut impl AttributeWriter, session: &Session, resource: &Resource) {
    set_some(out, "nodename", resource.text("k8s.node.name"));
    set_some(out, "podname", resource.text("k8s.pod.name"));
    set(out, "reqpakcount", session.request.packets);
    set(out, "reqbytecount", session.request.bytes);
    set(out, "resppakcount", session.response.packets);
    set(out, "respbytecount", session.response.bytes);
    set(out, "duration", &format!("{} usec", session.duration_ns() / 1000));
    set(out, "protocol-0", if session.server.is_ipv4() { "IPv4" } else { "IPv6" });
    set(out, "srcip", session.client.ip().to_string().as_str());
    set(out, "dstip", session.server.ip().to_string().as_str());
    set(out, "protocol-1", "TCP");
    set(out, "srcport", session.client.port().to_string().as_str());
    set(out, "dstport", session.server.port().to_string().as_str());
    if let Detail::Http(exchange) = &session.detail {
        http(out, exchange);
    }
}

fn http(out: &mut impl AttributeWriter, exchange: &Exchange) {
    set(out, "protocol-2", "HTTP");
    if let Some(request) = &exchange.request {
        set(out, "reqmethod", &request.method);
        set(out, "requrl", &redact::target(&request.target));
        set_some(out, "reqproto", request.minor_version.map(version).as_ref());
        let find = |name: &str| request.trace_headers.iter().find(|(key, _)| *key == name).map(|(_, v)| v);
        set_some(out, "useragent", request.user_agent.as_ref());
        set_some(out, "host", request.host.as_deref().map(redact::userinfo).as_ref());
        set_some(out, "requestid", request.request_id.as_ref());
        set_some(out, "envoydecorator", request.envoy_decorator.as_ref());
        set_some(out, "traceid", find("x-b3-traceid"));
    }
    if let Some(response) = &exchange.response {
        set(out, "respstatus", &format!("{:03} {}", response.status, response.reason));
        set(out, "respstatuscode", response.status.to_string().as_str());
        set_some(out, "respproto", response.minor_version.map(version).as_ref());
    }
}

fn version(minor: u8) -> Cow<'static, str> {
    match minor {
        0 => "HTTP/1.0".into(),
        1 => "HTTP/1.1".into(),
        other => format!("HTTP/1.{other}").into(),
    }
}
