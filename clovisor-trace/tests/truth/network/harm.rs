//! What the network does to packets, and what ends send without need.

use std::ops::Range;

use super::{End, Flags, Network};

impl Network<'_> {
    /// The network does harm, or an end repeats itself for no reason.
    pub(super) fn harm(&mut self, choice: u16) -> bool {
        if !self.trouble.rough || choice % 16 >= 7 {
            return false;
        }
        let pick = usize::from(choice / 16);
        match choice % 16 {
            // Lost; what is near the tap was seen, what is far was not.
            0 | 1 if !self.flying.is_empty() => {
                self.run.did.insert("loss");
                let at = pick % self.flying.len();
                self.flying.remove(at);
            }
            2 if !self.flying.is_empty() && self.flying.len() < 50 => {
                self.run.did.insert("copy");
                let packet = self.flying[pick % self.flying.len()].clone();
                self.flying.push(packet);
            }
            3 if !self.flying.is_empty() => {
                let at = pick % self.flying.len();
                if at > 0 {
                    self.run.did.insert("overtaken");
                }
                let packet = self.flying.remove(at);
                self.arrive(&packet);
            }
            // Any part of what was sent, cut anew; with other bytes only where both the other end and the tap
            // have the true ones.
            4 | 5 => {
                let from = pick % 2;
                let sent = self.ends[from].sent;
                if sent == 0 {
                    return false;
                }
                let start = pick.wrapping_mul(7_919) % sent;
                let range = start..(start + 1 + pick % 900).min(sent);
                let (known, waits) = self.is_known(from, &range);
                let altered = choice % 16 == 5 && known;
                self.run.did.insert(match (altered, waits) {
                    (false, _) => "cut anew",
                    (true, false) => "other bytes",
                    (true, true) => "other bytes before delivery",
                });
                self.send(from, range, Flags::Data, altered);
            }
            // A probe whether the other end is alive (RFC 9293 section 3.8.4) or its window open: with the last byte, or with
            // any other one in its place.
            6 => {
                let from = pick % 2;
                let End { sent, acked, fin_sent, .. } = self.ends[from];
                if sent == 0 || acked < sent || fin_sent {
                    return false;
                }
                let range = sent - 1..sent - pick / 2 % 2;
                let altered = pick / 4 % 2 == 1 && self.is_known(from, &range).0;
                self.run.did.insert(if range.is_empty() { "empty probe" } else { "probe with a byte" });
                self.send(from, range, Flags::Data, altered);
            }
            _ => return false,
        }
        true
    }

    /// Whether the other end and the tap have bytes, and whether some of them wait there for others before them.
    fn is_known(&self, from: usize, range: &Range<usize>) -> (bool, bool) {
        let other = &self.ends[1 - from];
        let waits = |at: usize| other.queue.range(..=at).any(|(_, end)| at < *end);
        let seen = |at: usize| self.run.seen[from].get(at) == Some(&true);
        let known = range.clone().all(|at| (at < other.received || waits(at)) && seen(at));
        (known, range.clone().any(|at| at >= other.received))
    }
}
