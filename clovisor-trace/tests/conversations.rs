//! Conversations that are odd, broken or cut up: what was on the wire, and the sessions that must come of it. Each row is of a kind
//! that captures of real networks have.

mod wire;

use clovisor_trace::Toward;
use wire::{Wire, lines, trace, whole};

/// What happens on the wire, in turn.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client sends this in one packet (or several, where it is too long for one).
    C(&'static str),
    /// The server does.
    S(&'static str),
    /// The client sends this, and nobody captures it.
    LostC(&'static str),
    /// The server does.
    LostS(&'static str),
    /// The client acknowledges what it has.
    Ack,
    /// An end sends no more.
    Fin(Toward),
    /// An end resets the connection.
    Reset(Toward),
}

use Step::{Ack, C, Fin, LostC, LostS, Reset, S};

const CLIENT: Toward = Toward::Server;
const SERVER: Toward = Toward::Client;

/// Plays steps on a connection, and closes it unless they did. The sessions, without their sizes.
fn play(steps: &[Step]) -> Vec<String> {
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    let mut lost = Vec::new();
    for step in steps {
        let before = wire.frames.len();
        match *step {
            C(bytes) | LostC(bytes) => wire.send(CLIENT, bytes.as_bytes(), &mut whole()),
            S(bytes) | LostS(bytes) => wire.send(SERVER, bytes.as_bytes(), &mut whole()),
            Ack => wire.ack(CLIENT),
            Fin(end) => wire.fin(end),
            Reset(end) => wire.reset(end),
        }
        if matches!(step, LostC(_) | LostS(_)) {
            lost.extend(before..wire.frames.len());
        }
    }
    if !steps.iter().any(|step| matches!(step, Fin(_) | Reset(_))) {
        wire.ack(CLIENT);
        wire.fin(SERVER);
        wire.fin(CLIENT);
        wire.ack(SERVER);
    }
    let seen = wire.frames.iter().enumerate().filter(|(place, _)| !lost.contains(place));
    let seen: Vec<_> = seen.map(|(_, frame)| frame.clone()).collect();
    let without_sizes = |line: &String| line.rsplit_once(' ').expect("sizes").0.to_owned();
    lines(&trace(&seen)).iter().map(without_sizes).collect()
}

/// What it is, what happens, what must come of it.
type Row<'a> = (&'a str, &'a [Step], &'a [&'a str]);

fn check(rows: &[Row<'_>]) {
    let mut faults = String::new();
    for (name, steps, expected) in rows {
        let found = play(steps);
        if found != *expected {
            faults += &format!("{name}:\n  found    {found:?}\n  expected {expected:?}\n");
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const NEXT: &str = "GET /b HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const MOVED: &str = "HTTP/1.1 301 Moved\r\nContent-Length: 2\r\n\r\nhi";
const BAD: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
const A: &str = "GET /a -> 200 complete";
const B: &str = "GET /b -> 301 complete";

#[test]
fn first_lines_of_requests() {
    check(&[
        ("version cut off", &[C("GET /a HTTP/1.\r\nHost: h\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("newer minor version", &[C("GET /a HTTP/1.2\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("major version", &[C("GET /a HTTP/2.0\r\n\r\n"), S(OK)], &[A]),
        (
            "something behind the version",
            &[C("GET /a HTTP/1.1 x\r\n\r\n"), S(OK), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        ("no target", &[C("GET HTTP/1.1\r\n\r\n"), S(BAD)], &["GET  -> 400 complete"]),
        (
            "spaces in the target",
            &[C("GET /a b  c HTTP/1.1\r\n\r\n"), S(OK)],
            &["GET /a b  c -> 200 complete"],
        ),
        ("many spaces", &[C("GET    /a   HTTP/1.1\r\n\r\n"), S(OK)], &[A]),
        ("percent at the end", &[C("GET /a% HTTP/1.1\r\n\r\n"), S(OK)], &["GET /a% -> 200 complete"]),
        ("percents", &[C("GET /%41%zz%%?%2 HTTP/1.1\r\n\r\n"), S(OK)], &["GET /%41%zz%%?%2 -> 200 complete"]),
        (
            "not ASCII",
            &[C("GET /\u{e4}\u{f6} HTTP/1.1\r\n\r\n"), S(OK)],
            &["GET /\u{e4}\u{f6} -> 200 complete"],
        ),
        (
            "to a proxy",
            &[C("GET http://u@h:80/a?b#c HTTP/1.1\r\nHost: other\r\n\r\n"), S(OK), C(NEXT), S(MOVED)],
            &["GET http://u@h:80/a?b#c -> 200 complete", B],
        ),
        ("asterisk", &[C("OPTIONS * HTTP/1.1\r\n\r\n"), S(OK)], &["OPTIONS * -> 200 complete"]),
        ("unknown method", &[C("CCM_POST / HTTP/1.1\r\n\r\n"), S(BAD)], &["CCM_POST / -> 400 complete"]),
        ("two versions", &[C("GET /a HTTP/1.0\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        (
            "no line end",
            &[C("GET /a HTTP/1.1"), Fin(CLIENT), S(BAD), Fin(SERVER)],
            &["GET /a -> 400 complete"],
        ),
        ("cut off", &[C("GET /a HTTP/1"), Fin(CLIENT), Fin(SERVER)], &["? -> ? closed"]),
        ("not a token", &[C("G(T / HTTP/1.1\r\n\r\n"), S(BAD)], &["? -> 400 unparsed"]),
        (
            "preface of HTTP/2",
            &[C("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0"), S("\0\0\0")],
            &["PRI * -> ? unparsed"],
        ),
        (
            "SMTP",
            &[S("220 h ESMTP\r\n"), C("EHLO h\r\n"), S("250 h\r\n")],
            &["? -> ? unparsed", "EHLO h -> ? unparsed"],
        ),
        ("SSH", &[C("SSH-2.0-x\r\n"), S("SSH-2.0-y\r\n"), C("\0\0\x01\x02")], &["? -> ? unparsed"]),
        ("TLS", &[C("\x16\x03\x01\0\x05hello"), S("\x16\x03\x01")], &["? -> ? unparsed"]),
        ("cruft behind", &[C(GET), S(OK), C("T / HTTP\n\n"), S(BAD)], &[A, "T / HTTP -> 400 unparsed"]),
    ]);
}

#[test]
fn requests_of_version_0_9() {
    check(&[
        ("no version", &[C("GET /a\r\n"), S("<html>"), Fin(SERVER), Fin(CLIENT)], &["GET /a -> ? unparsed"]),
        (
            "empty line",
            &[C("GET /a\r\n\r\n"), S("<html>"), Fin(SERVER), Fin(CLIENT)],
            &["GET /a -> ? unparsed"],
        ),
        ("answered by 1.1", &[C("GET /a\r\n"), S(BAD)], &["GET /a -> 400 unparsed"]),
        ("with headers", &[C("GET /a\r\nHost: h\r\n\r\n"), S(BAD)], &["GET /a -> 400 unparsed"]),
        (
            "version run together",
            &[C("GET /HTTP/1.1\r\nHost: h\r\n\r\n"), S(BAD)],
            &["GET /HTTP/1.1 -> 400 unparsed"],
        ),
        ("1.1 answered by 0.9", &[C(GET), S("<html>"), Fin(SERVER), Fin(CLIENT)], &["GET /a -> ? unparsed"]),
    ]);
}

#[test]
fn heads_of_requests() {
    check(&[
        ("bare LF", &[C("GET /a HTTP/1.1\nHost: h\n\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("mixed line ends", &[C("GET /a HTTP/1.1\r\nHost: h\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("empty lines before", &[C("\r\n\n\r\nGET /a HTTP/1.1\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("bare CR", &[C("GET /a HTTP/1.1\r\nX: a\rb\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("NUL", &[C("GET /a HTTP/1.1\r\nX: a\0b\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("folded", &[C("GET /a HTTP/1.1\r\nX: a\r\n b\r\n\tc\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        (
            "folded length",
            &[C("POST /a HTTP/1.1\r\nContent-Length:\r\n 4\r\n\r\nbody"), S(OK), C(NEXT), S(MOVED)],
            &["POST /a -> 200 complete", B],
        ),
        (
            "space before the colon",
            &[C("POST /a HTTP/1.1\r\nContent-Length : 4\r\n\r\nbody"), S(OK), C(NEXT), S(MOVED)],
            &["POST /a -> 200 complete", B],
        ),
        (
            "no colon",
            &[C("GET /a HTTP/1.1\r\nwhat is this\r\nHost: h\r\n\r\n"), S(OK), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        ("no name", &[C("GET /a HTTP/1.1\r\n: x\r\nHost: h\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("not ASCII", &[C("GET /a HTTP/1.1\r\nX\u{e4}: \u{e4}\r\n\r\n"), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        (
            "lengths that differ",
            &[C("POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi"), S(BAD)],
            &["POST /a -> 400 unparsed"],
        ),
        (
            "length and chunked",
            &[
                C(
                    "POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                ),
                S(OK),
                C(NEXT),
                S(MOVED),
            ],
            &["POST /a -> 200 complete", B],
        ),
        ("head never ended", &[C("GET /a HTTP/1.1\r\nHost: h\r\n"), S(BAD)], &["GET /a -> 400 complete"]),
        (
            "head never ended, reset",
            &[C("GET /a HTTP/1.1\r\nHost: h\r\nX"), Reset(SERVER)],
            &["GET /a -> ? reset"],
        ),
    ]);
}

#[test]
fn heads_of_responses() {
    check(&[
        ("no reason", &[C(GET), S("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)], &[A, B]),
        (
            "two spaces",
            &[C(GET), S("HTTP/1.1  200  OK\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        (
            "reason not ASCII",
            &[C(GET), S("HTTP/1.1 200 \u{e4}\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        ("tab", &[C(GET), S("HTTP/1.1\t200\tOK\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)], &[A, B]),
        ("version", &[C(GET), S("HTTP/1. 200 OK\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)], &[A, B]),
        (
            "major version",
            &[C(GET), S("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        ("bare LF", &[C(GET), S("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"), C(NEXT), S(MOVED)], &[A, B]),
        (
            "folded",
            &[C(GET), S("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        (
            "no colon",
            &[C(GET), S("HTTP/1.1 200 OK\r\nwhat\r\nContent-Length : 0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        (
            "empty lines before",
            &[C(GET), S("\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        ("head never ended", &[C(GET), S("HTTP/1.1 200 OK\r\nServer: x\r\n")], &["GET /a -> 200 closed"]),
        ("no line end", &[C(GET), S("HTTP/1.1 200 OK")], &["GET /a -> 200 closed"]),
        ("cut off", &[C(GET), S("HTTP/1.1 20")], &["GET /a -> ? closed"]),
        ("no status", &[C(GET), S("HTTP/1.1 OK\r\n\r\n")], &["GET /a -> ? unparsed"]),
        ("Shoutcast", &[C(GET), S("ICY 200 OK\r\n\r\nmusic")], &["GET /a -> ? unparsed"]),
    ]);
}

#[test]
fn bodies() {
    let partial = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nhi";
    let ranges = "HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=b\r\nContent-Length: 22\r\n\r\n--b\r\n\r\nHTTP/1.1 2--b--";
    let ask = "GET /a HTTP/1.1\r\nRange: bytes=0-1\r\n\r\n";
    let form = "POST /a HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 26\r\n\r\n--b\r\n\r\nGET / HTTP/1.1--b--";
    check(&[
        ("range", &[C(ask), S(partial), C(ask), S(partial)], &["GET /a -> 206 complete"; 2]),
        ("ranges", &[C(ask), S(ranges), C(NEXT), S(MOVED)], &["GET /a -> 206 complete", B]),
        (
            "range that is shorter than it says",
            &[
                C(ask),
                S("HTTP/1.1 206 X\r\nContent-Range: bytes 0-99/100\r\nContent-Length: 2\r\n\r\nhi"),
                C(NEXT),
                S(MOVED),
            ],
            &["GET /a -> 206 complete", B],
        ),
        ("form", &[C(form), S(OK), C(NEXT), S(MOVED)], &["POST /a -> 200 complete", B]),
        (
            "x-gzip",
            &[
                C(GET),
                S("HTTP/1.1 200 OK\r\nContent-Encoding: x-gzip\r\nContent-Length: 3\r\n\r\n\x1f\x0b\x08"),
                C(NEXT),
                S(MOVED),
            ],
            &[A, B],
        ),
        (
            "HEAD",
            &[
                C("HEAD /a HTTP/1.1\r\n\r\n"),
                S("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
                C(NEXT),
                S(MOVED),
            ],
            &["HEAD /a -> 200 complete", B],
        ),
        (
            "204",
            &[C(GET), S("HTTP/1.1 204 X\r\nContent-Length: 9\r\n\r\n"), C(NEXT), S(MOVED)],
            &["GET /a -> 204 complete", B],
        ),
        (
            "304",
            &[C(GET), S("HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n"), C(NEXT), S(MOVED)],
            &["GET /a -> 304 complete", B],
        ),
        ("empty", &[C(GET), S("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), C(NEXT), S(MOVED)], &[A, B]),
        (
            "empty chunked",
            &[C(GET), S("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[A, B],
        ),
        ("until close", &[C(GET), S("HTTP/1.0 200 OK\r\n\r\n"), S("more"), Fin(SERVER), Fin(CLIENT)], &[A]),
        (
            "until reset",
            &[C(GET), S("HTTP/1.0 200 OK\r\n\r\n"), S("more"), Ack, Reset(SERVER)],
            &["GET /a -> 200 reset"],
        ),
        (
            "shorter than said",
            &[C(GET), S("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"), Fin(SERVER), Fin(CLIENT)],
            &["GET /a -> 200 closed"],
        ),
        (
            "longer than said",
            &[C(GET), S("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhi"), C(NEXT), S(MOVED)],
            &[A, "? -> ? unparsed", B],
        ),
    ]);
}

#[test]
fn interim_and_tunnels() {
    let put = "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let upgrade = "GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    check(&[
        (
            "100",
            &[C(put), S("HTTP/1.1 100 Continue\r\n\r\n"), C("body"), S(OK), C(NEXT), S(MOVED)],
            &["PUT /a -> 100 200 complete", B],
        ),
        (
            "100 nobody waited for",
            &[C(put), C("body"), S("HTTP/1.1 100 Continue\r\n\r\n"), S(OK), C(NEXT), S(MOVED)],
            &["PUT /a -> 100 200 complete", B],
        ),
        (
            "refused",
            &[C(put), S("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"), Fin(CLIENT), Fin(SERVER)],
            &["PUT /a -> 417 complete"],
        ),
        (
            "103",
            &[
                C(GET),
                S("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
                S("HTTP/1.1 103 Early Hints\r\n\r\n"),
                S(OK),
                C(NEXT),
                S(MOVED),
            ],
            &["GET /a -> 103 103 200 complete", B],
        ),
        (
            "websocket",
            &[C(upgrade), S(switch), S("\u{81}\x02hi"), C("\u{81}\x02hi"), C(NEXT), S(MOVED)],
            &["GET /a -> 101 upgraded"],
        ),
        ("websocket refused", &[C(upgrade), S(OK), C(NEXT), S(MOVED)], &[A, B]),
        ("101 nobody asked for", &[C(GET), S(switch), C("frames"), S("frames")], &["GET /a -> 101 upgraded"]),
        (
            "CONNECT",
            &[
                C("CONNECT h:25 HTTP/1.1\r\n\r\n"),
                S("HTTP/1.1 200 OK\r\n\r\n"),
                S("220 h ESMTP\r\n"),
                C("EHLO h\r\n"),
            ],
            &["CONNECT h:25 -> 200 upgraded"],
        ),
        (
            "CONNECT refused",
            &[
                C("CONNECT h:25 HTTP/1.1\r\n\r\n"),
                S("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"),
                C(GET),
                S(OK),
                C(NEXT),
                S(MOVED),
            ],
            &["CONNECT h:25 -> 403 complete", A, B],
        ),
    ]);
}

#[test]
fn order() {
    check(&[
        ("pipelined", &[C(GET_AND_NEXT), S(OK), S(MOVED)], &[A, B]),
        (
            "pipelined, responses in one packet",
            &[
                C(GET_AND_NEXT),
                S(
                    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n",
                ),
            ],
            &[A, B],
        ),
        ("two responses to one request", &[C(GET), S(OK), S(MOVED)], &[A, "? -> 301 request_unobserved"]),
        (
            "response before the request ended",
            &[
                C("POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo"),
                S(BAD),
                C("dy"),
                Fin(SERVER),
                Fin(CLIENT),
            ],
            &["POST /a -> 400 complete"],
        ),
        (
            "response before any request",
            &[S("HTTP/1.1 408 X\r\nContent-Length: 0\r\n\r\n"), C(GET), S(OK)],
            &["? -> 408 request_unobserved", A],
        ),
        ("no response, closed", &[C(GET), Fin(CLIENT), Fin(SERVER)], &["GET /a -> ? closed"]),
        ("no response, reset", &[C(GET), Reset(SERVER)], &["GET /a -> ? reset"]),
        ("no response, reset by the client", &[C(GET), Reset(CLIENT)], &["GET /a -> ? reset"]),
        ("one of two answered", &[C(GET_AND_NEXT), S(OK)], &[A, "GET /b -> ? closed"]),
    ]);
}

const GET_AND_NEXT: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn losses() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nsome";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nsome";
    let gap = "GET /a -> 200 capture_gap";
    // How long a body is does not depend on the bytes in it; `missing_bytes` says what was not seen.
    check(&[
        ("in a body", &[C(GET), S(head), LostS("more"), S("body"), C(NEXT), S(MOVED)], &[A, B]),
        ("the end of a body", &[C(GET), S(head), LostS("morebody"), C(NEXT), S(MOVED)], &[gap, B]),
        (
            "the whole body",
            &[C(GET), S("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"), LostS("body"), C(NEXT), S(MOVED)],
            &[gap, B],
        ),
        ("in a chunk", &[C(GET), S(chunked), LostS("mo"), S("re\r\n0\r\n\r\n"), C(NEXT), S(MOVED)], &[A, B]),
        (
            "between chunks",
            &[C(GET), S(chunked), LostS("more\r\n"), S("0\r\n\r\n"), C(NEXT), S(MOVED)],
            &[gap, B],
        ),
        (
            "in a body until close",
            &[C(GET), S("HTTP/1.0 200 OK\r\n\r\nsome"), LostS("more"), S("body"), Fin(SERVER), Fin(CLIENT)],
            &[A],
        ),
        (
            "in the head of a response",
            &[
                C(GET),
                S("HTTP/1.1 200 OK\r\nServer: x\r\n"),
                LostS("Content-Length: 2\r\n\r\n"),
                S("hi"),
                C(NEXT),
                S(MOVED),
            ],
            &[gap, B],
        ),
        (
            "the start of a response",
            &[C(GET), LostS("HTTP/1.1 200 OK\r\n"), S("Content-Length: 2\r\n\r\nhi"), C(NEXT), S(MOVED)],
            &["GET /a -> ? capture_gap", B],
        ),
        ("a response", &[C(GET), LostS(OK), C(NEXT), S(MOVED)], &["GET /a -> ? capture_gap", B]),
        ("a request", &[LostC(GET), S(OK), C(NEXT), S(MOVED)], &["? -> 200 request_unobserved", B]),
        (
            "in the head of a request",
            &[C("GET /a HTTP/1.1\r\nHost: h\r\n"), LostC("X: y\r\n"), C("\r\n"), S(OK), C(NEXT), S(MOVED)],
            &[gap, B],
        ),
        (
            "the start of a request",
            &[LostC("GET /a HTTP/1.1\r\n"), C("Host: h\r\n\r\n"), S(OK), C(NEXT), S(MOVED)],
            &["? -> 200 request_unobserved", B],
        ),
        (
            "in the body of a request",
            &[
                C("POST /a HTTP/1.1\r\nContent-Length: 6\r\n\r\nbo"),
                LostC("dy"),
                C("hi"),
                S(OK),
                C(NEXT),
                S(MOVED),
            ],
            &["POST /a -> 200 complete", B],
        ),
        ("a request and its response", &[LostC(GET), LostS(OK), C(NEXT), S(MOVED)], &[B]),
        (
            "an interim response",
            &[C(GET), LostS("HTTP/1.1 100 Continue\r\n\r\n"), S(OK), C(NEXT), S(MOVED)],
            &["GET /a -> ? capture_gap", B],
        ),
        (
            "HEAD, its head lost",
            &[
                C("HEAD /a HTTP/1.1\r\n\r\n"),
                LostS("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
                C(NEXT),
                S(MOVED),
            ],
            &["HEAD /a -> ? capture_gap", B],
        ),
    ]);
}

#[test]
fn heads_that_are_too_long() {
    let long: &'static str = "x".repeat(70_000).leak();
    let asked: &'static str = format!("GET /a HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n").leak();
    let answered: &'static str = format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n").leak();
    let target: &'static str = format!("GET /{long} HTTP/1.1\r\n\r\n").leak();
    check(&[
        ("request", &[C(asked), S(BAD), C(NEXT), S(MOVED)], &["GET /a -> 400 truncated", B]),
        ("response", &[C(GET), S(answered), C(NEXT), S(MOVED)], &["GET /a -> 200 truncated", B]),
        ("target", &[C(target), S(BAD), C(NEXT), S(MOVED)], &["? -> 400 truncated", B]),
    ]);
}
