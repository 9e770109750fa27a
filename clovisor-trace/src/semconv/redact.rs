//! What must not leave the node: credentials in URLs (OpenTelemetry semantic conventions, `url.full` and
//! `url.query`).

use std::borrow::Cow;

const REDACTED: &str = "REDACTED";

/// Query parameters whose values sign or grant access.
const SECRETS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
];

/// A target whose secret query parameters have lost their values.
pub(super) fn query(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return target.into() };
    let secret = |part: &str| {
        part.split_once('=')
            .is_some_and(|(name, _)| SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret)))
    };
    if !query.split('&').any(secret) {
        return target.into();
    }
    let parts: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|part| match part.split_once('=') {
            Some((name, _)) if secret(part) => format!("{name}={REDACTED}").into(),
            _ => part.into(),
        })
        .collect();
    format!("{path}?{}", parts.join("&")).into()
}

/// A request target in any of its forms (RFC 9112 section 3.2) without user, password and secret parameters.
pub(super) fn target(target: &str) -> Cow<'_, str> {
    let target = query(target);
    if target.starts_with('/') {
        return target;
    }
    let start = target.find("://").map_or(0, |at| at + 3);
    let end = target[start..].find(['/', '?']).map_or(target.len(), |at| start + at);
    format!("{}{}{}", &target[..start], userinfo(&target[start..end]), &target[end..]).into()
}

/// An authority whose user and password are hidden.
pub(super) fn userinfo(authority: &str) -> Cow<'_, str> {
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("{REDACTED}:{REDACTED}@{host}").into(),
        Some((_, host)) => format!("{REDACTED}@{host}").into(),
        None => authority.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        for (target, expected) in [
            ("/a", "/a"),
            ("/a?b=c", "/a?b=c"),
            ("/a?sig=c&d=e", "/a?sig=REDACTED&d=e"),
            (
                "/a?x-amz-signature=1&X-Goog-Signature=2",
                "/a?x-amz-signature=REDACTED&X-Goog-Signature=REDACTED",
            ),
            ("/a?sig", "/a?sig"),
            ("/a?assign=1", "/a?assign=1"),
        ] {
            assert_eq!(query(target), expected);
        }
        for (target, expected) in [
            ("/a@b?sig=c", "/a@b?sig=REDACTED"),
            ("*", "*"),
            ("http://user:word@host/a@b?sig=c", "http://REDACTED:REDACTED@host/a@b?sig=REDACTED"),
            ("user:word@host:443", "REDACTED:REDACTED@host:443"),
            ("http://host?a=http://b@c", "http://host?a=http://b@c"),
        ] {
            assert_eq!(super::target(target), expected);
        }
        assert_eq!(userinfo("user:word@host:80"), "REDACTED:REDACTED@host:80");
        assert_eq!(userinfo("user@host"), "REDACTED@host");
        assert_eq!(userinfo("host"), "host");
    }
}
