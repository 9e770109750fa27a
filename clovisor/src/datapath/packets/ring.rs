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
/// After so many turns in a row with nothing in the ring, the kernel side wakes us for the next packet: a wake-up then costs what a turn
/// does, and without packets there is neither.
const QUIET_TURNS: u32 = 10;
/// Packets of a millisecond up to which they are few: those of 25,000 small requests a second, which take some 20 MB/s of the ring.
const FEW: u64 = 50;

/// The ring, mapped.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    bytes: usize,
    /// Tells the kernel side how many bytes may wait before it wakes us; it takes that away when it does.
    wake_at: Array<MapData, u64>,
    /// What was told, and when, kernel time.
    told: (u64, u64),
    /// Whether the kernel side has woken us since.
    woken: AtomicBool,
    /// Turns since there was something in the ring.
    quiet: u32,
    /// When it was emptied last, kernel time, and whether few packets had come since the time before.
    drained_ns: u64,
    is_sparse: bool,
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
        let (told, woken) = ((0, 0), AtomicBool::new(true));
        Ok(Self {
            ring,
            bytes,
            wake_at,
            told,
            woken,
            quiet: 0,
            drained_ns: 0,
            is_sparse: false,
            held,
            counters,
        })
    }

    pub(super) fn drain(&mut self, now_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) {
        let before = self.counters.events;
        self.flush(now_ns, sink);
        let events = self.counters.events - before;
        self.quiet = if events == 0 { self.quiet.saturating_add(1) } else { 0 };
        self.is_sparse = events * 1_000_000 <= FEW * now_ns.saturating_sub(self.drained_ns);
        self.drained_ns = now_ns;
        self.ask_to_be_woken(now_ns);
    }

    /// Whether the kernel side wakes us for the next packet. One that it has written while we were telling it so was found by the turn
    /// after that.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet > QUIET_TURNS && self.told.0 == 0
    }

    /// Whether few packets come. Where more come all at once, the kernel side wakes us.
    pub(super) fn is_sparse(&self) -> bool {
        self.is_sparse
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

    /// Tells the kernel side when to wake us, where that has changed or it has done so.
    fn ask_to_be_woken(&mut self, now_ns: u64) {
        let bytes = if self.quiet < QUIET_TURNS { self.bytes as u64 / 2 } else { 0 };
        let between = u64::try_from(BETWEEN_WAKES.as_nanos()).unwrap_or(u64::MAX);
        let is_known = self.told.0 == bytes && !self.woken.load(Ordering::Relaxed);
        if is_known || now_ns.saturating_sub(self.told.1) < between {
            return;
        }
        // A failure costs wake-ups, not packets: they are fetched every few milliseconds all the same.
        if self.wake_at.set(0, bytes, 0).is_ok() {
            (self.told, self.woken) = ((bytes, now_ns), AtomicBool::new(false));
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
