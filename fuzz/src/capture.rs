//! Target `capture`: any bytes as a capture file, through the reader and the rules into a tracer, as `clovisor read`
//! does it.

use std::ops::ControlFlow;

use clovisor_trace::{EgressRule, Limits, PortRule, Protocol, Rules, capture};

use crate::watched::{Watched, small_limits};

/// Packets that are taken of a file: as many as the largest seeds have, and few enough to be quick.
const MOST_PACKETS: u32 = 1_000;

/// The file is read twice, with usual limits and with small ones: the reader must say the same.
pub fn run(input: &[u8]) {
    let usual = read(input, Limits::default());
    let small = read(input, small_limits());
    assert_eq!(usual, small);
}

/// Reads a file. Packets that were handed out, and how it ended.
fn read(input: &[u8], limits: Limits) -> (u32, Result<(), capture::CaptureError>) {
    let rules = rules();
    let mut tracer = Watched::new(limits);
    let (mut packets, mut last_ns) = (0, 0);
    let end = capture::read(input, |record| {
        packets += 1;
        assert!(record.data.len() <= input.len());
        // Times in a file may step back; the tracer's clock does not.
        last_ns = record.time_ns.max(last_ns);
        let selected = rules.select(record.time_ns, record.interface, record.wire_len, record.data);
        if let Some(packet) = selected.filter(|packet| !packet.data.is_empty()) {
            tracer.timeout(last_ns);
            tracer.packet(&packet);
        }
        if packets < MOST_PACKETS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    tracer.finish(last_ns);
    (packets, end)
}

/// What listens where in the seeds' captures.
fn rules() -> Rules {
    let port = |port, protocol| PortRule { port, protocol };
    Rules {
        ports: [80, 8080, 8082, 8083]
            .map(|http| port(http, Protocol::Http))
            .into_iter()
            .chain([port(6379, Protocol::Tcp)])
            .collect(),
        egress: vec![EgressRule { address: None, port: 8081, protocol: Protocol::Http }],
    }
}
