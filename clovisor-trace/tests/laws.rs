//! Laws: the same bytes give the same sessions, however they were cut, repeated, delayed and numbered, and
//! whatever bytes come in, nothing breaks and the ledger balances.

mod wire;

use clovisor_trace::{Limits, Packet, Protocol, Side, Toward, Tracer};
use proptest::prelude::*;
use wire::{Frame, Wire, lines, trace};

/// One exchange, with what it must be reported as.
#[derive(Clone, Debug)]
struct Exchange {
    request: String,
    response: String,
    line: String,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let methods = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PROPFIND"]);
    (methods, "[a-z]{0,12}", 0_usize..3, 0_usize..2_000, 0_usize..4, 0_usize..2_500, 200_u16..600).prop_map(
        |(method, path, request_kind, request_len, response_kind, response_len, code)| {
            let request_head = format!("{method} /{path} HTTP/1.1\r\nHost: h\r\n");
            let request = match request_kind {
                0 => format!("{request_head}\r\n"),
                1 => {
                    format!("{request_head}Content-Length: {request_len}\r\n\r\n{}", "r".repeat(request_len))
                }
                _ => format!("{request_head}Transfer-Encoding: chunked\r\n\r\n{}", chunked(request_len)),
            };
            let bodiless = method == "HEAD" || matches!(code, 204 | 304);
            let body = |text: String| if bodiless { String::new() } else { text };
            let interim = if response_kind == 3 { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
            let response = match response_kind {
                0 => format!(
                    "HTTP/1.1 {code} X\r\nContent-Length: {response_len}\r\n\r\n{}",
                    body("b".repeat(response_len))
                ),
                1 => format!(
                    "HTTP/1.1 {code} X\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                    body(chunked(response_len))
                ),
                _ => format!("{interim}HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n"),
            };
            let interim = if response_kind == 3 { "100 " } else { "" };
            let line =
                format!("{method} /{path} -> {interim}{code} complete {}/{}", request.len(), response.len());
            Exchange { request, response, line }
        },
    )
}

/// The same exchange with a path and a status that no other has.
fn tagged(exchange: &Exchange, tag: usize) -> Exchange {
    let path = exchange.request.split(' ').nth(1).expect("a path");
    let request = exchange.request.replacen(path, &format!("/t{tag}"), 1);
    let (head, body) = exchange.response.rsplit_once("HTTP/1.1 ").expect("a status line");
    let response = format!("{head}HTTP/1.1 {tag}{}", &body[3..]);
    // A status that forbids a body has given way to one that does not.
    let response = if response.ends_with("\r\n\r\n")
        && !body.contains("Length: 0")
        && !exchange.request.starts_with("HEAD")
    {
        format!("{head}HTTP/1.1 {tag} X\r\nContent-Length: 0\r\n\r\n")
    } else {
        response
    };
    let interim = if head.is_empty() { "" } else { "100 " };
    let method = exchange.request.split(' ').next().expect("a method");
    let line = format!("{method} /t{tag} -> {interim}{tag} complete {}/{}", request.len(), response.len());
    Exchange { request, response, line }
}

fn chunked(len: usize) -> String {
    let body: String = (0..len.div_ceil(100)).map(|_| format!("64;e=f\r\n{}\r\n", "c".repeat(100))).collect();
    format!("{body}0\r\nTrailer: t\r\n\r\n")
}

/// A whole connection: exchanges in batches (a batch of more than one is pipelined), cut by the sizes.
fn connection(batches: &[Vec<Exchange>], sizes: &[usize], seqs: (u32, u32)) -> Vec<Frame> {
    let mut wire = Wire::open(40_000, seqs.0, seqs.1);
    let mut sizes = sizes.iter().copied().cycle();
    for batch in batches {
        let requests: String = batch.iter().map(|exchange| exchange.request.as_str()).collect();
        wire.send(Toward::Server, requests.as_bytes(), &mut sizes);
        wire.ack(Toward::Client);
        for exchange in batch {
            wire.send(Toward::Client, exchange.response.as_bytes(), &mut sizes);
        }
        wire.ack(Toward::Server);
    }
    wire.fin(Toward::Server);
    wire.fin(Toward::Client);
    wire.ack(Toward::Server);
    wire.frames
}

/// What the network does to a packet.
#[derive(Clone, Copy, Debug)]
struct Fate {
    copies: usize,
    /// How many places later each copy comes.
    delay: usize,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate { copies: 1, delay: 0 }),
        1 => (1_usize..40).prop_map(|delay| Fate { copies: 1, delay }),
        1 => (0_usize..60).prop_map(|delay| Fate { copies: 2, delay }),
    ]
}

/// The packets in the order in which the network delivers them.
fn delivered(frames: &[Frame], fates: &[Fate]) -> Vec<Frame> {
    let mut arrivals = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        let fate = fates[at % fates.len()];
        if fate.copies > 1 {
            arrivals.push((at, at, frame));
        }
        arrivals.push((at + fate.delay, at, frame));
    }
    arrivals.sort_by_key(|(place, at, _)| (*place, *at));
    arrivals.into_iter().map(|(_, _, frame)| frame.clone()).collect()
}

fn cases(everyday: u32) -> ProptestConfig {
    let wanted = std::env::var("CLOVISOR_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: wanted.unwrap_or(everyday),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_same_bytes_give_the_same_sessions(
        batches in prop::collection::vec(prop::collection::vec(exchange(), 1..4), 1..5),
        sizes in prop::collection::vec(1_usize..1_400, 1..20),
        fates in prop::collection::vec(fate(), 1..60),
        seqs in prop_oneof![any::<(u32, u32)>(), Just((u32::MAX - 100, u32::MAX - 1_000))],
    ) {
        let expected: Vec<_> = batches.iter().flatten().map(|exchange| exchange.line.clone()).collect();
        let frames = connection(&batches, &sizes, seqs);
        prop_assert_eq!(&lines(&trace(&frames)), &expected);
        prop_assert_eq!(&lines(&trace(&delivered(&frames, &fates))), &expected);
    }

    #[test]
    fn a_cut_at_every_byte_changes_nothing(exchange in exchange()) {
        let frames = connection(&[vec![exchange.clone()]], &[1], (7, 7));
        prop_assert_eq!(lines(&trace(&frames)), vec![exchange.line]);
    }

    #[test]
    fn whatever_is_lost_nothing_is_invented(
        batches in prop::collection::vec(prop::collection::vec(exchange(), 1), 1..9),
        sizes in prop::collection::vec(1_usize..1_400, 1..20),
        keep in prop::collection::vec(prop::bool::weighted(0.9), 1..100),
    ) {
        // Each exchange gets a path and a status of its own, so that a wrong pair shows.
        let batches: Vec<Vec<_>> = batches.iter().enumerate().map(|(i, batch)| {
            batch.iter().enumerate().map(|(j, exchange)| tagged(exchange, 210 + i * 4 + j)).collect()
        }).collect();
        let frames = connection(&batches, &sizes, (1, 1));
        let kept: Vec<_> = frames.iter().enumerate().filter(|(at, _)| keep[at % keep.len()]).map(|(_, f)| f.clone()).collect();
        let expected: Vec<_> = batches.iter().flatten().map(|exchange| exchange.line.clone()).collect();
        for session in trace(&kept) {
            let found = wire::line(&session);
            // Bytes may be missing inside of a body whose length is known; the session says how many.
            let pair = |line: &str| line.rsplit_once(' ').map(|(pair, _)| pair.to_owned());
            let true_one = |line: &&String| pair(line) == pair(&found) && (session.missing_bytes > 0 || **line == found);
            if session.outcome == clovisor_trace::Outcome::Complete {
                prop_assert!(expected.iter().any(|line| true_one(&line)), "{} is invented; true are {:#?}", found, expected);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn any_bytes_are_taken(packets in prop::collection::vec(hostile(), 1..40), waits in any::<u32>()) {
        let limits = Limits { flows: 4, memory: 20_000, stream: 2_000, head: 1_000, pipeline: 3, ..Limits::default() };
        let mut tracer = Tracer::new(limits);
        let mut now = 0;
        for (at, (toward, data, wire_len)) in packets.iter().enumerate() {
            now += if waits >> (at % 32) & 1 == 1 { 60_000_000 } else { 1_000 };
            tracer.handle_timeout(now);
            let toward = if *toward { Toward::Server } else { Toward::Client };
            let protocol = if at % 5 == 4 { Protocol::Tcp } else { Protocol::Http };
            let packet =
                Packet { time_ns: now, interface: 1, side: Side::Client, toward, protocol, wire_len: *wire_len, data };
            tracer.handle_packet(&packet);
            while tracer.poll_session().is_some() {}
            prop_assert_eq!(tracer.ledger().balance(), Ok(()));
        }
        tracer.finish(now);
        prop_assert_eq!(tracer.ledger().balance(), Ok(()));
        while tracer.poll_session().is_some() {}
        prop_assert_eq!(tracer.ledger().balance(), Ok(()));
        prop_assert_eq!(tracer.ledger().sessions_open, 0);
    }
}

/// Packets between random bytes and nearly right: true headers with random flags, numbers and payload.
fn hostile() -> impl Strategy<Value = (bool, Vec<u8>, u32)> {
    let text = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12".to_vec()),
        Just(b"HTTP/1.1 101 X\r\n\r\n".to_vec()),
        Just(b"CONNECT a:1 HTTP/1.1\r\n\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..300),
    ];
    let near = (any::<bool>(), 0_u32..3_000, 0_u32..3_000, any::<u8>(), 0_u16..3, text, 0_usize..60)
        .prop_map(|(toward, seq, ack, flags, port, payload, cut)| {
            let mut tcp = etherparse::TcpHeader::new(1000 + port, 80, seq, 100);
            if !toward {
                (tcp.source_port, tcp.destination_port) = (80, 1000 + port);
            }
            (tcp.syn, tcp.fin, tcp.rst) = (flags & 7 == 1, flags & 31 == 2, flags & 63 == 4);
            (tcp.ack, tcp.acknowledgment_number) = (flags & 8 == 0, ack);
            let mut data = Vec::new();
            let ips = if toward { ([1; 4], [2; 4]) } else { ([2; 4], [1; 4]) };
            etherparse::PacketBuilder::ipv4(ips.0, ips.1, 9)
                .tcp_header(tcp)
                .write(&mut data, &payload)
                .expect("fits");
            let wire_len = u32::try_from(data.len()).expect("small");
            data.truncate(data.len() - cut.min(data.len()));
            (toward, data, wire_len)
        });
    prop_oneof![
        1 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..100), any::<u32>()),
        5 => near,
    ]
}
