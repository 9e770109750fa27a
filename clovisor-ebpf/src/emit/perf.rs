//! The perf buffer of this CPU.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
use aya_ebpf::helpers::bpf_perf_event_output;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, PerfEventByteArray};
use aya_ebpf::programs::TcContext;
use clovisor_common::{Counted, EventHeader, SessionKey, Tale, Verdict};

use super::copy;

/// The way to user space. The number of CPUs, which only the loader knows, sets its size.
#[map(name = "packets")]
static PACKETS: PerfEventByteArray = PerfEventByteArray::new(0);

/// Room for one record of what was counted: more than the stack has.
#[map(name = "tale")]
static TALE: PerCpuArray<Told> = PerCpuArray::with_max_entries(1, 0);

/// What was counted of a connection, as a record.
#[repr(C)]
struct Told {
    header: EventHeader,
    tale: Tale,
}

/// The helper's error where the buffer is full (`include/uapi/asm-generic/errno-base.h`).
const ENOSPC: i64 = -28;

/// Writes the header and as much of the packet as it says.
#[inline(always)]
pub(super) fn write(ctx: &TcContext, header: &EventHeader) -> Result<(), Verdict> {
    // The upper half of the flags asks the kernel to append that many bytes of the packet, fragments included.
    let flags = (u64::from(header.captured_len) << 32) | BPF_F_CURRENT_CPU;
    match output(ctx, flags, header) {
        0 => Ok(()),
        ENOSPC => Err(Verdict::LostNoRoom),
        _ => Err(Verdict::LostNoReader),
    }
}

/// Writes what was counted.
///
/// # Safety
/// `counted` is an element of a live map.
#[inline(always)]
pub(super) unsafe fn tell(
    ctx: &TcContext,
    header: &EventHeader,
    connection: &SessionKey,
    counted: *const Counted,
) -> bool {
    let Some(told) = TALE.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own, and a classifier is not interrupted by another; and the caller's promise.
    unsafe {
        (*told).header = *header;
        (*told).tale.connection = *connection;
        copy(counted, &raw mut (*told).tale.counted);
        output(ctx, BPF_F_CURRENT_CPU, &*told) == 0
    }
}

/// Writes a record: its data, and what the flags say of the packet.
#[inline(always)]
fn output<T>(ctx: &TcContext, flags: u64, data: &T) -> i64 {
    // SAFETY: `ctx` is this program's context, the map is a perf event array (the type is a transparent
    // wrapper of its definition), and the data is plain and without padding. aya's own `output` is not
    // used because it throws the helper's error away.
    let result = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            core::ptr::from_ref(&PACKETS).cast_mut().cast(),
            flags,
            core::ptr::from_ref(data).cast_mut().cast(),
            size_of::<T>() as u64,
        )
    };
    i64::from(result)
}
