//! The ring buffer of all CPUs.
//!
//! Waking the reader costs more than all else that is done for a packet, so no packet does it: the reader comes by
//! itself every few milliseconds. Only where it may come too late, with the ring half full, it is woken, once.
//!
//! A record is reserved before it is written, and the verifier wants the size of a reservation to be a constant. So there
//! are some sizes, and a packet takes the smallest that it fits in.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use aya_ebpf::programs::TcContext;
use clovisor_common::{EventHeader, MAX_CAPTURE, Verdict};

/// The way to user space. The loader sets its size.
#[map(name = "packets")]
static PACKETS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// How many bytes may wait before the reader is woken. It writes that here when it goes to wait, and whoever wakes it
/// takes it away.
#[map(name = "wake_at")]
static WAKE_AT: Array<u64> = Array::with_max_entries(1, 0);

/// A packet this long may be of a body that nobody looks at, and the agent says so when it has read what came before: the
/// sooner it comes, the less is copied. Longer than an Ethernet frame, so that only bulk transfers have it.
const LONG: u32 = 8 << 10;
/// So much less may wait then: with the default buffer, 64 KB.
const SOONER: u64 = 32;

/// Nobody waits.
const NEVER: u64 = u64::MAX;

/// One record: the header, and room for the packet.
#[repr(C)]
struct Record<const ROOM: usize> {
    header: EventHeader,
    packet: [u8; ROOM],
}

/// Room for the packet in a record that takes `bytes` of the ring: the kernel puts 8 bytes in front of each
/// (`BPF_RINGBUF_HDR_SZ`).
const fn room(bytes: usize) -> usize {
    bytes - 8 - size_of::<EventHeader>()
}

const _: () = assert!(room(1 << 16) >= MAX_CAPTURE as usize);

/// Writes the header and as much of the packet as it says.
#[inline(always)]
pub(super) fn write(ctx: &TcContext, header: &EventHeader) -> Result<(), Verdict> {
    // Most packets of small requests and responses fit into the first three; 2 KB hold an Ethernet frame.
    try_write::<{ room(1 << 7) }>(ctx, header)
        .or_else(|| try_write::<{ room(1 << 8) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 9) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 10) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 11) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 12) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 13) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 14) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 15) }>(ctx, header))
        .or_else(|| try_write::<{ room(1 << 16) }>(ctx, header))
        .unwrap_or(Err(Verdict::LostNoReader))
}

/// Writes a record with that much room, if the packet fits.
#[inline(always)]
fn try_write<const ROOM: usize>(ctx: &TcContext, header: &EventHeader) -> Option<Result<(), Verdict>> {
    let len = header.captured_len;
    // The lower bound is for the verifier: a copy of nothing is refused. A packet has at least its headers.
    if len == 0 || len > ROOM as u32 {
        return None;
    }
    Some(write_into::<ROOM>(ctx, header, len))
}

#[inline(always)]
fn write_into<const ROOM: usize>(ctx: &TcContext, header: &EventHeader, len: u32) -> Result<(), Verdict> {
    let Some(mut entry) = PACKETS.reserve::<Record<ROOM>>(0) else { return Err(Verdict::LostNoRoom) };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted, and `len` bytes fit into it.
    let copied = unsafe {
        ptr::write(&raw mut (*record).header, *header);
        bpf_skb_load_bytes(ctx.as_ptr(), 0, (&raw mut (*record).packet).cast(), len)
    };
    if copied != 0 {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return Err(Verdict::LostNoReader);
    }
    entry.submit(u64::from(if must_wake(len >= LONG) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }));
    Ok(())
}

/// Whether the reader waits, and would come too late.
#[inline(always)]
fn must_wake(is_long: bool) -> bool {
    let Some(wake_at) = WAKE_AT.get_ptr_mut(0) else { return false };
    // SAFETY: an element of a live array, read and written whole. Two CPUs may both find the reader waiting, and wake it twice.
    unsafe {
        let told = ptr::read_volatile(wake_at);
        if told == NEVER {
            return false;
        }
        let at = if is_long { told / SOONER } else { told };
        let is_time = PACKETS.query(u64::from(BPF_RB_AVAIL_DATA)) >= at;
        if is_time {
            ptr::write_volatile(wake_at, NEVER);
        }
        is_time
    }
}
