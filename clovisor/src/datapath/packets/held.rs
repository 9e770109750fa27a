//! Events that were read before their time, one behind the other in memory that is used again and again.

use clovisor_common::EventHeader;

use super::record::{self, RecordError};

/// Events in the order in which they are handed out.
#[derive(Default)]
pub(super) struct Held {
    /// Records one behind the other. `spare` takes over what stays, and the two change places.
    bytes: Vec<u8>,
    spare: Vec<u8>,
    events: Vec<Event>,
}

struct Event {
    header: EventHeader,
    start: usize,
    end: usize,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Takes a record, which may come in two pieces.
    pub(super) fn push(&mut self, head: &[u8], tail: &[u8]) -> Result<(), RecordError> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(tail);
        match record::decode(&self.bytes[start..]) {
            Ok((header, packet)) => {
                let start = start + size_of::<EventHeader>() + usize::from(header.link_len);
                self.events.push(Event { header, start, end: start + packet.len() });
                self.bytes.truncate(start + packet.len());
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Puts them in the order of their times. Those of one time stay as they are; and what is sorted in runs, as the events
    /// of each CPU are, is merged in linear time.
    pub(super) fn sort(&mut self) {
        self.events.sort_by_key(|event| event.header.time_ns);
    }

    /// Hands out events from the first up to one that is younger than `until_ns`, and keeps that and the others. Whether all went.
    pub(super) fn release(&mut self, until_ns: u64, sink: &mut impl FnMut(&EventHeader, &[u8])) -> bool {
        let due = self.events.iter().position(|event| event.header.time_ns > until_ns);
        for event in self.events.drain(..due.unwrap_or(self.events.len())) {
            sink(&event.header, &self.bytes[event.start..event.end]);
        }
        self.spare.clear();
        for event in &mut self.events {
            let start = self.spare.len();
            self.spare.extend_from_slice(&self.bytes[event.start..event.end]);
            (event.start, event.end) = (start, self.spare.len());
        }
        std::mem::swap(&mut self.bytes, &mut self.spare);
        self.events.is_empty()
    }
}
