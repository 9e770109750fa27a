//! HTTP/1 conversations of every kind, each with the sessions that must come of it.

mod wire;

use clovisor_trace::{Limits, Packet, Protocol, Side, Toward, Tracer};
use wire::{Frame, Wire, lines, trace, trace_with, whole};

const C: Toward = Toward::Server;
const S: Toward = Toward::Client;

/// Plays what each end says in turn over one connection, then closes it, server first.
fn play(said: &[(Toward, &str)]) -> Vec<String> {
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    for (toward, bytes) in said {
        wire.send(*toward, bytes.as_bytes(), &mut whole());
    }
    wire.fin(S);
    wire.fin(C);
    lines(&trace(&wire.frames))
}

#[test]
fn one_request() {
    let get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(play(&[(C, get), (S, ok)]), [format!("GET /a -> 200 complete {}/{}", get.len(), ok.len())]);
}

#[test]
fn framings_of_responses() {
    for (request, response, expected) in [
        (
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
            "GET / -> 204 complete",
        ),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            "GET / -> 304 complete",
        ),
        ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD / -> 200 complete"),
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nuntil the end", "GET / -> 200 complete"),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nTrailer: t\r\n\r\n",
            "GET / -> 200 complete",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "GET / -> 200 complete"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "GET / -> 200 closed"),
        ("GET / HTTP/1.1\r\n\r\n", "", "GET / -> ? closed"),
        ("GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01nonsense", "GET / -> ? unparsed"),
        ("GET / HTT", "", "? -> ? closed"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "? -> 400 unparsed"),
    ] {
        let found = play(&[(C, request), (S, response)]);
        assert_eq!(
            found,
            [format!("{expected} {}/{}", request.len(), response.len())],
            "{request:?} {response:?}"
        );
    }
}

#[test]
fn keep_alive_and_pipelining() {
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\n\r\n");
    let response = |code: u16| format!("HTTP/1.1 {code} X\r\nContent-Length: 1\r\n\r\nx");
    let expected =
        ["GET /1 -> 201 complete 19/38", "GET /2 -> 202 complete 19/38", "GET /3 -> 203 complete 19/38"];
    let turns = [
        (C, request("/1")),
        (S, response(201)),
        (C, request("/2")),
        (S, response(202)),
        (C, request("/3")),
        (S, response(203)),
    ];
    let said: Vec<_> = turns.iter().map(|(toward, text)| (*toward, text.as_str())).collect();
    assert_eq!(play(&said), expected);
    let all =
        (request("/1") + &request("/2") + &request("/3"), response(201) + &response(202) + &response(203));
    assert_eq!(play(&[(C, &all.0), (S, &all.1)]), expected);
}

#[test]
fn interim_responses() {
    let found = play(&[
        (C, "POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"),
        (S, "HTTP/1.1 100 Continue\r\n\r\n"),
        (C, "body"),
        (S, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(found, ["POST / -> 100 103 200 complete 64/91"]);
}

#[test]
fn early_response() {
    let found = play(&[
        (C, "POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\nbody"),
        (S, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
        (C, "rest"),
        (C, "GET /next HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(found, ["POST / -> 413 complete 46/45", "GET /next -> 200 complete 22/38"]);
}

#[test]
fn a_response_within_the_head_of_its_request_is_reported_when_the_head_ends() {
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    for (toward, bytes) in [
        (C, "GET /slow HTTP/1.1\r\n"),
        (S, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
        (C, "\r\n"),
        (C, "GET /next HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        wire.send(toward, bytes.as_bytes(), &mut whole());
    }
    let mut tracer = Tracer::new(Limits::default());
    for (time_ns, frame) in (1..).zip(&wire.frames) {
        let Frame { toward, data, wire_len } = frame;
        let (side, protocol) = (Side::Server, Protocol::Http);
        let (toward, wire_len) = (*toward, *wire_len);
        tracer.handle_packet(&Packet { time_ns, interface: 1, side, toward, protocol, wire_len, data });
    }
    // The connection stays open, and no session waits for its end.
    let sessions: Vec<_> = std::iter::from_fn(|| tracer.poll_session()).collect();
    let expected = ["GET /slow -> 408 complete 22/51", "GET /next -> 200 complete 22/38"];
    assert_eq!(lines(&sessions), expected);
}

#[test]
fn early_response_then_close() {
    let found = play(&[
        (C, "POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\nbody"),
        (S, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(found, ["POST / -> 413 complete 42/45"]);
}

#[test]
fn upgrade_accepted_and_refused() {
    let ask = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let found = play(&[
        (C, ask),
        (S, "HTTP/1.1 101 Switching Protocols\r\n\r\n\x02frames"),
        (C, "GET /not HTTP/1.1\r\n\r\n"),
        (S, "more frames"),
    ]);
    assert_eq!(found, ["GET /ws -> 101 upgraded 61/36"]);
    let found = play(&[
        (C, &format!("{ask}GET /next HTTP/1.1\r\n\r\n")),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (S, "HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(found, ["GET /ws -> 200 complete 61/38", "GET /next -> 201 complete 22/38"]);
}

#[test]
fn connect() {
    let found = play(&[
        (C, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (S, "HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\n"),
        (C, "\x16\x03\x01"),
        (S, "\x16\x03\x03"),
    ]);
    assert_eq!(found, ["CONNECT a:443 -> 200 upgraded 35/47"]);
    let found = play(&[
        (C, "CONNECT a:443 HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno"),
        (C, "GET / HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(found, ["CONNECT a:443 -> 407 complete 26/40", "GET / -> 200 complete 18/38"]);
}

#[test]
fn responses_nobody_asked_for() {
    let found = play(&[
        (S, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
        (C, "GET / HTTP/1.1\r\n\r\n"),
        (S, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(found, ["? -> 408 request_unobserved 0/51", "GET / -> 200 complete 18/38"]);
}

#[test]
fn reset_and_silence() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, b"GET / HTTP/1.1\r\n\r\n", &mut whole());
    let silent = wire.frames.clone();
    wire.reset(S);
    assert_eq!(lines(&trace(&wire.frames)), ["GET / -> ? reset 18/0"]);
    let short = Limits { idle_ns: 500_000_000, ..Limits::default() };
    assert_eq!(lines(&trace_with(&silent, Protocol::Http, short).0), ["GET / -> ? timeout 18/0"]);
    assert_eq!(lines(&trace(&silent[..silent.len()])), ["GET / -> ? response_unobserved 18/0"]);
}

#[test]
fn capture_gaps_cost_only_what_they_hit() {
    let mut wire = Wire::open(40_000, 1, 1);
    let body = "x".repeat(3_000);
    for n in 0..5 {
        wire.send(C, format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes(), &mut whole());
        wire.send(
            S,
            format!("HTTP/1.1 21{n} OK\r\nContent-Length: 3000\r\n\r\n{body}").as_bytes(),
            &mut whole(),
        );
        wire.ack(C);
    }
    let all = lines(&trace(&wire.frames));
    assert_eq!(all.len(), 5);
    for lost in 3..wire.frames.len() {
        let mut frames = wire.frames.clone();
        frames.remove(lost);
        let found = lines(&trace(&frames));
        let differing = found.iter().filter(|line| !all.contains(line)).count();
        // A lost request leaves a response without request; the last packets leave nothing behind them.
        assert!(differing <= 1, "lost {lost}: {found:#?}");
        assert!(
            found.iter().filter(|line| line.contains("complete")).count() >= 4,
            "lost {lost}: {found:#?}"
        );
    }
}

#[test]
fn more_requests_in_flight_than_are_followed() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, b"GET /0 HTTP/1.1\r\n\r\nGET /1 HTTP/1.1\r\n\r\n", &mut whole());
    wire.send(S, b"HTTP/1.1 210 OK\r\nContent-Length: 4\r\n\r\nha", &mut whole());
    wire.send(C, b"GET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n", &mut whole());
    wire.send(S, b"lf", &mut whole());
    for n in 1..4 {
        wire.send(S, format!("HTTP/1.1 21{n} OK\r\nContent-Length: 0\r\n\r\n").as_bytes(), &mut whole());
    }
    let limits = Limits { pipeline: 2, ..Limits::default() };
    let found = lines(&trace_with(&wire.frames, Protocol::Http, limits).0);
    for n in 0..4 {
        let own = format!("GET /{n} -> ? ");
        let right = format!("GET /{n} -> 21{n} ");
        let wrong = |line: &&String| {
            line.starts_with(&format!("GET /{n} ")) && !line.starts_with(&own) && !line.starts_with(&right)
        };
        assert_eq!(found.iter().find(wrong), None, "{found:#?}");
    }
    assert!(found.iter().any(|line| line.contains("truncated")), "{found:#?}");
}

#[test]
fn cut_packets_leave_gaps() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, b"GET /1 HTTP/1.1\r\n\r\n", &mut whole());
    wire.send(
        S,
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000)).as_bytes(),
        &mut whole(),
    );
    wire.send(C, b"GET /2 HTTP/1.1\r\n\r\n", &mut whole());
    wire.send(S, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n", &mut whole());
    let cut = wire.frames.iter_mut().find(|frame| frame.data.len() > 1000).expect("the large one");
    cut.data.truncate(200);
    let sessions = trace(&wire.frames);
    assert_eq!(lines(&sessions), ["GET /1 -> 200 capture_gap 19/160", "GET /2 -> 201 complete 19/38"]);
    assert_eq!(sessions[0].missing_bytes, 881);
}

#[test]
fn a_connection_of_unknown_protocol_is_one_session() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, &[1; 5_000], &mut whole());
    wire.send(S, &[2; 100], &mut whole());
    wire.fin(C);
    wire.fin(S);
    wire.ack(C);
    let (sessions, _) = trace_with(&wire.frames, Protocol::Tcp, Limits::default());
    assert_eq!(lines(&sessions), ["tcp complete 5100"]);
    assert_eq!((sessions[0].request.packets, sessions[0].response.packets), (7, 3));
}

#[test]
fn ports_used_again() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, b"GET /1 HTTP/1.1\r\n\r\n", &mut whole());
    let mut again = Wire::open(40_000, 777_777, 1);
    again.send(C, b"GET /2 HTTP/1.1\r\n\r\n", &mut whole());
    again.send(S, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut whole());
    let frames: Vec<_> = wire.frames.iter().chain(&again.frames).cloned().collect();
    assert_eq!(
        lines(&trace(&frames)),
        ["GET /1 -> ? response_unobserved 19/0", "GET /2 -> 200 complete 19/38"]
    );
    // The same after the first connection has ended, with a late repetition of its segments.
    wire.send(S, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n", &mut whole());
    wire.fin(S);
    wire.fin(C);
    let late = wire.frames[3].clone();
    let frames: Vec<_> = wire.frames.iter().chain([&late]).chain(&again.frames).cloned().collect();
    assert_eq!(lines(&trace(&frames)), ["GET /1 -> 201 complete 19/38", "GET /2 -> 200 complete 19/38"]);
}

#[test]
fn a_reset_behind_bytes_that_never_came_is_a_reset() {
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    wire.send(C, b"GET / HTTP/1.1\r\n\r\n", &mut whole());
    let lost = wire.frames.len();
    wire.send(S, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", &mut whole());
    wire.reset(S);
    // The network has lost the response, so the client has acknowledged nothing of it.
    wire.frames.remove(lost);
    assert_eq!(lines(&trace(&wire.frames)), ["GET / -> ? reset 18/0"]);
}
