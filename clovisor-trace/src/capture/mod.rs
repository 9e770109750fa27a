//! Packets from pcap and pcapng files.
//!
//! The container is read by pcap-parser; this module takes off the link header and turns times into
//! nanoseconds. It refuses to guess: a link type that it does not know is an error that names it.

mod link;

use std::{fmt, io::Read, ops::ControlFlow};

use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader, traits::PcapReaderIterator};

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
}

/// An interface that a file describes.
#[derive(Clone, Copy)]
struct Interface {
    link: link::Link,
    /// Units of time in a second.
    resolution: u64,
    /// Seconds to add to each time.
    offset: i64,
}

/// Reads the packets of a capture, in the order of the file, until the callback breaks off.
///
/// # Errors
/// What is wrong with the file; the packets before that were handed out.
pub fn read(
    source: impl Read + Send,
    mut each: impl FnMut(&Record<'_>) -> ControlFlow<()>,
) -> Result<(), CaptureError> {
    let mut reader = create_reader(BUFFER, source).map_err(|error| match error {
        PcapError::Eof => CaptureError::Empty,
        PcapError::ReadError => CaptureError::Io,
        _ => CaptureError::NotACapture,
    })?;
    let mut file = File { interfaces: Vec::new(), packets: 0 };
    let mut capacity = BUFFER;
    loop {
        match reader.next() {
            Ok((used, block)) => {
                let flow = file.block(&block)?.map(|record| each(&record));
                drop(block);
                reader.consume(used);
                if flow == Some(ControlFlow::Break(())) {
                    return Ok(());
                }
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => refill(&mut *reader, &mut capacity, file.packets)?,
            Err(PcapError::BufferTooSmall) => grow(&mut *reader, &mut capacity, file.packets)?,
            Err(PcapError::UnexpectedEof) => return Err(CaptureError::CutShort(file.packets)),
            Err(PcapError::ReadError) => return Err(CaptureError::Io),
            Err(_) => return Err(CaptureError::Malformed(file.packets)),
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

/// What was read of a file so far.
struct File {
    interfaces: Vec<Interface>,
    packets: u64,
}

impl File {
    /// The packet that a block holds, if it does.
    fn block<'a>(&mut self, block: &'a PcapBlockOwned<'_>) -> Result<Option<Record<'a>>, CaptureError> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                self.interfaces.push(Interface {
                    link: link::Link::new(header.network.0)?,
                    resolution,
                    offset: 0,
                });
                Ok(None)
            }
            PcapBlockOwned::Legacy(packet) => {
                let units = u64::from(packet.ts_usec) * (1_000_000_000 / self.interface(0)?.resolution);
                let time_ns = u64::from(packet.ts_sec).saturating_mul(1_000_000_000).saturating_add(units);
                self.packet(0, time_ns, packet.caplen, packet.origlen, packet.data)
            }
            PcapBlockOwned::NG(block) => self.pcapng(block),
        }
    }

    fn pcapng<'a>(&mut self, block: &'a Block<'_>) -> Result<Option<Record<'a>>, CaptureError> {
        match block {
            // Each section describes its interfaces anew.
            Block::SectionHeader(_) => self.interfaces.clear(),
            Block::InterfaceDescription(described) => {
                let link = link::Link::new(described.linktype.0)?;
                let resolution =
                    described.ts_resolution().ok_or(CaptureError::Malformed(self.packets))?.max(1);
                self.interfaces.push(Interface { link, resolution, offset: described.ts_offset() });
            }
            Block::EnhancedPacket(packet) => {
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let time_ns = self.interface(packet.if_id)?.nanoseconds(units);
                return self.packet(packet.if_id, time_ns, packet.caplen, packet.origlen, packet.data);
            }
            // It has neither time nor interface: the first, and no time at all.
            Block::SimplePacket(packet) => {
                let captured = packet.data.len().try_into().unwrap_or(u32::MAX).min(packet.origlen);
                return self.packet(0, 0, captured, packet.origlen, packet.data);
            }
            _ => {}
        }
        Ok(None)
    }

    fn interface(&self, id: u32) -> Result<Interface, CaptureError> {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        self.interfaces.get(index).copied().ok_or(CaptureError::Malformed(self.packets))
    }

    fn packet<'a>(
        &mut self,
        id: u32,
        time_ns: u64,
        captured: u32,
        wire: u32,
        data: &'a [u8],
    ) -> Result<Option<Record<'a>>, CaptureError> {
        let interface = self.interface(id)?;
        let data = &data[..data.len().min(captured as usize)];
        let skip = interface.link.ip_offset(data);
        self.packets += 1;
        let wire_len = wire.saturating_sub(skip.and_then(|skip| u32::try_from(skip).ok()).unwrap_or(0));
        let data = skip.and_then(|skip| data.get(skip..)).unwrap_or_default();
        Ok(Some(Record { time_ns, interface: id, wire_len, data }))
    }
}

impl Interface {
    /// Nanoseconds since the Unix epoch of a time in the interface's units.
    fn nanoseconds(&self, units: u64) -> u64 {
        let (seconds, rest) = (units / self.resolution, units % self.resolution);
        let fraction = u128::from(rest) * 1_000_000_000 / u128::from(self.resolution);
        seconds
            .saturating_add_signed(self.offset)
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::try_from(fraction).unwrap_or_default())
    }
}
