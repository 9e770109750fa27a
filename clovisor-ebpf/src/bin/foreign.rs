//! Test only: stands for other projects' programs. One counts packets and returns a final verdict, so that no
//! later program of the chain sees them; one delivers packets to pods as Cilium and Calico do.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_redirect_peer;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TcContext;

/// Packets seen.
#[map(name = "seen")]
static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Index of the host's end of the pod's veth, set before loading.
#[unsafe(no_mangle)]
static TARGET: u32 = 0;

/// ETH_P_IP in network byte order, as `__sk_buff` has it.
const IPV4: u32 = 0x0800_u16.to_be() as u32;

/// Counts, and ends the chain: TC_ACT_OK is also TCX_PASS.
#[classifier]
fn foreign(_ctx: TcContext) -> i32 {
    if let Some(counter) = SEEN.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot, with bottom halves disabled.
        unsafe { *counter += 1 };
    }
    TC_ACT_OK as i32
}

/// Puts IPv4 packets straight into the other end of the veth, past the host's end (Linux 5.10).
#[classifier]
fn deliver(ctx: TcContext) -> i32 {
    // SAFETY: the kernel gives a valid `__sk_buff`; the global is read as the loader has set it; the helper
    // has no preconditions.
    unsafe {
        if (*ctx.skb.skb).protocol != IPV4 {
            return TC_ACT_UNSPEC;
        }
        bpf_redirect_peer(core::ptr::read_volatile(&raw const TARGET), 0) as i32
    }
}

/// Nothing here can panic; the compiler wants it written down.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
