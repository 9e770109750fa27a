//! The perf buffer of this CPU.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
use aya_ebpf::helpers::bpf_perf_event_output;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerfEventByteArray;
use aya_ebpf::programs::TcContext;
use clovisor_common::{EventHeader, Verdict};

/// The way to user space. The number of CPUs, which only the loader knows, sets its size.
#[map(name = "packets")]
static PACKETS: PerfEventByteArray = PerfEventByteArray::new(0);

/// The helper's error where the buffer is full (`include/uapi/asm-generic/errno-base.h`).
const ENOSPC: i64 = -28;

/// Writes the header and as much of the packet as it says.
#[inline(always)]
pub(super) fn write(ctx: &TcContext, header: &EventHeader) -> Result<(), Verdict> {
    // The upper half of the flags asks the kernel to append that many bytes of the packet, fragments included.
    let flags = (u64::from(header.captured_len) << 32) | BPF_F_CURRENT_CPU;
    // SAFETY: `ctx` is this program's context, the map is a perf event array (the type is a transparent
    // wrapper of its definition), and the header is plain data without padding. aya's own `output` is not
    // used because it throws the helper's error away.
    let result = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            core::ptr::from_ref(&PACKETS).cast_mut().cast(),
            flags,
            core::ptr::from_ref(header).cast_mut().cast(),
            size_of::<EventHeader>() as u64,
        )
    };
    match i64::from(result) {
        0 => Ok(()),
        ENOSPC => Err(Verdict::LostNoRoom),
        _ => Err(Verdict::LostNoReader),
    }
}
