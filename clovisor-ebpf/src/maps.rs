//! The maps, their sizes, and the counting of verdicts.
//!
//! Names and layouts are those of [`clovisor_common`]. Hash maps take memory for all their entries when they
//! are created (or as they fill, with BPF_F_NO_PREALLOC); the sizes below are chosen for one node.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap};
use aya_ebpf::programs::TcContext;
use clovisor_common::counting::SLOTS;
use clovisor_common::{
    ANY_INTERFACE, Counted, EgressKey, FragmentKey, FragmentValue, INSIDE, LossValue, PortKey, SessionKey,
    SessionValue, ShedValue, Spared, Verdict,
};

/// Listening ports: 500 pods (well above kubelet's default of 110) with 32 ports each.
const MAX_PORTS: u32 = 16_384;
/// Egress targets: 500 pods with 32 targets each.
const MAX_EGRESS: u32 = 16_384;
/// Connections remembered at a time; the least recently used goes first, and bytes of it that nobody looks at are copied again. 2 MB,
/// which are taken at once; and as many slots.
const MAX_SESSIONS: u32 = 16_384;
/// Fragmented datagrams in flight at a time. TCP rarely fragments (path MTU discovery), and a datagram is
/// whole or dead within 30 s (`net.ipv4.ipfrag_time`).
const MAX_FRAGMENTS: u32 = 4_096;
/// Interfaces of which losses, and what is left out, are told apart: 500 pods, twice over while all of them are replaced. 64 KB, and
/// 16 KB for each CPU.
const MAX_LOSSES: u32 = 1_024;
/// Allocates entries when they are added: most nodes have far fewer rules than the limits.
const NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

/// Listening ports of pods; user space writes.
#[map(name = "dports2proto")]
pub(crate) static PORTS: HashMap<PortKey, u8> = HashMap::with_max_entries(MAX_PORTS, NO_PREALLOC);

/// Outbound targets of pods; user space writes.
#[map(name = "egress_lookup_table")]
pub(crate) static EGRESS: HashMap<EgressKey, u8> = HashMap::with_max_entries(MAX_EGRESS, NO_PREALLOC);

/// Whether [`EGRESS`] has any: two look-ups less for each packet that no listening port picks; user space writes.
#[map(name = "has_egress")]
pub(crate) static HAS_EGRESS: Array<u32> = Array::with_max_entries(1, 0);

/// Connections seen lately.
#[map(name = "sessions")]
pub(crate) static SESSIONS: LruHashMap<SessionKey, SessionValue> =
    LruHashMap::with_max_entries(MAX_SESSIONS, 0);

/// What is not needed of connections; user space writes.
#[map(name = "unneeded")]
pub(crate) static UNNEEDED: Array<Spared> = Array::with_max_entries(SLOTS, 0);

/// What was counted of them.
#[map(name = "counted")]
pub(crate) static COUNTED: Array<Counted> = Array::with_max_entries(SLOTS, 0);

/// What was chosen for a datagram whose later fragments are still to come.
#[map(name = "fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> =
    LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);

/// Packets by verdict and direction.
#[map(name = "verdicts")]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNTERS, 0);

/// Packets that were lost, by interface. Allocated beforehand: where packets are lost, there is no time to allocate.
#[map(name = "losses")]
static LOSSES: PerCpuHashMap<u32, LossValue> = PerCpuHashMap::with_max_entries(MAX_LOSSES, 0);

/// What each interface that is over its share may have traced; user space writes.
#[map(name = "shares")]
static SHARES: HashMap<u32, u32> = HashMap::with_max_entries(MAX_LOSSES, NO_PREALLOC);

/// Packets that were left out, by interface. Allocated beforehand, as those that are lost.
#[map(name = "shed")]
static SHED: PerCpuHashMap<u32, ShedValue> = PerCpuHashMap::with_max_entries(MAX_LOSSES, 0);

/// Whether a connection that drew this lot is within its interface's share.
#[inline(always)]
pub(crate) fn is_within_share(interface: u32, lot: u32) -> bool {
    // SAFETY: the value is one number, copied at once.
    unsafe { SHARES.get(interface) }.is_none_or(|share| lot < *share)
}

/// Notes that a packet of an interface is left out, and how many sessions it begins; before its verdict is counted, as [`lost`].
#[inline(always)]
pub(crate) fn shed(interface: u32, sessions: u64) {
    if shed_again(interface, sessions) {
        return;
    }
    // As in `lost`.
    if SHED.insert(interface, ShedValue { packets: 1, sessions }, 0).is_err() {
        shed_again(ANY_INTERFACE, sessions);
    }
}

/// Adds to an entry; whether there is one.
#[inline(always)]
fn shed_again(key: u32, sessions: u64) -> bool {
    let Some(value) = SHED.get_ptr_mut(key) else { return false };
    // SAFETY: as in `count`, this CPU's own slot.
    unsafe {
        (*value).packets += 1;
        (*value).sessions += sessions;
    }
    true
}

/// Notes that a packet of an interface is lost. Before its verdict is counted, so that whoever reads the verdicts first
/// finds every loss that they count here. Only packets that are lost pay for it.
#[inline(always)]
pub(crate) fn lost(interface: u32, now: u64) {
    if lost_again(interface, now) {
        return;
    }
    // Another CPU may have made the entry since: then this sets only this CPU's own slot, which is still zero.
    if LOSSES.insert(interface, LossValue { packets: 1, last_ns: now }, 0).is_err() {
        lost_again(ANY_INTERFACE, now);
    }
}

/// Adds to an entry; whether there is one.
#[inline(always)]
fn lost_again(key: u32, now: u64) -> bool {
    let Some(value) = LOSSES.get_ptr_mut(key) else { return false };
    // SAFETY: as in `count`, this CPU's own slot.
    unsafe {
        (*value).packets += 1;
        (*value).last_ns = now;
    }
    true
}

/// Counts a packet.
#[inline(always)]
pub(crate) fn count(verdict: Verdict, direction: u8) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict.index(direction)) {
        // SAFETY: the pointer is this CPU's own slot, and a classifier is not interrupted by another one on
        // its CPU: both hooks run with bottom halves disabled.
        unsafe { *counter += 1 };
    }
}

/// Index of the interface that the packet is at.
#[inline(always)]
pub(crate) fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel gives a valid `__sk_buff` for as long as the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Number of the interface, inside a pod's namespace, that the packet is at: the filter's own class id, which
/// cls_bpf writes into the packet's control block before it runs the filter's program (`cls_bpf_classify`,
/// net/sched/cls_bpf.c, as long as there are direct actions: Linux 4.4). It is zeroed there, as filters
/// without one leave it, so that whatever looks at it after us sees no trace of this.
#[inline(always)]
pub(crate) fn inside(ctx: &TcContext) -> u32 {
    // SAFETY: as above; the verifier lets a classifier read and write this field.
    let number = unsafe {
        let number = core::ptr::read_volatile(&raw const (*ctx.skb.skb).tc_classid);
        core::ptr::write_volatile(&raw mut (*ctx.skb.skb).tc_classid, 0);
        number
    };
    INSIDE | number
}
