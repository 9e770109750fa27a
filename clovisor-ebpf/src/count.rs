//! Bytes that nobody looks at: of their packets the headers are handed on, or, where even these say nothing new, only their number.
//!
//! The rule is [`clovisor_common::counting`]'s; here are its maps, and its order: what was counted is told before anything else of the
//! connection is handed on, so that user space knows of a stream in the order in which it was seen.

use core::ptr;

use aya_ebpf::programs::TcContext;
use clovisor_common::counting::{AHEAD, STANDS, Seen, slot};
use clovisor_common::{Counted, SessionKey, SessionValue, Window};

use crate::emit;
use crate::maps::{COUNTED, UNNEEDED};
use crate::packet::{Headers, Part};
use crate::select::{Choice, Worth};

/// What of a packet is wanted, by what nobody needs of its connection.
///
/// # Safety
/// The value is an element of a live map.
#[inline(always)]
pub(crate) unsafe fn look(
    ctx: &TcContext,
    headers: &Headers,
    key: &SessionKey,
    value: *mut SessionValue,
    choice: Choice,
    from_client: bool,
    now: u64,
) -> Worth {
    // SAFETY: the caller's promise; each direction's reach is written by the CPU that has its packet.
    let (owner, reach, opposite_reach, reached) = unsafe {
        let [client, server] = (*value).reach;
        let (reach, opposite, own) = if from_client {
            (client, server, &raw mut (*value).reach[0])
        } else {
            (server, client, &raw mut (*value).reach[1])
        };
        *own = reach.with(headers.seq, headers.payload_len, headers.syn);
        ((*value).slot, reach, opposite, (*own).sent)
    };
    if owner == 0 {
        return Worth::All;
    }
    let seen = Seen {
        seq: headers.seq,
        ack: headers.ack,
        payload_len: headers.payload_len,
        wire_len: ctx.len().saturating_sub(headers.link_len.into()),
        is_plain: headers.plain && headers.part == Part::Whole,
        is_last: headers.ends || headers.syn || headers.part != Part::Whole,
        time_ns: now,
    };
    let (Some(spared), Some(counted)) = (UNNEEDED.get_ptr_mut(slot(owner)), COUNTED.get_ptr_mut(slot(owner)))
    else {
        return Worth::All;
    };
    // SAFETY: elements of live maps. Numbers are read and written whole, those of a direction by the CPU that has its packet.
    unsafe {
        if headers.syn {
            (*value).slot = 0;
        }
        if (*spared).owner != owner {
            return Worth::All;
        }
        if (*counted).owner != owner {
            ptr::write_bytes(counted, 0, 1);
            (*counted).owner = owner;
        }
        let windows = &raw mut (*spared).unneeded;
        let ways = &raw mut (*counted).ways;
        let (window, opposite, way, other) = if from_client {
            (&raw mut (*windows)[0], (*windows)[1], &raw mut (*ways)[0], &raw const (*ways)[1])
        } else {
            (&raw mut (*windows)[1], (*windows)[0], &raw mut (*ways)[1], &raw const (*ways)[0])
        };
        if (*spared).counts != 0
            && (*way).counts(&*other, &seen, (*window, opposite), (reach, opposite_reach))
        {
            (*way).count(&seen);
            if (*counted).is_due(now) {
                tell(ctx, key, counted, choice, now);
            }
            return Worth::Count;
        }
        if (*counted).packets() == (*counted).told || tell(ctx, key, counted, choice, now) {
            (*counted).told_ns = now;
            (*way).hand_on(&seen, reached);
        } else {
            // It is tried again with the next; until then this packet must not seem to be among those that were counted.
            (*way).state &= !STANDS;
        }
        if is_unneeded(headers, window) { Worth::Headers } else { Worth::All }
    }
}

/// Tells what was counted. Whether it could be.
///
/// # Safety
/// `counted` is an element of a live map.
#[inline(always)]
unsafe fn tell(ctx: &TcContext, key: &SessionKey, counted: *mut Counted, choice: Choice, now: u64) -> bool {
    // SAFETY: the caller's promise. What is counted meanwhile is told the next time.
    unsafe {
        let packets = (*counted).packets();
        let is_told = emit::tell(ctx, key, counted, choice, now);
        if is_told {
            (*counted).told = packets;
            (*counted).told_ns = now;
        }
        is_told
    }
}

/// Whether nobody looks at any of a packet's payload.
///
/// # Safety
/// The window is part of an element of a live map.
#[inline(always)]
unsafe fn is_unneeded(headers: &Headers, window: *mut Window) -> bool {
    // A SYN may begin another connection on the same ports, of which nothing was said.
    if headers.payload_len == 0 || headers.syn {
        return false;
    }
    // SAFETY: the caller's promise.
    let Window { from, .. } = unsafe { *window };
    // SAFETY: as above.
    let (start, len) = (headers.seq.wrapping_sub(from), unsafe { *window }.len());
    if len == 0 {
        return false;
    }
    if start >= len {
        // Behind it, and not a repetition of what came before it: the window is over. Otherwise it would come back when the
        // sequence numbers have gone once around. That all before its first byte has come stays true.
        if start < AHEAD {
            // SAFETY: as above.
            unsafe { (*window).until = from };
        }
        return false;
    }
    // A later fragment would bring payload of which the datagram's first said nothing.
    headers.payload_len <= len - start && headers.part == Part::Whole
}
