//! The grammar of the address that spans are sent to, as written on the command line or in Redis.
//!
//! | written | means |
//! | --- | --- |
//! | `otlp://host[:port]` | OTLP over gRPC, port 4317 if none; `otlps://` with TLS |
//! | `http[s]://host[:port][/path]` | OTLP over HTTP, path `/v1/traces` if none; but port 4317 without a path is OTLP over gRPC, and port 14268 without a path or with `/api/traces` is Jaeger Thrift over HTTP, for that is what listens there |
//! | `jaeger+http[s]://host[:port][/path]` | Jaeger Thrift over HTTP, port 14268 and path `/api/traces` if none |
//! | `jaeger+udp://host[:port]` | Jaeger compact Thrift over UDP, port 6831 if none |
//! | `host[:port]` | by port: none or 4317 OTLP gRPC, 4318 OTLP HTTP, 14268 Thrift HTTP, 6831 Thrift UDP |
//! | `stdout`, `none` | JSON lines; nowhere |
//!
//! It is pure: names are not looked up. It refuses ports that speak something else (the error names the port to
//! use), credentials (they would end up in logs), and anything that it does not know, rather than guess.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use http::uri::PathAndQuery;
use thiserror::Error;

const OTLP_GRPC: u16 = 4317;
const OTLP_HTTP: u16 = 4318;
const THRIFT_HTTP: u16 = 14268;
const THRIFT_UDP: u16 = 6831;
const OTLP_PATH: &str = "/v1/traces";
const THRIFT_PATH: &str = "/api/traces";

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// Where spans go, and in which way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// OTLP over gRPC.
    OtlpGrpc {
        /// The collector.
        server: Server,
        /// Whether the connection is encrypted.
        tls: bool,
    },
    /// OTLP as protobuf over HTTP.
    OtlpHttp {
        /// The collector.
        server: Server,
        /// Whether the connection is encrypted.
        tls: bool,
        /// Path and query, with the slash.
        path: String,
    },
    /// Jaeger's binary Thrift over HTTP.
    ThriftHttp {
        /// The collector.
        server: Server,
        /// Whether the connection is encrypted.
        tls: bool,
        /// Path and query, with the slash.
        path: String,
    },
    /// Jaeger's compact Thrift over UDP.
    ThriftUdp {
        /// The agent.
        server: Server,
    },
    /// JSON lines on standard output.
    Stdout,
    /// Nowhere: spans are counted only.
    None,
}

/// Why an address is none, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the trace address `{given}` {problem}: {remedy}")]
pub struct AddressError {
    /// What was written, without credentials.
    given: String,
    problem: String,
    remedy: String,
}

impl AddressError {
    fn new(given: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        // What stands before an `@` may be a password.
        let given = given.rsplit_once('@').map_or(given.to_owned(), |(_, rest)| format!("…@{rest}"));
        Self {
            given: super::text::shown(&given, 120),
            problem: super::text::shown(&problem.into(), 200),
            remedy: remedy.into(),
        }
    }
}

const FORMS: &str = "write otlp(s)://HOST:PORT, http(s)://HOST:PORT[/PATH], jaeger+http://HOST:PORT, \
                     jaeger+udp://HOST:PORT, HOST[:PORT], stdout or none";

/// What the grammar is made of, before a way is chosen.
pub(super) struct Parts<'a> {
    pub(super) scheme: Option<&'a str>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Nothing or `/` alone counts as no path.
    pub(super) path: Option<String>,
}

impl Parts<'_> {
    fn server(&self, default_port: u16) -> Server {
        Server { host: self.host.clone(), port: self.port.unwrap_or(default_port) }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(given: &str) -> Result<Self, AddressError> {
        let given = given.trim();
        match given {
            "stdout" => return Ok(Self::Stdout),
            "none" => return Ok(Self::None),
            "" => return Err(AddressError::new(given, "is empty", FORMS)),
            _ => {}
        }
        let parts = split(given)?;
        match parts.scheme {
            None => bare(given, &parts),
            Some(scheme @ ("otlp" | "otlps")) => {
                no_path(given, &parts)?;
                Ok(Self::OtlpGrpc { server: parts.server(OTLP_GRPC), tls: scheme.ends_with('s') })
            }
            Some("http") => by_url(given, &parts, false),
            Some("https") => by_url(given, &parts, true),
            Some(scheme @ ("jaeger+http" | "jaeger+https")) => {
                let path = parts.path.clone().unwrap_or_else(|| THRIFT_PATH.to_owned());
                Ok(Self::ThriftHttp { server: parts.server(THRIFT_HTTP), tls: scheme.ends_with('s'), path })
            }
            Some("jaeger+udp") => {
                no_path(given, &parts)?;
                Ok(Self::ThriftUdp { server: parts.server(THRIFT_UDP) })
            }
            Some(other) => Err(AddressError::new(given, format!("has the unknown scheme `{other}`"), FORMS)),
        }
    }
}

/// A host with or without a port: the port tells the way.
fn bare(given: &str, parts: &Parts<'_>) -> Result<Address, AddressError> {
    no_path(given, parts)?;
    wrong_port(given, parts)?;
    match parts.port {
        None | Some(OTLP_GRPC) => Ok(Address::OtlpGrpc { server: parts.server(OTLP_GRPC), tls: false }),
        Some(OTLP_HTTP) => {
            Ok(Address::OtlpHttp { server: parts.server(OTLP_HTTP), tls: false, path: OTLP_PATH.to_owned() })
        }
        Some(THRIFT_HTTP) => Ok(Address::ThriftHttp {
            server: parts.server(THRIFT_HTTP),
            tls: false,
            path: THRIFT_PATH.to_owned(),
        }),
        Some(THRIFT_UDP) => Ok(Address::ThriftUdp { server: parts.server(THRIFT_UDP) }),
        Some(port) => Err(AddressError::new(
            given,
            format!("does not say what is spoken on port {port}"),
            format!(
                "write otlp://{0} for OTLP over gRPC, http://{0} for OTLP over HTTP, or jaeger+http://{0} or \
                 jaeger+udp://{0} for Jaeger Thrift",
                parts.server(port)
            ),
        )),
    }
}

/// An HTTP URL is OTLP over HTTP, but where its port is known for something else.
fn by_url(given: &str, parts: &Parts<'_>, tls: bool) -> Result<Address, AddressError> {
    wrong_port(given, parts)?;
    let server = parts.server(if tls { 443 } else { 80 });
    match (server.port, parts.path.as_deref()) {
        (OTLP_GRPC, None) => Ok(Address::OtlpGrpc { server, tls }),
        (THRIFT_HTTP, None | Some(THRIFT_PATH)) => {
            Ok(Address::ThriftHttp { server, tls, path: THRIFT_PATH.to_owned() })
        }
        (THRIFT_UDP, _) => Err(AddressError::new(
            given,
            "names a port that speaks UDP, not HTTP",
            format!("write jaeger+udp://{server}"),
        )),
        (_, path) => Ok(Address::OtlpHttp { server, tls, path: path.unwrap_or(OTLP_PATH).to_owned() }),
    }
}

/// Ports of Jaeger and Zipkin that speak what Clovisor does not.
fn wrong_port(given: &str, parts: &Parts<'_>) -> Result<(), AddressError> {
    let (speaks, port, what) = match parts.port {
        Some(14250) => ("Jaeger's retired gRPC", OTLP_GRPC, "OTLP over gRPC"),
        Some(6832) => ("Jaeger's binary Thrift over UDP", THRIFT_UDP, "compact Thrift over UDP"),
        Some(9411) => ("Zipkin", OTLP_HTTP, "OTLP over HTTP"),
        Some(16686) => ("Jaeger's queries and web page", OTLP_GRPC, "OTLP over gRPC"),
        _ => return Ok(()),
    };
    let server = parts.server(port);
    Err(AddressError::new(
        given,
        format!("names the port of {speaks}, which Clovisor does not send to"),
        format!("use port {port} ({what}): {}", Server { host: server.host, port }),
    ))
}

fn no_path(given: &str, parts: &Parts<'_>) -> Result<(), AddressError> {
    match &parts.path {
        None => Ok(()),
        Some(path) => Err(AddressError::new(
            given,
            format!("has the path `{path}`, which this way does not take"),
            FORMS,
        )),
    }
}

/// Takes an address apart: `[scheme://]host[:port][/path]`.
pub(super) fn split(given: &str) -> Result<Parts<'_>, AddressError> {
    let (scheme, rest) = given.split_once("://").map_or((None, given), |(scheme, rest)| (Some(scheme), rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        let remedy = "leave them out and set OTEL_EXPORTER_OTLP_HEADERS=authorization=…";
        return Err(AddressError::new(given, "holds credentials, which would show up in logs", remedy));
    }
    let (host, port) = host_and_port(given, authority)?;
    let path = match path {
        "" | "/" => None,
        path => Some(parse_path(given, path)?),
    };
    Ok(Parts { scheme, host, port, path })
}

fn parse_path(given: &str, path: &str) -> Result<String, AddressError> {
    let is_path = path.starts_with('/') && !path.contains('#') && path.bytes().all(|b| b.is_ascii_graphic());
    match PathAndQuery::from_str(path) {
        Ok(_) if is_path => Ok(path.to_owned()),
        _ => Err(AddressError::new(
            given,
            "has a path that no HTTP request can carry",
            "start it with `/`, percent-encode what is not plain ASCII, and leave out `#`",
        )),
    }
}

fn host_and_port(given: &str, authority: &str) -> Result<(String, Option<u16>), AddressError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(AddressError::new(
                given,
                "opens a bracket and does not close it",
                "write [IPV6]:PORT",
            ));
        };
        if host.parse::<Ipv6Addr>().is_err() {
            let remedy = "write it as in [fd00::1]:4317, without a zone";
            return Err(AddressError::new(
                given,
                format!("has no IPv6 address in its brackets, but `{host}`"),
                remedy,
            ));
        }
        match (after, after.strip_prefix(':')) {
            ("", _) => (host, None),
            (_, Some(port)) => (host, Some(port)),
            _ => return Err(AddressError::new(given, format!("has `{after}` after its bracket"), FORMS)),
        }
    } else if authority.matches(':').count() > 1 {
        return Err(AddressError::new(
            given,
            "has more than one colon",
            "put an IPv6 address in brackets, as in [fd00::1]:4317",
        ));
    } else {
        let (host, port) =
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            let problem =
                if host.is_empty() { "names no host".to_owned() } else { format!("has `{host}` for a host") };
            return Err(AddressError::new(given, problem, FORMS));
        }
        (host, port)
    };
    let port = match port {
        None => None,
        // `parse` would take `+80`.
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port != 0 && text.bytes().all(|b| b.is_ascii_digit()) => Some(port),
            _ => {
                return Err(AddressError::new(
                    given,
                    format!("has `{text}` for a port"),
                    "use a number from 1 to 65535",
                ));
            }
        },
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// The way alone, for metrics: an address would be one series more for each that was ever used.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::OtlpGrpc { .. } => "otlp-grpc",
            Self::OtlpHttp { .. } => "otlp-http",
            Self::ThriftHttp { .. } => "jaeger-http",
            Self::ThriftUdp { .. } => "jaeger-udp",
            Self::Stdout => "stdout",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Address {
    /// Says which way was chosen, such as `OTLP over HTTP to http://jaeger:4318/v1/traces`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = |tls: &bool| if *tls { "https" } else { "http" };
        // A query may hold a key.
        let plain = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
        match self {
            Self::OtlpGrpc { server, tls: false } => write!(f, "OTLP over gRPC to {server}"),
            Self::OtlpGrpc { server, tls: true } => write!(f, "OTLP over gRPC with TLS to {server}"),
            Self::OtlpHttp { server, tls, path } => {
                write!(f, "OTLP over HTTP to {}://{server}{}", scheme(tls), plain(path))
            }
            Self::ThriftHttp { server, tls, path } => {
                write!(f, "Jaeger Thrift over HTTP to {}://{server}{}", scheme(tls), plain(path))
            }
            Self::ThriftUdp { server } => write!(f, "Jaeger Thrift over UDP to {server}"),
            Self::Stdout => f.write_str("JSON lines to standard output"),
            Self::None => f.write_str("nowhere"),
        }
    }
}

#[cfg(test)]
mod tests;
