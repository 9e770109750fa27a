//! The packets that passed the two ends of the path, kept in memory, so that a failure leaves a small capture file.
//!
//! Bounded: beyond the limit nothing more is kept, and the file's name says so.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes kept of each end.
const MOST: usize = 128 << 20;
/// LINKTYPE_RAW: the packet begins with its IP header.
const RAW: u32 = 101;

/// One packet.
struct Kept {
    time: SystemTime,
    packet: Vec<u8>,
}

/// Packets at the client's end of the path and at the server's, in the order of time.
#[derive(Default)]
pub(crate) struct Record {
    ends: [Vec<Kept>; 2],
    bytes: [usize; 2],
    is_full: bool,
}

impl Record {
    /// Keeps a packet that passed one end.
    pub(crate) fn keep(&mut self, end: usize, packet: &[u8]) {
        self.is_full |= self.bytes[end] + packet.len() > MOST;
        if !self.is_full {
            self.bytes[end] += packet.len();
            self.ends[end].push(Kept { time: SystemTime::now(), packet: packet.to_owned() });
        }
    }

    /// Writes two captures of the connections in which any of the texts was said; of all, if there is no text.
    pub(crate) fn write(&self, texts: &[String], folder: &Path) -> Vec<PathBuf> {
        std::fs::create_dir_all(folder).unwrap();
        let mut ports = HashSet::new();
        for kept in self.ends.iter().flatten() {
            if texts.iter().any(|text| kept.packet.windows(text.len()).any(|part| part == text.as_bytes())) {
                ports.extend(client_port(&kept.packet));
            }
        }
        let partly = if self.is_full { "-first-part" } else { "" };
        ["client", "server"]
            .into_iter()
            .zip(&self.ends)
            .map(|(end, packets)| {
                let mut file = Vec::new();
                // Magic of microseconds, version 2.4, no zone, no accuracy, longest packet, kind of link.
                for number in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 1 << 18, RAW] {
                    file.extend(u32::to_le_bytes(number));
                }
                let wanted = |kept: &&Kept| {
                    texts.is_empty() || client_port(&kept.packet).is_some_and(|port| ports.contains(&port))
                };
                for Kept { time, packet } in packets.iter().filter(wanted) {
                    let time = time.duration_since(UNIX_EPOCH).unwrap();
                    let length = u32::try_from(packet.len()).unwrap();
                    let seconds = u32::try_from(time.as_secs()).unwrap();
                    for number in [seconds, time.subsec_micros(), length, length] {
                        file.extend(number.to_le_bytes());
                    }
                    file.extend(packet);
                }
                let path = folder.join(format!("{end}{partly}.pcap"));
                std::fs::write(&path, file).unwrap();
                path
            })
            .collect()
    }
}

/// The higher port of a TCP packet: clients' ports are above all ports that are listened on here.
fn client_port(packet: &[u8]) -> Option<u16> {
    let at = match packet.first()? >> 4 {
        4 => usize::from(packet[0] & 15) * 4,
        _ => 40,
    };
    let ports = packet.get(at..at + 4)?;
    Some(u16::from_be_bytes([ports[0], ports[1]]).max(u16::from_be_bytes([ports[2], ports[3]])))
}
