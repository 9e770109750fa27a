//! Losses in the log: which interface, how many packets, when. One line a second at most, whatever happens.

use std::{cmp::Reverse, collections::BTreeMap};

use clovisor_trace::Loss;
use k8s_openapi::jiff::{Timestamp, Unit};

/// Least time between two lines, nanoseconds.
const SAY_EVERY_NS: u64 = 1_000_000_000;
/// Interfaces named on one line.
const MOST_NAMED: usize = 8;

/// Losses that were not said yet.
#[derive(Default)]
pub(super) struct Said {
    /// By what people call the interface: it may be gone when this is said.
    unsaid: BTreeMap<String, Loss>,
    last_ns: Option<u64>,
}

impl Said {
    pub(super) fn note(&mut self, interface: String, loss: &Loss) {
        let sum = self.unsaid.entry(interface).or_insert(Loss { packets: 0, ..*loss });
        sum.packets += loss.packets;
        sum.from_ns = sum.from_ns.min(loss.from_ns);
        sum.until_ns = sum.until_ns.max(loss.until_ns);
    }

    /// The line that is due, if one is: when it is the first for a second, or the `last`.
    pub(super) fn line(&mut self, now_ns: u64, last: bool, epoch_ns: u64) -> Option<String> {
        let early = self.last_ns.is_some_and(|said| now_ns.saturating_sub(said) < SAY_EVERY_NS);
        if self.unsaid.is_empty() || (early && !last) {
            return None;
        }
        self.last_ns = Some(now_ns);
        let unsaid = std::mem::take(&mut self.unsaid);
        let packets: u64 = unsaid.values().map(|loss| loss.packets).sum();
        let from_ns = unsaid.values().map(|loss| loss.from_ns).min().unwrap_or(now_ns);
        let until_ns = unsaid.values().map(|loss| loss.until_ns).max().unwrap_or(now_ns);
        let mut most: Vec<_> = unsaid.iter().collect();
        most.sort_by_key(|(_, loss)| Reverse(loss.packets));
        let named: Vec<_> = most
            .iter()
            .take(MOST_NAMED)
            .map(|(interface, loss)| format!("{} of {interface}", loss.packets))
            .collect();
        let more = match most.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and those of {more} more interfaces"),
        };
        let (from, until) = (time(from_ns.wrapping_add(epoch_ns)), time(until_ns.wrapping_add(epoch_ns)));
        Some(format!(
            "{packets} packets were lost between {from} and {until}: {}{more}; sessions under way there say \
             clovisor.overlaps_loss. A larger buffer or more processor time helps",
            named.join(", ")
        ))
    }
}

/// RFC 3339, UTC, milliseconds; empty for a time that no calendar has.
fn time(unix_ns: u64) -> String {
    let time = Timestamp::from_nanosecond(unix_ns.into()).and_then(|time| time.round(Unit::Millisecond));
    time.map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_with_all_since_the_last() {
        let mut said = Said::default();
        let mut look = |now_ms: u64, lost: &[(&str, u64)], last| {
            let now_ns = now_ms * 1_000_000;
            for (interface, packets) in lost {
                let loss = Loss {
                    interface: None,
                    from_ns: now_ns - 5_000_000,
                    until_ns: now_ns,
                    packets: *packets,
                };
                said.note((*interface).to_owned(), &loss);
            }
            said.line(now_ns, last, 0)
        };
        assert_eq!(look(1_000, &[], false), None);
        let line = look(1_000, &[("veth1", 2), ("veth0", 3)], false).unwrap();
        let told = "5 packets were lost between 1970-01-01T00:00:00.995Z and 1970-01-01T00:00:01Z: 3 of veth0, 2 of veth1;";
        assert!(line.starts_with(told), "{line}");
        assert_eq!(look(1_500, &[("veth1", 1)], false), None);
        assert_eq!(look(1_900, &[("veth1", 1)], false), None);
        let line = look(2_000, &[], false).unwrap();
        assert!(line.starts_with("2 packets were lost between 1970-01-01T00:00:01.495Z and "), "{line}");
        assert_eq!(look(2_100, &[("veth1", 1)], false), None);
        assert!(look(2_100, &[], true).is_some(), "the end tells the rest");
        assert_eq!(look(9_000, &[], true), None);
        let many: Vec<_> = (0..20).map(|number| format!("veth{number:02}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        assert!(look(9_000, &many, false).unwrap().contains("veth07 and those of 12 more interfaces;"));
    }
}
