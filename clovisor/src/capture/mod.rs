//! What is traced, into a pcapng file: `trace --write`.
//!
//! A packet is written where it is handed to the pipeline, in the same order, with the same clock, and with what
//! rules alone would not tell, so that `read` makes the same sessions of the file. Tracing never waits for the file: what it cannot
//! take is not written, counted, and said.

mod file;

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use clovisor_common::{EventHeader, MAX_CAPTURE, direction};
use clovisor_trace::{
    Heading, Loss, Packet, Rules,
    capture::{Entry, Host, Lost, Note, Origin, Statistics, Writer},
};
use file::{Chunk, Queue, Refused};

use crate::{failure::Usage, ledger::Account};

/// Bytes that are handed to the disk at once: few system calls, and four packets of the largest size.
const CHUNK: usize = 256 << 10;
/// Bytes that the last statistics of an interface may take.
const LAST_WORDS: u64 = 128;

/// An interface that is traced.
pub(crate) struct Traced {
    /// The number that its packets carry.
    pub(crate) number: u32,
    /// Its name.
    pub(crate) name: String,
    /// Name of the service for its spans.
    pub(crate) service: String,
}

/// An interface in the file; its place in the list is its number there.
struct Interface {
    number: u32,
    written: u64,
    not_written: u64,
    /// What was last said of it.
    said: Option<Statistics>,
}

/// Packets that are not in the file, by reason.
#[derive(Default)]
struct NotWritten {
    limit: u64,
    behind: u64,
    failed: u64,
}

/// A capture file that is being written.
pub(crate) struct Capture {
    writer: Writer<Vec<u8>>,
    /// Packets in the writer's chunk.
    packets: u64,
    /// `None` once the limit is reached, and the file closed.
    queue: Option<Queue>,
    closing: Option<tokio::task::JoinHandle<file::Done>>,
    /// By number, so that flows sort as they do live.
    interfaces: Vec<Interface>,
    rules: Rules,
    /// What to add to kernel time. It stays the same over the run, so that distances in time are the kernel's own.
    epoch_ns: u64,
    /// How far the tracer's clock was moved without a packet.
    clock_ns: u64,
    /// Bytes that were handed over.
    bytes: u64,
    limit: u64,
    came: u64,
    not_written: NotWritten,
    said_behind: bool,
}

impl Capture {
    /// Opens a file for packets of these interfaces and writes its head.
    ///
    /// # Errors
    /// A file that cannot be made or written, rules that it cannot hold.
    pub(crate) fn open(
        path: &Path,
        limit: u64,
        mut traced: Vec<Traced>,
        rules: &Rules,
        join: bool,
        epoch_ns: u64,
    ) -> Result<Self> {
        let unusable = |error: std::io::Error| {
            Usage(format!("cannot write {}: {error}; give another file", path.display()))
        };
        let mut file = file::open(path).map_err(unusable)?;
        let host = Host {
            hardware: std::env::consts::ARCH,
            os: &os(),
            application: concat!("clovisor ", env!("CARGO_PKG_VERSION")),
        };
        let mut writer = Writer::new(Vec::new(), &host).context("cannot begin the capture")?;
        traced.sort_by_key(|interface| interface.number);
        traced.dedup_by(|later, kept| {
            // Of an interface that was given twice the last name counts, as in tracing.
            let is_same = later.number == kept.number;
            if is_same {
                std::mem::swap(later, kept);
            }
            is_same
        });
        let mut interfaces = Vec::new();
        for Traced { number, name, service } in traced {
            let origin = Origin { rules: rules.clone(), join, service: Some(service) };
            let described = writer.interface(&name, &origin.to_string(), MAX_CAPTURE);
            described.map_err(|error| Usage(format!("cannot write the rules into the capture: {error}")))?;
            interfaces.push(Interface { number, written: 0, not_written: 0, said: None });
        }
        let head = std::mem::take(writer.get_mut());
        file.write_all(&head).with_context(|| format!("cannot write {}", path.display()))?;
        let bytes = head.len() as u64;
        let queue = Some(Queue::start(file, path.display().to_string(), bytes));
        Ok(Self {
            writer,
            packets: 0,
            queue,
            closing: None,
            interfaces,
            rules: rules.clone(),
            epoch_ns,
            clock_ns: 0,
            bytes,
            limit,
            came: 0,
            not_written: NotWritten::default(),
            said_behind: false,
        })
    }

    /// Takes a packet that is about to be handed to the pipeline.
    pub(crate) fn packet(&mut self, header: &EventHeader, packet: &Packet<'_>) {
        self.came += 1;
        let found = self.interfaces.binary_search_by_key(&packet.interface, |interface| interface.number);
        // The kernel side picks packets of attached interfaces only, and all of these were named.
        let Ok(at) = found else { return self.not_written.failed += 1 };
        if self.queue.is_none() {
            self.not_written.limit += 1;
        } else if self.writer.get_mut().len() >= CHUNK && !self.hand_over() {
            self.refuse(at);
        } else {
            self.write(at, header, packet);
        }
    }

    fn write(&mut self, at: usize, header: &EventHeader, packet: &Packet<'_>) {
        let heading = if header.direction == direction::TO_POD { Heading::ToPod } else { Heading::FromPod };
        let note = self.note(heading, packet);
        let comment = (!note.is_empty()).then(|| note.to_string());
        let entry = Entry {
            interface: u32::try_from(at).unwrap_or(u32::MAX),
            time_ns: packet.time_ns.wrapping_add(self.epoch_ns),
            heading,
            wire_len: packet.wire_len,
            data: packet.data,
            comment: comment.as_deref(),
        };
        let before = self.writer.get_mut().len();
        let is_written = self.writer.packet(&entry).is_ok();
        let reserve = LAST_WORDS * self.interfaces.len() as u64;
        if !is_written || self.bytes + self.writer.get_mut().len() as u64 + reserve > self.limit {
            self.writer.get_mut().truncate(before);
            self.interfaces[at].not_written += 1;
            self.not_written.limit += 1;
            self.reach_limit();
            return;
        }
        self.packets += 1;
        self.interfaces[at].written += 1;
    }

    /// What `read` could not know of a packet.
    fn note(&self, heading: Heading, packet: &Packet<'_>) -> Note {
        let by_rules = self.rules.select_at_pod(heading, packet);
        let told = |by: Packet<'_>| {
            (by.side, by.toward, by.protocol) == (packet.side, packet.toward, packet.protocol)
        };
        Note {
            role: (!by_rules.is_some_and(told)).then_some((packet.side, packet.protocol)),
            late_ns: self.clock_ns.saturating_sub(packet.time_ns),
        }
    }

    /// The tracer's clock was moved to this kernel time.
    pub(crate) fn clock(&mut self, now_ns: u64) {
        self.clock_ns = self.clock_ns.max(now_ns);
    }

    /// Takes note of packets that were lost, before any packet that came after them.
    pub(crate) fn lost(&mut self, loss: &Loss) {
        let at = self.interfaces.iter().position(|interface| Some(interface.number) == loss.interface);
        let lost = Lost {
            packets: loss.packets,
            from_ns: loss.from_ns.wrapping_add(self.epoch_ns),
            until_ns: loss.until_ns.wrapping_add(self.epoch_ns),
            anywhere: at.is_none(),
        };
        if self.queue.is_some() {
            let (id, time_ns) =
                (at.and_then(|at| u32::try_from(at).ok()), self.clock_ns.wrapping_add(self.epoch_ns));
            let comment = lost.to_string();
            // A buffer takes everything.
            _ = self.writer.statistics(id.unwrap_or(0), time_ns, &Statistics::default(), Some(&comment));
        }
    }

    /// A second is over: what has changed is said in the file, and all so far goes to the disk. `of` tells what the kernel has
    /// counted for the interface of a number, if it is the only one or not.
    pub(crate) fn second(&mut self, of: impl Fn(u32, bool) -> Statistics) {
        self.say(&of, false);
        if self.queue.is_some() && !self.writer.get_mut().is_empty() {
            self.hand_over();
        }
    }

    /// Tracing has ended at this kernel time.
    pub(crate) fn end(&mut self, now_ns: u64, of: impl Fn(u32, bool) -> Statistics) {
        self.clock(now_ns);
        self.say(&of, true);
    }

    /// Writes statistics of interfaces: of those that have changed, or of all.
    fn say(&mut self, of: &impl Fn(u32, bool) -> Statistics, all: bool) {
        if self.queue.is_none() {
            return;
        }
        let is_only = self.interfaces.len() == 1;
        let time_ns = self.clock_ns.wrapping_add(self.epoch_ns);
        for (id, interface) in (0..).zip(&mut self.interfaces) {
            let kernel = of(interface.number, is_only);
            let taken = Statistics {
                // Where what the kernel lost is not known, "none" would be a claim.
                missing: match (kernel.lost, interface.not_written) {
                    (None, 0) => None,
                    (lost, not_written) => Some(lost.unwrap_or(0) + not_written),
                },
                written: Some(interface.written),
                ..kernel
            };
            if all || interface.said != Some(taken) {
                // A buffer takes everything.
                _ = self.writer.statistics(id, time_ns, &taken, None);
                interface.said = Some(taken);
            }
        }
    }

    /// Hands the chunk to the disk: whether there is room for more.
    fn hand_over(&mut self) -> bool {
        let Some(queue) = &self.queue else { return false };
        let bytes = std::mem::replace(self.writer.get_mut(), Vec::with_capacity(CHUNK));
        let (len, packets) = (bytes.len() as u64, std::mem::take(&mut self.packets));
        match queue.push(Chunk { bytes, packets }) {
            Ok(()) => self.bytes += len,
            Err(Refused::Behind(chunk)) => {
                self.packets = chunk.packets;
                *self.writer.get_mut() = chunk.bytes;
                return false;
            }
            Err(Refused::Failed) => self.not_written.failed += packets,
        }
        true
    }

    fn refuse(&mut self, at: usize) {
        self.interfaces[at].not_written += 1;
        self.not_written.behind += 1;
        if !std::mem::replace(&mut self.said_behind, true) {
            tracing::warn!(
                "the capture's disk is too slow: packets are traced but not written, and counted at the end"
            );
        }
    }

    /// Closes the file in good order; the disk gets the rest in the background.
    fn reach_limit(&mut self) {
        tracing::warn!(
            "the capture has reached --write-limit ({} bytes) and is closed; tracing goes on",
            self.limit
        );
        // What the kernel counts was last asked for within the last second.
        let known: Vec<_> = self.interfaces.iter().map(|one| (one.number, one.said)).collect();
        let said = |number| known.iter().find(|(of, _)| *of == number).and_then(|(_, said)| *said);
        self.say(&|number, _| said(number).unwrap_or_default(), true);
        let bytes = std::mem::take(self.writer.get_mut());
        let last = Chunk { bytes, packets: std::mem::take(&mut self.packets) };
        if let Some(queue) = self.queue.take() {
            self.closing = Some(tokio::spawn(queue.close(last)));
        }
    }

    /// Whether it was written to standard output, and nobody reads that any more.
    pub(crate) fn reader_gone(&self) -> bool {
        self.queue.as_ref().is_some_and(Queue::reader_gone)
    }

    /// Writes the rest: the account of all packets that came, and whether writing has failed.
    pub(crate) async fn close(mut self) -> (Account, bool) {
        let done = match (self.queue.take(), self.closing.take()) {
            (Some(queue), _) => {
                let bytes = std::mem::take(self.writer.get_mut());
                queue.close(Chunk { bytes, packets: self.packets }).await
            }
            (None, Some(closing)) => {
                closing.await.unwrap_or(file::Done { written: 0, lost: 0, failed: true })
            }
            (None, None) => file::Done { written: 0, lost: 0, failed: true },
        };
        let NotWritten { limit, behind, failed } = self.not_written;
        let parts = [
            ("written", done.written),
            ("not written, limit reached", limit),
            ("not written, disk too slow", behind),
            ("not written, writing failed", failed + done.lost),
        ];
        let mut account = Account::new("capture", self.came, parts);
        // What the disk still has after its time is over is in none of the parts.
        let open = self.came.saturating_sub(account.accounted());
        if done.failed && open > 0 {
            account.parts.push(("not written in time".into(), open));
        }
        (account, done.failed)
    }
}

/// Name and version of the operating system.
fn os() -> String {
    let kernel = nix::sys::utsname::uname();
    kernel.map_or_else(
        |_| "Linux".to_owned(),
        |kernel| format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy()),
    )
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use clovisor_common::{protocol, side};
    use clovisor_trace::{
        PortRule, Protocol, Side, Toward,
        capture::{Event, read_events},
    };

    use super::*;

    fn header(time_ns: u64) -> EventHeader {
        EventHeader {
            time_ns,
            interface: 7,
            wire_len: 60,
            captured_len: 60,
            link_len: 0,
            direction: direction::FROM_POD,
            side: side::CLIENT,
            protocol: protocol::HTTP,
        }
    }

    fn write(path: &Path, packets: &[(u64, &[u8])]) -> Account {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let traced = vec![Traced { number: 7, name: "lo".to_owned(), service: "s".to_owned() }];
            let rules =
                Rules { ports: vec![PortRule { port: 80, protocol: Protocol::Http }], egress: vec![] };
            let mut capture = Capture::open(path, 1 << 20, traced, &rules, false, 1_000).unwrap();
            capture.clock(50);
            for (time_ns, data) in packets {
                let packet = Packet {
                    time_ns: *time_ns,
                    interface: 7,
                    side: Side::Client,
                    toward: Toward::Server,
                    protocol: Protocol::Http,
                    wire_len: 60,
                    data,
                };
                capture.packet(&header(*time_ns), &packet);
            }
            capture.end(200, |_, _| Statistics::default());
            let (account, failed) = capture.close().await;
            assert!(!failed);
            account
        })
    }

    /// A later fragment shows no ports, and a late packet has no place in time.
    #[test]
    fn what_the_file_alone_would_not_tell_is_noted() {
        let path = std::env::temp_dir().join(format!("clovisor-note-{}.pcapng", std::process::id()));
        // IPv4, fragment offset 1, TCP; the bytes are text.
        let mut later = vec![0x45, 0, 0, 60, 0, 1, 0, 1, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        later.extend(b"the rest of a response, which is text...");
        let account = write(&path, &[(40, &later), (60, &later)]);
        assert_eq!((account.came, account.difference()), (2, 0));
        let (mut notes, mut times) = (Vec::new(), Vec::new());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        read_events(bytes.as_slice(), |event| {
            match event {
                Event::Packet(record) => {
                    assert_eq!(record.heading, Some(Heading::FromPod));
                    notes.push((record.time_ns, record.comment.unwrap().parse().unwrap()));
                }
                Event::Time(taken) => times.push(taken.time_ns),
                Event::Interface(_) => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        let role = Some((Side::Client, Protocol::Http));
        assert_eq!(notes, [(1_040, Note { role, late_ns: 10 }), (1_060, Note { role, late_ns: 0 })]);
        assert_eq!(times, [1_200]);
    }
}
