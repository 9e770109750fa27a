//! Copies a packet, or what was counted, to user space.
//!
//! There are two ways, and the object is built once for each: a ring buffer of all CPUs, and a perf buffer of each CPU for
//! kernels without (before 5.8). It refuses to cut silently: what is longer than [`MAX_CAPTURE`] gets its own verdict, and what
//! cannot be written is counted by its reason.

#[cfg_attr(feature = "perf", path = "emit/perf.rs")]
#[cfg_attr(not(feature = "perf"), path = "emit/ring.rs")]
mod buffer;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;
use clovisor_common::{Counted, EventHeader, MAX_CAPTURE, SessionKey, Tale, Verdict, direction};

use crate::maps;
use crate::packet::Headers;
use crate::select::Choice;

/// Kernel time in nanoseconds, CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Hands the first `kept` bytes of the packet to user space.
#[inline(always)]
pub(crate) fn emit(
    ctx: &TcContext,
    headers: &Headers,
    choice: Choice,
    interface: u32,
    direction: u8,
    now: u64,
    kept: u32,
) -> Result<Verdict, Verdict> {
    let wire_len = ctx.len();
    // Headers may say more than there is. The verifier must see this number compared, and not those that it is made of.
    let captured_len = core::hint::black_box(kept.min(wire_len).min(MAX_CAPTURE));
    let header = EventHeader {
        time_ns: now,
        interface,
        wire_len,
        captured_len,
        link_len: headers.link_len,
        direction,
        side: choice.side,
        protocol: choice.protocol,
    };
    match buffer::write(ctx, &header) {
        Ok(()) if header.is_trimmed() => Ok(Verdict::EmittedTrimmed),
        Ok(()) if wire_len > captured_len => Ok(Verdict::EmittedCut),
        Ok(()) => Ok(Verdict::Emitted),
        Err(reason) => {
            maps::lost(interface, now);
            Err(reason)
        }
    }
}

/// Hands what was counted of a connection to user space. Whether it could be.
///
/// # Safety
/// `counted` is an element of a live map.
#[inline(always)]
pub(crate) unsafe fn tell(
    ctx: &TcContext,
    connection: &SessionKey,
    counted: *const Counted,
    choice: Choice,
    now: u64,
) -> bool {
    let header = EventHeader {
        time_ns: now,
        interface: connection.interface,
        wire_len: size_of::<Tale>() as u32,
        captured_len: size_of::<Tale>() as u32,
        link_len: 0,
        direction: direction::COUNTED,
        side: choice.side,
        protocol: choice.protocol,
    };
    // SAFETY: the caller's promise.
    unsafe { buffer::tell(ctx, &header, connection, counted) }
}

/// Copies what was counted while others may count: of each direction the bytes before the packets, which are written the other way round.
///
/// # Safety
/// Both are valid.
#[inline(always)]
unsafe fn copy(from: *const Counted, to: *mut Counted) {
    // SAFETY: the caller's promise.
    unsafe {
        (*to).owner = (*from).owner;
        (*to).told = (*from).told;
        (*to).told_ns = (*from).told_ns;
        for way in 0..2 {
            let (from, to) = (&raw const (*from).ways[way], &raw mut (*to).ways[way]);
            (*to).bytes = (&raw const (*from).bytes).read_volatile();
            (*to).wire = (*from).wire;
            (*to).acked = (*from).acked;
            (*to).full = (&raw const (*from).full).read_volatile();
            (*to).empty = (*from).empty;
            (*to).state = (*from).state;
            (*to).full_ns = (*from).full_ns;
            (*to).last_ns = (*from).last_ns;
        }
    }
}
