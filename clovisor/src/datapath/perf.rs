//! Packets from the kernel, in kernel-time order.
//!
//! Each CPU has its own buffer, so a request seen by one CPU and its response seen by another come out in
//! any order. [`Packets::drain`] reads all buffers, merges by time, and holds back what is younger than
//! [`HOLD_BACK`], so that a CPU that takes its time stamp early and commits late is still merged in order.
//!
//! It refuses to wait or to sleep: the caller calls [`Packets::drain`] every few milliseconds. Memory is
//! reused from call to call and bounded by twice the sum of the buffers.

use std::time::Duration;

use aya::maps::perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer};
use aya::maps::{MapData, PerfEventArray};
use clovisor_common::EventHeader;

use super::record;

/// Default size of the buffer of one CPU: 50,000 requests/s of 2 KB for 80 ms.
pub const DEFAULT_BUFFER: usize = 8 << 20;
/// Smallest size that is tried where the kernel refuses to lock more memory: one packet of 64 KB fits twice.
pub const SMALLEST_BUFFER: usize = 128 << 10;
/// How old an event must be before it is handed out. A classifier stamps its packet within a microsecond of
/// committing it; only an interrupt or the hypervisor comes between. Events later than this are counted.
pub const HOLD_BACK: Duration = Duration::from_millis(5);

/// The buffers cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    /// The list of CPUs cannot be read.
    #[error("cannot read which CPUs are online from {path}: {source}; is /sys mounted?")]
    Cpus {
        /// The file.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A buffer cannot be opened.
    #[error(
        "cannot open the perf buffer of CPU {cpu} with {bytes} bytes: {source}; this needs CAP_PERFMON, and \
         locked memory (CAP_IPC_LOCK, a higher RLIMIT_MEMLOCK, or a smaller buffer)"
    )]
    Open {
        /// The CPU.
        cpu: u32,
        /// The size that was asked for last.
        bytes: usize,
        /// Why.
        source: PerfBufferError,
    },
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerfCounters {
    /// Events handed out.
    pub events: u64,
    /// Records that the kernel had no room for, by its own account. The same packets are counted by the
    /// verdict [`LostNoRoom`](clovisor_common::Verdict::LostNoRoom), which is exact at any moment; this
    /// count comes with the next record that fits.
    pub lost: u64,
    /// Events handed out after a younger one, because they came later than [`HOLD_BACK`].
    pub late: u64,
    /// Records refused by [`record::decode`].
    pub invalid: u64,
    /// Events that were read and are held back for order.
    pub held: u64,
}

/// The buffers of all CPUs.
pub struct Packets {
    cpus: Vec<Cpu>,
    merge: Merge,
    buffer_bytes: usize,
}

struct Cpu {
    id: u32,
    buffer: PerfEventArrayBuffer<MapData>,
    lost: u64,
}

impl Packets {
    /// Opens one buffer of at least `bytes` for each online CPU; sizes are powers of two pages.
    ///
    /// Without CAP_IPC_LOCK the kernel limits locked memory, so a refused size is halved down to
    /// [`SMALLEST_BUFFER`]; [`Self::buffer_bytes`] tells what it came to.
    pub(super) fn open(mut array: PerfEventArray<MapData>, bytes: usize) -> Result<Self, PerfError> {
        let ids = aya::util::online_cpus().map_err(|(path, source)| PerfError::Cpus { path, source })?;
        let mut bytes = bytes.max(SMALLEST_BUFFER).next_power_of_two();
        let mut cpus = Vec::with_capacity(ids.len());
        for id in ids {
            let buffer = loop {
                match array.open(id, Some((bytes / page_size()).max(1))) {
                    Ok(buffer) => break buffer,
                    Err(PerfBufferError::MMapError { .. }) if bytes > SMALLEST_BUFFER => bytes /= 2,
                    Err(source) => return Err(PerfError::Open { cpu: id, bytes, source }),
                }
            };
            cpus.push(Cpu { id, buffer, lost: 0 });
        }
        Ok(Self { cpus, merge: Merge::default(), buffer_bytes: bytes })
    }

    /// Hands out all events older than [`HOLD_BACK`] before `now_ns`, oldest first: the header, and the
    /// packet from its IP header up. `now_ns` is [`monotonic_ns`](super::clock::monotonic_ns) read before
    /// the call.
    pub fn drain(&mut self, now_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        self.read();
        let hold_back = u64::try_from(HOLD_BACK.as_nanos()).unwrap_or(u64::MAX);
        self.merge.release(now_ns.saturating_sub(hold_back), sink);
    }

    /// Hands out everything that is there: the end of tracing.
    pub fn flush(&mut self, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        self.read();
        self.merge.release(u64::MAX, sink);
    }

    /// What became of the records so far.
    #[must_use]
    pub fn counters(&self) -> PerfCounters {
        PerfCounters {
            lost: self.cpus.iter().map(|cpu| cpu.lost).sum(),
            held: self.merge.pending.len() as u64,
            ..self.merge.counters
        }
    }

    /// Records that the kernel had no room for, by CPU.
    pub fn lost_by_cpu(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.cpus.iter().map(|cpu| (cpu.id, cpu.lost))
    }

    /// Size of the buffer of the last CPU, the smallest.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Reads what is in the buffers without handing anything out, so that [`Self::counters`] has every event that was there
    /// before the call. What is read here is bounded like the rest: [`Self::drain`] comes within milliseconds.
    pub fn read(&mut self) {
        for cpu in &mut self.cpus {
            cpu.buffer.for_each(|event| match event {
                PerfEvent::Sample { head, tail } => self.merge.push(head, tail),
                PerfEvent::Lost { count } => cpu.lost += count,
            });
        }
    }
}

/// Events of several CPUs on their way into one order. Apart from the buffers, so that it can be tested.
#[derive(Default)]
struct Merge {
    /// Records one behind the other. `spare` takes over what is held back, and the two change places.
    bytes: Vec<u8>,
    spare: Vec<u8>,
    pending: Vec<Pending>,
    /// Time of the youngest event handed out.
    released_ns: u64,
    counters: PerfCounters,
}

struct Pending {
    header: EventHeader,
    start: usize,
    end: usize,
}

impl Merge {
    /// Takes a record, which may come in two pieces where the buffer wraps around.
    fn push(&mut self, head: &[u8], tail: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(tail);
        match record::decode(&self.bytes[start..]) {
            Ok((header, packet)) => {
                let start = start + size_of::<EventHeader>() + usize::from(header.link_len);
                self.pending.push(Pending { header, start, end: start + packet.len() });
            }
            Err(_) => {
                self.counters.invalid += 1;
                self.bytes.truncate(start);
            }
        }
    }

    /// Hands out all events up to and including `until_ns`, in order, and keeps the others.
    fn release(&mut self, until_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        // Stable: one CPU's events of the same nanosecond stay in their order. The runs of each CPU are
        // sorted already, which this sort merges in linear time.
        self.pending.sort_by_key(|event| event.header.time_ns);
        let due = self.pending.partition_point(|event| event.header.time_ns <= until_ns);
        for event in self.pending.drain(..due) {
            if event.header.time_ns < self.released_ns {
                self.counters.late += 1;
            }
            self.released_ns = self.released_ns.max(event.header.time_ns);
            self.counters.events += 1;
            sink(&event.header, &self.bytes[event.start..event.end]);
        }
        self.spare.clear();
        for event in &mut self.pending {
            let start = self.spare.len();
            self.spare.extend_from_slice(&self.bytes[event.start..event.end]);
            (event.start, event.end) = (start, self.spare.len());
        }
        std::mem::swap(&mut self.bytes, &mut self.spare);
    }
}

fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{encode, header};
    use super::*;

    fn push(merge: &mut Merge, time_ns: u64) {
        let frame: Vec<u8> = [vec![0; 14], time_ns.to_be_bytes().to_vec()].concat();
        let record = encode(&header(time_ns, 22), &frame);
        let (head, tail) = record.split_at(usize::try_from(time_ns).unwrap() % record.len());
        merge.push(head, tail);
    }

    fn release(merge: &mut Merge, until_ns: u64) -> Vec<u64> {
        let mut times = Vec::new();
        merge.release(until_ns, &mut |header, packet| {
            assert_eq!(packet, header.time_ns.to_be_bytes());
            times.push(header.time_ns);
        });
        times
    }

    #[test]
    fn events_of_two_cpus_come_in_kernel_time_order() {
        let mut merge = Merge::default();
        for time in [10, 30, 50, 20, 40] {
            push(&mut merge, time);
        }
        assert_eq!(release(&mut merge, 35), [10, 20, 30]);
        for time in [36, 60, 45] {
            push(&mut merge, time);
        }
        assert_eq!(release(&mut merge, 60), [36, 40, 45, 50, 60]);
        assert_eq!(merge.counters, PerfCounters { events: 8, ..PerfCounters::default() });
        assert!(merge.bytes.is_empty());
    }

    #[test]
    fn what_comes_too_late_is_handed_out_and_counted() {
        let mut merge = Merge::default();
        push(&mut merge, 50);
        assert_eq!(release(&mut merge, 60), [50]);
        push(&mut merge, 40);
        push(&mut merge, 70);
        assert_eq!(release(&mut merge, u64::MAX), [40, 70]);
        assert_eq!(merge.counters.late, 1);
    }

    #[test]
    fn a_bad_record_is_counted_and_disturbs_nothing() {
        let mut merge = Merge::default();
        push(&mut merge, 1);
        merge.push(&[1, 2, 3], &[]);
        push(&mut merge, 2);
        assert_eq!(release(&mut merge, 9), [1, 2]);
        assert_eq!(merge.counters.invalid, 1);
    }
}
