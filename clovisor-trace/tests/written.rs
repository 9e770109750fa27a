//! What the writer writes the reader reads: any packets come back as they were, at any interface, and a file cut anywhere
//! gives all that is whole.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint spares only functions marked as tests")]

use std::ops::ControlFlow;

use clovisor_trace::{
    Heading,
    capture::{self, CaptureError, Entry, Event, Host, Note, Origin, Statistics, Writer},
};
use proptest::prelude::*;

/// What a file tells, by value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Interface(u32, String, String),
    Packet {
        interface: u32,
        time_ns: u64,
        heading: Heading,
        wire_len: u32,
        data: Vec<u8>,
        comment: Option<String>,
    },
    Time(u64),
}

fn read(bytes: &[u8]) -> (Vec<Told>, Result<(), CaptureError>) {
    let mut told = Vec::new();
    let end = capture::read_events(bytes.to_vec().as_slice(), |event| {
        told.push(match event {
            Event::Interface(described) => Told::Interface(
                described.id,
                described.name.unwrap().to_owned(),
                described.comment.unwrap().to_owned(),
            ),
            Event::Packet(record) => Told::Packet {
                interface: record.interface,
                time_ns: record.time_ns,
                heading: record.heading.unwrap(),
                wire_len: record.wire_len,
                data: record.data.to_vec(),
                comment: record.comment.map(str::to_owned),
            },
            Event::Time(taken) => Told::Time(taken.time_ns),
        });
        ControlFlow::Continue(())
    });
    (told, end)
}

/// Writes it, and tells where each block ends.
fn write(told: &[Told]) -> (Vec<u8>, Vec<usize>) {
    let host = Host { hardware: "x86_64", os: "Linux 6.1", application: "clovisor 0.1.0" };
    let mut writer = Writer::new(Vec::new(), &host).unwrap();
    let mut ends = vec![writer.get_mut().len()];
    for one in told {
        match one {
            Told::Interface(id, name, comment) => {
                assert_eq!(writer.interface(name, comment, 65_280).unwrap(), *id);
            }
            Told::Packet { interface, time_ns, heading, wire_len, data, comment } => writer
                .packet(&Entry {
                    interface: *interface,
                    time_ns: *time_ns,
                    heading: *heading,
                    wire_len: *wire_len,
                    data,
                    comment: comment.as_deref(),
                })
                .unwrap(),
            Told::Time(time_ns) => {
                writer
                    .statistics(0, *time_ns, &Statistics { lost: Some(7), ..Statistics::default() }, None)
                    .unwrap();
            }
        }
        ends.push(writer.get_mut().len());
    }
    (std::mem::take(writer.get_mut()), ends)
}

fn interfaces() -> impl Strategy<Value = Vec<Told>> {
    // A pcapng text may be empty, and holds any characters but zero.
    prop::collection::vec(("[a-zA-Z0-9._:@-]{1,15}", "[^\0]{0,40}"), 1..300).prop_map(|names| {
        (0..).zip(names).map(|(id, (name, comment))| Told::Interface(id, name, comment)).collect()
    })
}

fn packets(interfaces: u32) -> impl Strategy<Value = Vec<Told>> {
    let lengths = prop_oneof![0_usize..80, 1_400_usize..1_600, Just(65_280), Just(70_001)];
    let data = (lengths, any::<u8>()).prop_map(|(len, seed)| {
        (0..len).map(|at| seed.wrapping_add(u8::try_from(at % 251).unwrap())).collect::<Vec<u8>>()
    });
    let comment = prop::option::of("[^\0]{0,30}");
    let packet = (0..interfaces, any::<u64>(), any::<bool>(), any::<u32>(), data, comment).prop_map(
        |(interface, time_ns, to_pod, wire_len, data, comment)| Told::Packet {
            interface,
            time_ns,
            heading: if to_pod { Heading::ToPod } else { Heading::FromPod },
            wire_len,
            data,
            comment,
        },
    );
    prop::collection::vec(prop_oneof![8 => packet, 1 => any::<u64>().prop_map(Told::Time)], 0..12)
}

fn files() -> impl Strategy<Value = Vec<Told>> {
    interfaces().prop_flat_map(|interfaces| {
        let count = u32::try_from(interfaces.len()).unwrap();
        packets(count).prop_map(move |packets| [interfaces.clone(), packets].concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_is_read(told in files()) {
        let (bytes, _) = write(&told);
        prop_assert_eq!(bytes.len() % 4, 0);
        let (read, end) = read(&bytes);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(read, told);
    }
}

proptest! {
    /// Whoever wrote a comment: it is ours and says the same when it is written again, or it is not.
    #[test]
    fn any_comment_means_one_thing_or_none(
        comment in "clovisor( (port|egress|service|side|protocol|late)=[0-9a-fhpt:.=\\[\\]]{0,12}| [a-z =]{0,6}){0,4}|\\PC{0,20}",
    ) {
        if let Ok(origin) = comment.parse::<Origin>() {
            prop_assert_eq!(origin.to_string().parse(), Ok(origin));
        }
        if let Ok(note) = comment.parse::<Note>() {
            prop_assert_eq!(note.to_string().parse(), Ok(note));
        }
    }
}

/// As after `kill -9`, or on a full disk.
#[test]
fn a_file_cut_anywhere_gives_all_that_is_whole() {
    let packet = |len: usize, comment: Option<&str>| Told::Packet {
        interface: 1,
        time_ns: 1_700_000_000_000_000_001,
        heading: Heading::ToPod,
        wire_len: 1_500,
        data: vec![0x45; len],
        comment: comment.map(str::to_owned),
    };
    let told = [
        Told::Interface(0, "eth0".to_owned(), "clovisor port=80=http".to_owned()),
        Told::Interface(1, "lo".to_owned(), String::new()),
        packet(41, None),
        packet(0, Some("clovisor late=5")),
        Told::Time(1_700_000_000_000_000_002),
        packet(54, None),
    ];
    let (bytes, ends) = write(&told);
    for cut in 0..=bytes.len() {
        let (read, end) = read(&bytes[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        assert_eq!(read, told[..whole], "cut at {cut}");
        let packets = read.iter().filter(|told| matches!(told, Told::Packet { .. })).count() as u64;
        if ends.contains(&cut) {
            assert_eq!(end, Ok(()), "cut at {cut}");
        } else if cut < ends[0] {
            // So little that nobody can tell what it was to be.
            assert!(matches!(
                end,
                Err(CaptureError::Empty | CaptureError::NotACapture | CaptureError::CutShort(0))
            ));
        } else {
            assert_eq!(end, Err(CaptureError::CutShort(packets)), "cut at {cut}");
        }
    }
}

/// Statistics and packets of an interface that nobody described, and an end of nothing.
#[test]
fn what_refers_to_nothing_is_damage() {
    let (bytes, ends) = write(&[Told::Interface(0, "lo".to_owned(), String::new()), Told::Time(1)]);
    let without_interface = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
    assert_eq!(read(&without_interface), (vec![], Err(CaptureError::Malformed(0))));
}
