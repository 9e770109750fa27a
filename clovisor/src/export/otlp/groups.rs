//! Spans that wait as OTLP's `ExportTraceServiceRequest` (opentelemetry-proto v1: `trace_service.proto`): one `ResourceSpans` a
//! resource, each span encoded when it comes.
//!
//! It refuses to compare resources by what they hold: spans of one pod share theirs, and two of the same are legal.

use std::{mem::take, sync::Arc};

use clovisor_trace::{Describe, Resource};
use hyper::body::Bytes;

use super::{
    super::sink::{Form, PIECE, PIECE_ROOM},
    encode::{self, USUAL_SPAN},
    message::{Message, delimited},
};

/// Receivers refuse messages above 4 MiB by gRPC's default; no span is near the rest.
const MOST_BYTES: usize = 3 << 20;

/// Encoded spans, by resource in the order of each one's first span.
#[derive(Debug, Default)]
pub struct Groups {
    groups: Vec<Group>,
    /// Which of them the last span went to: the next mostly goes there, too.
    last: usize,
    spans: usize,
    /// Also those of heads that are not sent twice.
    bytes: usize,
    /// Room for the first group.
    room: usize,
    /// The message, once it was asked for.
    message: Vec<Bytes>,
}

#[derive(Debug)]
struct Group {
    resource: Arc<Resource>,
    /// Field 1 of `ResourceSpans`.
    head: Vec<u8>,
    /// Fields 2 of `ScopeSpans`: what is added to, and what was gathered behind it.
    spans: Vec<u8>,
    more: Vec<Vec<u8>>,
}

impl Group {
    /// Of all its spans.
    fn len(&self) -> usize {
        self.spans.len() + self.more.iter().map(Vec::len).sum::<usize>()
    }
}

impl Groups {
    /// The message, in pieces. It can be asked for again, and takes no more spans.
    pub fn message(&mut self) -> Vec<Bytes> {
        for group in take(&mut self.groups) {
            let mut scope = Vec::new();
            Message::new(&mut scope).message(1, encode::scope);
            let scope_len = scope.len() + group.len();
            let Group { head, spans, more, .. } = group;
            let mut before = Vec::with_capacity(head.len() + scope.len() + 32);
            Message::new(&mut before).head(1, head.len() + delimited(scope_len));
            before.extend_from_slice(&head);
            Message::new(&mut before).head(2, scope_len);
            before.extend_from_slice(&scope);
            self.message.extend([before.into(), spans.into()]);
            self.message.extend(more.into_iter().map(Bytes::from));
        }
        self.message.clone()
    }

    /// The group of a resource.
    fn group(&mut self, resource: &Arc<Resource>) -> &mut Group {
        let is_it = |group: &Group| Arc::ptr_eq(&group.resource, resource);
        if !self.groups.get(self.last).is_some_and(is_it) {
            self.last = self.groups.iter().position(is_it).unwrap_or_else(|| {
                let mut head = Vec::new();
                Message::new(&mut head).message(1, |out| encode::resource(out, resource));
                self.bytes += head.len();
                let spans = Vec::with_capacity(take(&mut self.room).max(USUAL_SPAN));
                self.groups.push(Group { resource: Arc::clone(resource), head, spans, more: Vec::new() });
                self.groups.len() - 1
            });
        }
        &mut self.groups[self.last]
    }
}

impl Form for Groups {
    const FULL: usize = PIECE;

    /// With spans of many pods each has few, and room that grows.
    fn another(&self) -> Self {
        Self { room: if self.groups.len() == 1 { PIECE_ROOM } else { 0 }, ..Self::default() }
    }

    fn add(&mut self, span: &impl Describe) {
        let spans = &mut self.group(span.resource()).spans;
        let before = spans.len();
        Message::new(spans).message_of(2, USUAL_SPAN, |out| encode::span(out, span));
        let added = spans.len() - before;
        self.bytes += added;
        self.spans += 1;
    }

    fn gather(&mut self, other: Self) -> Option<Self> {
        if self.bytes + other.bytes > MOST_BYTES {
            return Some(other);
        }
        for group in other.groups {
            match self.groups.iter_mut().find(|known| Arc::ptr_eq(&known.resource, &group.resource)) {
                Some(known) => {
                    known.more.push(group.spans);
                    known.more.extend(group.more);
                }
                None => self.groups.push(group),
            }
        }
        self.spans += other.spans;
        self.bytes += other.bytes;
        None
    }

    fn spans(&self) -> usize {
        self.spans
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
