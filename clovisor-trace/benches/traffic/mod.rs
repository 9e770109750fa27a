//! What benchmarks trace: requests of 150 bytes with responses of 400; both ends acknowledge by what they send, as kept-alive
//! connections do.

use clovisor_trace::{Packet, Protocol, Side, Toward};
use etherparse::PacketBuilder;

/// Requests of one run.
pub(crate) const REQUESTS: u32 = 64_000;
const REQUEST: usize = 150;
const RESPONSE: usize = 400;

/// A packet without its time.
pub(crate) struct Frame {
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
pub(crate) fn frames(connections: u32) -> Vec<Frame> {
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

/// The frames as they would come from the kernel, a microsecond apart.
pub(crate) fn packets(frames: &[Frame]) -> impl Iterator<Item = Packet<'_>> {
    (1_000_001_000_u64..).step_by(1_000).zip(frames).map(|(time_ns, frame)| Packet {
        time_ns,
        interface: 1,
        side: Side::Server,
        toward: frame.toward,
        protocol: Protocol::Http,
        wire_len: u32::try_from(frame.data.len()).expect("short"),
        data: &frame.data,
    })
}
