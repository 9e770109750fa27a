//! A perf buffer of each CPU: a request seen by one CPU and its response seen by another come out in any order.
//!
//! All are read and merged by time. What is younger than [`HOLD_BACK`](super::HOLD_BACK) is held back, so that a CPU that takes its
//! time stamp early and commits late is still merged in order. Memory is bounded by twice the sum of the buffers.
//!
//! The library opens its buffers with a wake-up for each event, which costs more than all else that is done for a packet.

use aya::maps::perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer};
use aya::maps::{MapData, PerfEventArray};
use clovisor_common::EventHeader;

use super::{BufferError, Counters, SMALLEST_BUFFER, held::Held};

/// The buffers of all CPUs.
pub struct Perf {
    cpus: Vec<Cpu>,
    merge: Merge,
    bytes: usize,
}

struct Cpu {
    buffer: PerfEventArrayBuffer<MapData>,
    lost: u64,
}

impl Perf {
    /// Opens a buffer of `bytes` for each online CPU.
    ///
    /// Without CAP_IPC_LOCK the kernel limits locked memory, so a refused size is halved down to [`SMALLEST_BUFFER`].
    pub(in super::super) fn open(
        mut array: PerfEventArray<MapData>,
        mut bytes: usize,
    ) -> Result<Self, BufferError> {
        let ids = aya::util::online_cpus().map_err(|(path, source)| BufferError::Cpus { path, source })?;
        let mut cpus = Vec::with_capacity(ids.len());
        for cpu in ids {
            let buffer = loop {
                match array.open(cpu, Some((bytes / page_size()).max(1))) {
                    Ok(buffer) => break buffer,
                    Err(PerfBufferError::MMapError { .. }) if bytes > SMALLEST_BUFFER => bytes /= 2,
                    Err(source) => return Err(BufferError::Perf { cpu, bytes, source }),
                }
            };
            cpus.push(Cpu { buffer, lost: 0 });
        }
        Ok(Self { cpus, merge: Merge::default(), bytes })
    }

    pub(super) fn drain(&mut self, until_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        self.read();
        self.merge.release(until_ns, sink);
    }

    pub(super) fn read(&mut self) {
        for cpu in &mut self.cpus {
            cpu.buffer.for_each(|event| match event {
                PerfEvent::Sample { head, tail } => self.merge.push(head, tail),
                PerfEvent::Lost { count } => cpu.lost += count,
            });
        }
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            lost: self.cpus.iter().map(|cpu| cpu.lost).sum(),
            held: self.merge.held.len() as u64,
            ..self.merge.counters
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Events of several CPUs on their way into one order. Apart from the buffers, so that it can be tested.
#[derive(Default)]
struct Merge {
    held: Held,
    /// Time of the youngest event handed out.
    released_ns: u64,
    counters: Counters,
}

impl Merge {
    /// Takes a record, which comes in two pieces where the buffer wraps around.
    fn push(&mut self, head: &[u8], tail: &[u8]) {
        self.counters.invalid += u64::from(self.held.push(head, tail).is_err());
    }

    /// Hands out all events up to and including `until_ns`, in order, and keeps the others.
    fn release(&mut self, until_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        self.held.sort();
        let Self { held, released_ns, counters } = self;
        held.release(until_ns, &mut |header, packet| {
            counters.late += u64::from(header.time_ns < *released_ns);
            *released_ns = (*released_ns).max(header.time_ns);
            counters.events += 1;
            sink(header, packet);
        });
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
        assert_eq!(merge.counters, Counters { events: 8, ..Counters::default() });
        assert_eq!(merge.held.len(), 0);
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
