//! The ring buffer of all CPUs: events come in the order in which they were written.
//!
//! A packet that another one has caused is written after it, so this is an order in which they may have happened, though of
//! two packets that CPUs handle at once the times may be the other way round. Events are handed out where they lie, and nothing is
//! copied.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use aya::maps::{Array, MapData, RingBuf};
use clovisor_common::EventHeader;
use tokio::io::{Interest, unix::AsyncFd};

use super::{BufferError, Counters, held::Held, record};

/// How long after one wake-up the kernel side may give the next: under overload this bounds what waking costs.
const BETWEEN_WAKES: Duration = Duration::from_millis(1);

/// The ring, mapped.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    bytes: usize,
    /// Tells the kernel side how many bytes may wait before it wakes us; it takes that away when it does.
    wake_at: Array<MapData, u64>,
    /// When that was told, kernel time.
    told_ns: u64,
    /// Whether the kernel side has woken us since.
    woken: AtomicBool,
    /// What [`Self::read`] has read.
    held: Held,
    counters: Counters,
}

impl Ring {
    pub(in super::super) fn open(
        ring: RingBuf<MapData>,
        wake_at: Array<MapData, u64>,
        bytes: usize,
    ) -> Result<Self, BufferError> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for the sake of types that change their descriptor: this one does not"
        )]
        let ring = AsyncFd::with_interest(ring, Interest::READABLE).map_err(BufferError::Wait)?;
        let (held, counters) = (Held::default(), Counters::default());
        Ok(Self { ring, bytes, wake_at, told_ns: 0, woken: AtomicBool::new(true), held, counters })
    }

    pub(super) fn drain(&mut self, now_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        self.flush(now_ns, sink);
        self.ask_to_be_woken(now_ns);
    }

    /// Hands out what is there, up to the first that is younger than `until_ns`: more than that may come as fast as it is read.
    pub(super) fn flush(&mut self, until_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        let Self { ring, held, counters, .. } = self;
        let mut handed_out = 0;
        let mut sink = |header: &EventHeader, packet: &[u8]| {
            handed_out += 1;
            sink(header, packet);
        };
        held.release(u64::MAX, &mut sink);
        while let Some(item) = ring.get_mut().next() {
            match record::decode(&item) {
                Ok((header, packet)) => {
                    sink(&header, packet);
                    if header.time_ns > until_ns {
                        break;
                    }
                }
                Err(_) => counters.invalid += 1,
            }
        }
        counters.events += handed_out;
    }

    /// If the kernel side has woken us, lets it do so again.
    fn ask_to_be_woken(&mut self, now_ns: u64) {
        let between = u64::try_from(BETWEEN_WAKES.as_nanos()).unwrap_or(u64::MAX);
        if !self.woken.load(Ordering::Relaxed) || now_ns.saturating_sub(self.told_ns) < between {
            return;
        }
        // A failure costs wake-ups, not packets: they are fetched every few milliseconds all the same.
        if self.wake_at.set(0, self.bytes as u64 / 2, 0).is_ok() {
            (self.told_ns, self.woken) = (now_ns, AtomicBool::new(false));
        }
    }

    pub(super) fn read(&mut self) {
        while let Some(item) = self.ring.get_mut().next() {
            self.counters.invalid += u64::from(self.held.push(&item, &[]).is_err());
        }
    }

    pub(super) async fn filled(&self) {
        match self.ring.readable().await {
            Ok(mut ready) => {
                ready.clear_ready();
                self.woken.store(true, Ordering::Relaxed);
            }
            // The runtime is about to end.
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn counters(&self) -> Counters {
        Counters { held: self.held.len() as u64, ..self.counters }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
