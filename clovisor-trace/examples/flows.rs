//! What an idle flow holds: resident memory of this process with so many kept-alive connections, each of which had some sessions.
//!
//! `cargo run --release -p clovisor-trace --example flows -- 10000 100000`. All that a flow costs is in it, the allocator's own share and
//! the table's too; what the tracer has on its books for it stands beside it.

use std::fs;

use clovisor_trace::{Limits, Packet, Protocol, Side, Toward, Tracer};
use etherparse::PacketBuilder;

/// Sessions of each flow: the first is seen with the connection's opening, the others only find what it has left.
const SESSIONS: u32 = 3;
const REQUEST: &[u8] = b"GET /item/1 HTTP/1.1\r\nHost: shop\r\nUser-Agent: example\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a segment says beside its bytes.
#[derive(Clone, Copy, PartialEq)]
enum Flag {
    Syn,
    Ack,
}

struct Wire {
    tracer: Tracer,
    time_ns: u64,
    frame: Vec<u8>,
}

impl Wire {
    fn send(&mut self, flow: u32, toward: Toward, flag: Flag, (seq, ack): (u32, u32), payload: &[u8]) {
        let [_, high, middle, low] = flow.to_be_bytes();
        let (client, server) = (([10, high, middle, low], 40_000), ([192, 0, 2, 1], 80));
        let (from, to) = if toward == Toward::Server { (client, server) } else { (server, client) };
        let segment = PacketBuilder::ipv4(from.0, to.0, 64).tcp(from.1, to.1, seq, 60_000);
        let segment = if flag == Flag::Syn { segment.syn() } else { segment };
        let segment = if ack > 0 { segment.ack(ack) } else { segment };
        self.frame.clear();
        segment.write(&mut self.frame, payload).expect("it fits");
        self.time_ns += 1_000;
        self.tracer.handle_packet(&Packet {
            time_ns: self.time_ns,
            interface: 1,
            side: Side::Server,
            toward,
            protocol: Protocol::Http,
            wire_len: u32::try_from(self.frame.len()).expect("short"),
            data: &self.frame,
        });
        while self.tracer.poll_session().is_some() {}
    }

    fn open(&mut self, flow: u32) {
        self.send(flow, Toward::Server, Flag::Syn, (0, 0), b"");
        self.send(flow, Toward::Client, Flag::Syn, (0, 1), b"");
        self.send(flow, Toward::Server, Flag::Ack, (1, 1), b"");
    }

    fn ask(&mut self, flow: u32, round: u32) {
        let (request, response) = (REQUEST.len() as u32, RESPONSE.len() as u32);
        let (client, server) = (1 + round * request, 1 + round * response);
        self.send(flow, Toward::Server, Flag::Ack, (client, server), REQUEST);
        self.send(flow, Toward::Client, Flag::Ack, (server, client + request), RESPONSE);
        self.send(flow, Toward::Server, Flag::Ack, (client + request, server + response), b"");
    }
}

/// Resident memory of this process (proc_pid_status(5)), in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("so has this file");
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).expect("a number") * 1024
}

fn main() {
    println!("| flows | resident bytes a flow | on the books |\n| --- | --- | --- |");
    for flows in std::env::args().skip(1).map(|text| text.parse::<u32>().expect("a number of flows")) {
        let limits = Limits { flows: flows as usize, memory: usize::MAX, ..Limits::default() };
        let mut wire = Wire { tracer: Tracer::new(limits), time_ns: 1_000_000_000, frame: Vec::new() };
        let before = resident();
        (0..flows).for_each(|flow| wire.open(flow));
        for round in 0..SESSIONS {
            (0..flows).for_each(|flow| wire.ask(flow, round));
        }
        let held = resident().saturating_sub(before) / u64::from(flows);
        let ledger = wire.tracer.ledger();
        assert_eq!(
            ledger.sessions_ended(),
            u64::from(SESSIONS * flows),
            "all of them, or it is something else"
        );
        println!("| {flows} | {held} | {} |", wire.tracer.memory() / flows as usize);
    }
}
