//! Packets into a pcapng file (draft-ietf-opsawg-pcapng), little-endian, times in nanoseconds, each packet from its IP header on.
//!
//! It refuses to know files: it writes blocks to whatever takes bytes, each block by calls that follow one another at once, so
//! that a file cut anywhere is whole up to its last block. pcap-parser's own writer is not used, as it makes
//! a buffer for each option and copies each packet twice.

use std::io::{self, Write};

use crate::packet::Heading;

/// Section 4.1.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// The length of the section is not given, as it is not known (section 4.1).
const UNKNOWN_LENGTH: u64 = u64::MAX;
const SHB_HARDWARE: u16 = 2;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
/// Section 4.2.
const INTERFACE_DESCRIPTION: u32 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
/// 10^-9 s.
const NANOSECONDS: u8 = 9;
/// LINKTYPE_RAW of the tcpdump.org registry: the packet begins with its IP header.
const LINKTYPE_RAW: u16 = 101;
/// Section 4.3.
const ENHANCED_PACKET: u32 = 6;
const EPB_FLAGS: u16 = 2;
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// Section 4.6.
const INTERFACE_STATISTICS: u32 = 5;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;
const ISB_FILTERACCEPT: u16 = 6;
const ISB_OSDROP: u16 = 7;
const ISB_USRDELIV: u16 = 8;
/// Section 3.5.
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
/// What a block has around its body: type, length, and length again (section 3.1).
const FRAME: usize = 12;

/// Who captures, on what; an empty text is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host<'a> {
    /// Such as `x86_64`.
    pub hardware: &'a str,
    /// Such as `Linux 6.1.0`.
    pub os: &'a str,
    /// Such as `clovisor 0.1.0`.
    pub application: &'a str,
}

/// A packet to write.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Number of the interface, as [`Writer::interface`] gave it.
    pub interface: u32,
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Which way it went: to the pod is inbound.
    pub heading: Heading,
    /// Length on the wire from the IP header on.
    pub wire_len: u32,
    /// What was captured of it from the IP header on.
    pub data: &'a [u8],
    /// A comment, if there is something to say.
    pub comment: Option<&'a str>,
}

/// What became of the packets of an interface since the start; `None` is not known, and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets at the interface, `isb_ifrecv`.
    pub received: Option<u64>,
    /// Of these, those that the rules wanted, `isb_filteraccept`.
    pub accepted: Option<u64>,
    /// Wanted ones that the kernel had no room for, `isb_osdrop`.
    pub lost: Option<u64>,
    /// All wanted ones that are not in the file, `isb_ifdrop`: lost in the kernel or not written. That is what Wireshark shows as
    /// dropped, and what dumpcap counts there.
    pub missing: Option<u64>,
    /// Those in the file, `isb_usrdeliv`.
    pub written: Option<u64>,
}

/// Writes one section of a pcapng file.
pub struct Writer<W> {
    out: W,
    interfaces: u32,
    /// Options of the block at hand; reused.
    options: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a section.
    ///
    /// # Errors
    /// Those of `out`; a text longer than an option can hold.
    pub fn new(out: W, host: &Host<'_>) -> io::Result<Self> {
        let mut writer = Self { out, interfaces: 0, options: Vec::new() };
        for (code, text) in
            [(SHB_HARDWARE, host.hardware), (SHB_OS, host.os), (SHB_USERAPPL, host.application)]
        {
            if !text.is_empty() {
                writer.option(code, text.as_bytes())?;
            }
        }
        let mut body = [0; 16];
        body[..4].copy_from_slice(&BYTE_ORDER.to_le_bytes());
        // Version 1.0.
        body[4..6].copy_from_slice(&1_u16.to_le_bytes());
        body[8..].copy_from_slice(&UNKNOWN_LENGTH.to_le_bytes());
        writer.block(SECTION_HEADER, &body, &[])?;
        Ok(writer)
    }

    /// Describes an interface, and numbers it.
    ///
    /// # Errors
    /// Those of `out`; a text longer than an option can hold.
    pub fn interface(&mut self, name: &str, comment: &str, snaplen: u32) -> io::Result<u32> {
        self.option(COMMENT, comment.as_bytes())?;
        self.option(IF_NAME, name.as_bytes())?;
        self.option(IF_TSRESOL, &[NANOSECONDS])?;
        let mut body = [0; 8];
        body[..2].copy_from_slice(&LINKTYPE_RAW.to_le_bytes());
        body[4..].copy_from_slice(&snaplen.to_le_bytes());
        self.block(INTERFACE_DESCRIPTION, &body, &[])?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// Those of `out`; a comment longer than an option can hold.
    pub fn packet(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if let Some(comment) = entry.comment {
            self.option(COMMENT, comment.as_bytes())?;
        }
        let flags = match entry.heading {
            Heading::ToPod => INBOUND,
            Heading::FromPod => OUTBOUND,
        };
        self.option(EPB_FLAGS, &flags.to_le_bytes())?;
        let captured = u32::try_from(entry.data.len()).map_err(|_| too_long())?;
        let mut body = [0; 20];
        body[..4].copy_from_slice(&entry.interface.to_le_bytes());
        body[4..12].copy_from_slice(&time(entry.time_ns));
        body[12..16].copy_from_slice(&captured.to_le_bytes());
        body[16..].copy_from_slice(&entry.wire_len.to_le_bytes());
        self.block(ENHANCED_PACKET, &body, entry.data)
    }

    /// Writes what became of the packets of an interface up to a time, in nanoseconds since the Unix epoch, and a comment if there
    /// is something to say.
    ///
    /// # Errors
    /// Those of `out`; a comment longer than an option can hold.
    pub fn statistics(
        &mut self,
        interface: u32,
        time_ns: u64,
        of: &Statistics,
        comment: Option<&str>,
    ) -> io::Result<()> {
        if let Some(comment) = comment {
            self.option(COMMENT, comment.as_bytes())?;
        }
        for (code, count) in [
            (ISB_IFRECV, of.received),
            (ISB_IFDROP, of.missing),
            (ISB_FILTERACCEPT, of.accepted),
            (ISB_OSDROP, of.lost),
            (ISB_USRDELIV, of.written),
        ] {
            if let Some(count) = count {
                self.option(code, &count.to_le_bytes())?;
            }
        }
        let mut body = [0; 12];
        body[..4].copy_from_slice(&interface.to_le_bytes());
        body[4..].copy_from_slice(&time(time_ns));
        self.block(INTERFACE_STATISTICS, &body, &[])
    }

    /// What the blocks go to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Adds an option to the block at hand: code, length, value, padding to 32 bits (section 3.5).
    fn option(&mut self, code: u16, value: &[u8]) -> io::Result<()> {
        let Ok(len) = u16::try_from(value.len()) else {
            self.options.clear();
            return Err(too_long());
        };
        self.options.extend(code.to_le_bytes());
        self.options.extend(len.to_le_bytes());
        self.options.extend(value);
        self.options.resize(self.options.len().next_multiple_of(4), 0);
        Ok(())
    }

    /// Writes a block: its fixed fields, a packet if it has one, and the options so far.
    fn block(&mut self, kind: u32, body: &[u8], data: &[u8]) -> io::Result<()> {
        if !self.options.is_empty() {
            self.option(END_OF_OPTIONS, &[])?;
        }
        let padding = data.len().next_multiple_of(4) - data.len();
        let len = FRAME + body.len() + data.len() + padding + self.options.len();
        let len = u32::try_from(len).map_err(|_| too_long())?.to_le_bytes();
        for part in [&kind.to_le_bytes(), &len, body, data, &[0; 3][..padding], &self.options, &len] {
            self.out.write_all(part)?;
        }
        self.options.clear();
        Ok(())
    }
}

/// A time in two halves, the high one first, each in the file's byte order.
fn time(ns: u64) -> [u8; 8] {
    // Halves change places.
    ns.rotate_left(32).to_le_bytes()
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is longer than a pcapng file can hold")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte for byte what the draft says.
    #[test]
    fn blocks_are_as_the_draft_says() {
        let mut writer = Writer::new(Vec::new(), &Host { application: "c", ..Host::default() }).unwrap();
        #[rustfmt::skip]
        let expected = [
            0x0a, 0x0d, 0x0d, 0x0a, 40, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 4, 0, 1, 0, b'c', 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0,
        ];
        assert_eq!(std::mem::take(writer.get_mut()), expected);
        assert_eq!(writer.interface("lo", "", 96).unwrap(), 0);
        #[rustfmt::skip]
        let expected = [
            1, 0, 0, 0, 44, 0, 0, 0, 101, 0, 0, 0, 96, 0, 0, 0, 1, 0, 0, 0,
            2, 0, 2, 0, b'l', b'o', 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0,
        ];
        assert_eq!(std::mem::take(writer.get_mut()), expected);
        let entry = Entry {
            interface: 0,
            time_ns: 0x0102_0304_0506_0708,
            heading: Heading::FromPod,
            wire_len: 1500,
            data: &[0x45, 2, 3, 4, 5],
            comment: None,
        };
        writer.packet(&entry).unwrap();
        #[rustfmt::skip]
        let expected = [
            6, 0, 0, 0, 52, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 5, 0, 0, 0, 0xdc, 5, 0, 0,
            0x45, 2, 3, 4, 5, 0, 0, 0, 2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 52, 0, 0, 0,
        ];
        assert_eq!(std::mem::take(writer.get_mut()), expected);
        writer
            .statistics(0, 1 << 32, &Statistics { lost: Some(258), ..Statistics::default() }, None)
            .unwrap();
        #[rustfmt::skip]
        let expected = [
            5, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
            7, 0, 8, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0,
        ];
        assert_eq!(std::mem::take(writer.get_mut()), expected);
    }

    #[test]
    fn what_an_option_cannot_hold_is_refused_and_leaves_no_trace() {
        let mut writer = Writer::new(Vec::new(), &Host::default()).unwrap();
        let before = writer.get_mut().len();
        assert!(writer.interface("lo", &"x".repeat(65_536), 96).is_err());
        assert_eq!(writer.get_mut().len(), before);
        assert_eq!(writer.interface("lo", &"x".repeat(65_535), 96).unwrap(), 0);
        assert_eq!((writer.get_mut().len() - before) % 4, 0);
    }
}
