//! A tracer that is watched: after each thing that is done to it, everything that must always hold is checked.

use std::sync::Arc;

use clovisor_trace::{Limits, Loss, OtherSide, Packet, Resource, Semconv, Session, SpanBuilder, Tracer};

use crate::trim::Trim;

/// So often at most the clock is looked at until what is asked has its answer, and all that was due because of that is done.
const LOOKS: usize = 8;

/// A tracer, and what was seen of it.
pub(crate) struct Watched {
    tracer: Tracer,
    /// What picks its packets, if not all come as they are.
    trim: Option<Trim>,
    limits: Limits,
    resource: Arc<Resource>,
    /// Length in bytes.
    largest_packet: usize,
    /// Sessions that ended, in the order of their ends.
    sessions: Vec<Session>,
    /// What was lost, of interfaces that are traced.
    losses: Vec<Loss>,
    /// Sessions that overlap a loss.
    marked: u64,
}

impl Watched {
    pub(crate) fn new(limits: Limits) -> Self {
        let resource = Arc::new(Resource::service("fuzz"));
        Self {
            tracer: Tracer::new(limits.clone()),
            trim: None,
            limits,
            resource,
            largest_packet: 0,
            sessions: Vec::new(),
            losses: Vec::new(),
            marked: 0,
        }
    }

    /// One that gets of its packets only what is picked.
    pub(crate) fn with(limits: Limits, trim: Trim) -> Self {
        let limits = Limits { unneeded: Some(1), ..limits };
        Self { trim: Some(trim), ..Self::new(limits) }
    }

    pub(crate) fn packet(&mut self, packet: &Packet<'_>) {
        self.largest_packet = self.largest_packet.max(packet.data.len());
        match &mut self.trim {
            Some(trim) => trim.hand_in(&mut self.tracer, packet),
            None => self.tracer.handle_packet(packet),
        }
        self.check();
    }

    pub(crate) fn timeout(&mut self, now_ns: u64) {
        self.tracer.handle_timeout(now_ns);
        if let Some(trim) = &mut self.trim {
            trim.hear(&mut self.tracer, now_ns);
            for _ in 0..LOOKS {
                if self.tracer.poll_timeout().is_none_or(|next| next > now_ns) {
                    break;
                }
                self.tracer.handle_timeout(now_ns);
                trim.hear(&mut self.tracer, now_ns);
            }
        }
        // Whoever sleeps until the next deadline must not find it in the past: that would never end.
        let next = self.tracer.poll_timeout();
        assert!(next.is_none_or(|next| next > now_ns), "at {now_ns} the next deadline is {next:?}");
        self.check();
    }

    pub(crate) fn lose(&mut self, loss: &Loss) {
        self.losses.push(*loss);
        self.tracer.handle_loss(loss);
        self.check();
    }

    /// How many sessions have ended.
    pub(crate) fn ended(&self) -> usize {
        self.sessions.len()
    }

    /// How many connections were given up because they were silent.
    pub(crate) fn idle(&self) -> u64 {
        self.tracer.ledger().flows_idle
    }

    /// When the tracer wants to look at the clock again.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.tracer.poll_timeout()
    }

    /// Whether a part of its packets may not come.
    pub(crate) fn is_spared(&self) -> bool {
        self.trim.is_some()
    }

    /// Packets that were only counted.
    #[cfg(test)]
    pub(crate) fn counted(&self) -> u64 {
        self.trim.as_ref().map_or(0, |trim| trim.counted)
    }

    pub(crate) fn finish_interface(&mut self, interface: u32, now_ns: u64) {
        self.rest(Some(interface), now_ns);
        self.tracer.finish_interface(interface, now_ns);
        self.check();
        self.losses.retain(|loss| loss.interface != Some(interface));
    }

    /// Hands in what was counted, of an interface or of all, as is done before tracing ends there.
    fn rest(&mut self, of: Option<u32>, now_ns: u64) {
        if self.is_spared() {
            self.timeout(now_ns);
        }
        if let Some(trim) = &mut self.trim {
            trim.finish(&mut self.tracer, of, now_ns);
        }
    }

    /// Ends the tracing: nothing may be left. Returns all sessions.
    pub(crate) fn finish(mut self, now_ns: u64) -> Vec<Session> {
        self.rest(None, now_ns);
        self.tracer.finish(now_ns);
        self.check();
        if let Some(trim) = &self.trim {
            let ledger = self.tracer.ledger();
            assert_eq!(ledger.counted + ledger.counted_late, trim.counted, "{ledger:?}");
        }
        let ledger = self.tracer.ledger();
        assert_eq!((ledger.sessions_open, ledger.flows_open, self.tracer.memory()), (0, 0, 0), "{ledger:?}");
        assert_eq!(self.tracer.poll_timeout(), None);
        self.sessions
    }

    fn check(&mut self) {
        while let Some(session) = self.tracer.poll_session() {
            self.span(&session);
            let may_be_its =
                |loss: &&Loss| loss.interface.is_none_or(|interface| interface == session.interface);
            let mut losses = self.losses.iter().filter(may_be_its).peekable();
            assert!(losses.peek().is_some() || !session.overlaps_loss, "marked of nothing: {session:?}");
            let overlaps = |loss: &Loss| loss.from_ns <= session.end_ns && session.start_ns <= loss.until_ns;
            assert!(!losses.any(overlaps) || session.overlaps_loss, "not marked: {session:?}");
            self.marked += u64::from(session.overlaps_loss);
            self.sessions.push(session);
        }
        let ledger = self.tracer.ledger();
        assert_eq!(ledger.balance(), Ok(()), "{ledger:?}");
        assert_eq!(ledger.sessions_ended(), self.sessions.len() as u64, "{ledger:?}");
        assert_eq!(ledger.sessions_overlapping_loss, self.marked, "{ledger:?}");
        assert!(ledger.fragments_dropped <= ledger.fragments, "{ledger:?}");
        assert!(ledger.flows_open <= self.limits.flows as u64, "{ledger:?}");
        // The last flow stays, even where it alone is above the limit of all.
        let memory = self.tracer.memory();
        assert!(
            memory <= self.limits.memory || ledger.flows_open == 1,
            "{memory} bytes of memory: {ledger:?}"
        );
        let most = self.limits.memory.max(largest_flow(&self.limits, self.largest_packet));
        assert!(memory <= most, "{memory} bytes of memory, {most} are the most: {ledger:?}");
    }

    /// Spans of any session can be made, in every convention.
    fn span(&self, session: &Session) {
        assert!(session.start_ns <= session.end_ns, "{session:?}");
        for semconv in [Semconv::Stable, Semconv::Dup, Semconv::Legacy] {
            let span = SpanBuilder { semconv }.span(session, 0, &self.resource, OtherSide::Traced);
            assert!(span.trace_id.0 != [0; 16] && span.span_id.0 != [0; 8], "{session:?}");
            assert_ne!(span.parent_span_id, Some(span.span_id), "{session:?}");
            for (at, (key, _)) in span.attributes.iter().enumerate() {
                assert!(
                    span.attributes[..at].iter().all(|(other, _)| other != key),
                    "{key} twice: {session:?}"
                );
            }
        }
    }
}

/// Bytes that one flow may hold, where no packet was larger than this.
fn largest_flow(limits: &Limits, largest_packet: usize) -> usize {
    const STRUCTS: usize = 4 << 10;
    // A stream is above its limit by one packet, with what that costs beside its bytes, before it is moved on.
    let streams = 2 * (limits.stream + largest_packet + 100);
    // Heads in part; buffers grow by doubling.
    let heads = 4 * limits.head;
    // An exchange has strings of two heads.
    let exchanges = limits.pipeline.saturating_add(1).saturating_mul(2 * limits.head + 1_500);
    STRUCTS + streams + heads + exchanges
}

/// Limits so small that inputs of a few hundred bytes reach them.
pub(crate) fn small_limits() -> Limits {
    Limits {
        flows: 3,
        memory: 8_000,
        stream: 2_000,
        head: 300,
        pipeline: 3,
        datagrams: 2,
        headers: vec!["x-id".to_owned()],
        ..Limits::default()
    }
}
