//! Test only: stands for another project's tcx program. It counts packets and returns a final verdict, so
//! that no later program of the chain sees them.
#![no_std]
#![no_main]

use aya_ebpf::bindings::TC_ACT_OK;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TcContext;

/// Packets seen.
#[map(name = "seen")]
static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counts, and ends the chain: TC_ACT_OK is also TCX_PASS.
#[classifier]
fn foreign(_ctx: TcContext) -> i32 {
    if let Some(counter) = SEEN.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot, with bottom halves disabled.
        unsafe { *counter += 1 };
    }
    TC_ACT_OK as i32
}

/// Nothing here can panic; the compiler wants it written down.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
