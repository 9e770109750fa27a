//! Packets to spans to queues: the one way through, live and from a file.
//!
//! It refuses to know where packets come from and where spans go. It counts what it hands on, and stops at the
//! limit that the user gave.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use clovisor_trace::{
    Counted, Heading, Ledger, Limits, Loss, OtherSide, Packet, Resource, Semconv, Session, SessionSpan, Shed,
    Side, SpanBuilder, Tracer, Unneeded,
};

use crate::{
    datapath::packets::HOLD_BACK,
    export::Sampler,
    ledger::{Books, Sinks, Source},
    plan::{Peer, Peers},
    red::Red,
    summary::Tally,
};

/// Whose spans those of an interface are.
#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    /// Of the sessions that a listening port served, by port.
    pub ports: BTreeMap<u16, Arc<Resource>>,
    /// Of all others.
    pub others: Arc<Resource>,
}

impl Names {
    /// One name for everything.
    #[must_use]
    pub fn all(resource: Resource) -> Self {
        Self { ports: BTreeMap::new(), others: Arc::new(resource) }
    }

    fn of(&self, session: &Session) -> &Arc<Resource> {
        let port = (session.side == Side::Server).then(|| self.ports.get(&session.server.port())).flatten();
        port.unwrap_or(&self.others)
    }
}

/// Turns packets into spans.
pub struct Pipeline {
    tracer: Tracer,
    builder: SpanBuilder,
    names: HashMap<u32, Names>,
    /// For interfaces that nobody named.
    unnamed: Names,
    /// Names of the other side.
    peers: Arc<Peers>,
    /// If clients are traced: the addresses of those that never are.
    untraced: Option<HashSet<IpAddr>>,
    tally: Tally,
    /// Which spans are handed on.
    sampler: Sampler,
    /// What is counted of requests, if anything is.
    red: Option<Red>,
    /// Sessions that may still be handed on.
    left: u64,
}

impl Pipeline {
    /// A pipeline within these limits, that hands on as many sessions as `limit` says.
    #[must_use]
    pub fn new(limits: Limits, semconv: Semconv, limit: Option<u64>) -> Self {
        Self {
            tracer: Tracer::new(limits),
            builder: SpanBuilder { semconv },
            names: HashMap::new(),
            unnamed: Names::all(Resource::service("clovisor")),
            peers: Arc::default(),
            untraced: None,
            tally: Tally::default(),
            sampler: Sampler::default(),
            red: None,
            left: limit.unwrap_or(u64::MAX),
        }
    }

    /// Hands on what `sampler` takes.
    #[must_use]
    pub fn with_sampler(self, sampler: Sampler) -> Self {
        Self { sampler, ..self }
    }

    /// From now on counts requests for metrics.
    #[must_use]
    pub fn with_red(self) -> Self {
        Self { red: Some(Red::default()), ..self }
    }

    /// What was counted of requests.
    #[must_use]
    pub fn red(&self) -> Option<&Red> {
        self.red.as_ref()
    }

    /// Says whose spans those of an interface are.
    pub fn name(&mut self, interface: u32, names: Names) {
        self.names.insert(interface, names);
    }

    /// Says whose spans those of all other interfaces are.
    pub fn name_others(&mut self, resource: Resource) {
        self.unnamed = Names::all(resource);
    }

    /// Says who the other sides are.
    pub fn name_peers(&mut self, peers: Arc<Peers>) {
        self.peers = peers;
    }

    /// Says whether clients are traced, if only by another agent, and the addresses of those that never are: a server's span
    /// becomes the child of its client's where there may be one.
    pub fn join(&mut self, clients: bool, untraced: HashSet<IpAddr>) {
        self.untraced = clients.then_some(untraced);
    }

    /// Takes a packet in.
    pub fn packet(&mut self, packet: &Packet<'_>, epoch_ns: u64, out: &mut impl FnMut(&SessionSpan<'_>)) {
        self.tracer.handle_packet(packet);
        self.hand_on(epoch_ns, out);
    }

    /// Takes in what was only counted. Sessions that it ends are handed on with the next packet or tick.
    pub fn counted(&mut self, counted: &Counted, time_ns: u64) {
        self.tracer.handle_counted(counted, time_ns);
    }

    /// Takes in what was only counted of a connection that is no longer followed.
    pub fn counted_late(&mut self, counted: &Counted) {
        self.tracer.counted_late(counted);
    }

    /// Says that nothing else was counted of a connection that was asked for.
    pub fn answer_counted(&mut self, asked: &Unneeded, time_ns: u64) {
        self.tracer.answer_counted(asked, time_ns);
    }

    /// Takes note that packets were lost before they came here.
    pub fn lost(&mut self, loss: &Loss) {
        self.tracer.handle_loss(loss);
    }

    /// From now on keeps sessions until it is known whether packets of theirs were lost.
    pub fn keep_sessions(&mut self) {
        self.tracer.keep_sessions(u64::try_from(HOLD_BACK.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What is wished of the kernel side: mostly, not to copy what nobody looks at.
    pub fn poll_unneeded(&mut self) -> Option<Unneeded> {
        self.tracer.poll_unneeded()
    }

    /// From now on tells of so many unneeded bytes in a row.
    pub fn tell_unneeded(&mut self, least: Option<u64>) {
        self.tracer.tell_unneeded(least);
    }

    /// From now on leaves out connections of an interface whose lots are not below `share`.
    pub fn set_share(&mut self, interface: u32, share: Option<u32>) {
        self.tracer.set_share(interface, share);
    }

    /// The next connection that is left out from now on.
    pub fn poll_shed(&mut self) -> Option<Shed> {
        self.tracer.poll_shed()
    }

    /// A connection is left out, but for packets up to this time.
    pub fn left_out(&mut self, shed: &Shed, until_ns: u64) {
        self.tracer.left_out(shed, until_ns);
    }

    /// What the spans of an interface say of where they were seen.
    #[must_use]
    pub fn resource(&self, interface: u32) -> Option<&Resource> {
        self.names.get(&interface).map(|names| &*names.others)
    }

    /// Looks at the clock of the packets.
    pub fn tick(&mut self, now_ns: u64, epoch_ns: u64, out: &mut impl FnMut(&SessionSpan<'_>)) {
        self.tracer.handle_timeout(now_ns);
        self.hand_on(epoch_ns, out);
    }

    /// Tracing ends: what is open is handed on as far as it was seen.
    pub fn finish(&mut self, now_ns: u64, epoch_ns: u64, out: &mut impl FnMut(&SessionSpan<'_>)) {
        self.tracer.finish(now_ns);
        self.hand_on(epoch_ns, out);
    }

    /// Tracing of an interface has ended, and its last packets are in: what is open there is handed on, and its
    /// names are forgotten.
    pub fn finish_interface(
        &mut self,
        interface: u32,
        now_ns: u64,
        epoch_ns: u64,
        out: &mut impl FnMut(&SessionSpan<'_>),
    ) {
        self.tracer.finish_interface(interface, now_ns);
        self.hand_on(epoch_ns, out);
        self.names.remove(&interface);
    }

    fn hand_on(&mut self, epoch_ns: u64, out: &mut impl FnMut(&SessionSpan<'_>)) {
        while let Some(session) = self.tracer.poll_session() {
            if self.left == 0 {
                self.tally.beyond_limit += 1;
                continue;
            }
            let resource = self.names.get(&session.interface).unwrap_or(&self.unnamed).of(&session);
            let peer = if session.side == Side::Server { session.client } else { session.server };
            let may_be_traced = |untraced: &HashSet<IpAddr>| !untraced.contains(&peer.ip().to_canonical());
            let other_side = if self.untraced.as_ref().is_some_and(may_be_traced) {
                OtherSide::Traced
            } else {
                OtherSide::Untraced
            };
            let peer = self.peers.get(peer.ip());
            let span = self.builder.describe(&session, epoch_ns, resource, other_side);
            let span = span.with(peer.map_or(&[], Peer::attributes));
            if let Some(red) = &mut self.red {
                red.record(&session, resource, peer);
            }
            if !self.sampler.takes(&span) {
                self.tally.sampled_out += 1;
                continue;
            }
            self.left -= 1;
            self.tally.count(&session);
            out(&span);
        }
    }

    /// Interfaces that show one direction of their connections only, and where the unseen packets go.
    #[must_use]
    pub fn unseen(&self) -> Vec<(u32, Heading)> {
        self.tracer.unseen().collect()
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

    /// All counters now, with those of the stages before and behind.
    #[must_use]
    pub fn books(&self, source: Source, sinks: Sinks) -> Books {
        Books {
            source,
            capture: None,
            tracer: self.ledger().clone(),
            handed_on: self.tally.sessions(),
            sampled_out: self.tally.sampled_out,
            beyond_limit: self.tally.beyond_limit,
            not_taken: 0,
            sinks,
        }
    }

    /// What was handed on so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}
