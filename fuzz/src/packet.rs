//! Target `packet`: any bytes as a packet from its IP header on.
//!
//! Input: a byte of choices ([`Choices`]), two bytes by how much the packet was longer on the wire than it is here
//! (a file may also say that it was shorter), the packet.

use clovisor_trace::{Packet, Protocol, Side, Toward};

use crate::watched::{Watched, small_limits};

/// Bits of the first byte.
struct Choices(u8);

impl Choices {
    const fn toward(&self) -> Toward {
        if self.0 & 1 == 0 { Toward::Server } else { Toward::Client }
    }

    const fn side(&self) -> Side {
        if self.0 & 2 == 0 { Side::Server } else { Side::Client }
    }

    const fn protocol(&self) -> Protocol {
        if self.0 & 4 == 0 { Protocol::Http } else { Protocol::Tcp }
    }
}

/// The packet comes twice, 30 ms apart, and then nothing more for a while.
pub fn run(input: &[u8]) {
    let Some((&[choices, low, high], data)) = input.split_first_chunk() else { return };
    let choices = Choices(choices);
    let wire_len = u32::try_from(data.len())
        .unwrap_or(u32::MAX)
        .saturating_add_signed(i16::from_le_bytes([low, high]).into());
    let mut tracer = Watched::new(small_limits());
    for time_ns in [1_000_000_000, 1_030_000_000] {
        tracer.timeout(time_ns);
        tracer.packet(&Packet {
            time_ns,
            interface: 1,
            side: choices.side(),
            toward: choices.toward(),
            protocol: choices.protocol(),
            wire_len,
            data,
        });
    }
    tracer.timeout(1_200_000_000);
    tracer.finish(1_300_000_000);
}
