//! Whether a packet is wanted, and by which rule.
//!
//! The pod's own port decides before its egress targets: a pod that listens on 8080 and also calls another
//! pod's 8080 has a different own port in each of the two connections.

use aya_ebpf::programs::TcContext;
use clovisor_common::counting::Reach;
use clovisor_common::{
    ANY_ADDRESS, EgressKey, FragmentKey, FragmentValue, LEFT_OUT, PortKey, SessionKey, SessionValue, Verdict,
    direction, protocol, side,
};

use crate::count;
use crate::maps::{self, EGRESS, FRAGMENTS, HAS_EGRESS, PORTS, SESSIONS};
use crate::packet::{Headers, Part};

/// BPF_ANY: create or replace.
const CREATE_OR_REPLACE: u64 = 0;
/// BPF_NOEXIST: create, or leave what another CPU created in the meantime.
const CREATE: u64 = 1;
/// What is known of a connection that is new. Not on the stack, which is short.
static NEW: SessionValue = SessionValue {
    request_ns: 0,
    response_ns: 0,
    reach: [Reach { sent: 0, holed: 0 }; 2],
    slot: 0,
    opened: 0,
    lot: 0,
    pad: 0,
};

/// The rule that picked a packet.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// One of [`side`].
    pub(crate) side: u8,
    /// One of [`clovisor_common::protocol`].
    pub(crate) protocol: u8,
}

/// What of a packet is wanted, once it is chosen.
pub(crate) enum Worth {
    All,
    /// Nobody looks at its payload.
    Headers,
    /// That there was one more.
    Count,
    /// Its connection is left out.
    Nothing,
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

/// Notes the connection's newest packet, and says what of this one is wanted.
#[inline(always)]
pub(crate) fn remember(
    ctx: &TcContext,
    headers: &Headers,
    choice: Choice,
    interface: u32,
    direction: u8,
    now: u64,
) -> Worth {
    if headers.part == Part::Later {
        return Worth::All;
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
    let Some(value) = SESSIONS.get_ptr_mut(&key).or_else(|| begin(&key)) else {
        return Worth::All;
    };
    // SAFETY: an element of a live map; each number is written whole, by the CPU that saw the packet.
    unsafe {
        let is_new = headers.opens && (*value).opened != headers.seq;
        if is_new {
            open(value, &key, headers.seq);
        }
        let is_left_out = (*value).lot & LEFT_OUT != 0
            && stays_out(value, choice.protocol, interface, from_client && newest != 0, is_new);
        if newest != 0 && from_client {
            (*value).request_ns = newest;
        } else if newest != 0 {
            (*value).response_ns = newest;
        }
        if is_left_out {
            return Worth::Nothing;
        }
        count::look(ctx, headers, &key, value, choice, from_client, now)
    }
}

/// Another connection begins: leaves it out where its interface is over its share.
///
/// # Safety
/// The value is an element of a live map.
#[inline(always)]
unsafe fn open(value: *mut SessionValue, key: &SessionKey, seq: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let lot = lot(key);
        let mark = if maps::is_within_share(key.interface, lot) { 0 } else { LEFT_OUT };
        (*value).opened = seq;
        (*value).request_ns = 0;
        (*value).response_ns = 0;
        (*value).lot = lot | mark;
    }
}

/// The lot of a connection, by its client's address and port. The tracer draws it the same way (`flow::share`), so that both leave out the
/// same ones.
#[inline(always)]
fn lot(key: &SessionKey) -> u32 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.client;
    let mut hash = 0;
    for word in [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] {
        hash = mix(hash, u32::from_be_bytes(word));
    }
    hash = mix(hash, key.client_port.into());
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    (hash ^ (hash >> 16)) & !LEFT_OUT
}

#[inline(always)]
fn mix(hash: u32, word: u32) -> u32 {
    (hash ^ word ^ (hash >> 15)).wrapping_mul(0x9e37_79b1)
}

/// Whether a connection that is left out stays so, which is then noted. With a parser it is given back where its interface is within
/// its share again and a session begins, so that no half of one is seen; without one all of it is one session.
///
/// # Safety
/// The value is an element of a live map.
#[inline(always)]
unsafe fn stays_out(
    value: *mut SessionValue,
    protocol: u8,
    interface: u32,
    client_speaks: bool,
    is_new: bool,
) -> bool {
    // SAFETY: the caller's promise.
    let (lot, asked_ns, answered_ns) =
        unsafe { ((*value).lot & !LEFT_OUT, (*value).request_ns, (*value).response_ns) };
    let begins = match protocol {
        protocol::TCP => is_new,
        // The client was not the one that spoke last.
        _ => client_speaks && answered_ns >= asked_ns,
    };
    if begins && protocol != protocol::TCP && maps::is_within_share(interface, lot) {
        // SAFETY: as above.
        unsafe { (*value).lot = lot };
        return false;
    }
    maps::shed(interface, u64::from(begins));
    true
}

/// An entry for a connection that is new.
#[inline(always)]
fn begin(key: &SessionKey) -> Option<*mut SessionValue> {
    // Where another CPU was faster, its entry is taken.
    let _ = SESSIONS.insert(key, &NEW, CREATE);
    SESSIONS.get_ptr_mut(key)
}

#[inline(always)]
fn fragment_key(headers: &Headers, interface: u32) -> FragmentKey {
    FragmentKey { source: headers.source, destination: headers.destination, id: headers.id, interface }
}
