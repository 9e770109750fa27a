//! Where a session's time went, and what went wrong on the way: from packets alone, as they passed the interface.
//!
//! It refuses to guess: a moment that was not seen is `None`, and so is each time that would need it. `docs/anatomy.md`
//! says of each how it is computed and what it means at the client's interface and at the server's.

use crate::{packet::Toward, session::Session};

/// Incidents whose moment is kept of one session; beyond it they are only counted. A transfer with more has long shown
/// what is wrong with it, and 16 keep its span under a kilobyte.
const MOST_INCIDENTS: usize = 16;

/// Moments of a session beside those in [`Session`], in the clock of the packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// How its connection was opened, if that was seen.
    pub handshake: Option<Handshake>,
    /// When the server first acknowledged the whole request, if the request had been seen to its end by then.
    pub request_acked_ns: Option<u64>,
    /// When the first byte of the final response was seen; interim ones (RFC 9110 section 15.2) come before it.
    pub answer_start_ns: Option<u64>,
    /// When the last byte of the response was seen.
    pub answer_end_ns: Option<u64>,
    /// What went wrong, in the order in which it was seen: the first ones.
    pub incidents: Vec<Incident>,
    /// Incidents of which only the count is kept.
    pub more_incidents: u32,
}

/// The opening of a TCP connection (RFC 9293 section 3.5), as seen at one interface. Repetitions are part of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// From the client's SYN to the server's SYN-ACK, in nanoseconds: the way from here to the server and back.
    pub server_ns: u64,
    /// From the SYN-ACK to the client's acknowledgement, in nanoseconds: the way from here to the client and back.
    pub client_ns: u64,
    /// SYNs and SYN-ACKs that were repetitions.
    pub repeated: u32,
}

impl Handshake {
    /// The whole round trip between client and server, in nanoseconds, wherever on the way it was seen.
    #[must_use]
    pub const fn round_trip_ns(&self) -> u64 {
        self.server_ns.saturating_add(self.client_ns)
    }
}

/// What can go wrong with a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Bytes came again that had not been acknowledged, or came a round trip late: they had been lost on the way.
    Retransmission,
    /// Bytes came behind later ones, sooner than a repetition could have.
    OutOfOrder,
    /// Bytes came again that the receiver had acknowledged.
    Duplicate,
    /// The receiver said that it has no room (a window of zero).
    ZeroWindow,
}

impl Trouble {
    /// All, in the order in which spans show them.
    pub const ALL: [Self; 4] = [Self::Retransmission, Self::OutOfOrder, Self::Duplicate, Self::ZeroWindow];
}

/// Something that went wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// When it was seen.
    pub time_ns: u64,
    /// Which way the bytes travel that it hit: toward the server it is the request's transfer, else the response's.
    pub toward: Toward,
    /// What it was.
    pub trouble: Trouble,
}

/// How often each [`Trouble`] was seen in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles([u32; Trouble::ALL.len()]);

impl Troubles {
    /// How often.
    #[must_use]
    pub const fn of(&self, trouble: Trouble) -> u32 {
        self.0[trouble as usize]
    }

    /// Counts one.
    pub(crate) fn add(&mut self, trouble: Trouble) {
        let count = &mut self.0[trouble as usize];
        *count = count.saturating_add(1);
    }
}

impl Anatomy {
    /// Keeps the moment of an incident, as long as there are few.
    pub(crate) fn keep(&mut self, incident: Incident) {
        if self.incidents.len() < MOST_INCIDENTS {
            self.incidents.push(incident);
        } else {
            self.more_incidents = self.more_incidents.saturating_add(1);
        }
    }

    /// Bytes of memory held beside its own.
    pub(crate) fn memory(&self) -> usize {
        self.incidents.capacity() * size_of::<Incident>()
    }
}

impl Session {
    /// From the first byte of the request to its last, in nanoseconds.
    #[must_use]
    pub fn request_transfer_ns(&self) -> Option<u64> {
        self.request_end_ns?.checked_sub(self.start_ns)
    }

    /// From the last byte of the request to the server's acknowledgement of it, in nanoseconds.
    #[must_use]
    pub fn server_ack_ns(&self) -> Option<u64> {
        self.anatomy.request_acked_ns?.checked_sub(self.request_end_ns?)
    }

    /// From the last byte of the request to the first of the final response, in nanoseconds; `None` also where the server
    /// began to answer first.
    #[must_use]
    pub fn think_ns(&self) -> Option<u64> {
        self.anatomy.answer_start_ns?.checked_sub(self.request_end_ns?)
    }

    /// From the first byte of the final response to its last, in nanoseconds.
    #[must_use]
    pub fn response_transfer_ns(&self) -> Option<u64> {
        self.anatomy.answer_end_ns?.checked_sub(self.anatomy.answer_start_ns?)
    }
}
