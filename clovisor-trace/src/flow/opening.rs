//! The three segments that open a connection, and how long they took.

use crate::{
    anatomy::Handshake,
    packet::{Segment, Toward},
};

/// What was seen of the opening so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Opening {
    /// Nothing yet.
    #[default]
    Unseen,
    /// The client's SYN, at this time, repeated so often.
    Syn { at_ns: u64, repeated: u32 },
    /// The server's SYN-ACK too.
    SynAck { at_ns: u64, server_ns: u64, repeated: u32 },
    /// All of it.
    Seen { server_ns: u64, client_ns: u64, repeated: u32 },
    /// The connection was met later, or did not open.
    Missed,
}

impl Opening {
    /// Takes note of a segment.
    pub(super) fn note(&mut self, toward: Toward, segment: &Segment<'_>, now_ns: u64) {
        *self = match (*self, toward, segment.syn) {
            (Self::Seen { .. } | Self::Missed, ..) => return,
            (Self::Unseen, Toward::Server, true) => Self::Syn { at_ns: now_ns, repeated: 0 },
            (Self::Syn { at_ns, repeated }, Toward::Server, true) => {
                Self::Syn { at_ns, repeated: repeated.saturating_add(1) }
            }
            (Self::Syn { at_ns, repeated }, Toward::Client, true) => {
                Self::SynAck { at_ns: now_ns, server_ns: now_ns.saturating_sub(at_ns), repeated }
            }
            (Self::SynAck { at_ns, server_ns, repeated }, _, true) => {
                Self::SynAck { at_ns, server_ns, repeated: repeated.saturating_add(1) }
            }
            (Self::SynAck { at_ns, server_ns, repeated }, Toward::Server, false)
                if segment.ack.is_some() && !segment.rst =>
            {
                Self::Seen { server_ns, client_ns: now_ns.saturating_sub(at_ns), repeated }
            }
            _ => Self::Missed,
        };
    }

    /// Whether nothing more will come of it.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Seen { .. } | Self::Missed)
    }

    /// The whole of it, if it was seen.
    pub(super) fn handshake(&self) -> Option<Handshake> {
        match self {
            Self::Seen { server_ns, client_ns, repeated } => {
                Some(Handshake { server_ns: *server_ns, client_ns: *client_ns, repeated: *repeated })
            }
            _ => None,
        }
    }
}
