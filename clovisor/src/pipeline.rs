//! Packets to spans to queues: the one way through, live and from a file.
//!
//! It refuses to know where packets come from and where spans go. It counts what it hands on, and stops at the
//! limit that the user gave.

use std::{collections::HashMap, sync::Arc};

use clovisor_trace::{Ledger, Limits, Packet, Resource, Semconv, Span, SpanBuilder, Tracer};

use crate::summary::Tally;

/// Turns packets into spans.
pub struct Pipeline {
    tracer: Tracer,
    builder: SpanBuilder,
    resources: HashMap<u32, Arc<Resource>>,
    /// For interfaces that nobody named.
    unnamed: Arc<Resource>,
    tally: Tally,
    /// Sessions that may still be handed on.
    left: u64,
}

impl Pipeline {
    /// A pipeline that keeps the named headers, and hands on as many sessions as the limit says.
    #[must_use]
    pub fn new(headers: Vec<String>, semconv: Semconv, limit: Option<u64>) -> Self {
        Self {
            tracer: Tracer::new(Limits { headers, ..Limits::default() }),
            builder: SpanBuilder { semconv },
            resources: HashMap::new(),
            unnamed: Arc::new(Resource::service("clovisor")),
            tally: Tally::default(),
            left: limit.unwrap_or(u64::MAX),
        }
    }

    /// Says whose spans those of an interface are.
    pub fn name(&mut self, interface: u32, resource: Resource) {
        self.resources.insert(interface, Arc::new(resource));
    }

    /// Says whose spans those of all other interfaces are.
    pub fn name_others(&mut self, resource: Resource) {
        self.unnamed = Arc::new(resource);
    }

    /// Takes a packet in.
    pub fn packet(&mut self, packet: &Packet<'_>, epoch_ns: u64, out: &mut impl FnMut(Span)) {
        self.tracer.handle_packet(packet);
        self.hand_on(epoch_ns, out);
    }

    /// Looks at the clock of the packets.
    pub fn tick(&mut self, now_ns: u64, epoch_ns: u64, out: &mut impl FnMut(Span)) {
        self.tracer.handle_timeout(now_ns);
        self.hand_on(epoch_ns, out);
    }

    /// Tracing ends: what is open is handed on as far as it was seen.
    pub fn finish(&mut self, now_ns: u64, epoch_ns: u64, out: &mut impl FnMut(Span)) {
        self.tracer.finish(now_ns);
        self.hand_on(epoch_ns, out);
    }

    fn hand_on(&mut self, epoch_ns: u64, out: &mut impl FnMut(Span)) {
        while let Some(session) = self.tracer.poll_session() {
            if self.left == 0 {
                self.tally.beyond_limit += 1;
                continue;
            }
            self.left -= 1;
            self.tally.count(&session);
            let resource = self.resources.get(&session.interface).unwrap_or(&self.unnamed);
            out(self.builder.span(&session, epoch_ns, resource));
        }
    }

    /// Whether the limit of sessions is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    /// What became of the packets and sessions so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.tracer.ledger()
    }

    /// What was handed on so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}
