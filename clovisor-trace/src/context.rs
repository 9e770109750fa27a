//! The caller's span, where the headers of a request tell it.
//!
//! Formats, in order of trust: W3C `traceparent` (Trace Context, section 3.2), single `b3`, `X-B3-*`
//! (both of openzipkin/b3-propagation), Jaeger's `uber-trace-id` (Jaeger client libraries, "Propagation
//! Format"). What is not well formed counts as absent, as each of them demands.

use crate::span::{SpanId, TraceId};

/// A caller's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    /// Whether the caller's trace is sampled, where it has decided.
    pub(crate) sampled: Option<bool>,
    /// `tracestate`, which only goes with `traceparent`.
    pub(crate) state: String,
}

/// Finds the caller's span in headers, names in lower case.
pub(crate) fn parent(headers: &[(&'static str, impl AsRef<str>)]) -> Option<Parent> {
    let find = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_ref());
    if let Some(mut parent) = find("traceparent").and_then(traceparent) {
        parent.state = find("tracestate").unwrap_or_default().to_owned();
        return Some(parent);
    }
    find("b3")
        .and_then(|value| {
            let mut parts = value.split('-');
            let ids = ids(parts.next()?, parts.next()?)?;
            Some(Parent { sampled: parts.next().and_then(b3_sampled), ..ids })
        })
        .or_else(|| {
            let ids = ids(find("x-b3-traceid")?, find("x-b3-spanid")?)?;
            // `X-B3-Flags: 1` is a debug trace, which is sampled without saying so.
            let debug = (find("x-b3-flags") == Some("1")).then_some(true);
            Some(Parent { sampled: debug.or_else(|| find("x-b3-sampled").and_then(b3_sampled)), ..ids })
        })
        .or_else(|| uber(find("uber-trace-id")?))
}

/// `version-traceid-parentid-flags`; a later version may add fields, `ff` is forbidden.
fn traceparent(value: &str) -> Option<Parent> {
    let mut parts = value.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower =
        |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let extra = parts.next().is_some();
    let valid = lower(version, 2) && version != "ff" && !(version == "00" && extra);
    let valid = valid && lower(trace, 32) && lower(span, 16) && lower(flags, 2);
    let ids = valid.then(|| ids(trace, span)).flatten()?;
    Some(Parent { sampled: lowest_bit(flags), ..ids })
}

/// The flag `sampled` of `traceparent` and `uber-trace-id`, whose flags are in hexadecimal.
fn lowest_bit(flags: &str) -> Option<bool> {
    u8::from_str_radix(flags, 16).ok().map(|flags| flags & 1 == 1)
}

/// `1`, `0` or `d` for a debug trace; older ones write words.
fn b3_sampled(value: &str) -> Option<bool> {
    match value {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// `trace:span:parent:flags`, with leading zeros left out, maybe with its colons escaped.
fn uber(value: &str) -> Option<Parent> {
    let value = value.replace("%3A", ":").replace("%3a", ":");
    let mut parts = value.split(':');
    let (trace, span) = (parts.next()?, parts.next()?);
    // The parent must be there, though it says nothing that is needed.
    let (_parent, flags) = (parts.next()?, parts.next()?);
    let ids = parts.next().is_none().then(|| ids(trace, span)).flatten()?;
    Some(Parent { sampled: lowest_bit(flags), ..ids })
}

/// Ids in hexadecimal, of up to 32 and 16 digits; neither may be zero.
fn ids(trace: &str, span: &str) -> Option<Parent> {
    let hex = |text: &str, most| {
        let valid = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid.then(|| u128::from_str_radix(text, 16).ok()).flatten().filter(|id| *id != 0)
    };
    let span = u64::try_from(hex(span, 16)?).ok()?;
    Some(Parent {
        trace_id: TraceId(hex(trace, 32)?.to_be_bytes()),
        span_id: SpanId(span.to_be_bytes()),
        sampled: None,
        state: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn found(headers: &[(&'static str, &str)]) -> Option<(String, String)> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        parent(&headers).map(|parent| (parent.trace_id.to_string(), parent.span_id.to_string()))
    }

    #[test]
    fn all_formats() {
        let expected = Some((TRACE.to_owned(), SPAN.to_owned()));
        for headers in [
            vec![("traceparent", format!("00-{TRACE}-{SPAN}-01"))],
            vec![("traceparent", format!("01-{TRACE}-{SPAN}-01-later"))],
            vec![("b3", format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90"))],
            vec![("b3", format!("{TRACE}-{SPAN}"))],
            vec![("x-b3-traceid", TRACE.to_owned()), ("x-b3-spanid", SPAN.to_owned())],
            vec![("uber-trace-id", format!("{TRACE}:f067aa0ba902b7:0:1"))],
            vec![("uber-trace-id", format!("{TRACE}%3A{SPAN}%3A0%3A1"))],
        ] {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(found(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_caller_s_decision() {
        let b3 = |more: &[(&'static str, &str)]| {
            let ids = [("x-b3-traceid", TRACE.to_owned()), ("x-b3-spanid", SPAN.to_owned())];
            let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
            ids.into_iter().chain(more).collect::<Vec<_>>()
        };
        for (headers, expected) in [
            (vec![("traceparent", format!("00-{TRACE}-{SPAN}-01"))], Some(true)),
            (vec![("traceparent", format!("00-{TRACE}-{SPAN}-00"))], Some(false)),
            (vec![("traceparent", format!("00-{TRACE}-{SPAN}-fe"))], Some(false)),
            (vec![("b3", format!("{TRACE}-{SPAN}-1"))], Some(true)),
            (vec![("b3", format!("{TRACE}-{SPAN}-d"))], Some(true)),
            (vec![("b3", format!("{TRACE}-{SPAN}-0"))], Some(false)),
            (vec![("b3", format!("{TRACE}-{SPAN}"))], None),
            (b3(&[]), None),
            (b3(&[("x-b3-sampled", "0")]), Some(false)),
            (b3(&[("x-b3-sampled", "true")]), Some(true)),
            (b3(&[("x-b3-sampled", "0"), ("x-b3-flags", "1")]), Some(true)),
            (vec![("uber-trace-id", format!("{TRACE}:{SPAN}:0:3"))], Some(true)),
            (vec![("uber-trace-id", format!("{TRACE}:{SPAN}:0:2"))], Some(false)),
        ] {
            let parent = parent(&headers).expect("valid");
            assert_eq!(parent.sampled, expected, "{headers:?}");
        }
    }

    #[test]
    fn short_ids_are_padded() {
        let expected = Some((format!("{:0>32}", "a3ce929d0e0e4736"), SPAN.to_owned()));
        assert_eq!(found(&[("b3", &format!("a3ce929d0e0e4736-{SPAN}"))]), expected);
    }

    #[test]
    fn malformed_is_absent() {
        for (name, value) in [
            ("traceparent", format!("00-{TRACE}-{SPAN}-01-extra")),
            ("traceparent", format!("ff-{TRACE}-{SPAN}-01")),
            ("traceparent", format!("00-{}-{SPAN}-01", TRACE.to_uppercase())),
            ("traceparent", format!("00-{}-{SPAN}-01", "0".repeat(32))),
            ("traceparent", format!("00-{TRACE}-{}-01", "0".repeat(16))),
            ("b3", "0".to_owned()),
            ("b3", format!("{TRACE}0-{SPAN}")),
            ("b3", "é-é".to_owned()),
            ("uber-trace-id", format!("{TRACE}:{SPAN}")),
        ] {
            assert_eq!(found(&[(name, &value)]), None, "{name}: {value}");
        }
    }

    #[test]
    fn traceparent_wins_and_keeps_its_state() {
        let headers = [
            ("b3", format!("{}-{SPAN}", "1".repeat(32))),
            ("traceparent", format!("00-{TRACE}-{SPAN}-00")),
            ("tracestate", "vendor=1".to_owned()),
        ];
        let parent = parent(&headers).expect("valid");
        assert_eq!((parent.trace_id.to_string(), parent.state), (TRACE.to_owned(), "vendor=1".to_owned()));
    }
}
