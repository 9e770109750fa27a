//! Packets from the kernel, in an order in which they may have happened.
//!
//! There are two ways, behind one face: a ring buffer of all CPUs ([`ring`]), and a perf buffer of each CPU ([`perf`]) for
//! kernels without ring buffers, or where it is asked for. ARCHITECTURE.md has the figures that speak for the first.
//!
//! It refuses to wait or to sleep: the caller calls [`Packets::drain`] every few milliseconds, more seldom where little comes
//! ([`Packets::is_sparse`], [`Packets::is_quiet`]), and when [`Packets::filled`] says that it should come sooner.

mod held;
mod perf;
pub mod record;
mod ring;

use std::{fmt, time::Duration};

use aya::maps::{MapError, MapType, perf::PerfBufferError};
use clovisor_common::EventHeader;

pub(super) use self::{perf::Perf, ring::Ring};

/// Default size of the ring buffer, or of the perf buffer of one CPU: 100,000 requests/s of 2 KB for 20 ms.
pub const DEFAULT_BUFFER: usize = 4 << 20;
/// Smallest size: one packet of 64 KB fits twice.
pub const SMALLEST_BUFFER: usize = 128 << 10;
/// How much later an event may come, or a loss be counted, than the time says that is on it. A classifier stamps its packet within a
/// microsecond of that; only an interrupt or the hypervisor comes between. So perf buffers hold events back for so long, to bring them
/// into order, and whoever looks for losses knows of all that are so old.
pub const HOLD_BACK: Duration = Duration::from_millis(5);

/// The way on which packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One ring buffer of all CPUs. Linux 5.8.
    Ring,
    /// A perf buffer of each CPU.
    Perf,
}

impl Transport {
    /// The ring buffer where this kernel has one.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        // What cannot be asked is told when it is tried.
        Self::choose(aya::sys::is_map_supported(MapType::RingBuf).unwrap_or(true))
    }

    fn choose(has_ring: bool) -> Self {
        if has_ring { Self::Ring } else { Self::Perf }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "a ring buffer",
            Self::Perf => "perf buffers",
        })
    }
}

/// Which buffers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// The way; none is the best that this kernel has.
    pub transport: Option<Transport>,
    /// Bytes: of the ring buffer, or of the perf buffer of one CPU. Rounded up to a power of two.
    pub bytes: usize,
}

impl Buffers {
    /// Bytes as the kernel takes them.
    pub(super) fn rounded(self) -> usize {
        self.bytes.max(SMALLEST_BUFFER).next_power_of_two()
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self { transport: None, bytes: DEFAULT_BUFFER }
    }
}

/// The buffers cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// The list of CPUs cannot be read.
    #[error("cannot read which CPUs are online from {path}: {source}; is /sys mounted?")]
    Cpus {
        /// The file.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A perf buffer cannot be opened.
    #[error(
        "cannot open the perf buffer of CPU {cpu} with {bytes} bytes: {source}; this needs CAP_PERFMON, and \
         locked memory (CAP_IPC_LOCK, a higher RLIMIT_MEMLOCK, or a smaller buffer)"
    )]
    Perf {
        /// The CPU.
        cpu: u32,
        /// The size that was asked for last.
        bytes: usize,
        /// Why.
        source: PerfBufferError,
    },
    /// The ring buffer cannot be mapped.
    #[error("cannot map the ring buffer of {bytes} bytes: {source}; try a smaller one, or perf buffers")]
    Map {
        /// Its size.
        bytes: usize,
        /// Why.
        source: MapError,
    },
    /// It cannot be waited for the ring buffer.
    #[error("cannot wait for the ring buffer: {0}")]
    Wait(std::io::Error),
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events handed out.
    pub events: u64,
    /// Records for which a perf buffer had no room, by its own account. The same packets are counted by the
    /// verdict [`LostNoRoom`](clovisor_common::Verdict::LostNoRoom), which is exact at any moment; this
    /// count comes with the next record that fits. A ring buffer keeps no such account.
    pub lost: u64,
    /// Events of perf buffers handed out after a younger one, because they came later than [`HOLD_BACK`].
    pub late: u64,
    /// Records refused by [`record::decode`].
    pub invalid: u64,
    /// Events that were read and not handed out yet.
    pub held: u64,
}

/// The buffers, open.
pub enum Packets {
    /// One of all CPUs.
    #[doc(hidden)]
    Ring(Box<Ring>),
    /// One of each CPU.
    #[doc(hidden)]
    Perf(Perf),
}

impl Packets {
    /// Hands out events, oldest first: the header, and the packet from its IP header up. Of a ring buffer all that are there, of
    /// perf buffers those that are older than [`HOLD_BACK`]. `now_ns` is [`monotonic_ns`](super::clock::monotonic_ns) read before the
    /// call.
    pub fn drain(&mut self, now_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        let hold_back = u64::try_from(HOLD_BACK.as_nanos()).unwrap_or(u64::MAX);
        match self {
            Self::Ring(ring) => ring.drain(now_ns, sink),
            Self::Perf(perf) => perf.drain(now_ns.saturating_sub(hold_back), sink),
        }
    }

    /// Hands out everything that is there: the end of tracing.
    pub fn flush(&mut self, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        match self {
            Self::Ring(ring) => ring.flush(u64::MAX, sink),
            Self::Perf(perf) => perf.drain(u64::MAX, sink),
        }
    }

    /// Reads what is in the buffers without handing anything out, so that [`Self::counters`] has every event that was there
    /// before the call. What is read here is bounded like the rest: [`Self::drain`] comes within milliseconds.
    pub fn read(&mut self) {
        match self {
            Self::Ring(ring) => ring.read(),
            Self::Perf(perf) => perf.read(),
        }
    }

    /// Waits until a buffer is so full that [`Self::drain`] must not wait for its next turn, or has anything in it after a time without
    /// packets: of a ring buffer; perf buffers do not tell. May be dropped at any time.
    pub async fn filled(&self) {
        match self {
            Self::Ring(ring) => ring.filled().await,
            Self::Perf(_) => std::future::pending().await,
        }
    }

    /// Whether nothing comes, and [`Self::filled`] tells of the next packet, so that [`Self::drain`] may be called more seldom.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.is_quiet(),
            Self::Perf(_) => false,
        }
    }

    /// Whether so few packets come that [`Self::drain`] may be called half as often, and [`Self::filled`] tells where more do at once.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.is_sparse(),
            Self::Perf(_) => false,
        }
    }

    /// What became of the records so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        match self {
            Self::Ring(ring) => ring.counters(),
            Self::Perf(perf) => perf.counters(),
        }
    }

    /// The way on which packets come.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self {
            Self::Ring(_) => Transport::Ring,
            Self::Perf(_) => Transport::Perf,
        }
    }

    /// Size of the ring buffer, or of the smallest perf buffer.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.bytes(),
            Self::Perf(perf) => perf.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_without_ring_buffers_get_perf_buffers() {
        assert_eq!([true, false].map(Transport::choose), [Transport::Ring, Transport::Perf]);
    }

    #[test]
    fn sizes_are_powers_of_two() {
        let sizes = [0, 200 << 10, 8 << 20].map(|bytes| Buffers { transport: None, bytes }.rounded());
        assert_eq!(sizes, [SMALLEST_BUFFER, 256 << 10, 8 << 20]);
    }
}
