//! Connections on a port that is named http which speak another protocol: TLS, or HTTP/2 with prior knowledge. Each is one session, and
//! nothing of it need be copied; whatever only comes close is read as it always was. Each trace is played with the payload that
//! nobody looks at and without it (`wire::trace_with`), and the sessions are the same.

mod wire;

use clovisor_trace::{Limits, Outcome, Packet, Protocol, Session, Side, Toward, Tracer, Unneeded, Wish};
use proptest::prelude::*;
use wire::{Frame, SERVER_PORT, Wire, lines, trace, trace_trimmed, trim::Trim, whole};

const CLIENT: Toward = Toward::Server;
const SERVER: Toward = Toward::Client;

/// First flights of real connections, by OpenSSL 3.0.19: TLS 1.2 and 1.3.
const HELLOS: [(&str, &str); 2] = [
    (
        "1603010098010000940303e10f56f6b879a0cf13cb9dfef9f37646f2b3fb92f7eb77eef97f831240a3b903000004c02b00ff0100006700000011000f00000c\
         73686f702e6578616d706c65000b000403000102000a000c000a001d0017001e00190018002300000016000000170000000d002a0028040305030603080708\
         080809080a080b080408050806040105010601030303010302040205020602",
        "16030300410200003d03031350cd50a495cb9e873c5cce7cf7202d3659921fbc3fd7ff444f574e4752440100c02b000015ff01000100000b00040300010200\
         23000000170000",
    ),
    (
        "16030100f1010000ed0303566233586c577b34063d5771041a9695a9e8f2d18a6e20283704d46abeb34f99203bbd00c13d2b7f048d79794c7e74e392517c61\
         07c13d91e33be6c7fb413392aa000813021303130100ff0100009c00000011000f00000c73686f702e6578616d706c65000b000403000102000a0016001400\
         1d0017001e0019001801000101010201030104002300000016000000170000000d001e001c0403050306030807080808090\
         80a080b080408050806040105010601002b0003020304002d00020101003300260024001d00205c3d085a1fa9db9673e417f68b05f55ea6c91ecb2d054dc27\
         ce0b937388e2a22",
        "160303007a020000760303e66cfb3aec5e313ac71a004722a11f79337dca341c6c3ab4960d51d28f282796203bbd00c13d2b7f048d79794c7e74e392517c61\
         07c13d91e33be6c7fb413392aa130200002e002b0002030400330024001d002056343607a827323faefc6b1519994c4f39ba931efe3eb049eec87dc6e1e22d\
         1e",
    ),
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame of HTTP/2 with nothing in it: SETTINGS.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const NEXT: &[u8] = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const MOVED: &[u8] = b"HTTP/1.1 301 Moved\r\nContent-Length: 2\r\n\r\nhi";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).expect("hexadecimal")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("a byte")).collect()
}

/// The client's and the server's first flight.
fn hellos() -> impl Iterator<Item = [Vec<u8>; 2]> {
    HELLOS.into_iter().map(|(client, server)| [bytes(client), bytes(server)])
}

/// A record of encrypted data (RFC 8446 section 5.2), in which a request stands where a packet begins.
fn record(len: usize) -> Vec<u8> {
    let mut record = vec![23, 3, 3];
    record.extend_from_slice(&u16::try_from(len).expect("a record").to_be_bytes());
    record.extend(NEXT.iter().cycle().take(len));
    record
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Fins,
    Reset,
    Silence,
}

fn end(wire: &mut Wire, ending: Ending) {
    match ending {
        Ending::Fins => {
            wire.fin(SERVER);
            wire.fin(CLIENT);
            wire.ack(SERVER);
        }
        Ending::Reset => wire.reset(CLIENT),
        Ending::Silence => {}
    }
}

/// A connection on which the ends say this in turn, the client first.
fn said(turns: &[&[u8]], sizes: &mut impl Iterator<Item = usize>) -> Wire {
    let mut wire = Wire::open(40_000, u32::MAX - 300, 5_000);
    for (bytes, toward) in turns.iter().zip([CLIENT, SERVER].into_iter().cycle()) {
        wire.send(toward, bytes, sizes);
    }
    wire
}

fn lines_of(turns: &[&[u8]]) -> Vec<String> {
    let mut wire = said(turns, &mut whole());
    end(&mut wire, Ending::Fins);
    lines(&trace(&wire.frames))
}

/// One session, of the whole connection.
fn check_whole(frames: &[Frame], sessions: &[Session], turns: &[&[u8]]) {
    let [session] = sessions else { panic!("{:?}", lines(sessions)) };
    let sent = |first: usize| turns.iter().skip(first).step_by(2).map(|turn| turn.len() as u64).sum::<u64>();
    assert_eq!(session.outcome, Outcome::Unparsed);
    assert_eq!((session.request.bytes, session.response.bytes), (sent(0), sent(1)));
    let with_payload = |toward| frames.iter().filter(move |f| f.toward == toward && f.data.len() > 40);
    assert_eq!(session.request.packets, with_payload(CLIENT).count() as u64);
    assert_eq!(session.response.packets, with_payload(SERVER).count() as u64);
    // Packets are a microsecond apart.
    let time = |place: usize| 1_000_000_000 + 1_000 * (place as u64 + 1);
    let is_payload = |frame: &Frame| frame.data.len() > 40;
    let first_of = |toward| frames.iter().position(|f| f.toward == toward && is_payload(f)).map(time);
    assert_eq!(Some(session.start_ns), first_of(CLIENT));
    assert_eq!(session.response_start_ns, first_of(SERVER));
    assert_eq!(Some(session.end_ns), frames.iter().rposition(is_payload).map(time));
    assert_eq!((session.request_end_ns, session.pairing, session.missing_bytes), (None, None, 0));
}

#[test]
fn a_connection_of_tls_is_one_session() {
    for [client, server] in hellos() {
        for ending in [Ending::Fins, Ending::Reset, Ending::Silence] {
            let (asked, answered) = (record(300), record(9_000));
            let turns: [&[u8]; 6] = [&client, &server, &asked, &answered, &asked, &answered];
            let mut wire = said(&turns, &mut whole());
            end(&mut wire, ending);
            let sessions = trace(&wire.frames);
            check_whole(&wire.frames, &sessions, &turns);
            assert_eq!(lines(&sessions)[0].split(" unparsed").next(), Some("? -> ?"));
        }
    }
}

#[test]
fn tls_is_known_wherever_its_bytes_are_cut() {
    for [client, server] in hellos() {
        let data = record(100);
        let turns: [&[u8]; 4] = [&client, &server, &data, &data];
        for cut in 1..client.len() {
            let mut wire = said(&turns, &mut std::iter::once(cut).chain(whole()));
            end(&mut wire, Ending::Fins);
            check_whole(&wire.frames, &trace(&wire.frames), &turns);
        }
        for size in 1..20 {
            let mut wire = said(&turns, &mut std::iter::repeat(size));
            end(&mut wire, Ending::Fins);
            check_whole(&wire.frames, &trace(&wire.frames), &turns);
        }
    }
}

#[test]
fn a_hello_in_several_records_is_one() {
    let [[client, server], _] = hellos().collect::<Vec<_>>().try_into().expect("two");
    // The first record ends within the message (RFC 8446 section 5.1).
    let parts = [&client[5..25], &client[25..]];
    let record = |part: &[u8]| [&[22, 3, 1, 0, u8::try_from(part.len()).expect("short")], part].concat();
    let client = parts.map(record).concat();
    let wire = said(&[&client, &server], &mut whole());
    check_whole(&wire.frames, &trace(&wire.frames), &[&client, &server]);
}

/// What is told when these packets come: how many bytes in a row of the client, and of the server.
fn told(frames: &[Frame]) -> Vec<[u32; 2]> {
    let mut tracer = Tracer::new(Limits { unneeded: Some(1), ..Limits::default() });
    let mut told = Vec::new();
    for (frame, time_ns) in frames.iter().zip(1..) {
        let (interface, side, protocol) = (1, Side::Server, Protocol::Http);
        let Frame { toward, data, wire_len } = frame;
        let (toward, wire_len) = (*toward, *wire_len);
        tracer.handle_packet(&Packet { time_ns, interface, side, toward, protocol, wire_len, data });
        told.extend(std::iter::from_fn(|| tracer.poll_unneeded()));
    }
    assert!(told.iter().all(|unneeded| unneeded.server.port() == SERVER_PORT));
    let spared = |unneeded: &Unneeded| match unneeded.wish {
        Wish::Spare { bytes, .. } => Some(bytes.map(|(from, until)| until.wrapping_sub(from))),
        Wish::Ask | Wish::Forget => None,
    };
    told.iter().filter_map(spared).collect()
}

#[test]
fn neither_direction_need_be_copied() {
    let [client, server] = hellos().next().expect("one");
    let wire = said(&[&client, &server], &mut whole());
    assert_eq!(told(&wire.frames), [[1 << 30, 0], [1 << 30, 1 << 30]]);
    let wire = said(&[PREFACE, SETTINGS], &mut whole());
    assert_eq!(told(&wire.frames), [[1 << 30, 0], [1 << 30, 1 << 30]]);
    // Of all that comes behind the hellos nothing is copied, though requests begin its packets.
    let data = [NEXT; 100].concat();
    let wire = said(&[&client, &server, &data, &data, &data], &mut whole());
    let mut trim = Trim::new(0);
    let limits = Limits { unneeded: Some(1), ..Limits::default() };
    let (sessions, _) = trace_trimmed(&wire.frames, Protocol::Http, limits, Some(&mut trim));
    assert_eq!((sessions.len(), trim.spared), (1, 3 * data.len()));
}

#[test]
fn counting_begins_though_whoever_picks_packets_saw_a_hole_where_none_was() {
    let [client, server] = hellos().next().expect("one");
    let mut wire = said(&[&client, &server], &mut whole());
    let packets = 200;
    for _ in 0..packets {
        wire.send(SERVER, &[b'x'; 1_000], &mut whole());
        wire.ack(CLIENT);
    }
    end(&mut wire, Ending::Fins);
    let limits = Limits { unneeded: Some(1), ..Limits::default() };
    let expected = trace(&wire.frames);
    let counted = |delay, misses| {
        let mut trim = Trim::new(delay);
        trim.misses = misses;
        assert_eq!(trace_trimmed(&wire.frames, Protocol::Http, limits.clone(), Some(&mut trim)).0, expected);
        trim.counted
    };
    // It is told so many packets late, and loses then what the last of them said of how far the connection had come.
    for delay in 1..10 {
        let (counted, late) = (counted(delay, None), 2 * delay as u64);
        assert!(counted + late + 10 > 2 * packets, "{counted} of {}, {delay}", 2 * packets);
    }
    // Of 32 packets with payload the headers come, and as many acknowledgements, until it is told that nothing is missing.
    let is_data = |at: &usize| wire.frames[at - 1].data.len() > 1_000;
    for misses in (101..110).filter(is_data) {
        let (counted, most) = (counted(0, Some(misses)), 2 * packets - 2 * 32);
        assert!(counted <= most + 2 && counted > most - 10, "{counted} of {}", 2 * packets);
    }
}

#[test]
fn a_server_of_http_says_that_it_does_not_know_the_protocol() {
    for client in hellos().map(|[client, _]| client).chain([PREFACE.to_vec()]) {
        let name = if client == PREFACE { "PRI *" } else { "?" };
        let expected = format!("{name} -> 400 unparsed {}/{}", client.len(), BAD.len());
        assert_eq!(lines_of(&[&client, BAD]), [expected.as_str()]);
        // Who spoke another protocol does not go on in HTTP/1.
        assert_eq!(lines_of(&[&client, BAD, NEXT]), [expected.as_str()]);
        let mut wire = said(&[&client, BAD], &mut [5].into_iter().cycle());
        end(&mut wire, Ending::Fins);
        assert_eq!(lines(&trace(&wire.frames)), [expected.as_str()]);
    }
}

#[test]
fn what_only_comes_close_is_read_on() {
    let [client, _] = hellos().next().expect("one");
    let mut close: Vec<Vec<u8>> = (1..11).map(|len| client[..len].to_vec()).collect();
    let wrong = [(0, 21), (1, 2), (2, 0), (2, 4), (3, 0x40), (5, 2), (6, 9), (8, 0), (9, 2), (10, 4)];
    close.extend(wrong.map(|(place, byte)| {
        let mut bytes = client.clone();
        bytes[place] = byte;
        bytes
    }));
    // No room for the message, and an empty one.
    close.push(b"\x16\x03\x01\0\x05\x01\0\0\x94\x03\x03".to_vec());
    close.push(b"\x16\x03\x01\0\x06\x01\0\0\x02\x03\x03".to_vec());
    close.push([b"\r\n", &client[..]].concat());
    close.extend((1..PREFACE.len() - 18).map(|len| PREFACE[..18 + len].to_vec()));
    close.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r".to_vec());
    close.push(b"PRI * HTTP/2.0\r\nHost: h\r\n\r\nSM\r\n\r\n".to_vec());
    for bytes in close {
        for cut in 1..bytes.len() {
            let mut wire = said(&[&bytes, BAD, NEXT, MOVED], &mut std::iter::once(cut).chain(whole()));
            end(&mut wire, Ending::Fins);
            let lines = lines(&trace(&wire.frames));
            let is_first = lines[0].contains(" -> 400 unparsed ");
            let is_next = lines[1] == format!("GET /b -> 301 complete {}/{}", NEXT.len(), MOVED.len());
            assert!(is_first && is_next && lines.len() == 2, "{bytes:?} cut at {cut}: {lines:?}");
        }
    }
}

#[test]
fn another_protocol_is_known_at_the_start_only() {
    for client in hellos().map(|[client, _]| client) {
        let mut other = client.clone();
        other[0] = 21;
        // Behind a request it is no hello that anybody answers.
        let found = lines_of(&[GET, OK, &client, BAD, NEXT, MOVED]);
        assert_eq!(found, lines_of(&[GET, OK, &other, BAD, NEXT, MOVED]));
        assert!(found.len() == 3 && found[2].starts_with("GET /b -> 301 complete"), "{found:?}");
        // In the middle of a stream it may be in a body.
        let in_the_middle = |bytes: &[u8]| {
            let mut wire = Wire::in_the_middle(40_000, 1_000, 5_000);
            let turns = [(CLIENT, bytes), (SERVER, b"\0"), (CLIENT, NEXT), (SERVER, MOVED), (CLIENT, NEXT)];
            turns.into_iter().for_each(|(toward, bytes)| wire.send(toward, bytes, &mut whole()));
            lines(&trace(&wire.frames))
        };
        let found = in_the_middle(&client);
        assert_eq!(found, in_the_middle(&other));
        assert!(found.iter().filter(|line| line.starts_with("GET /b")).count() == 2, "{found:?}");
    }
    // Behind a gap, too, even where a request has brought the stream back into step.
    for preface in [PREFACE, b"PRI * HTTP/2.0\r\n\r\nTM\r\n\r\n"] {
        let mut wire = Wire::in_the_middle(40_000, 1_000, 5_000);
        for (toward, bytes) in
            [(CLIENT, GET), (SERVER, OK), (CLIENT, preface), (SERVER, BAD), (CLIENT, NEXT), (SERVER, MOVED)]
        {
            wire.send(toward, bytes, &mut whole());
        }
        let found = lines(&trace(&wire.frames));
        assert!(found[2].starts_with("GET /b"), "{found:?}");
    }
}

#[test]
fn http2_with_prior_knowledge_is_one_session() {
    let request = [PREFACE, SETTINGS, &[NEXT; 20].concat()].concat();
    let answer = [SETTINGS, &[MOVED; 200].concat()].concat();
    let turns: [&[u8]; 4] = [&request, &answer, &request, &answer];
    for cut in 1..request.len() {
        let mut wire = said(&turns, &mut std::iter::once(cut).chain(whole()));
        end(&mut wire, Ending::Fins);
        let sessions = trace(&wire.frames);
        check_whole(&wire.frames, &sessions, &turns);
        assert!(lines(&sessions)[0].starts_with("PRI * -> ? unparsed"));
    }
    let mut wire = said(&turns, &mut std::iter::repeat(1));
    end(&mut wire, Ending::Reset);
    check_whole(&wire.frames, &trace(&wire.frames), &turns);
}

#[test]
fn a_server_of_http2_may_speak_first() {
    // Its first frame is a session of its own, as whatever nobody has asked for.
    let expected = |before: usize| {
        let (asked, answered) = (2 * PREFACE.len(), SETTINGS.len() * (3 - before));
        [
            format!("? -> ? unparsed 0/{}", SETTINGS.len() * before),
            format!("PRI * -> ? unparsed {asked}/{answered}"),
        ]
    };
    for size in [1, 5, usize::MAX] {
        let mut wire = Wire::open(40_000, 1_000, 5_000);
        wire.send(SERVER, SETTINGS, &mut whole());
        wire.send(CLIENT, PREFACE, &mut std::iter::repeat(size));
        wire.send(SERVER, SETTINGS, &mut whole());
        wire.send(CLIENT, PREFACE, &mut whole());
        wire.send(SERVER, SETTINGS, &mut whole());
        end(&mut wire, Ending::Fins);
        assert_eq!(lines(&trace(&wire.frames)), expected(1), "{size}");
    }
}

#[test]
fn a_hello_that_was_lost_is_known_by_its_answer() {
    for [client, server] in hellos() {
        let data = record(2_000);
        let mut wire = said(&[&client, &server, &data, &data, &data], &mut whole());
        end(&mut wire, Ending::Fins);
        let hello = wire.frames.iter().position(|frame| frame.data.len() > 40).expect("the hello");
        wire.frames.remove(hello);
        let [session] = &trace(&wire.frames)[..] else { panic!("{:?}", lines(&trace(&wire.frames))) };
        assert_eq!(session.outcome, Outcome::Unparsed);
        let sent = (2 * data.len(), server.len() + data.len());
        assert_eq!((session.request.bytes, session.response.bytes), (sent.0 as u64, sent.1 as u64));
        assert_eq!(session.response.packets, 1 + 2);
    }
}

#[test]
fn what_is_lost_of_an_opaque_connection_is_missing() {
    let [client, server] = hellos().next().expect("one");
    let data = record(1_000);
    let wire = said(&[&client, &server, &data, &data, &data, &data], &mut whole());
    let with_payload = wire.frames.iter().enumerate().filter(|(_, frame)| frame.data.len() > 40);
    let places: Vec<_> = with_payload.map(|(place, _)| place).collect();
    // The server's first bytes, or any behind them.
    for (at, lost) in places.iter().enumerate().skip(1) {
        let mut frames = wire.frames.clone();
        frames.remove(*lost);
        let sessions = trace(&frames);
        let [session] = &sessions[..] else { panic!("{:?}", lines(&sessions)) };
        assert_eq!(session.outcome, Outcome::Unparsed);
        let seen = session.request.bytes + session.response.bytes + session.missing_bytes;
        let all = client.len() + server.len() + 4 * data.len();
        // The last bytes are acknowledged by none, so nobody knows of them.
        let unknown = if at == places.len() - 1 { data.len() } else { 0 };
        assert_eq!(seen, (all - unknown) as u64, "{at}");
    }
}

/// A connection of TLS with these cuts.
fn any_cuts(sizes: &[usize]) -> (Wire, usize) {
    let [client, server] = hellos().next().expect("one");
    let data = record(2_000);
    let turns: [&[u8]; 6] = [&client, &server, &data, &data, &data, &data];
    let mut wire = said(&turns, &mut sizes.iter().copied().cycle());
    end(&mut wire, Ending::Fins);
    (wire, turns.iter().map(|turn| turn.len()).sum())
}

/// Its packets, each as many places late as is said in turn, and twice where that is said.
fn late_and_twice(wire: &Wire, fates: &[(usize, bool)]) -> Vec<Frame> {
    let mut arrivals = Vec::new();
    for ((at, frame), (delay, is_twice)) in wire.frames.iter().enumerate().zip(fates.iter().cycle()) {
        // What opens a connection comes first, or it is met in its middle.
        let delay = if at < 3 { 0 } else { *delay };
        arrivals.push((at + delay, at, frame));
        arrivals.extend(is_twice.then_some((at, at, frame)));
    }
    arrivals.sort_by_key(|(place, at, _)| (*place, *at));
    arrivals.into_iter().map(|(_, _, frame)| frame.clone()).collect()
}

#[test]
fn what_is_repeated_where_sequence_numbers_begin_anew_is_not_new() {
    // The client's sequence numbers are 0 behind its third packet, which then comes again, and the one before it, too.
    let (wire, all) = any_cuts(&[11, 146, 70, 143]);
    let mut fates = [(0, false); 8];
    (fates[4], fates[6]) = ((3, true), (1, true));
    let [session] = &trace(&late_and_twice(&wire, &fates))[..] else { panic!("one session") };
    assert_eq!(session.request.bytes + session.response.bytes, all as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn repetitions_and_late_packets_change_nothing(
        sizes in prop::collection::vec(1_usize..1_400, 1..20),
        fates in prop::collection::vec((0_usize..4, any::<bool>()), 1..60),
    ) {
        let (wire, all) = any_cuts(&sizes);
        let frames = late_and_twice(&wire, &fates);
        let sessions = trace(&frames);
        prop_assert_eq!(sessions.len(), 1, "{:?}", lines(&sessions));
        prop_assert_eq!(sessions[0].request.bytes + sessions[0].response.bytes, all as u64);
        prop_assert_eq!(sessions[0].outcome, Outcome::Unparsed);
    }

    #[test]
    fn whatever_is_lost_no_more_sessions_come_of_it(
        sizes in prop::collection::vec(1_usize..1_400, 1..20),
        keep in prop::collection::vec(prop::bool::weighted(0.9), 1..100),
    ) {
        let (wire, _) = any_cuts(&sizes);
        // The first packet of the client is there.
        let kept = wire.frames.iter().zip((0..).map(|at| at < 4 || keep[at % keep.len()]));
        let frames: Vec<_> = kept.filter(|(_, keep)| *keep).map(|(frame, _)| frame.clone()).collect();
        let is_known = sizes[0] >= 11;
        let sessions = trace(&frames);
        prop_assert!(!is_known || sessions.len() == 1, "{:?}", lines(&sessions));
        prop_assert!(!is_known || sessions[0].outcome == Outcome::Unparsed);
    }
}
