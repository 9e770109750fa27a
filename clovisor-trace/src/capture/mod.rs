//! Packets from pcap and pcapng files, and into pcapng files.
//!
//! The container is read by pcap-parser; this module takes off the link header and turns times into
//! nanoseconds. It refuses to guess: a link type that it does not know is an error that names it.

mod file;
mod link;
mod origin;
mod write;

use std::{fmt, io::Read, ops::ControlFlow};

use file::File;
pub use origin::{Lost, Note, Origin};
use pcap_parser::{PcapError, create_reader, traits::PcapReaderIterator};
pub use write::{Entry, Host, Statistics, Writer};

use crate::packet::Heading;

/// Bytes that the reader starts with; it grows up to [`LARGEST_BLOCK`] where a block needs it.
const BUFFER: usize = 1 << 20;
/// Largest block that is taken: a packet of the largest GSO size (512 KiB) with room for its options.
const LARGEST_BLOCK: usize = 16 << 20;

/// Why a capture file cannot be read (further).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// It is empty.
    Empty,
    /// It is neither pcap nor pcapng.
    NotACapture,
    /// It ends in the middle of a packet, after so many packets.
    CutShort(u64),
    /// A block makes no sense, after so many packets.
    Malformed(u64),
    /// It was captured on a kind of link that is not supported; the number is of the LINKTYPE registry.
    LinkType(i32),
    /// Reading it failed.
    Io,
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty; is the capture still being written?"),
            Self::NotACapture => f.write_str(
                "the file is neither pcap nor pcapng; make one with 'tcpdump -w FILE' or Wireshark",
            ),
            Self::CutShort(packets) => {
                write!(f, "the file ends in the middle of a packet, after {packets} whole ones")
            }
            Self::Malformed(packets) => write!(f, "the file is damaged after {packets} packets"),
            Self::LinkType(number) => write!(
                f,
                "link type {number} is not supported; capture on an Ethernet, loopback or IP interface, or with '-i any'"
            ),
            Self::Io => f.write_str("reading the file failed"),
        }
    }
}

impl std::error::Error for CaptureError {}

/// A packet of a file, from its IP header on.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Number of the interface in the file, from 0.
    pub interface: u32,
    /// Length on the wire from the IP header on.
    pub wire_len: u32,
    /// What was captured of it; empty if it is not an IP packet.
    pub data: &'a [u8],
    /// Which way it went at the interface, where the file says so: received there is `ToPod`.
    pub heading: Option<Heading>,
    /// Comment on it.
    pub comment: Option<&'a str>,
}

/// An interface that a file describes.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// Its number in the file's section, from 0.
    pub id: u32,
    /// Its name, where the file has one.
    pub name: Option<&'a str>,
    /// Comments on it.
    pub comment: Option<&'a str>,
}

/// What a file tells, in its order.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// An interface, before its packets.
    Interface(Description<'a>),
    /// A packet.
    Packet(Record<'a>),
    /// Statistics were taken: it was this time at the capture, in nanoseconds since the Unix epoch, and all earlier packets
    /// stand before.
    Time(Taken<'a>),
}

/// When statistics of an interface were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Number of the interface in its section.
    pub interface: u32,
    /// The first comment on them.
    pub comment: Option<&'a str>,
}

/// Reads the packets of a capture, in the order of the file, until the callback breaks off.
///
/// # Errors
/// What is wrong with the file; the packets before that were handed out.
pub fn read(
    source: impl Read + Send,
    mut each: impl FnMut(&Record<'_>) -> ControlFlow<()>,
) -> Result<(), CaptureError> {
    read_events(source, |event| match event {
        Event::Packet(record) => each(record),
        Event::Interface(_) | Event::Time(_) => ControlFlow::Continue(()),
    })
}

/// Reads all that a capture tells, in the order of the file, until the callback breaks off.
///
/// # Errors
/// As [`read`].
pub fn read_events(
    source: impl Read + Send,
    mut each: impl FnMut(&Event<'_>) -> ControlFlow<()>,
) -> Result<(), CaptureError> {
    let mut reader = create_reader(BUFFER, source).map_err(|error| match error {
        PcapError::Eof => CaptureError::Empty,
        PcapError::ReadError => CaptureError::Io,
        _ => CaptureError::NotACapture,
    })?;
    let mut file = File::default();
    let mut capacity = BUFFER;
    loop {
        match reader.next() {
            Ok((used, block)) => {
                let flow = file.block(&block)?.map(|event| each(&event));
                drop(block);
                reader.consume(used);
                if flow == Some(ControlFlow::Break(())) {
                    return Ok(());
                }
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => refill(&mut *reader, &mut capacity, file.packets())?,
            Err(PcapError::BufferTooSmall) => grow(&mut *reader, &mut capacity, file.packets())?,
            Err(PcapError::UnexpectedEof) => return Err(CaptureError::CutShort(file.packets())),
            Err(PcapError::ReadError) => return Err(CaptureError::Io),
            Err(_) => return Err(CaptureError::Malformed(file.packets())),
        }
    }
}

fn refill(
    reader: &mut dyn PcapReaderIterator,
    capacity: &mut usize,
    packets: u64,
) -> Result<(), CaptureError> {
    if reader.reader_exhausted() {
        return Err(CaptureError::CutShort(packets));
    }
    match reader.refill() {
        Ok(()) => Ok(()),
        Err(PcapError::BufferTooSmall) => grow(reader, capacity, packets),
        Err(_) => Err(CaptureError::Io),
    }
}

fn grow(reader: &mut dyn PcapReaderIterator, capacity: &mut usize, packets: u64) -> Result<(), CaptureError> {
    *capacity *= 2;
    if *capacity > LARGEST_BLOCK || !reader.grow(*capacity) {
        return Err(CaptureError::Malformed(packets));
    }
    refill(reader, capacity, packets)
}
