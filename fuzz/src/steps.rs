//! What the target `tracer` does, step by step, as bytes: read from an input, and written for seeds.
//!
//! Segments are told by where they lie against the next sequence number of their stream, so that a change of a few
//! bytes gives a connection that is nearly right, and not a heap of foreign segments.

use arbitrary::{Result, Unstructured};

/// Payloads that reach deep, by number.
pub const SNIPPETS: [&[u8]; 16] = [
    b"",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\n",
    b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HEAD /c HTTP/1.1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"0123456789",
    b"5\r\nhello\r\n0\r\n\r\n",
    &[b'x'; 1_400],
];

/// Where a number lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where it belongs: the next of its stream; of an acknowledgement, all that was sent.
    Next,
    /// So far from there.
    Near(i16),
    /// Anywhere.
    At(u32),
}

/// Bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// One of [`SNIPPETS`], by number.
    Snippet(u8),
    /// These.
    Raw(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Snippet(number) => SNIPPETS[usize::from(number) % SNIPPETS.len()],
            Self::Raw(bytes) => bytes,
        }
    }
}

/// A segment of one of four connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Number of the connection, 0 to 3.
    pub connection: u8,
    /// Whether it comes from the server.
    pub from_server: bool,
    /// Its sequence number.
    pub seq: Place,
    /// Its acknowledgement, if it has one.
    pub ack: Option<Place>,
    /// Flag.
    pub syn: bool,
    /// Flag.
    pub fin: bool,
    /// Flag.
    pub rst: bool,
    /// Whether the capture lost a part of it, or it came in two fragments: where that cuts it.
    pub split: Option<Split>,
    /// Its bytes.
    pub payload: Payload<'a>,
}

/// How a packet is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// So many bytes at its end were not captured.
    Cut(u8),
    /// Two IP fragments, the first with so many (low 6 bits) times 8 bytes. Bit 6 loses the first, bit 7 the second;
    /// all datagrams of a connection have one id, so that fragments of different ones meet.
    Fragments(u8),
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A segment comes.
    Segment(Segment<'a>),
    /// So many times 100 µs pass.
    Wait(u16),
    /// So many seconds pass.
    WaitLong(u8),
    /// The next packet carries a time so many ms ago.
    Late(u8),
    /// The tracer looks at the clock.
    Timeout,
    /// The tracer is woken when it wanted to be.
    Deadline,
    /// Tracing of an interface ends.
    FinishInterface(u8),
    /// Packets of the last so many ms were lost, at an interface, or at any if it is 0.
    Lose {
        /// Number of the interface, 0 to 3.
        interface: u8,
        /// Since when.
        ms: u8,
    },
}

impl<'a> Step<'a> {
    /// Reads the next step; `None` at the end of the input.
    ///
    /// # Errors
    /// The input ends within the step.
    pub fn read(input: &mut Unstructured<'a>) -> Result<Option<Self>> {
        if input.is_empty() {
            return Ok(None);
        }
        let first: u8 = input.arbitrary()?;
        Ok(Some(match first >> 5 {
            0..=3 => Self::Segment(read_segment(first, input)?),
            4 if first & 1 == 0 => Self::Wait(input.arbitrary()?),
            4 => Self::WaitLong(input.arbitrary()?),
            5 => Self::Late(input.arbitrary()?),
            6 if first & 1 == 0 => Self::Timeout,
            6 => Self::Deadline,
            _ if first & 16 != 0 => Self::Lose { interface: first & 3, ms: input.arbitrary()? },
            _ => Self::FinishInterface(first & 3),
        }))
    }

    /// Writes the step as [`read`](Self::read) reads it. A raw payload is cut at 64 KiB.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Segment(segment) => write_segment(segment, out),
            Self::Wait(time) => {
                out.push(4 << 5);
                out.extend(time.to_le_bytes());
            }
            Self::WaitLong(time) => out.extend([4 << 5 | 1, *time]),
            Self::Late(time) => out.extend([5 << 5, *time]),
            Self::Timeout => out.push(6 << 5),
            Self::Deadline => out.push(6 << 5 | 1),
            Self::FinishInterface(interface) => out.push(7 << 5 | interface & 3),
            Self::Lose { interface, ms } => out.extend([7 << 5 | 16 | interface & 3, *ms]),
        }
    }
}

/// First byte: connection (2 bits), direction, whether the payload is raw, whether numbers are out of place, split.
/// Second byte: three flags, kind of sequence number (2 bits), kind of acknowledgement (2), kind of split.
fn read_segment<'a>(first: u8, input: &mut Unstructured<'a>) -> Result<Segment<'a>> {
    let (is_raw, is_split) = (first & 8 != 0, first & 16 != 0);
    let second: u8 = input.arbitrary()?;
    let place = |kind: u8, input: &mut Unstructured<'a>| {
        Ok(match kind & 3 {
            2 => Place::Near(input.arbitrary()?),
            3 => Place::At(input.arbitrary()?),
            _ => Place::Next,
        })
    };
    let seq = place(second >> 3, input)?;
    let ack = if second >> 5 & 3 == 1 { None } else { Some(place(second >> 5, input)?) };
    let split = match (is_split, second & 128 != 0) {
        (false, _) => None,
        (true, false) => Some(Split::Cut(input.arbitrary()?)),
        (true, true) => Some(Split::Fragments(input.arbitrary()?)),
    };
    let payload = if is_raw {
        let len = usize::from(input.arbitrary::<u16>()?).min(input.len());
        Payload::Raw(input.bytes(len)?)
    } else {
        Payload::Snippet(input.arbitrary()?)
    };
    Ok(Segment {
        connection: first & 3,
        from_server: first & 4 != 0,
        seq,
        ack,
        syn: second & 1 != 0,
        fin: second & 2 != 0,
        rst: second & 4 != 0,
        split,
        payload,
    })
}

fn write_segment(segment: &Segment<'_>, out: &mut Vec<u8>) {
    let kind = |place| match place {
        Place::Next => 0,
        Place::Near(_) => 2,
        Place::At(_) => 3,
    };
    let is_raw = matches!(segment.payload, Payload::Raw(_));
    let is_fragments = matches!(segment.split, Some(Split::Fragments(_)));
    out.push(
        segment.connection & 3
            | u8::from(segment.from_server) << 2
            | u8::from(is_raw) << 3
            | u8::from(segment.split.is_some()) << 4,
    );
    out.push(
        u8::from(segment.syn)
            | u8::from(segment.fin) << 1
            | u8::from(segment.rst) << 2
            | kind(segment.seq) << 3
            | segment.ack.map_or(1, kind) << 5
            | u8::from(is_fragments) << 7,
    );
    for place in [Some(segment.seq), segment.ack].into_iter().flatten() {
        match place {
            Place::Next => {}
            Place::Near(distance) => out.extend(distance.to_le_bytes()),
            Place::At(number) => out.extend(number.to_le_bytes()),
        }
    }
    if let Some(Split::Cut(at) | Split::Fragments(at)) = segment.split {
        out.push(at);
    }
    match segment.payload {
        Payload::Snippet(number) => out.push(number),
        Payload::Raw(bytes) => {
            let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            out.extend(len.to_le_bytes());
            out.extend_from_slice(&bytes[..len.into()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let plain = Segment {
            connection: 2,
            from_server: true,
            seq: Place::Next,
            ack: Some(Place::Next),
            syn: false,
            fin: false,
            rst: false,
            split: None,
            payload: Payload::Snippet(7),
        };
        let steps = [
            Step::Segment(plain),
            Step::Segment(Segment { seq: Place::Near(-300), ack: None, syn: true, connection: 3, ..plain }),
            Step::Segment(Segment {
                seq: Place::At(u32::MAX),
                ack: Some(Place::Near(5)),
                fin: true,
                ..plain
            }),
            Step::Segment(Segment {
                ack: Some(Place::At(9)),
                rst: true,
                payload: Payload::Raw(b"raw"),
                ..plain
            }),
            Step::Segment(Segment { split: Some(Split::Cut(9)), payload: Payload::Raw(b""), ..plain }),
            Step::Segment(Segment { split: Some(Split::Fragments(3)), from_server: false, ..plain }),
            Step::Wait(500),
            Step::WaitLong(9),
            Step::Late(3),
            Step::Timeout,
            Step::Deadline,
            Step::FinishInterface(2),
            Step::Lose { interface: 1, ms: 20 },
        ];
        let mut bytes = Vec::new();
        steps.iter().for_each(|step| step.write(&mut bytes));
        let mut input = Unstructured::new(&bytes);
        let read: Vec<_> = std::iter::from_fn(|| Step::read(&mut input).expect("whole")).collect();
        assert_eq!(read, steps);
    }
}
