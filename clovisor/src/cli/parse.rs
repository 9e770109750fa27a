//! Values of options, in the forms that people write. Pure: text in, value or a reason out.

use std::{net::IpAddr, str::FromStr, time::Duration};

use clovisor_trace::{EgressRule, PortRule, Protocol};

/// An interface to trace, with the service name for its spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the interface.
    pub interface: String,
    /// Name of the service, where one was given.
    pub service: Option<String>,
}

/// Longest name of an interface: IFNAMSIZ of Linux less its zero byte.
const LONGEST_INTERFACE: usize = 15;
/// Less than this takes the agent without any packet, to look for some 200 times a second.
const LEAST_CORES: f64 = 0.01;
/// More than this no machine has.
const MOST_CORES: f64 = 8192.0;

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (interface, service) = match text.split_once('=') {
            Some((interface, service)) => (interface, Some(service.to_owned())),
            None => (text, None),
        };
        if !(1..=LONGEST_INTERFACE).contains(&interface.len()) {
            return Err(format!(
                "an interface name has 1 to {LONGEST_INTERFACE} characters, '{interface}' does not"
            ));
        }
        if service.as_deref() == Some("") {
            return Err(
                "the service name after '=' is empty; leave '=' out to use the interface's name".to_owned()
            );
        }
        Ok(Self { interface: interface.to_owned(), service })
    }
}

/// `PORT[=PROTOCOL]`.
pub(super) fn port(text: &str) -> Result<PortRule, String> {
    let (port, protocol) = with_protocol(text)?;
    Ok(PortRule { port: number(port)?, protocol })
}

/// `[IP:]PORT[=PROTOCOL]`; an address of 0 means any, as in the original's configuration.
pub(crate) fn egress(text: &str) -> Result<EgressRule, String> {
    let (target, protocol) = with_protocol(text)?;
    let Some((address, port)) = target.rsplit_once(':') else {
        return Ok(EgressRule { address: None, port: number(target)?, protocol });
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match (address, bare) {
        ("0", _) => None,
        (_, Some(v6)) => Some(IpAddr::V6(v6.parse().map_err(|_| format!("'{v6}' is not an IPv6 address"))?)),
        (v4, None) => Some(IpAddr::V4(v4.parse().map_err(|_| {
            format!(
                "'{v4}' is not an IPv4 address; names are not looked up, and an IPv6 address goes in brackets"
            )
        })?)),
    };
    Ok(EgressRule { address, port: number(port)?, protocol })
}

fn with_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.split_once('=') {
        Some((rest, protocol)) => Ok((rest, protocol.parse().map_err(|error| format!("{error}"))?)),
        None => Ok((text, Protocol::Http)),
    }
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("'{text}' is not a port, 1 to 65535"))
}

/// Processors, as Kubernetes writes them: `2`, `0.5`, `500m`.
pub(super) fn cores(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('m').map_or((text, 1.0), |thousandths| (thousandths, 1e3));
    let cores = number.parse::<f64>().ok().map(|number| number / unit);
    cores.filter(|cores| (LEAST_CORES..=MOST_CORES).contains(cores)).ok_or_else(|| {
        format!("'{text}' is not a number of processors, {LEAST_CORES} to {MOST_CORES}: 0.5, 500m, 2")
    })
}

/// A header's name, in lower case.
pub(super) fn header(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    valid.then(|| text.to_ascii_lowercase()).ok_or_else(|| format!("'{text}' is not the name of a header"))
}

/// `30`, `30s`, `500ms`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    let amount: u64 =
        amount.parse().map_err(|_| format!("'{text}' is not a time; write 30s, 500ms, 5m or 1h"))?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("'{unit}' is not a unit of time; use ms, s, m or h")),
    };
    let millis = amount.checked_mul(millis).filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or_else(|| format!("'{text}' is out of range"))
}

/// Least size of a capture: its head, and some packets.
const SMALLEST: u64 = 64 << 10;

/// `1048576`, `500K`, `64M`, `2G`: bytes, in powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    let amount: u64 = amount.parse().map_err(|_| format!("'{text}' is not a size; write 500M or 2G"))?;
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(format!("'{unit}' is not a unit of size; use K, M or G")),
    };
    let bytes = amount.checked_mul(1 << shift).filter(|bytes| *bytes >= SMALLEST);
    bytes.ok_or_else(|| format!("'{text}' is out of range; the least is 64K"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let target = |interface: &str, service: Option<&str>| Target {
            interface: interface.to_owned(),
            service: service.map(str::to_owned),
        };
        assert_eq!("eth0".parse(), Ok(target("eth0", None)));
        assert_eq!("eth0=shop".parse(), Ok(target("eth0", Some("shop"))));
        for wrong in ["", "=shop", "eth0=", "a-name-that-is-too-long"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn processors() {
        for (text, expected) in [("2", 2.0), ("0.5", 0.5), ("500m", 0.5), ("10m", 0.01)] {
            assert_eq!(cores(text), Ok(expected), "{text}");
        }
        for wrong in ["", "0", "m", "-1", "9m", "half", "inf", "NaN", "50%"] {
            assert!(cores(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_and_egress() {
        assert_eq!(port("8080"), Ok(PortRule { port: 8080, protocol: Protocol::Http }));
        assert_eq!(port("5432=tcp"), Ok(PortRule { port: 5432, protocol: Protocol::Tcp }));
        for wrong in ["", "0", "65536", "http", "80=", "80=smtp", "-1"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
        for (text, address, port) in [
            ("80", None, 80),
            ("0:80", None, 80),
            ("10.0.0.1:80=http", Some("10.0.0.1"), 80),
            ("[fd00::1]:80", Some("fd00::1"), 80),
        ] {
            let address = address.map(|address| address.parse().expect("an address"));
            assert_eq!(egress(text), Ok(EgressRule { address, port, protocol: Protocol::Http }), "{text}");
        }
        for wrong in ["example.com:80", "fd00::1:80", "10.0.0.1", "10.0.0.1:", "[10.0.0.1]:80", ":80"] {
            assert!(egress(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("65536", 65_536), ("64K", 65_536), ("3M", 3 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "G", "0", "63K", "1T", "1.5G", "-1", "18446744073709551615K"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in
            [("2", 2_000), ("2s", 2_000), ("500ms", 500), ("3m", 180_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "s", "0", "1d", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
