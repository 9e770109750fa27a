//! Copies a packet to user space.
//!
//! There are two ways, and the object is built once for each: a ring buffer of all CPUs, and a perf buffer of each CPU for
//! kernels without (before 5.8). It refuses to cut silently: what is longer than [`MAX_CAPTURE`] gets its own verdict, and what
//! cannot be written is counted by its reason.

#[cfg_attr(feature = "perf", path = "emit/perf.rs")]
#[cfg_attr(not(feature = "perf"), path = "emit/ring.rs")]
mod buffer;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;
use clovisor_common::{EventHeader, MAX_CAPTURE, Verdict};

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
