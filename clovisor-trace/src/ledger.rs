//! What came in and what became of it: counts that must balance.

use std::fmt;

use crate::{outcome::Outcome, protocol::Protocol};

/// Counts of one tracer. Every packet that came in is in exactly one of the packet counts, every session that
/// began is open or has an outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Packets that came in.
    pub packets: u64,
    /// Bytes that they, and those that were only counted, had on the wire, from their IP headers on.
    pub bytes: u64,
    /// Bytes of these that came with them.
    pub bytes_copied: u64,
    /// Packets whose segment went to its flow.
    pub segments: u64,
    /// Packets that were fragments: of a datagram made whole, or still waiting.
    pub fragments: u64,
    /// Fragments that led to nothing; part of `fragments`.
    pub fragments_dropped: u64,
    /// Packets that are not TCP.
    pub not_tcp: u64,
    /// Packets whose headers make no sense.
    pub malformed: u64,
    /// Packets without payload of connections that nobody follows.
    pub stray: u64,
    /// Packets of connections that had ended.
    pub after_end: u64,
    /// Packets of connections that are left out.
    pub shed: u64,
    /// Packets of these in which a client sent something; part of `shed`.
    pub shed_requests: u64,
    /// Packets that did not come, but were counted for their flow ([`Counted`](crate::Counted)); not part of `packets`.
    pub counted: u64,
    /// Packets that were counted, of connections that nobody follows any more.
    pub counted_late: u64,
    /// Segments that repeated bytes already delivered; part of `segments`.
    pub segments_repeated: u64,
    /// Segments too far off to be of their connection; part of `segments`.
    pub segments_out_of_window: u64,
    /// Connections that were begun to be followed.
    pub flows_begun: u64,
    /// Connections that are no longer followed.
    pub flows_ended: u64,
    /// Connections given up because a limit was reached; part of `flows_ended`.
    pub flows_evicted: u64,
    /// Connections given up because they were silent; part of `flows_ended`.
    pub flows_idle: u64,
    /// Connections left out because their interface is over its share; part of `flows_ended`.
    pub flows_shed: u64,
    /// Connections that are followed now.
    pub flows_open: u64,
    /// Sessions that began.
    pub sessions_begun: u64,
    /// Sessions that have begun and not ended, and those that have ended and were not fetched.
    pub sessions_open: u64,
    /// Sessions that ended and were fetched, by protocol and outcome.
    pub sessions: Ended,
    /// Sessions during which packets of their interface were lost; part of `sessions`.
    pub sessions_overlapping_loss: u64,
}

/// Sessions that ended: by protocol in the order of [`Protocol::ALL`], each by outcome in the order of [`Outcome::ALL`].
pub type Ended = [[u64; Outcome::ALL.len()]; Protocol::ALL.len()];

/// A count that does not add up: a fault in Clovisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imbalance {
    /// What was counted.
    pub of: &'static str,
    /// How many came in.
    pub came: u64,
    /// How many are accounted for.
    pub accounted: u64,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} came in, {} are accounted for", self.of, self.came, self.accounted)
    }
}

impl std::error::Error for Imbalance {}

impl Ledger {
    /// Sessions that ended with an outcome.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.sessions.iter().map(|outcomes| outcomes[outcome as usize]).sum()
    }

    /// Sessions that ended.
    #[must_use]
    pub fn sessions_ended(&self) -> u64 {
        self.sessions.iter().flatten().sum()
    }

    /// Whether everything that came in is accounted for.
    ///
    /// # Errors
    /// The first count that does not add up.
    pub fn balance(&self) -> Result<(), Imbalance> {
        let known = self.segments
            + self.fragments
            + self.not_tcp
            + self.malformed
            + self.stray
            + self.after_end
            + self.shed;
        let ended = self.sessions_ended() + self.sessions_open;
        for (of, came, accounted) in [
            ("packets", self.packets, known),
            ("flows", self.flows_begun, self.flows_ended + self.flows_open),
            ("sessions", self.sessions_begun, ended),
        ] {
            if came != accounted {
                return Err(Imbalance { of, came, accounted });
            }
        }
        Ok(())
    }
}
