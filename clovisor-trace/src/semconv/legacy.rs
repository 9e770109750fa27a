//! The original Clovisor's operation name and tags (OPNFV Clover, release Hunter).
//!
//! Its `duration` was taken at a 500 ms tick; here it is the session's own.

use smol_str::SmolStr;

use super::{redact, set, set_some};
use crate::{
    protocol::Detail,
    protocol::http1::Exchange,
    session::Session,
    span::{Attributes, Resource, Value},
};

/// `tracing-<session key>`, the key being the addresses and ports from the request's point of view.
pub(super) fn operation(session: &Session) -> String {
    let (client, server) = (session.client, session.server);
    format!("tracing-{}:{}-{}:{}", client.ip(), client.port(), server.ip(), server.port())
}

pub(super) fn attributes(attributes: &mut Attributes, session: &Session, resource: &Resource) {
    let named =
        |key: &str| resource.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    set_some(attributes, "nodename", named("k8s.node.name"));
    set_some(attributes, "podname", named("k8s.pod.name"));
    set(attributes, "reqpakcount", session.request.packets);
    set(attributes, "reqbytecount", session.request.bytes);
    set(attributes, "resppakcount", session.response.packets);
    set(attributes, "respbytecount", session.response.bytes);
    set(attributes, "duration", format!("{} usec", session.duration_ns() / 1000));
    set(attributes, "protocol-0", if session.server.is_ipv4() { "IPv4" } else { "IPv6" });
    set(attributes, "srcip", session.client.ip().to_string());
    set(attributes, "dstip", session.server.ip().to_string());
    set(attributes, "protocol-1", "TCP");
    set(attributes, "srcport", session.client.port().to_string());
    set(attributes, "dstport", session.server.port().to_string());
    if let Detail::Http(exchange) = &session.detail {
        http(attributes, exchange);
    }
}

fn http(attributes: &mut Attributes, exchange: &Exchange) {
    set(attributes, "protocol-2", "HTTP");
    if let Some(request) = &exchange.request {
        set(attributes, "reqmethod", request.method.clone());
        set(attributes, "requrl", SmolStr::new(redact::target(&request.target)));
        set_some(attributes, "reqproto", request.minor_version.map(version));
        let find =
            |name: &str| request.trace_headers.iter().find(|(key, _)| *key == name).map(|(_, v)| v.clone());
        set_some(attributes, "useragent", request.user_agent.clone());
        set_some(attributes, "host", request.host.as_deref().map(redact::userinfo).map(SmolStr::from));
        set_some(attributes, "requestid", request.request_id.clone());
        set_some(attributes, "envoydecorator", request.envoy_decorator.clone());
        set_some(attributes, "traceid", find("x-b3-traceid"));
    }
    if let Some(response) = &exchange.response {
        set(attributes, "respstatus", format!("{:03} {}", response.status, response.reason));
        set(attributes, "respstatuscode", response.status.to_string());
        set_some(attributes, "respproto", response.minor_version.map(version));
    }
}

fn version(minor: u8) -> Value {
    match minor {
        0 => "HTTP/1.0".into(),
        1 => "HTTP/1.1".into(),
        other => format!("HTTP/1.{other}").into(),
    }
}
