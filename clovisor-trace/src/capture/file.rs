//! The blocks of a file to events: what is kept of a file while it is read, and times and link headers.

use pcap_parser::{Block, EnhancedPacketBlock, OptionCode, PcapBlockOwned, PcapNGOption};

use super::{CaptureError, Description, Event, Record, Taken, link::Link};
use crate::packet::Heading;

/// Most interfaces that a section may describe; a stream without end must not fill the memory. The kernel numbers
/// namespaces' interfaces by 31 bits, and captures of more than some hundreds are merged ones.
const MOST_INTERFACES: usize = 65_536;
/// Code of the option `epb_flags` (draft-ietf-opsawg-pcapng section 4.3).
const EPB_FLAGS: OptionCode = OptionCode(2);

/// How packets of an interface are to be taken.
#[derive(Clone, Copy)]
struct Interface {
    link: Link,
    /// Units of time in a second.
    resolution: u64,
    /// Seconds to add to each time.
    offset: i64,
}

/// What was read of a file so far.
#[derive(Default)]
pub(super) struct File {
    interfaces: Vec<Interface>,
    packets: u64,
    /// Whether numbers in options of this section are big-endian, which pcap-parser leaves to us.
    big_endian: bool,
}

impl File {
    /// Packets so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// What a block tells, if it does.
    pub(super) fn block<'a>(
        &mut self,
        block: &'a PcapBlockOwned<'_>,
    ) -> Result<Option<Event<'a>>, CaptureError> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                let link = Link::new(header.network.0)?;
                self.interfaces.push(Interface { link, resolution, offset: 0 });
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

    fn pcapng<'a>(&mut self, block: &'a Block<'_>) -> Result<Option<Event<'a>>, CaptureError> {
        match block {
            // Each section describes its interfaces anew.
            Block::SectionHeader(header) => {
                self.interfaces.clear();
                self.big_endian = header.big_endian();
            }
            Block::InterfaceDescription(described) => {
                let link = Link::new(described.linktype.0)?;
                let resolution = described.ts_resolution().ok_or(self.malformed())?.max(1);
                let id = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
                if self.interfaces.len() >= MOST_INTERFACES {
                    return Err(self.malformed());
                }
                self.interfaces.push(Interface { link, resolution, offset: described.ts_offset() });
                let (name, comment) = (described.if_name().and_then(Result::ok), comment(&described.options));
                return Ok(Some(Event::Interface(Description { id, name, comment })));
            }
            Block::EnhancedPacket(packet) => {
                let time_ns = self.interface(packet.if_id)?.time(packet.ts_high, packet.ts_low);
                let event = self.packet(packet.if_id, time_ns, packet.caplen, packet.origlen, packet.data)?;
                return Ok(event.map(|event| match event {
                    Event::Packet(record) => Event::Packet(Record {
                        heading: self.heading(packet),
                        comment: comment(&packet.options),
                        ..record
                    }),
                    other => other,
                }));
            }
            Block::InterfaceStatistics(taken) => {
                let time_ns = self.interface(taken.if_id)?.time(taken.ts_high, taken.ts_low);
                let (interface, comment) = (taken.if_id, comment(&taken.options));
                return Ok(Some(Event::Time(Taken { time_ns, interface, comment })));
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
        self.interfaces.get(index).copied().ok_or(self.malformed())
    }

    fn malformed(&self) -> CaptureError {
        CaptureError::Malformed(self.packets)
    }

    /// Which way a packet went, by bits 0 and 1 of its flags: 1 is inbound, 2 outbound.
    fn heading(&self, packet: &EnhancedPacketBlock<'_>) -> Option<Heading> {
        let flags = packet.options.iter().find(|option| option.code == EPB_FLAGS)?;
        let flags = flags.as_bytes().ok()?.try_into().ok()?;
        let flags = if self.big_endian { u32::from_be_bytes(flags) } else { u32::from_le_bytes(flags) };
        match flags & 3 {
            1 => Some(Heading::ToPod),
            2 => Some(Heading::FromPod),
            _ => None,
        }
    }

    fn packet<'a>(
        &mut self,
        id: u32,
        time_ns: u64,
        captured: u32,
        wire: u32,
        data: &'a [u8],
    ) -> Result<Option<Event<'a>>, CaptureError> {
        let interface = self.interface(id)?;
        let data = &data[..data.len().min(captured as usize)];
        let skip = interface.link.ip_offset(data);
        self.packets += 1;
        let wire_len = wire.saturating_sub(skip.and_then(|skip| u32::try_from(skip).ok()).unwrap_or(0));
        let data = skip.and_then(|skip| data.get(skip..)).unwrap_or_default();
        Ok(Some(Event::Packet(Record {
            time_ns,
            interface: id,
            wire_len,
            data,
            heading: None,
            comment: None,
        })))
    }
}

/// The first comment.
fn comment<'a>(options: &'a [PcapNGOption<'_>]) -> Option<&'a str> {
    options.iter().find(|option| option.code == OptionCode::Comment)?.as_str().ok()
}

impl Interface {
    /// Nanoseconds since the Unix epoch of a time in two halves.
    fn time(&self, high: u32, low: u32) -> u64 {
        self.nanoseconds(u64::from(high) << 32 | u64::from(low))
    }

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
