//! The ring buffer of all CPUs.
//!
//! Waking the reader costs more than all else that is done for a packet, so no packet does it: the reader comes by
//! itself every few milliseconds. Only where it may come too late, with the ring half full, it is woken, once.
//!
//! From there on each interface may take only its part of what is left, so that one that floods leaves room for the others.
//!
//! A record is reserved before it is written, and the verifier wants the size of a reservation to be a constant. So there
//! are some sizes, and a packet takes the smallest that it fits in.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_CONS_POS, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, RingBuf};
use aya_ebpf::programs::TcContext;
use clovisor_common::{Counted, EventHeader, MAX_CAPTURE, SessionKey, Tale, Verdict};

use super::copy;

/// The way to user space. The loader sets its size.
#[map(name = "packets")]
static PACKETS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// How many bytes may wait before the reader is woken. It writes that here when it goes to wait, and whoever wakes it
/// takes it away.
#[map(name = "wake_at")]
static WAKE_AT: Array<u64> = Array::with_max_entries(1, 0);

/// How many interfaces share the upper half of the ring.
#[map(name = "sharers")]
static SHARERS: Array<u64> = Array::with_max_entries(1, 0);

/// What interfaces have taken of the upper half. As many as send at once while it is half full; the oldest is forgotten, and may take its
/// part again.
#[map(name = "taken")]
static TAKEN: LruHashMap<u32, Taken> = LruHashMap::with_max_entries(1_024, 0);

/// Bytes of the upper half that an interface has taken, when the reader stood there: what it reads, makes room for all.
#[repr(C)]
struct Taken {
    bytes: u64,
    read: u64,
}

/// BPF_NOEXIST: create, or leave what another CPU created in the meantime.
const CREATE: u64 = 1;

/// Nothing is taken. Not on the stack, which is short.
static NONE: Taken = Taken { bytes: 0, read: 0 };

/// Size of the ring; the loader sets it.
#[unsafe(no_mangle)]
static RING_BYTES: u64 = 0;

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
    let waiting = PACKETS.query(u64::from(BPF_RB_AVAIL_DATA));
    let taken = part(header.interface, waiting)?;
    let wakes = is_time_to_wake(waiting, header.captured_len >= LONG);
    // Most packets of small requests and responses fit into the first three; 2 KB hold an Ethernet frame.
    try_write::<{ room(1 << 7) }>(ctx, header, taken, wakes)
        .or_else(|| try_write::<{ room(1 << 8) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 9) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 10) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 11) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 12) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 13) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 14) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 15) }>(ctx, header, taken, wakes))
        .or_else(|| try_write::<{ room(1 << 16) }>(ctx, header, taken, wakes))
        .unwrap_or(Err(Verdict::LostNoReader))
}

/// What an interface has taken of the upper half of the ring, once the lower one is used, if that is less than its part: what comes then
/// is the last for now. Null where nobody counts, and no `Option`: the verifier wants its other half written, too.
#[inline(always)]
fn part(interface: u32, waiting: u64) -> Result<*mut Taken, Verdict> {
    // SAFETY: a constant, but one that the compiler must not know.
    let half = unsafe { ptr::read_volatile(&raw const RING_BYTES) } / 2;
    if waiting <= half {
        return Ok(ptr::null_mut());
    }
    let sharers = SHARERS.get(0).map_or(1, |sharers| *sharers).max(1);
    let read = PACKETS.query(u64::from(BPF_RB_CONS_POS));
    let Some(taken) = TAKEN.get_ptr_mut(&interface).or_else(|| begin(&interface)) else {
        return Ok(ptr::null_mut());
    };
    // SAFETY: an element of a live map, whose numbers are read and written whole. Of what two CPUs write at once one may be lost: then
    // an interface gets a packet more.
    unsafe {
        let freed = read.wrapping_sub((*taken).read) / sharers;
        let bytes = (*taken).bytes.saturating_sub(freed);
        (*taken).read = read;
        (*taken).bytes = bytes;
        if bytes < half / sharers { Ok(taken) } else { Err(Verdict::LostNoRoom) }
    }
}

/// An entry for an interface that has taken nothing.
#[inline(always)]
fn begin(interface: &u32) -> Option<*mut Taken> {
    // Where another CPU was faster, its entry is taken.
    let _ = TAKEN.insert(interface, &NONE, CREATE);
    TAKEN.get_ptr_mut(interface)
}

/// Writes a record with that much room, if the packet fits.
#[inline(always)]
fn try_write<const ROOM: usize>(
    ctx: &TcContext,
    header: &EventHeader,
    taken: *mut Taken,
    wakes: bool,
) -> Option<Result<(), Verdict>> {
    let len = header.captured_len;
    // The lower bound is for the verifier: a copy of nothing is refused. A packet has at least its headers.
    if len == 0 || len > ROOM as u32 {
        return None;
    }
    let written = write_into::<ROOM>(ctx, header, len, wakes);
    if !taken.is_null() {
        // SAFETY: as in `part`.
        unsafe { (*taken).bytes += size_of::<Record<ROOM>>() as u64 + 8 };
    }
    Some(written)
}

#[inline(always)]
fn write_into<const ROOM: usize>(
    ctx: &TcContext,
    header: &EventHeader,
    len: u32,
    wakes: bool,
) -> Result<(), Verdict> {
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
    if wakes && let Some(wake_at) = WAKE_AT.get_ptr_mut(0) {
        // SAFETY: an element of a live array, written whole. Two CPUs may both find the reader waiting, and wake it twice.
        unsafe { ptr::write_volatile(wake_at, NEVER) };
    }
    entry.submit(u64::from(if wakes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }));
    Ok(())
}

/// What was counted of a connection, as a record.
#[repr(C)]
struct Told {
    header: EventHeader,
    tale: Tale,
}

/// Writes what was counted. Nobody is woken for it, and it takes of no interface's part: there are few.
///
/// # Safety
/// `counted` is an element of a live map.
#[inline(always)]
pub(super) unsafe fn tell(
    _ctx: &TcContext,
    header: &EventHeader,
    connection: &SessionKey,
    counted: *const Counted,
) -> bool {
    let Some(mut entry) = PACKETS.reserve::<Told>(0) else { return false };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted; and the caller's promise.
    unsafe {
        ptr::write(&raw mut (*record).header, *header);
        ptr::write(&raw mut (*record).tale.connection, *connection);
        copy(counted, &raw mut (*record).tale.counted);
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    true
}

/// Whether the reader waits, and would come too late, with so many bytes before this packet.
#[inline(always)]
fn is_time_to_wake(waiting: u64, is_long: bool) -> bool {
    let Some(wake_at) = WAKE_AT.get_ptr_mut(0) else { return false };
    // SAFETY: an element of a live array, read whole.
    let told = unsafe { ptr::read_volatile(wake_at) };
    told != NEVER && waiting >= if is_long { told / SOONER } else { told }
}
