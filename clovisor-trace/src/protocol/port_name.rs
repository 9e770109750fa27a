//! The protocol that a service port's name tells, in Istio's form `<protocol>[-<suffix>]`.

use super::Protocol;

/// The protocol of a port by its name; [`Protocol::Tcp`] for no name and for protocols without a parser.
///
/// Istio, "Protocol Selection": the name is `<protocol>` or `<protocol>-<suffix>`, in any case.
#[must_use]
pub fn from_port_name(name: &str) -> Protocol {
    let protocol = name.split('-').next().unwrap_or_default();
    if protocol.eq_ignore_ascii_case("http") { Protocol::Http } else { Protocol::Tcp }
}

#[cfg(test)]
mod tests {
    use super::*;

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
