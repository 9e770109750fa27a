//! Protocols by name: in configuration, and in the names of service ports in Istio's form
//! `<protocol>[-<suffix>]`.

use std::{fmt, str::FromStr};

/// How a flow is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1: a session for each request.
    Http,
    /// No parser: a session for each connection.
    Tcp,
}

impl Protocol {
    /// All protocols, in the order in which ledgers show them.
    pub const ALL: [Self; 2] = [Self::Http, Self::Tcp];

    /// Name in configuration and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A protocol name that Clovisor does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProtocol(pub String);

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a protocol that Clovisor parses; use http or tcp", self.0)
    }
}

impl std::error::Error for UnknownProtocol {}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "http" => Ok(Self::Http),
            "tcp" => Ok(Self::Tcp),
            _ => Err(UnknownProtocol(name.to_owned())),
        }
    }
}

/// The protocol of a port by its name; [`Protocol::Tcp`] for no name and for protocols without a parser.
///
/// Istio, "Protocol Selection": the name is `<protocol>` or `<protocol>-<suffix>`, in any case.
#[must_use]
pub fn from_port_name(name: &str) -> Protocol {
    let protocol = name.split('-').next().unwrap_or_default();
    if protocol.eq_ignore_ascii_case("http") { Protocol::Http } else { Protocol::Tcp }
}

/// The protocol of a service port by its `appProtocol`, in any case; [`Protocol::Tcp`] for those without a parser.
///
/// Kubernetes, "Application protocol": `kubernetes.io/ws` is a WebSocket in clear text, which starts as HTTP/1.1.
#[must_use]
pub fn from_app_protocol(app_protocol: &str) -> Protocol {
    let http = ["http", "kubernetes.io/ws"];
    if http.iter().any(|name| app_protocol.eq_ignore_ascii_case(name)) {
        Protocol::Http
    } else {
        Protocol::Tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocols() {
        for (name, protocol) in [
            ("http", Protocol::Http),
            ("HTTP", Protocol::Http),
            ("kubernetes.io/ws", Protocol::Http),
            ("kubernetes.io/wss", Protocol::Tcp),
            ("kubernetes.io/h2c", Protocol::Tcp),
            ("https", Protocol::Tcp),
            ("http-web", Protocol::Tcp),
            ("", Protocol::Tcp),
        ] {
            assert_eq!(from_app_protocol(name), protocol, "{name}");
        }
    }

    #[test]
    fn istio_names() {
        for (name, protocol) in [
            ("http", Protocol::Http),
            ("http-1234", Protocol::Http),
            ("HTTP-web", Protocol::Http),
            ("http1", Protocol::Tcp),
            ("https", Protocol::Tcp),
            ("http2", Protocol::Tcp),
            ("tcp-http", Protocol::Tcp),
            ("", Protocol::Tcp),
            ("-http", Protocol::Tcp),
            ("web", Protocol::Tcp),
        ] {
            assert_eq!(from_port_name(name), protocol, "{name}");
        }
    }
}
