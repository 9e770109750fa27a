//! One record of a buffer: [`EventHeader`], captured packet or [`Tale`], padding.
//!
//! It refuses a record whose lengths contradict each other; the caller counts it. Records come from our own
//! program, so a refusal means that the kernel side and the user side were built apart.

use clovisor_common::{Counted, EventHeader, MAX_CAPTURE, SessionKey, Tale, counting::Way, direction, side};

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than its header.
    #[error("a record of {0} bytes is shorter than its header")]
    NoHeader(usize),
    /// Shorter than the captured length that it names, or that length is beyond the limit or the wire length.
    #[error("a record of {len} bytes says that it holds {captured_len} of {wire_len}")]
    Length {
        /// Length of the record.
        len: usize,
        /// Captured length in its header.
        captured_len: u32,
        /// Wire length in its header.
        wire_len: u32,
    },
    /// Its link header is longer than the packet, or a field has a number without meaning.
    #[error("a record with a field out of its range")]
    Field,
}

/// Decodes a record.
///
/// # Errors
/// See [`RecordError`].
pub fn decode(record: &[u8]) -> Result<(EventHeader, &[u8]), RecordError> {
    let Some((header, rest)) = record.split_first_chunk::<{ size_of::<EventHeader>() }>() else {
        return Err(RecordError::NoHeader(record.len()));
    };
    let header = header_of(header);
    let captured = rest.get(..header.captured_len as usize);
    let (Some(frame), true) =
        (captured, header.captured_len <= MAX_CAPTURE && header.captured_len <= header.wire_len)
    else {
        let EventHeader { captured_len, wire_len, .. } = header;
        return Err(RecordError::Length { len: record.len(), captured_len, wire_len });
    };
    let in_range =
        header.direction <= direction::COUNTED && header.side <= side::CLIENT && header.protocol != 0;
    match frame.get(usize::from(header.link_len)..) {
        Some(packet) if in_range => Ok((header, packet)),
        _ => Err(RecordError::Field),
    }
}

/// What was counted of a connection, where a record says that; `None` if it is too short.
#[must_use]
pub fn tale(mut bytes: &[u8]) -> Option<Tale> {
    let bytes = &mut bytes;
    let connection = SessionKey {
        client: take(bytes)?,
        server: take(bytes)?,
        client_port: u16::from_ne_bytes(take(bytes)?),
        server_port: u16::from_ne_bytes(take(bytes)?),
        interface: u32::from_ne_bytes(take(bytes)?),
    };
    let owner = u32::from_ne_bytes(take(bytes)?);
    let told = u32::from_ne_bytes(take(bytes)?);
    let told_ns = u64::from_ne_bytes(take(bytes)?);
    let ways = [way(bytes)?, way(bytes)?];
    Some(Tale { connection, counted: Counted { owner, told, told_ns, ways } })
}

fn way(bytes: &mut &[u8]) -> Option<Way> {
    Some(Way {
        bytes: u64::from_ne_bytes(take(bytes)?),
        wire: u64::from_ne_bytes(take(bytes)?),
        acked: u32::from_ne_bytes(take(bytes)?),
        full: u32::from_ne_bytes(take(bytes)?),
        empty: u32::from_ne_bytes(take(bytes)?),
        state: u32::from_ne_bytes(take(bytes)?),
        full_ns: u64::from_ne_bytes(take(bytes)?),
        last_ns: u64::from_ne_bytes(take(bytes)?),
    })
}

/// The next bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Both sides run on one machine: native byte order.
fn header_of(bytes: &[u8; size_of::<EventHeader>()]) -> EventHeader {
    let [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i0,
        i1,
        i2,
        i3,
        w0,
        w1,
        w2,
        w3,
        c0,
        c1,
        c2,
        c3,
        link_len,
        direction,
        side,
        protocol,
    ] = *bytes;
    EventHeader {
        time_ns: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        interface: u32::from_ne_bytes([i0, i1, i2, i3]),
        wire_len: u32::from_ne_bytes([w0, w1, w2, w3]),
        captured_len: u32::from_ne_bytes([c0, c1, c2, c3]),
        link_len,
        direction,
        side,
        protocol,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn encode(header: &EventHeader, frame: &[u8]) -> Vec<u8> {
        let mut record = header.time_ns.to_ne_bytes().to_vec();
        for field in [header.interface, header.wire_len, header.captured_len] {
            record.extend(field.to_ne_bytes());
        }
        record.extend([header.link_len, header.direction, header.side, header.protocol]);
        record.extend(frame);
        record
    }

    pub(crate) fn header(time_ns: u64, len: u32) -> EventHeader {
        EventHeader {
            time_ns,
            interface: 7,
            wire_len: len,
            captured_len: len,
            link_len: 14,
            direction: direction::TO_POD,
            side: side::SERVER,
            protocol: 1,
        }
    }

    #[test]
    fn the_link_header_is_stripped_and_padding_ignored() {
        let frame: Vec<u8> = (0..20).collect();
        let mut record = encode(&header(5, 20), &frame);
        record.extend([0; 7]);
        let (decoded, packet) = decode(&record).unwrap();
        assert_eq!(decoded, header(5, 20));
        assert_eq!(packet, &frame[14..]);
    }

    #[test]
    fn contradictions_are_refused() {
        let frame = [0; 20];
        assert_eq!(decode(&[0; 23]), Err(RecordError::NoHeader(23)));
        let too_long = encode(&header(5, 21), &frame);
        assert_eq!(decode(&too_long), Err(RecordError::Length { len: 44, captured_len: 21, wire_len: 21 }));
        let more_than_wire = encode(&EventHeader { wire_len: 19, ..header(5, 20) }, &frame);
        assert!(matches!(decode(&more_than_wire), Err(RecordError::Length { .. })));
        for bad in [
            EventHeader { link_len: 21, ..header(5, 20) },
            EventHeader { direction: 3, ..header(5, 20) },
            EventHeader { side: 2, ..header(5, 20) },
            EventHeader { protocol: 0, ..header(5, 20) },
        ] {
            assert_eq!(decode(&encode(&bad, &frame)), Err(RecordError::Field), "{bad:?}");
        }
    }
}
