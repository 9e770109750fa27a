//! What the tracer costs by itself: prepared packets to sessions, on one core, with nothing before or behind.
//!
//! Each request has 150 bytes, each response 400; both ends acknowledge by what they send, as kept-alive connections do. One
//! element is one session.

use std::hint::black_box;

use clovisor_trace::{Limits, Packet, Protocol, Side, Toward, Tracer};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;

const REQUESTS: u32 = 64_000;
const REQUEST: usize = 150;
const RESPONSE: usize = 400;

struct Frame {
    toward: Toward,
    data: Vec<u8>,
}

/// A message of so many bytes, the padding in a header or in the body.
fn message(start: &str, len: usize) -> Vec<u8> {
    let mut bytes = start.as_bytes().to_vec();
    bytes.resize(len, b'x');
    if start.starts_with("GET") {
        bytes[len - 4..].copy_from_slice(b"\r\n\r\n");
    }
    bytes
}

fn frame(connection: u32, toward: Toward, seq: u32, ack: u32, payload: &[u8]) -> Frame {
    let [_, high, middle, low] = connection.to_be_bytes();
    let (client, server) = (([10, high, middle, low], 40_000), ([192, 0, 2, 1], 80));
    let (from, to) = match toward {
        Toward::Server => (client, server),
        Toward::Client => (server, client),
    };
    let mut data = Vec::new();
    PacketBuilder::ipv4(from.0, to.0, 64)
        .tcp(from.1, to.1, seq, 60_000)
        .ack(ack)
        .write(&mut data, payload)
        .expect("it fits");
    Frame { toward, data }
}

/// So many connections, in turn, with [`REQUESTS`] requests together.
fn frames(connections: u32) -> Vec<Frame> {
    let request = message("GET /item/1 HTTP/1.1\r\nHost: shop\r\nUser-Agent: bench\r\nX-Pad: ", REQUEST);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ";
    let body = RESPONSE - head.len() - "300\r\n\r\n".len();
    let response = message(&format!("{head}{body}\r\n\r\n"), RESPONSE);
    let mut frames = Vec::new();
    for round in 0..REQUESTS / connections {
        let client = 1 + round * u32::try_from(request.len()).expect("short");
        let server = 1 + round * u32::try_from(response.len()).expect("short");
        for connection in 0..connections {
            let asked = client + u32::try_from(request.len()).expect("short");
            frames.push(frame(connection, Toward::Server, client, server, &request));
            frames.push(frame(connection, Toward::Client, server, asked, &response));
        }
    }
    frames
}

/// Sessions that come of it. A function of its own in the binary, so that callgrind can count it alone.
#[inline(never)]
fn trace(frames: &[Frame]) -> u32 {
    let mut tracer = Tracer::new(Limits::default());
    let mut sessions = 0;
    let mut time_ns = 1_000_000_000;
    for frame in frames {
        time_ns += 1_000;
        tracer.handle_packet(&Packet {
            time_ns,
            interface: 1,
            side: Side::Server,
            toward: frame.toward,
            protocol: Protocol::Http,
            wire_len: u32::try_from(frame.data.len()).expect("short"),
            data: &frame.data,
        });
        while let Some(session) = tracer.poll_session() {
            black_box(&session);
            sessions += 1;
        }
    }
    tracer.finish(time_ns);
    sessions + u32::try_from(std::iter::from_fn(|| tracer.poll_session()).count()).expect("few")
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packets to sessions");
    group.throughput(Throughput::Elements(REQUESTS.into())).sample_size(20);
    for connections in [1, 64, 1_000, 8_000] {
        let frames = frames(connections);
        group.bench_with_input(BenchmarkId::from_parameter(connections), &frames, |bencher, frames| {
            bencher.iter(|| {
                assert_eq!(trace(frames), REQUESTS, "all of them, or it is not the work that is measured");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
