//! Golden captures: what real programs sent, through the whole pipeline to spans, against `NAME.expected`.
//!
//! `testdata/golden/README.md` says how the captures were made. `BLESS=1 cargo test` rewrites the expectations;
//! a missing one fails. Beside that: the same file gives the same spans twice, a file that is cut anywhere gives
//! the sessions before the cut, and no bytes make the reader panic.

use std::{
    fmt::Write as _,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use clovisor_trace::{
    EgressRule, Limits, OtherSide, PortRule, Protocol, Resource, Rules, Semconv, Span, SpanBuilder, Status,
    Tracer, Value,
    capture::{self, CaptureError},
};
use proptest::prelude::*;

/// One header is asked for in each direction, so that goldens show captured headers too.
const HEADERS: [&str; 2] = ["x-request-id", "location"];

/// What listens where; `testdata/golden/make` has the servers. Port 8081 stands for a remote one.
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

fn captures() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng"))
        .collect();
    found.sort();
    found
}

/// The spans of a capture, one a line, and how reading it ended. What was captured is in the file's own time,
/// so the epoch is zero.
fn spans(file: &[u8]) -> (Vec<String>, Result<(), CaptureError>) {
    let headers = HEADERS.map(str::to_owned).into();
    let (rules, mut tracer) = (rules(), Tracer::new(Limits { headers, ..Limits::default() }));
    let mut last_ns = 0;
    let read = capture::read(file, |record| {
        last_ns = last_ns.max(record.time_ns);
        tracer.handle_timeout(last_ns);
        if let Some(packet) = rules.select(record.time_ns, record.interface, record.wire_len, record.data) {
            tracer.handle_packet(&packet);
        }
        ControlFlow::Continue(())
    });
    tracer.finish(last_ns);
    assert_eq!(tracer.ledger().balance(), Ok(()));
    let (builder, resource) = (SpanBuilder { semconv: Semconv::Dup }, Arc::new(Resource::service("golden")));
    let sessions = std::iter::from_fn(|| tracer.poll_session());
    (sessions.map(|session| line(&builder.span(&session, 0, &resource, OtherSide::Untraced))).collect(), read)
}

/// Everything that a span says, on one line.
fn line(span: &Span) -> String {
    let parent = span.parent_span_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let mut line = format!(
        "{} {:?} trace={} span={} parent={parent} state={:?} start={} end={}",
        span.name, span.kind, span.trace_id, span.span_id, span.trace_state, span.start_ns, span.end_ns
    );
    match &span.status {
        Status::Unset => line += " status=unset",
        Status::Error { message } => _ = write!(line, " status=error({message})"),
    }
    for (key, value) in &span.attributes {
        _ = match value {
            Value::Str(text) => write!(line, " {key}={text:?}"),
            Value::Int(number) => write!(line, " {key}={number}"),
            Value::Float(number) => write!(line, " {key}={number}"),
            Value::Bool(truth) => write!(line, " {key}={truth}"),
            Value::List(texts) => write!(line, " {key}={texts:?}"),
        };
    }
    for event in &span.events {
        let of = event.attributes.iter().map(|(_, value)| format!("({value:?})")).collect::<String>();
        _ = write!(line, " @{}={}{of}", event.time_ns.wrapping_sub(span.start_ns).cast_signed(), event.name);
    }
    line
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a capture")
}

/// `NAME.pcap.expected`, beside its capture.
fn expectation(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".expected");
    name.into()
}

#[test]
fn captures_give_the_expected_spans() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut faults = String::new();
    let captures = captures();
    assert!(captures.len() >= 13, "captures are missing: {captures:?}");
    for path in captures {
        let (found, read) = spans(&bytes(&path));
        assert_eq!(read, Ok(()), "{}", path.display());
        let found: String = found.iter().map(|line| format!("{line}\n")).collect();
        if bless {
            fs::write(expectation(&path), found).expect("a writable folder");
            continue;
        }
        match fs::read_to_string(expectation(&path)) {
            Ok(expected) => faults += &differences(&path, &expected, &found),
            Err(error) => _ = writeln!(faults, "{}: no expectation: {error}", path.display()),
        }
    }
    assert!(
        faults.is_empty(),
        "{faults}\nWhere the new lines are right: BLESS=1 cargo test, and read the diff."
    );
}

/// Lines of one that the other has not, as a diff shows them.
fn differences(path: &Path, expected: &str, found: &str) -> String {
    if expected == found {
        return String::new();
    }
    let gone = expected.lines().filter(|line| !found.lines().any(|other| other == *line));
    let new = found.lines().filter(|line| !expected.lines().any(|other| other == *line));
    let shown: String =
        gone.map(|line| format!("- {line}\n")).chain(new.map(|line| format!("+ {line}\n"))).collect();
    format!("{}:\n{}", path.display(), if shown.is_empty() { "the order differs\n" } else { &shown })
}

#[test]
fn every_expectation_has_a_capture() {
    let captures = captures();
    let folder = captures[0].parent().expect("a folder");
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "expected") {
            assert!(captures.contains(&path.with_extension("")), "{} has no capture", path.display());
        }
    }
}

#[test]
fn the_same_file_gives_the_same_spans() {
    for path in captures() {
        let file = bytes(&path);
        assert_eq!(spans(&file), spans(&file), "{}", path.display());
    }
}

/// Where each record of a file ends: behind these bytes a cut leaves a whole file.
fn record_ends(path: &Path, file: &[u8]) -> Vec<usize> {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4).expect("a length");
        u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize
    };
    let pcapng = path.extension().is_some_and(|end| end == "pcapng");
    let mut ends = vec![if pcapng { word(4) } else { 24 }];
    while let Some(at) = ends.last().copied().filter(|at| *at < file.len()) {
        ends.push(at + if pcapng { word(at + 4) } else { 16 + word(at + 8) });
    }
    ends
}

#[test]
fn a_file_that_is_cut_gives_what_is_before_the_cut() {
    for path in captures() {
        let file = bytes(&path);
        let ends = record_ends(&path, &file);
        assert_eq!(ends.last(), Some(&file.len()), "{}", path.display());
        let places = (0..file.len()).step_by((file.len() / 15).max(1)).chain([1, 4, 23, file.len() - 1]);
        for place in places {
            let (found, read) = spans(&file[..place]);
            let before = ends.iter().rev().find(|end| **end <= place).copied();
            let Some(before) = before else {
                assert!(
                    matches!(
                        read,
                        Err(CaptureError::Empty | CaptureError::NotACapture | CaptureError::CutShort(0))
                    ),
                    "{} cut at {place}: {read:?}",
                    path.display()
                );
                assert!(found.is_empty());
                continue;
            };
            let whole = spans(&file[..before]);
            assert_eq!(whole.1, Ok(()), "{} cut at {before}", path.display());
            assert_eq!(found, whole.0, "{} cut at {place}", path.display());
            assert_eq!(
                matches!(read, Err(CaptureError::CutShort(_))),
                before != place,
                "{} cut at {place}: {read:?}",
                path.display()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_an_error(mut file in prop::collection::vec(any::<u8>(), 0..2_000)) {
        // None of the four magic numbers begins with it.
        if let Some(first) = file.first_mut() {
            *first = 0;
        }
        let (found, read) = spans(&file);
        prop_assert!(found.is_empty());
        let expected = if file.is_empty() { CaptureError::Empty } else { CaptureError::NotACapture };
        prop_assert_eq!(read, Err(expected));
    }

    #[test]
    fn damaged_files_do_no_harm(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let captures = captures();
        let path: &PathBuf = which.get(&captures);
        let mut file = bytes(path);
        file.truncate(20_000);
        for (place, byte) in damage {
            *place.get_mut(&mut file) = byte;
        }
        // Whatever it is read as, the ledger balances: `spans` looks.
        drop(spans(&file));
    }
}
