//! Packets that were wanted and did not reach the tracer, by interface and time, and which sessions they may have
//! belonged to.
//!
//! It refuses to forget: a session may last longer than any time that could be set for that. Where there are too many
//! stretches to keep, the two oldest become one that also has the time between them, so that a session is rather
//! marked than not.
//!
//! Invariants: the stretches of an interface are in order and do not touch; there are at most [`MOST_STRETCHES`] of each,
//! and at most [`MOST_INTERFACES`].

use std::collections::{BTreeMap, VecDeque};

use crate::{outcome::Outcome, session::Session};

/// Stretches that are told apart at one interface. Those that follow one another are one, so these are so many bursts.
const MOST_STRETCHES: usize = 64;
/// Interfaces that are told apart, as many as the kernel side does; losses at others count as those of any interface.
const MOST_INTERFACES: usize = 1_024;

/// Packets that were wanted and lost on their way to the tracer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where they were lost; `None` if that is not known, so that it may be any interface.
    pub interface: Option<u32>,
    /// None of them is older, nanoseconds in the clock of the packets.
    pub from_ns: u64,
    /// None of them is younger; the time of the last of them.
    pub until_ns: u64,
    /// How many.
    pub packets: u64,
}

/// From and until, both included.
type Stretch = (u64, u64);

/// All losses so far.
#[derive(Default)]
pub(crate) struct Losses {
    /// By interface; those that may be of any under `None`.
    stretches: BTreeMap<Option<u32>, VecDeque<Stretch>>,
}

impl Losses {
    pub(crate) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Takes note of a loss.
    pub(crate) fn note(&mut self, loss: &Loss) {
        if loss.packets == 0 {
            return;
        }
        let is_new = !self.stretches.contains_key(&loss.interface);
        let interface = loss.interface.filter(|_| !is_new || self.stretches.len() < MOST_INTERFACES);
        let (mut from, mut until) = (loss.from_ns.min(loss.until_ns), loss.until_ns);
        let stretches = self.stretches.entry(interface).or_default();
        // Losses come nearly in order, so this looks at the last one or two.
        let mut at = stretches.len();
        while let Some(before) = at.checked_sub(1).and_then(|before| stretches.get(before)) {
            if before.1 >= from && before.0 <= until {
                (from, until) = (from.min(before.0), until.max(before.1));
                stretches.remove(at - 1);
            } else if before.1 < from {
                break;
            }
            at -= 1;
        }
        stretches.insert(at, (from, until));
        if stretches.len() > MOST_STRETCHES
            && let Some(oldest) = stretches.pop_front()
            && let Some(next) = stretches.front_mut()
        {
            next.0 = oldest.0;
        }
    }

    /// Whether a session that ends now, at `now_ns` in the clock of the packets, may have lost packets to these.
    ///
    /// One that was seen whole lasted from its first byte to its last. Of any other the rest may be what was lost, so it
    /// counts up to now; and where its request was not seen, that may have come as long before its response as a
    /// connection is waited for.
    pub(crate) fn overlap(&self, session: &Session, now_ns: u64, idle_ns: u64) -> bool {
        let until = match session.outcome {
            Outcome::Complete | Outcome::Upgraded => session.end_ns,
            _ => session.end_ns.max(now_ns),
        };
        let from = match session.outcome {
            Outcome::RequestUnobserved => session.start_ns.saturating_sub(idle_ns),
            _ => session.start_ns,
        };
        [Some(session.interface), None].iter().filter_map(|interface| self.stretches.get(interface)).any(
            |stretches| {
                let behind = stretches.partition_point(|stretch| stretch.1 < from);
                stretches.get(behind).is_some_and(|stretch| stretch.0 <= until)
            },
        )
    }

    /// An interface is no longer traced: its number may be given to another one.
    pub(crate) fn forget(&mut self, interface: u32) {
        self.stretches.remove(&Some(interface));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(interface: Option<u32>, from_ns: u64, until_ns: u64) -> Loss {
        Loss { interface, from_ns, until_ns, packets: 1 }
    }

    #[test]
    fn stretches_that_touch_are_one_in_whatever_order_they_come() {
        let cases: [(&[Stretch], &[Stretch]); 6] = [
            (&[(10, 20), (15, 30), (31, 40)], &[(10, 30), (31, 40)]),
            (&[(10, 20), (30, 40), (12, 35)], &[(10, 40)]),
            (&[(30, 40), (10, 20)], &[(10, 20), (30, 40)]),
            (&[(10, 20), (30, 40), (50, 60), (22, 24)], &[(10, 20), (22, 24), (30, 40), (50, 60)]),
            (&[(10, 20), (50, 60), (15, 25)], &[(10, 25), (50, 60)]),
            // From behind until: the last of them is what is known for sure.
            (&[(9, 5)], &[(5, 5)]),
        ];
        for (noted, expected) in cases {
            let mut losses = Losses::default();
            for (from, until) in noted {
                losses.note(&loss(Some(1), *from, *until));
            }
            assert_eq!(losses.stretches[&Some(1)], expected, "{noted:?}");
        }
    }

    #[test]
    fn nothing_lost_is_no_loss() {
        let mut losses = Losses::default();
        losses.note(&Loss { packets: 0, ..loss(Some(1), 10, 20) });
        assert!(losses.is_empty());
    }

    #[test]
    fn too_many_stretches_are_merged_and_never_dropped() {
        let mut losses = Losses::default();
        for at in 0..1_000 {
            losses.note(&loss(Some(1), 10 * at, 10 * at + 1));
        }
        let kept = &losses.stretches[&Some(1)];
        assert_eq!(kept.len(), MOST_STRETCHES);
        assert_eq!(kept.front(), Some(&(0, 10 * (1_000 - MOST_STRETCHES as u64) + 1)));
        assert_eq!(kept.back(), Some(&(9_990, 9_991)));
    }

    #[test]
    fn too_many_interfaces_count_as_any() {
        let mut losses = Losses::default();
        for interface in 0..5_000 {
            losses.note(&loss(Some(interface), u64::from(interface), u64::from(interface)));
        }
        assert_eq!(losses.stretches.len(), MOST_INTERFACES + 1);
        assert_eq!(losses.stretches[&None].len(), MOST_STRETCHES);
        losses.forget(0);
        assert!(!losses.stretches.contains_key(&Some(0)));
    }
}
