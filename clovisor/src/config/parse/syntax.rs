//! Names as Kubernetes allows them ("Object Names and IDs", "Labels and Selectors"), and the label entry made of
//! them. Each error says what was expected.

use super::LabelRule;
use crate::export::text;

/// RFC 1123 label.
const LABEL: usize = 63;
/// RFC 1123 subdomain.
const SUBDOMAIN: usize = 253;

/// `<namespace>[:<label key>:<label value>]`; a label's value may be empty.
pub(super) fn label_rule(entry: &str) -> Result<LabelRule, String> {
    let form = "write <namespace> or <namespace>:<label key>:<label value>";
    let wrong = |why: String| format!("{}; {form}", text::shown(&why, 200));
    let mut parts = entry.split(':').map(str::trim);
    let namespace = parts.next().unwrap_or_default();
    if !is_dns_label(namespace) {
        return Err(wrong(format!(
            "'{namespace}' is not a namespace (at most {LABEL} of a-z, 0-9 and '-', starting and ending with one of \
             the first two)"
        )));
    }
    let label = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => None,
        (Some(key), Some(value), None) => {
            label(key, value).map_err(wrong)?;
            Some((key.to_owned(), value.to_owned()))
        }
        (Some(_), None, _) => return Err(wrong("the label has no value".to_owned())),
        (_, _, Some(_)) => return Err(wrong("there are more than two colons".to_owned())),
    };
    Ok(LabelRule { namespace: namespace.to_owned(), label })
}

fn label(key: &str, value: &str) -> Result<(), String> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !is_name(name) || prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Err(format!(
            "'{key}' is not the key of a label (at most {LABEL} letters, digits, '-', '_' and '.', starting and \
             ending with a letter or digit, after an optional DNS name and '/')"
        ));
    }
    if !value.is_empty() && !is_name(value) {
        return Err(format!(
            "'{value}' is not the value of a label (at most {LABEL} letters, digits, '-', '_' and '.', starting and \
             ending with a letter or digit)"
        ));
    }
    Ok(())
}

/// What a pod's name can begin with.
pub(super) fn pod_prefix(prefix: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let starts = prefix.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if starts && prefix.len() <= SUBDOMAIN && prefix.bytes().all(inner) {
        return Ok(());
    }
    Err(format!(
        "'{prefix}' cannot begin the name of a pod (at most {SUBDOMAIN} of a-z, 0-9, '-' and '.', starting with one of \
         the first two)"
    ))
}

fn is_dns_label(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= LABEL
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| edge(Some(b)) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN && text.split('.').all(is_dns_label)
}

/// The name part of a qualified name, and a label's value.
fn is_name(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= LABEL
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}
