//! What people write into Redis, made into a [`Config`]. Pure: values in, a configuration and the entries that are
//! wrong out.
//!
//! | key | entries |
//! | --- | --- |
//! | `clovisor_labels` | `<namespace>[:<label key>:<label value>]` |
//! | `clovisor_egress_match`, `clovior_egress_match` | `<IP>:<port>[=<protocol>][:<pod name prefix>]`; IP `0` is any, IPv6 goes in brackets |
//! | `clovisor_jaeger_server` | an [`Address`]; the first that is valid, here and below, is taken |
//! | `clovisor_jaeger_collector` | an [`Address`], or `host[:port]` for Jaeger Thrift over HTTP, port 14268 if none |
//! | `clovisor_jaeger_agent` | an [`Address`], or `host[:port]` for Jaeger Thrift over UDP, port 6831 if none |
//!
//! It refuses to guess: an entry that is wrong is left out and reported, and the others stand. Invariant: labels that
//! are all wrong never widen what is monitored: the result is [`NO_POD`], not the default namespace. A key that is
//! missing or empty is the default.

mod syntax;

use std::collections::{BTreeMap, HashSet};

use clovisor_trace::EgressRule;

use super::{Config, EgressTarget, LabelRule};
use crate::{
    cli::parse as grammar,
    export::{Address, text},
};

/// Which pods to monitor.
pub const LABELS: &str = "clovisor_labels";
/// Which outbound targets to trace.
pub const EGRESS: &str = "clovisor_egress_match";
/// The same, as the original's code misspells it.
pub const EGRESS_MISSPELT: &str = "clovior_egress_match";
/// Where traces go; wins over the two below.
pub const SERVER: &str = "clovisor_jaeger_server";
/// Where traces go, by Thrift over HTTP; wins over the one below.
pub const COLLECTOR: &str = "clovisor_jaeger_collector";
/// Where traces go, by Thrift over UDP.
pub const AGENT: &str = "clovisor_jaeger_agent";
/// Every key that configures something.
pub const KEYS: [&str; 6] = [LABELS, EGRESS, EGRESS_MISSPELT, SERVER, COLLECTOR, AGENT];

/// Most entries that are taken of one key: far above what a person writes, and what the kernel's maps hold.
pub const MOST_ENTRIES: usize = 1024;
/// Longest entry: the longest namespace, label key and label value there can be, and some room.
const LONGEST_ENTRY: usize = 512;

/// The rule that no pod meets, for a pod always has a namespace: what `clovisor_labels` means if nothing in it is
/// valid.
pub const NO_POD: LabelRule = LabelRule { namespace: String::new(), label: None };

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// There is no such key.
    Missing,
    /// Its strings: one for a string, its members for a list or a set.
    Strings(Vec<String>),
    /// It is there and cannot be read as entries: what it is.
    Unusable(String),
}

/// An entry that is not in force, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryError {
    /// The key that it stands in.
    pub key: String,
    /// The entry, safe to show; empty where the whole value is meant.
    pub entry: String,
    /// What is wrong and what to write instead.
    pub expected: String,
}

/// Makes a configuration of the values of [`KEYS`]; a key that is not in `values` is missing.
#[must_use]
pub fn parse(values: &BTreeMap<String, Raw>) -> (Config, Vec<EntryError>) {
    let mut reader = Reader { values, errors: Vec::new() };
    let (mut labels, present) = reader.read(LABELS, syntax::label_rule);
    if present && labels.is_empty() {
        labels.push(NO_POD);
    }
    let (mut egress, _) = reader.read(EGRESS, egress_target);
    egress.extend(reader.read(EGRESS_MISSPELT, egress_target).0);
    let traces = [
        reader.address(SERVER, |entry| entry.parse().map_err(|error| format!("{error}"))),
        reader.address(COLLECTOR, |entry| of_jaeger(entry, "jaeger+http")),
        reader.address(AGENT, |entry| of_jaeger(entry, "jaeger+udp")),
    ];
    let config = Config {
        labels: unique(labels),
        egress: unique(egress),
        traces: traces.into_iter().flatten().next(),
    };
    (config, reader.errors)
}

struct Reader<'a> {
    values: &'a BTreeMap<String, Raw>,
    errors: Vec<EntryError>,
}

impl Reader<'_> {
    /// The valid entries of a key, and whether anything was written there at all.
    fn read<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> (Vec<T>, bool) {
        let strings = match self.values.get(key) {
            None | Some(Raw::Missing) => return (Vec::new(), false),
            Some(Raw::Strings(strings)) => strings,
            Some(Raw::Unusable(what)) => {
                let expected = format!(
                    "the key holds {what}; write a string (entries parted by comma or newline), a list or a set"
                );
                self.complain(key, "", expected);
                return (Vec::new(), true);
            }
        };
        let entries = strings.iter().flat_map(|string| string.split([',', '\n'])).map(str::trim);
        let entries = unique(entries.filter(|entry| !entry.is_empty()));
        if entries.len() > MOST_ENTRIES {
            let expected = format!("the key has more than {MOST_ENTRIES} entries; the others are left out");
            self.complain(key, "", expected);
        }
        let mut valid = Vec::new();
        for &entry in entries.iter().take(MOST_ENTRIES) {
            let parsed = if entry.len() > LONGEST_ENTRY {
                Err(format!("an entry has at most {LONGEST_ENTRY} bytes"))
            } else {
                parse(entry)
            };
            match parsed {
                Ok(one) => valid.push(one),
                Err(expected) => self.complain(key, entry, expected),
            }
        }
        (valid, !entries.is_empty())
    }

    /// The first valid address of a key.
    fn address(&mut self, key: &str, parse: impl Fn(&str) -> Result<Address, String>) -> Option<Address> {
        let mut addresses = self.read(key, parse).0.into_iter();
        let first = addresses.next();
        for other in addresses {
            self.complain(
                key,
                &other.to_string(),
                "traces go to one address, and an earlier entry is taken".to_owned(),
            );
        }
        first
    }

    fn complain(&mut self, key: &str, entry: &str, expected: String) {
        // What stands before an `@` may be a password.
        let entry = entry.rsplit_once('@').map_or(entry.to_owned(), |(_, rest)| format!("…@{rest}"));
        self.errors.push(EntryError { key: key.to_owned(), entry: text::shown(&entry, 120), expected });
    }
}

fn egress_target(entry: &str) -> Result<EgressTarget, String> {
    let form = "write <IP>:<port>[=<protocol>][:<pod name prefix>], with IP 0 for any and IPv6 in brackets";
    let wrong = |why: String| format!("{}; {form}", text::shown(&why, 200));
    let address_end = if entry.starts_with('[') { entry.find(']').map(|at| at + 1) } else { entry.find(':') };
    let (address, rest) = address_end.map_or((entry, ""), |at| entry.split_at(at));
    let Some(rest) = rest.strip_prefix(':') else {
        return Err(wrong("there is no port".to_owned()));
    };
    let (target, prefix) =
        rest.split_once(':').map_or((rest, None), |(target, prefix)| (target, Some(prefix)));
    if !target.bytes().next().is_some_and(|first| first.is_ascii_digit()) {
        return Err(wrong(format!("'{target}' is not a port, 1 to 65535")));
    }
    let EgressRule { address, port, protocol } =
        grammar::egress(&format!("{address}:{target}")).map_err(wrong)?;
    if let Some(prefix) = prefix {
        syntax::pod_prefix(prefix).map_err(wrong)?;
    }
    // An address of all zeros is no host's; the original's table, too, takes 0 for any.
    let address = address.map(|address| address.to_canonical()).filter(|address| !address.is_unspecified());
    Ok(EgressTarget { address, port, protocol, pod_prefix: prefix.map(str::to_owned) })
}

/// An address, where one without a scheme means `scheme`.
fn of_jaeger(entry: &str, scheme: &str) -> Result<Address, String> {
    let bare = !entry.contains("://") && !matches!(entry, "stdout" | "none");
    let parsed = if bare { format!("{scheme}://{entry}").parse() } else { entry.parse() };
    parsed.map_err(|error: crate::export::AddressError| error.to_string())
}

/// Without repetitions, in order of the first ones.
fn unique<T: Clone + Eq + std::hash::Hash>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    all.into_iter().filter(|one| seen.insert(one.clone())).collect()
}

#[cfg(test)]
mod tests;
