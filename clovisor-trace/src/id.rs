//! Identifiers derived from a session, so that the same packets give the same ids wherever they are read.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::{
    session::Session,
    span::{SpanId, TraceId},
};

/// Key of the hash. Any value does: ids need to be spread well, not to be secret.
const KEY: (u64, u64) = (0x436c_6f76_6973_6f72, 0x7472_6163_6573_7631);

/// Trace id and span id of a session that no caller gave one to.
///
/// Hashed: addresses, ports, side, interface, the sequence number of the first byte and its time; two sessions
/// of one host differ in at least one of them.
pub(crate) fn derive(session: &Session, epoch_ns: u64) -> (TraceId, SpanId) {
    let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
    for end in [session.client, session.server] {
        match end.ip() {
            std::net::IpAddr::V4(ip) => hasher.write(&ip.to_ipv6_mapped().octets()),
            std::net::IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u16(end.port());
    }
    hasher.write_u32(session.interface);
    hasher.write_u8(session.side as u8);
    hasher.write_u32(session.first_seq);
    hasher.write_u64(session.start_ns.wrapping_add(epoch_ns));
    let trace = hasher.finish128();
    hasher.write_u8(1);
    let span = hasher.finish128().h1;
    // All zero is no id; 1 is as good as any other for the one session in 2^64 that meets it.
    let mut trace_id = [0; 16];
    trace_id[..8].copy_from_slice(&trace.h1.to_be_bytes());
    trace_id[8..].copy_from_slice(&trace.h2.max(1).to_be_bytes());
    (TraceId(trace_id), SpanId(span.max(1).to_be_bytes()))
}
