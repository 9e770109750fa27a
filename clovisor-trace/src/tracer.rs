//! The face of the crate: packets and time in, sessions out.

use crate::{
    flow::{Admission, Context, Counted, Shed, Table, Unneeded, Unseen},
    ledger::Ledger,
    limits::Limits,
    loss::Loss,
    outbox::Outbox,
    packet::{Datagrams, Decoded, Heading, Packet, Segment, Toward, decode, segment},
    session::Session,
};

/// Turns packets into sessions. Single-threaded, no I/O, no clock; total over any bytes; bounded by [`Limits`].
///
/// ```
/// # use clovisor_trace::{Limits, Tracer};
/// let mut tracer = Tracer::new(Limits::default());
/// // for each packet: tracer.handle_packet(&packet);
/// tracer.finish(0);
/// while let Some(session) = tracer.poll_session() {
///     println!("{session:?}");
/// }
/// assert_eq!(tracer.ledger().balance(), Ok(()));
/// ```
pub struct Tracer {
    limits: Limits,
    table: Table,
    datagrams: Datagrams,
    outbox: Outbox,
    unseen: Unseen,
    ledger: Ledger,
}

impl Tracer {
    /// A tracer that has seen nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let datagrams = Datagrams::new(limits.datagrams);
        let outbox = Outbox::new(limits.idle_ns);
        Self {
            limits,
            table: Table::new(),
            datagrams,
            outbox,
            unseen: Unseen::default(),
            ledger: Ledger::default(),
        }
    }

    /// Takes a packet in. Times should not go back; small steps back do no harm. What was due before the packet is done
    /// before it, so sessions depend on packets alone and not on when [`handle_timeout`](Self::handle_timeout) was called in
    /// between, as long as that was with times that no packet comes before.
    pub fn handle_packet(&mut self, packet: &Packet<'_>) {
        if self.is_due(packet.time_ns) {
            self.handle_timeout(packet.time_ns);
        }
        self.ledger.packets += 1;
        self.ledger.bytes += u64::from(packet.wire_len);
        self.ledger.bytes_copied += packet.data.len() as u64;
        self.outbox.now_ns = packet.time_ns;
        match decode(packet) {
            Decoded::Segment(segment) => match self.give(packet, &segment) {
                Admission::Flow => self.ledger.segments += 1,
                Admission::AfterEnd => self.ledger.after_end += 1,
                Admission::Shed => {
                    self.ledger.shed += 1;
                    let has_asked = packet.toward == Toward::Server && segment.payload_len > 0;
                    self.ledger.shed_requests += u64::from(has_asked);
                }
                Admission::Stray => self.ledger.stray += 1,
            },
            Decoded::Fragment(fragment) => {
                self.ledger.fragments += 1;
                if let Some(whole) = self.datagrams.add(&fragment, packet.time_ns)
                    && let Some(segment) = segment(fragment.source, fragment.destination, &whole, whole.len())
                {
                    self.give(packet, &segment);
                }
            }
            Decoded::NotTcp => self.ledger.not_tcp += 1,
            Decoded::Malformed => self.ledger.malformed += 1,
        }
        self.bring_up_to_date();
    }

    fn give(&mut self, packet: &Packet<'_>, segment: &Segment<'_>) -> Admission {
        let Self { limits, table, outbox: out, unseen, ledger, .. } = self;
        table.segment(packet, segment, &mut Context { now_ns: packet.time_ns, limits, ledger, out, unseen })
    }

    /// Takes in what was counted of a connection: packets that whoever picks packets did not hand on, since they say nothing but that
    /// bytes go on that nobody looks at. `time_ns` is when it was told, and it is to be handed in among packets by that.
    pub fn handle_counted(&mut self, counted: &Counted, time_ns: u64) {
        if self.is_due(time_ns) {
            self.handle_timeout(time_ns);
        }
        self.ledger.bytes += counted.wire();
        self.outbox.now_ns = time_ns;
        let Self { limits, table, outbox: out, unseen, ledger, .. } = self;
        table.counted(counted, &mut Context { now_ns: time_ns, limits, ledger, out, unseen });
        self.bring_up_to_date();
    }

    /// Takes in what was counted of a connection and not told when [`Wish::Forget`](crate::Wish::Forget) is done: nobody follows it any
    /// more. Packets on the same ports that came before that may have begun another, which has none of it.
    pub fn counted_late(&mut self, counted: &Counted) {
        self.ledger.bytes += counted.wire();
        self.ledger.counted_late += counted.packets();
    }

    /// Answers [`Wish::Ask`](crate::Wish::Ask), once what was counted since is handed in: if there was nothing, the connection is given up.
    pub fn answer_counted(&mut self, asked: &Unneeded, time_ns: u64) {
        self.outbox.now_ns = time_ns;
        let Self { limits, table, outbox: out, unseen, ledger, .. } = self;
        table.answered(asked, &mut Context { now_ns: time_ns, limits, ledger, out, unseen });
        self.bring_up_to_date();
    }

    /// Takes note that packets were lost on their way here: sessions of the interface that were under way then are marked
    /// when they are fetched ([`Session::overlaps_loss`]). Call it before the first packet that is younger is handed in, so that
    /// none of them has ended yet, or see to it that they are kept ([`Self::keep_sessions`]).
    pub fn handle_loss(&mut self, loss: &Loss) {
        self.outbox.lost(loss);
    }

    /// From now on keeps each session for so long after its end, until tracing ends: for whoever hears of a loss so much later than of
    /// packets that are younger, so that it is marked on sessions that it may have hit.
    pub fn keep_sessions(&mut self, keep_ns: u64) {
        self.outbox.keep(keep_ns);
    }

    /// Looks at the clock, the one that packets carry: sessions whose time is over end.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        self.outbox.now_ns = now_ns;
        let Self { limits, table, outbox: out, unseen, ledger, .. } = self;
        table.handle_timeout(&mut Context { now_ns, limits, ledger, out, unseen });
        self.datagrams.expire(now_ns);
        self.bring_up_to_date();
    }

    /// Whether anything has waited long enough.
    fn is_due(&self, now_ns: u64) -> bool {
        self.table.is_due(now_ns, &self.limits) || self.datagrams.next_due().is_some_and(|due| due <= now_ns)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.table.poll_timeout(&self.limits)
    }

    /// The next session that has ended.
    pub fn poll_session(&mut self) -> Option<Session> {
        if !self.outbox.is_due() {
            return None;
        }
        self.bring_sessions_up_to_date();
        self.ledger.sessions_open -= 1;
        self.outbox.pop(&mut self.ledger)
    }

    /// What nobody looks at, and so need not be copied ([`Limits::unneeded`]). To be fetched about as often as packets are handed
    /// in: it is kept until then.
    pub fn poll_unneeded(&mut self) -> Option<Unneeded> {
        self.outbox.unneeded.pop_front()
    }

    /// From now on tells of so many unneeded bytes in a row ([`Limits::unneeded`]).
    pub fn tell_unneeded(&mut self, least: Option<u64>) {
        self.limits.unneeded = least;
    }

    /// From now on traces of an interface the connections whose lots are below `share`; all, if there is none. Others are left out as
    /// soon as nothing of a session is under way in them ([`Self::poll_shed`]), and so are packets of theirs that come all the same.
    pub fn set_share(&mut self, interface: u32, share: Option<u32>) {
        self.table.set_share(interface, share);
    }

    /// The next connection that is left out from now on. To be fetched about as often as packets are handed in, and to be answered by
    /// [`Self::left_out`].
    pub fn poll_shed(&mut self) -> Option<Shed> {
        self.outbox.shed.pop_front()
    }

    /// Whoever picks packets has left out a connection: packets of it that were picked later than this are of one that was given back
    /// at the beginning of a session. Until this is said, and before that time, no packet of it is followed, for as long as ends are
    /// remembered.
    pub fn left_out(&mut self, shed: &Shed, until_ns: u64) {
        self.table.left_out(shed, until_ns);
    }

    /// Tracing of one interface ends: what is open there is reported as far as it was seen, so that no silence is
    /// taken for the pods' own. Call it when its last packets have been handed in.
    pub fn finish_interface(&mut self, interface: u32, now_ns: u64) {
        self.handle_timeout(now_ns);
        let Self { limits, table, outbox: out, unseen, ledger, .. } = self;
        table.finish_interface(interface, &mut Context { now_ns, limits, ledger, out, unseen });
        self.outbox.forget(interface);
        self.bring_up_to_date();
    }

    /// Tracing ends: what is open is reported as far as it was seen.
    pub fn finish(&mut self, now_ns: u64) {
        self.handle_timeout(now_ns);
        let Self { limits, table, outbox: out, unseen, ledger, .. } = self;
        table.finish_all(&mut Context { now_ns, limits, ledger, out, unseen });
        self.datagrams.clear();
        self.outbox.keep(0);
        self.bring_up_to_date();
    }

    /// What came in so far and what became of it.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Interfaces at which connections show one direction only, and where the packets go that are not seen there.
    /// It takes some traffic to be sure; an interface stays until [`Self::finish_interface`].
    pub fn unseen(&self) -> impl Iterator<Item = (u32, Heading)> + '_ {
        self.unseen.proven()
    }

    /// Bytes of memory that flows hold.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    /// Brings the counts that live elsewhere into the ledger.
    fn bring_up_to_date(&mut self) {
        self.ledger.fragments_dropped = self.datagrams.dropped();
        self.ledger.flows_open = self.table.len() as u64;
        self.bring_sessions_up_to_date();
    }

    fn bring_sessions_up_to_date(&mut self) {
        self.ledger.sessions_begun = self.table.begun_sessions();
        self.ledger.sessions_open = self.table.open_sessions() + self.outbox.len();
    }
}
