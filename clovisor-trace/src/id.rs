//! Identifiers derived from a session, so that the same request gives the same ids wherever it is seen: at the client's
//! interface and at the server's, live or from a file. `docs/sequence-joined-traces.md` says why these and no others.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::{
    packet::Side,
    protocol::Detail,
    session::Session,
    span::{SpanId, TraceId},
};

/// Key of the hash. Any value does: ids need to be spread well, not to be secret.
const KEY: (u64, u64) = (0x436c_6f76_6973_6f72, 0x7472_6163_6573_7632);

/// The ids of one request, on both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    /// Of the trace, unless a caller gave it one.
    pub(crate) trace: TraceId,
    /// What has been hashed of it.
    hasher: SipHasher13,
}

impl Ids {
    /// Hashes what NAT and routers leave alone: where the request is in both streams, and what it says. No address, port or
    /// time is in it.
    pub(crate) fn of(session: &Session) -> Self {
        let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
        hasher.write_u32(session.first_seq);
        hasher.write_u32(session.opposite_seq);
        hasher.write(session.protocol.name().as_bytes());
        if let Detail::Http(exchange) = &session.detail
            && let Some(request) = &exchange.request
        {
            for part in [&*request.method, &request.target, request.host.as_deref().unwrap_or_default()] {
                hasher.write(part.as_bytes());
                // Parts must not run into each other.
                hasher.write_u8(0xff);
            }
            hasher.write_u8(request.minor_version.unwrap_or(u8::MAX));
        }
        let trace = hasher.finish128();
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&trace.h1.to_be_bytes());
        trace_id[8..].copy_from_slice(&trace.h2.max(1).to_be_bytes());
        Self { trace: TraceId(trace_id), hasher }
    }

    /// The id of the span of one side.
    pub(crate) fn span(&self, side: Side) -> SpanId {
        let mut hasher = self.hasher;
        hasher.write_u8(1 + side as u8);
        // All zero is no id; 1 is as good as any other for the one session in 2^64 that meets it.
        SpanId(hasher.finish128().h1.max(1).to_be_bytes())
    }
}
