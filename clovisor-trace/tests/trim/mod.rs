//! What the kernel side does with stretches that nobody looks at, on paper: packets of them come without their payload.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::{HashMap, VecDeque};

use clovisor_trace::{Toward, Tracer, Unneeded};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

/// Half of all sequence numbers.
const AHEAD: u32 = 1 << 31;

/// Trims packets of one connection as the kernel side does.
pub struct Trim {
    windows: HashMap<Toward, (u32, u32)>,
    /// What the kernel side is not told yet.
    late: VecDeque<(usize, Unneeded)>,
    /// So many packets come before it is told.
    delay: usize,
    packets: usize,
    /// Bytes that were not copied.
    pub spared: usize,
}

impl Trim {
    pub fn new(delay: usize) -> Self {
        Self { windows: HashMap::new(), late: VecDeque::new(), delay, packets: 0, spared: 0 }
    }

    /// What of a packet is copied.
    pub fn copied<'a>(&mut self, toward: Toward, data: &'a [u8]) -> &'a [u8] {
        self.packets += 1;
        while self.late.front().is_some_and(|(when, _)| *when < self.packets) {
            self.windows.extend(self.late.pop_front().map(|(_, told)| (told.toward, told.bytes)));
        }
        let headers = PacketHeaders::from_ip_slice(data).expect("a packet");
        let (Some(TransportHeader::Tcp(tcp)), Some(NetHeaders::Ipv4(..))) = (headers.transport, headers.net)
        else {
            return data;
        };
        if tcp.syn {
            self.windows.clear();
        }
        let payload = headers.payload.slice().len();
        let Some((from, until)) = self.windows.get(&toward).copied().filter(|_| payload > 0) else {
            return data;
        };
        let (start, len) = (tcp.sequence_number.wrapping_sub(from), until.wrapping_sub(from));
        if start >= len {
            if start < AHEAD {
                self.windows.remove(&toward);
            }
            return data;
        }
        if payload > (len - start) as usize {
            return data;
        }
        self.spared += payload;
        &data[..data.len() - payload]
    }

    /// Hears what the tracer has to say.
    pub fn hear(&mut self, tracer: &mut Tracer) {
        while let Some(told) = tracer.poll_unneeded() {
            assert!(told.bytes.1.wrapping_sub(told.bytes.0) < AHEAD, "{told:?}");
            self.late.push_back((self.packets + self.delay, told));
        }
    }
}
