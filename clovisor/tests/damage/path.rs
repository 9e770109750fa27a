//! The path between two nodes that does harm: two TUN devices, and a thread that carries packets from one to the other and
//! drops, doubles and holds back some of them, as a seeded generator says.
//!
//! A TUN device without `IFF_VNET_HDR` takes no offloads, so the kernel cuts and checksums all packets before they come here.
//! It refuses to change a packet. What is held back is bounded, and every harm is counted.

use std::{
    collections::BinaryHeap,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::record::Record;

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);

/// Packets held back at once; beyond it they are dropped, as a router's queue does.
const MOST_HELD: usize = 4096;
/// Longest time that a packet is held back: as much as queues of the field reorder by.
const LONGEST: Duration = Duration::from_millis(20);
/// Packets taken from one side before the other has its turn.
const BURST: usize = 64;

/// Harm out of a thousand packets, in each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Harm {
    pub(crate) drop: u64,
    pub(crate) double: u64,
    pub(crate) delay: u64,
}

/// What was done to the packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Packets that came in.
    pub(crate) came: u64,
    pub(crate) dropped: u64,
    pub(crate) doubled: u64,
    /// Packets that went out after one that had come later.
    pub(crate) overtaken: u64,
    /// Packets that had no place, or that the kernel did not take; part of none of the above.
    pub(crate) refused: u64,
}

/// A packet that is held back.
struct Held {
    due: Instant,
    /// To which side it goes.
    to: usize,
    /// In what place it came.
    place: u64,
    packet: Vec<u8>,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest first, and the earliest is wanted.
        (other.due, other.place).cmp(&(self.due, self.place))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}

/// Dice that fall the same way for the same seed (Vigna's SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// Makes a TUN device in the namespace of the calling thread.
pub(crate) fn tun(name: &str) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: all zero is a valid `ifreq`, which is plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap();
    // SAFETY: the descriptor is open, and the kernel only reads the name and flags of a whole `ifreq` (and writes the name back).
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }.unwrap();
    file
}

/// The running path; ends when dropped.
pub(crate) struct Path {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<([Done; 2], Record)>>,
}

impl Path {
    /// Starts to carry packets between the two devices.
    pub(crate) fn start(ends: [File; 2], harm: Harm, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let mut carrier = Carrier {
            ends,
            buffer: vec![0; 1 << 16],
            harm,
            dice: Dice(seed),
            held: BinaryHeap::new(),
            place: 0,
            newest: [0; 2],
            done: [Done::default(); 2],
            record: Record::default(),
        };
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                carrier.turn();
            }
            (carrier.done, carrier.record)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it: what was done on the way to the server and to the client, and the packets.
    pub(crate) fn end(mut self) -> ([Done; 2], Record) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Carrier {
    /// The client's end, and the server's.
    ends: [File; 2],
    /// Room for the longest IP packet.
    buffer: Vec<u8>,
    harm: Harm,
    dice: Dice,
    held: BinaryHeap<Held>,
    place: u64,
    /// Place of the youngest packet that went out, to each side.
    newest: [u64; 2],
    /// Toward the server, toward the client.
    done: [Done; 2],
    record: Record,
}

impl Carrier {
    /// Waits for packets, or until a held one is due, and carries them.
    fn turn(&mut self) {
        let now = Instant::now();
        let wait = self.held.peek().map_or(50, |held| {
            // Rounded up, so that it does not turn without end in the last millisecond.
            u16::try_from(held.due.saturating_duration_since(now).as_micros().div_ceil(1000)).unwrap()
        });
        let mut ready = self.ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::from(wait)).ok();
        for from in 0..2 {
            for _ in 0..BURST {
                match (&self.ends[from]).read(&mut self.buffer) {
                    Ok(length) => {
                        let packet = self.buffer[..length].to_vec();
                        self.take(from, packet);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The device is down, as it is before the test brings it up.
                    Err(_) => break,
                }
            }
        }
        let now = Instant::now();
        while self.held.peek().is_some_and(|held| held.due <= now) {
            let held = self.held.pop().unwrap();
            self.put(held.to, held.place, &held.packet);
        }
    }

    /// A packet of one side: the dice say what becomes of it.
    fn take(&mut self, from: usize, packet: Vec<u8>) {
        let Harm { drop, double, delay } = self.harm;
        let [drops, doubles, delays] = [drop, double, delay].map(|rate| self.dice.roll(1000) < rate);
        let wait = Duration::from_micros(1 + self.dice.roll(LONGEST.as_micros().try_into().unwrap()));
        self.place += 1;
        let (to, place) = (1 - from, self.place);
        self.record.keep(from, &packet);
        self.done[from].came += 1;
        if drops {
            self.done[from].dropped += 1;
            return;
        }
        if doubles {
            self.done[from].doubled += 1;
            self.hold(wait / 2, to, place, packet.clone());
        }
        if delays {
            self.hold(wait, to, place, packet);
        } else {
            self.put(to, place, &packet);
        }
    }

    fn hold(&mut self, wait: Duration, to: usize, place: u64, packet: Vec<u8>) {
        if self.held.len() < MOST_HELD {
            self.held.push(Held { due: Instant::now() + wait, to, place, packet });
        } else {
            self.done[1 - to].refused += 1;
        }
    }

    fn put(&mut self, to: usize, place: u64, packet: &[u8]) {
        let done = &mut self.done[1 - to];
        if (&self.ends[to]).write(packet).is_err() {
            done.refused += 1;
            return;
        }
        self.record.keep(to, packet);
        if place < self.newest[to] {
            done.overtaken += 1;
        }
        self.newest[to] = self.newest[to].max(place);
    }
}
