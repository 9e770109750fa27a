//! Seeds: inputs made from the captures in `clovisor-trace/testdata`, so that no copies of them are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use clovisor_trace::capture;
use etherparse::{LaxSlicedPacket, TransportSlice};

use crate::{
    http::{CUT, TURN},
    steps::{Payload, Place, Segment, Split, Step},
};

/// Longest input of the targets that is made; the engine's own limit is near.
const MOST_BYTES: usize = 16 << 10;
/// Packets of one capture that become seeds of the target `packet`.
const MOST_PACKETS: usize = 40;

/// Acknowledges all.
const EMPTY: Segment<'static> = Segment {
    connection: 0,
    from_server: false,
    seq: Place::Next,
    ack: Some(Place::Next),
    syn: false,
    fin: false,
    rst: false,
    split: None,
    payload: Payload::Snippet(0),
};

/// A seed: the target, a name, and the input.
pub type Seed = (&'static str, String, Vec<u8>);

/// All seeds.
///
/// # Errors
/// The captures cannot be read.
pub fn all() -> io::Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    for path in captures()? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = fs::read(&path)?;
        let packets = packets(&file);
        let connections = connections(&packets);
        for (at, packet) in packets.iter().take(MOST_PACKETS).enumerate() {
            let input = [&[0, 0, 0], packet.as_slice()].concat();
            seeds.push(("packet", format!("{name}-{at}"), input));
        }
        for (at, segments) in connections.values().enumerate() {
            seeds.push(("http", format!("{name}-{at}"), conversation(segments)));
        }
        seeds.push(("tracer", name.clone(), steps(&connections)));
        seeds.push(("capture", name, file));
    }
    seeds.extend(others().map(|(name, input)| ("http", name.to_owned(), input)));
    seeds.extend(troubles().map(|(name, input)| ("tracer", name.to_owned(), input)));
    seeds.extend(bodies().map(|(name, input)| ("tracer", name, input)));
    seeds.iter_mut().for_each(|(_, _, input)| input.truncate(MOST_BYTES));
    Ok(seeds)
}

/// The captures of both kinds.
fn captures() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["golden", "zeek"] {
        for entry in fs::read_dir(crate::folder().join("../clovisor-trace/testdata").join(folder))? {
            let path = entry?.path();
            let is_capture =
                |path: &Path| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng");
            found.extend(Some(path).filter(|path| is_capture(path)));
        }
    }
    found.sort();
    Ok(found)
}

/// The packets of a capture from the IP header on; what comes before a fault of the file.
fn packets(file: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    _ = capture::read(file, |record| {
        packets.extend(Some(record.data.to_vec()).filter(|data| !data.is_empty()));
        ControlFlow::Continue(())
    });
    packets
}

/// A segment of a capture.
struct Sent {
    /// Its place among all segments of the capture.
    at: usize,
    from_server: bool,
    flags: [bool; 3],
    payload: Vec<u8>,
}

/// The segments of each connection, in the order of the capture; the end with the smaller port is the server.
fn connections(packets: &[Vec<u8>]) -> BTreeMap<(u16, u16), Vec<Sent>> {
    let mut connections: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut sent = BTreeSet::new();
    for (at, packet) in packets.iter().enumerate() {
        let Ok(sliced) = LaxSlicedPacket::from_ip(packet) else { continue };
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { continue };
        let (from, to) = (tcp.source_port(), tcp.destination_port());
        let flags = [tcp.syn(), tcp.fin(), tcp.rst()];
        // Repetitions would be said twice.
        let is_new = sent.insert((from, to, tcp.sequence_number(), flags, tcp.payload().len()));
        if is_new {
            let segment = Sent { at, from_server: from < to, flags, payload: tcp.payload().to_vec() };
            connections.entry((from.min(to), from.max(to))).or_default().push(segment);
        }
    }
    connections
}

/// What both ends of a connection say, with a cut at each segment.
fn conversation(segments: &[Sent]) -> Vec<u8> {
    // Both ends say FIN at the end; headers are of any length.
    let mut said = vec![1 << 2];
    let mut from_server = false;
    for segment in segments.iter().filter(|segment| !segment.payload.is_empty()) {
        said.push(if segment.from_server == from_server { CUT } else { TURN });
        from_server = segment.from_server;
        said.extend(segment.payload.iter().filter(|byte| !matches!(**byte, CUT | TURN)));
    }
    said
}

/// The first four connections of a capture as steps: half a millisecond passes before each segment.
fn steps(connections: &BTreeMap<(u16, u16), Vec<Sent>>) -> Vec<u8> {
    let mut segments: Vec<(u8, &Sent)> = (0..4)
        .zip(connections.values())
        .flat_map(|(number, sent)| sent.iter().map(move |sent| (number, sent)))
        .collect();
    segments.sort_by_key(|(_, sent)| sent.at);
    // Usual limits: heads of captures are longer than the small ones allow.
    let mut steps = vec![1];
    for (connection, sent) in segments {
        let [syn, fin, rst] = sent.flags;
        let segment = Segment {
            connection,
            from_server: sent.from_server,
            seq: Place::Next,
            ack: Some(Place::Next).filter(|_| !syn || sent.from_server),
            syn,
            fin,
            rst,
            split: None,
            payload: Payload::Raw(&sent.payload),
        };
        Step::Wait(5).write(&mut steps);
        Step::Segment(segment).write(&mut steps);
    }
    steps
}

/// What captures do not show, with small limits: each leads to a limit or to a contradiction.
fn troubles() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let plain = Segment { payload: Payload::Snippet(1), ..EMPTY };
    let syn = Segment { syn: true, ack: None, payload: Payload::Snippet(0), ..plain };
    let syn_ack = Segment { syn: true, from_server: true, payload: Payload::Snippet(0), ..plain };
    let answer = Segment { from_server: true, payload: Payload::Snippet(9), ..plain };
    let after_hole =
        |at: i16| Segment { seq: Place::Near(1_400 * at), payload: Payload::Snippet(15), ..plain };
    let fragment = |snippet, split| Segment {
        payload: Payload::Snippet(snippet),
        split: Some(Split::Fragments(split)),
        ..plain
    };
    let opened = |segments: Vec<Segment<'static>>| [vec![syn, syn_ack], segments].concat();
    let segments = [
        ("hole", opened((1..20).map(after_hole).collect())),
        ("middle", (1..20).map(after_hole).chain([answer]).collect()),
        ("pipelined", opened([[plain; 6], [answer; 6]].concat())),
        ("renewed", [syn, syn_ack, plain, syn, syn_ack, plain, answer].to_vec()),
        ("fragments", opened([1, 2, 4].iter().flat_map(|n| [fragment(*n, 65), fragment(15, 130)]).collect())),
        (
            "flows",
            (0..4).flat_map(|connection| [syn, plain].map(|it| Segment { connection, ..it })).collect(),
        ),
    ];
    segments.into_iter().map(|(name, segments)| {
        let mut input = vec![0];
        for segment in segments {
            Step::Segment(segment).write(&mut input);
        }
        let lose = Step::Lose { interface: 1, ms: 5 };
        for step in [lose, Step::Deadline, Step::WaitLong(1), Step::Timeout, Step::FinishInterface(1)] {
            step.write(&mut input);
        }
        (name, input)
    })
}

/// Bytes that nobody looks at: both ways, in turns, acknowledged by packets without payload, sent again, with time between, and told
/// of at once and later; each as the body of a response, of a request, and without a parser.
fn bodies() -> impl Iterator<Item = (String, Vec<u8>)> {
    const UPLOAD: &[u8] = b"POST /u HTTP/1.1\r\nContent-Length: 90000\r\n\r\n";
    const DOWNLOAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n";
    let from = move |from_server, payload| Segment { from_server, payload, ..EMPTY };
    let kinds = [
        ("upload", 0, false, vec![from(false, Payload::Raw(UPLOAD))]),
        ("download", 2, true, vec![from(false, Payload::Snippet(1)), from(true, Payload::Raw(DOWNLOAD))]),
        ("opaque", 3, false, vec![]),
    ];
    kinds.into_iter().flat_map(move |(name, connection, from_server, opening)| {
        let body = from(from_server, Payload::Snippet(15));
        let back = from(!from_server, Payload::Snippet(0));
        let again = Segment { seq: Place::Near(-1_400), ..body };
        let syn = Segment { syn: true, ack: None, ..EMPTY };
        let syn_ack = Segment { syn: true, from_server: true, ..EMPTY };
        let fins = [false, true].map(|from_server| Segment { fin: true, from_server, ..EMPTY });
        let flow = [body, body, back, body, back, body, again, back, back, body, body, back, body, back];
        let segments =
            [vec![syn, syn_ack, EMPTY], opening, flow.to_vec(), flow.to_vec(), fins.to_vec()].concat();
        (0..4_u8).map(move |delay| {
            let mut input = vec![1 | delay << 1];
            for (at, segment) in segments.iter().enumerate() {
                // Sometimes longer than counts wait until they are told.
                Step::Wait(if at % 7 == 6 { 1_500 } else { 5 }).write(&mut input);
                Step::Segment(Segment { connection, ..*segment }).write(&mut input);
            }
            (format!("{name}-{delay}"), input)
        })
    })
}

/// Other protocols than HTTP/1, each with a cut in its first bytes: what both ends say.
fn others() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let hello = |kind, body: &[u8]| {
        let len = u8::try_from(body.len()).expect("short");
        [&[22, 3, 1, 0, len + 4, kind, 0, 0, len, 3, 3], &body[2..]].concat()
    };
    let (asked, answered) = (hello(1, &[1; 41]), hello(2, &[2; 38]));
    let data = b"\x17\x03\x03\0\x05hello";
    let (preface, settings) = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0");
    let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno";
    let say = |turns: &[&[u8]]| {
        let (start, rest) = turns[0].split_at(5);
        // Both ends say FIN at the end.
        [&[1 << 2], start, &[CUT], rest, &[TURN], &turns[1..].join(&TURN)].concat()
    };
    [
        ("tls", say(&[&asked, &answered, data, data])),
        ("tls-refused", say(&[&asked, refusal])),
        ("http2", say(&[preface, settings, settings, settings])),
        ("http2-refused", say(&[preface, refusal])),
        ("http2-server-first", [&[1 << 2, TURN][..], settings, &[TURN], preface, &[TURN], settings].concat()),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clovisor_trace::Outcome;

    /// Seeds are worth something only if they lead deep: to exchanges that were seen to their ends.
    #[test]
    fn seeds_lead_to_complete_sessions() {
        for (target, sessions) in
            [("http", crate::http::sessions_of as fn(&[u8]) -> _), ("tracer", crate::tracer::sessions_of)]
        {
            let complete = all()
                .expect("the captures")
                .iter()
                .filter(|(of, _, _)| *of == target)
                .flat_map(|(_, _, input)| sessions(input))
                .filter(|session| session.outcome == Outcome::Complete)
                .count();
            assert!(complete >= 50, "{target}: {complete} complete sessions");
        }
    }

    /// Of bodies most packets are only counted.
    #[test]
    fn bodies_are_counted() {
        for (name, input) in bodies() {
            let counted = crate::tracer::counted_of(&input);
            assert!(counted >= 8, "{name}: {counted} packets");
        }
    }
}
