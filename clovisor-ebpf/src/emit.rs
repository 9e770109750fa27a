//! Copies a packet into the perf buffer of this CPU.
//!
//! It refuses to cut silently: what is longer than [`MAX_CAPTURE`] gets its own verdict, and what cannot be
//! written is counted by its reason.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_perf_event_output};
use aya_ebpf::programs::TcContext;
use clovisor_common::{EventHeader, MAX_CAPTURE, Verdict};

use crate::maps::{self, PACKETS};
use crate::packet::Headers;
use crate::select::Choice;

/// The helper's error where the buffer is full (`include/uapi/asm-generic/errno-base.h`).
const ENOSPC: i64 = -28;

/// Kernel time in nanoseconds, CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Hands the packet to user space.
#[inline(always)]
pub(crate) fn emit(
    ctx: &TcContext,
    headers: &Headers,
    choice: Choice,
    interface: u32,
    direction: u8,
    now: u64,
) -> Result<Verdict, Verdict> {
    let wire_len = ctx.len();
    let captured_len = if wire_len > MAX_CAPTURE { MAX_CAPTURE } else { wire_len };
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
    // The upper half of the flags asks the kernel to append that many bytes of the packet, fragments included.
    let flags = (u64::from(captured_len) << 32) | BPF_F_CURRENT_CPU;
    // SAFETY: `ctx` is this program's context, the map is a perf event array (the type is a transparent
    // wrapper of its definition), and the header is plain data without padding. aya's own `output` is not
    // used because it throws the helper's error away.
    let result = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            core::ptr::from_ref(&PACKETS).cast_mut().cast(),
            flags,
            core::ptr::from_ref(&header).cast_mut().cast(),
            size_of::<EventHeader>() as u64,
        )
    };
    match i64::from(result) {
        0 if wire_len > captured_len => return Ok(Verdict::EmittedCut),
        0 => return Ok(Verdict::Emitted),
        _ => maps::lost(interface, now),
    }
    Err(if i64::from(result) == ENOSPC { Verdict::LostNoRoom } else { Verdict::LostNoReader })
}
