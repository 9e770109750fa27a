//! The answer to the user: hash `clovisor_status:<node>`, replaced as a whole, so that no field outlives its reason,
//! and gone a minute after the agent.

use std::{collections::BTreeMap, time::SystemTime};

use k8s_openapi::jiff::{Timestamp, Unit};
use redis::{RedisResult, aio::MultiplexedConnection};

use super::Loaded;

/// How long an answer stays without being refreshed.
const EXPIRE_SECONDS: u64 = 60;
/// Most wrong entries that are told of one key; the field says how many more there are.
const MOST_TOLD: usize = 20;

/// What the agent is doing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// Version of the configuration that is in force ([`Loaded::version`]).
    pub config_version: u64,
    /// When it came into force; None before the first.
    pub applied_at: Option<SystemTime>,
    /// Pods that are monitored.
    pub pods: u64,
    /// Interfaces with our programs on them.
    pub interfaces: u64,
    /// Where traces go, and how that goes.
    pub exporter: String,
    /// Spans that left, since the start.
    pub spans: u64,
    /// What was lost, since the start.
    pub drops: u64,
    /// Further fields: name and value. They never hide the ones above.
    pub more: Vec<(String, String)>,
}

/// The fields of the hash.
pub(super) fn fields(status: &Status, loaded: &Loaded) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = status.more.iter().cloned().collect();
    let mut set = |name: &str, value: String| fields.insert(name.to_owned(), value);
    set("version", env!("CARGO_PKG_VERSION").to_owned());
    set("config_version", status.config_version.to_string());
    set("applied_at", status.applied_at.map(rfc3339).unwrap_or_default());
    set("pods", status.pods.to_string());
    set("interfaces", status.interfaces.to_string());
    set("exporter", status.exporter.clone());
    set("spans", status.spans.to_string());
    set("drops", status.drops.to_string());
    let mut by_key: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for error in &loaded.errors {
        let line = if error.entry.is_empty() {
            error.expected.clone()
        } else {
            format!("'{}': {}", error.entry, error.expected)
        };
        by_key.entry(&error.key).or_default().push(line);
    }
    for (key, mut lines) in by_key {
        let untold = lines.len().saturating_sub(MOST_TOLD);
        if untold > 0 {
            lines.truncate(MOST_TOLD);
            lines.push(format!("and {untold} more"));
        }
        set(&format!("error:{key}"), lines.join("\n"));
    }
    fields
}

/// RFC 3339, UTC, whole milliseconds; empty for a time that no calendar has.
fn rfc3339(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).and_then(|time| time.round(Unit::Millisecond));
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Replaces the hash in one transaction.
pub(super) async fn write(
    connection: &mut MultiplexedConnection,
    key: &str,
    fields: &BTreeMap<String, String>,
) -> RedisResult<()> {
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("DEL").arg(key).ignore();
    let hset = pipe.cmd("HSET").arg(key);
    for (name, value) in fields {
        hset.arg(name).arg(value);
    }
    hset.ignore().cmd("EXPIRE").arg(key).arg(EXPIRE_SECONDS).ignore();
    pipe.exec_async(connection).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::parse::EntryError;

    #[test]
    fn errors_stand_by_their_keys_and_fields_of_others_hide_nothing() {
        let error = |key: &str, entry: &str| EntryError {
            key: key.to_owned(),
            entry: entry.to_owned(),
            expected: "expected".to_owned(),
        };
        let mut errors = vec![error("a", "x"), error("a", "y"), error("b", "")];
        errors.extend((0..25).map(|n| error("c", &n.to_string())));
        let status = Status {
            applied_at: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)),
            more: vec![("spans".to_owned(), "?".to_owned()), ("skipped".to_owned(), "web-0".to_owned())],
            ..Status::default()
        };
        let fields = fields(&status, &Loaded { errors, ..Loaded::default() });
        let field = |name: &str| fields.get(name).map(String::as_str);
        assert_eq!(field("error:a"), Some("'x': expected\n'y': expected"));
        assert_eq!(field("error:b"), Some("expected"));
        assert!(
            field("error:c").is_some_and(|text| text.ends_with("\nand 5 more") && text.lines().count() == 21)
        );
        assert_eq!((field("spans"), field("skipped")), (Some("0"), Some("web-0")));
        assert_eq!(field("applied_at"), Some("1970-01-01T00:00:01.5Z"));
    }
}
