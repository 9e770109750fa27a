//! Whether a packet is wanted, and by which rule.
//!
//! The pod's own port decides before its egress targets: a pod that listens on 8080 and also calls another
//! pod's 8080 has a different own port in each of the two connections.

use clovisor_common::{
    ANY_ADDRESS, EgressKey, FragmentKey, FragmentValue, PortKey, SessionKey, SessionValue, Verdict, Window,
    direction, side,
};

use crate::maps::{EGRESS, FRAGMENTS, HAS_EGRESS, PORTS, SESSIONS};
use crate::packet::{Headers, Part};

/// BPF_ANY: create or replace.
const CREATE_OR_REPLACE: u64 = 0;
/// BPF_NOEXIST: create, or leave what another CPU created in the meantime.
const CREATE: u64 = 1;
/// What is known of a connection that is new. Not on the stack, which is short.
static NEW: SessionValue =
    SessionValue { request_ns: 0, response_ns: 0, unneeded: [Window { from: 0, until: 0 }; 2] };
/// Half of all sequence numbers: what is less far behind a place is ahead of it (RFC 9293 section 3.4).
const AHEAD: u32 = 1 << 31;

/// The rule that picked a packet.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// One of [`side`].
    pub(crate) side: u8,
    /// One of [`clovisor_common::protocol`].
    pub(crate) protocol: u8,
}

/// Chooses a packet, or says why not.
#[inline(always)]
pub(crate) fn choose(headers: &Headers, interface: u32, direction: u8) -> Result<Choice, Verdict> {
    if headers.part == Part::Later {
        // SAFETY: the value is copied at once; should another CPU reuse the entry meanwhile, a fragment is
        // judged by a neighbour's rule, and user space drops it for want of a datagram.
        let kept = unsafe { FRAGMENTS.get(fragment_key(headers, interface)) };
        let kept = kept.ok_or(Verdict::FragmentNotSelected)?;
        return Ok(Choice { side: kept.side, protocol: kept.protocol });
    }
    let choice = by_ports(headers, interface, direction).ok_or(Verdict::NotSelected)?;
    if headers.part == Part::First {
        let kept = FragmentValue { side: choice.side, protocol: choice.protocol, pad: [0; 2] };
        // A full LRU map makes room; should it fail, the later fragments are counted as not selected.
        let _ = FRAGMENTS.insert(fragment_key(headers, interface), kept, CREATE_OR_REPLACE);
    }
    Ok(choice)
}

#[inline(always)]
fn by_ports(headers: &Headers, interface: u32, direction: u8) -> Option<Choice> {
    let (own_port, port, address) = if direction == direction::FROM_POD {
        (headers.source_port, headers.destination_port, headers.destination)
    } else {
        (headers.destination_port, headers.source_port, headers.source)
    };
    // SAFETY: here and below the value is one byte, copied at once.
    if let Some(protocol) = unsafe { PORTS.get(PortKey { interface, port: own_port, pad: 0 }) } {
        return Some(Choice { side: side::SERVER, protocol: *protocol });
    }
    if HAS_EGRESS.get(0).is_none_or(|has| *has == 0) {
        return None;
    }
    let mut key = EgressKey { interface, port, pad: 0, address };
    // SAFETY: as above.
    let mut found = unsafe { EGRESS.get(key) };
    if found.is_none() {
        key.address = ANY_ADDRESS;
        // SAFETY: as above.
        found = unsafe { EGRESS.get(key) };
    }
    found.map(|protocol| Choice { side: side::CLIENT, protocol: *protocol })
}

/// Notes the time of the connection's newest packet with payload. Whether nobody looks at the payload of this one.
#[inline(always)]
pub(crate) fn remember(headers: &Headers, choice: Choice, interface: u32, direction: u8, now: u64) -> bool {
    if headers.part == Part::Later {
        return false;
    }
    // The client is at the other end from the pod where the pod serves.
    let from_client = (direction == direction::FROM_POD) == (choice.side == side::CLIENT);
    let key = if from_client {
        SessionKey {
            client: headers.source,
            server: headers.destination,
            client_port: headers.source_port,
            server_port: headers.destination_port,
            interface,
        }
    } else {
        SessionKey {
            client: headers.destination,
            server: headers.source,
            client_port: headers.destination_port,
            server_port: headers.source_port,
            interface,
        }
    };
    let newest = if headers.payload_len > 0 { now } else { 0 };
    let Some(value) = SESSIONS.get_ptr_mut(&key).or_else(|| begin(&key)) else { return false };
    // SAFETY: an element of a live map; each number is written whole, by the CPU that saw the packet.
    unsafe {
        if headers.syn {
            (*value).unneeded = [Window::default(); 2];
        }
        if newest == 0 {
            return false;
        }
        if from_client {
            (*value).request_ns = newest;
            is_unneeded(headers, &raw mut (*value).unneeded[0])
        } else {
            (*value).response_ns = newest;
            is_unneeded(headers, &raw mut (*value).unneeded[1])
        }
    }
}

/// An entry for a connection that is new.
#[inline(always)]
fn begin(key: &SessionKey) -> Option<*mut SessionValue> {
    // Where another CPU was faster, its entry is taken.
    let _ = SESSIONS.insert(key, &NEW, CREATE);
    SESSIONS.get_ptr_mut(key)
}

/// Whether nobody looks at any of a packet's payload.
///
/// # Safety
/// The window is part of an element of a live map.
#[inline(always)]
unsafe fn is_unneeded(headers: &Headers, window: *mut Window) -> bool {
    // SAFETY: the caller's promise. The agent replaces elements whole, so no half of a window is seen.
    let Window { from, until } = unsafe { *window };
    let (start, len) = (headers.seq.wrapping_sub(from), until.wrapping_sub(from));
    if len == 0 {
        return false;
    }
    if start >= len {
        // Behind it, and not a repetition of what came before it: the window is over. Otherwise it would come back when the
        // sequence numbers have gone once around.
        if start < AHEAD {
            // SAFETY: as above.
            unsafe { *window = Window::default() };
        }
        return false;
    }
    // A later fragment would bring payload of which the datagram's first said nothing.
    headers.payload_len <= len - start && headers.part == Part::Whole
}

#[inline(always)]
fn fragment_key(headers: &Headers, interface: u32) -> FragmentKey {
    FragmentKey { source: headers.source, destination: headers.destination, id: headers.id, interface }
}
