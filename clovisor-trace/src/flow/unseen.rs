//! Interfaces that show only one direction of their connections, and the proof of it.
//!
//! Where a sender's acknowledgement moves on, a packet of the other side has reached it in between (RFC 9293
//! section 3.4). If the interface had shown none of that side's packets in the connection so far, that packet took
//! another way. A repeated SYN into nowhere proves nothing, nor does one side that talks alone.
//!
//! It is reckoned by connection and not by interface, for some take the whole way even where most do not: on Cilium
//! the node's own (kubelet's probes) pass the host's end of a veth both ways, those of other pods only one.
//!
//! One proof is not enough: when a capture begins, packets are under way that nobody saw. Such connections show their
//! other side soon, and their proofs are then taken back.

use std::collections::BTreeMap;

use crate::packet::Heading;

/// So many proofs are believed: two or three short connections, or as many requests of a long one.
const ENOUGH: u32 = 8;
/// They must be this far apart, or they may all be of the moment in which the capture begins.
const AT_LEAST_NS: u64 = 1_000_000_000;
/// Older ones count no longer, so that losses of the capture do not add up over weeks.
const AT_MOST_NS: u64 = 600_000_000_000;
/// Interfaces that are watched: many times what a node has. Further ones are not judged.
const MOST: usize = 8_192;

/// The proofs, by interface and by where the unseen packets go.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    proofs: BTreeMap<(u32, Heading), Proofs>,
}

#[derive(Clone, Copy, Debug)]
struct Proofs {
    count: u32,
    first_ns: u64,
    last_ns: u64,
}

impl Unseen {
    /// A packet with this heading has passed the interface by.
    pub(crate) fn prove(&mut self, interface: u32, heading: Heading, now_ns: u64) {
        let key = (interface, heading);
        if self.proofs.len() >= MOST && !self.proofs.contains_key(&key) {
            return;
        }
        let fresh = Proofs { count: 0, first_ns: now_ns, last_ns: now_ns };
        let proofs = self.proofs.entry(key).or_insert(fresh);
        if now_ns.saturating_sub(proofs.first_ns) > AT_MOST_NS {
            *proofs = fresh;
        }
        proofs.count = proofs.count.saturating_add(1);
        proofs.last_ns = proofs.last_ns.max(now_ns);
    }

    /// So many proofs were none: the connection has shown packets with this heading after all.
    pub(crate) fn withdraw(&mut self, interface: u32, heading: Heading, count: u32) {
        let key = (interface, heading);
        let Some(proofs) = self.proofs.get_mut(&key) else { return };
        proofs.count = proofs.count.saturating_sub(count);
        if proofs.count == 0 {
            self.proofs.remove(&key);
        }
    }

    /// The interface is traced no longer.
    pub(crate) fn forget(&mut self, interface: u32) {
        self.proofs.retain(|(of, _), _| *of != interface);
    }

    /// What is proven.
    pub(crate) fn proven(&self) -> impl Iterator<Item = (u32, Heading)> + '_ {
        let is_enough = |proofs: &Proofs| {
            proofs.count >= ENOUGH && proofs.last_ns.saturating_sub(proofs.first_ns) >= AT_LEAST_NS
        };
        self.proofs.iter().filter(move |(_, proofs)| is_enough(proofs)).map(|(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn enough_proofs_within_the_time_are_believed() {
        let cases: [(&str, Vec<u64>, bool); 5] = [
            ("none", vec![], false),
            ("too few", (0..7).map(|n| n * SECOND).collect(), false),
            ("enough", (0..8).map(|n| n * SECOND / 7).collect(), true),
            ("all of one moment", (0..1_000).collect(), false),
            ("too slow: the old ones are over", (0..14).map(|n| n * 100 * SECOND).collect(), false),
        ];
        for (name, times, expected) in cases {
            let mut unseen = Unseen::default();
            for time in times {
                unseen.prove(7, Heading::ToPod, time);
            }
            let proven: Vec<_> = unseen.proven().collect();
            assert_eq!(proven, if expected { vec![(7, Heading::ToPod)] } else { vec![] }, "{name}");
        }
    }

    #[test]
    fn what_was_none_is_taken_back() {
        let mut unseen = Unseen::default();
        for time in 0..10 {
            unseen.prove(7, Heading::ToPod, time * SECOND);
            unseen.prove(7, Heading::FromPod, time * SECOND);
            unseen.prove(8, Heading::ToPod, time * SECOND);
        }
        unseen.withdraw(7, Heading::ToPod, 2);
        assert_eq!(unseen.proven().count(), 3);
        unseen.withdraw(7, Heading::ToPod, 1);
        assert_eq!(unseen.proven().collect::<Vec<_>>(), [(7, Heading::FromPod), (8, Heading::ToPod)]);
        unseen.withdraw(7, Heading::ToPod, 100);
        unseen.withdraw(9, Heading::ToPod, 1);
        unseen.forget(8);
        assert_eq!(unseen.proofs.keys().collect::<Vec<_>>(), [&(7, Heading::FromPod)]);
    }

    #[test]
    fn hostile_numbers_of_interfaces_are_bounded() {
        let mut unseen = Unseen::default();
        for interface in 0..20_000 {
            unseen.prove(interface, Heading::ToPod, 0);
        }
        assert_eq!(unseen.proofs.len(), MOST);
    }
}
