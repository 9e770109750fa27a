//! Spans that wait as OTLP's `ExportTraceServiceRequest` (opentelemetry-proto v1: `trace_service.proto`): one `ResourceSpans` a
//! resource, each span encoded when it comes.
//!
//! It refuses to compare resources by what they hold: spans of one pod share theirs, and two of the same are legal.

use std::{mem::take, sync::Arc};

use clovisor_trace::{Describe, Resource};
use hyper::body::Bytes;

use super::{
    super::sink::Form,
    encode::{self, USUAL_SPAN},
    message::{Message, delimited},
};

/// Encoded spans, by resource in the order of each one's first span.
#[derive(Debug, Default)]
pub struct Groups {
    groups: Vec<Group>,
    /// Which of them the last span went to: the next mostly goes there, too.
    last: usize,
    spans: usize,
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
    /// Fields 2 of `ScopeSpans`.
    spans: Vec<u8>,
}

impl Groups {
    /// The message, in pieces. It can be asked for again, and takes no more spans.
    pub fn message(&mut self) -> Vec<Bytes> {
        for group in take(&mut self.groups) {
            let Group { head, spans, .. } = group;
            let mut scope = Vec::new();
            Message::new(&mut scope).message(1, encode::scope);
            let scope_len = scope.len() + spans.len();
            let mut before = Vec::with_capacity(head.len() + scope.len() + 32);
            Message::new(&mut before).head(1, head.len() + delimited(scope_len));
            before.extend_from_slice(&head);
            Message::new(&mut before).head(2, scope_len);
            before.extend_from_slice(&scope);
            self.message.extend([before.into(), spans.into()]);
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
                self.groups.push(Group { resource: Arc::clone(resource), head, spans });
                self.groups.len() - 1
            });
        }
        &mut self.groups[self.last]
    }
}

impl Form for Groups {
    /// Receivers refuse messages above 4 MiB by gRPC's default; no span is near the rest.
    const MOST_BYTES: usize = 3 << 20;

    fn with_room(bytes: usize) -> Self {
        Self { room: bytes, ..Self::default() }
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
        if self.bytes + other.bytes > Self::MOST_BYTES {
            return Some(other);
        }
        self.groups.extend(other.groups);
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
