//! One TCP connection as seen at one interface: two streams in causal order, and the protocol's conversation.
//!
//! It refuses to know protocols: bytes, gaps and ends go to a [`Conversation`], reports come back.

mod bounds;
mod counted;
mod key;
mod opening;
mod order;
mod piece;
mod sequence;
mod share;
mod straight;
mod stray;
mod stream;
mod table;
mod unneeded;
mod unseen;

pub use counted::{Counted, Way};
pub(crate) use key::Key;
use opening::Opening;
use piece::{Mark, Piece, Taken};
pub use share::{ALL_LOTS, Shed};
use stream::Stream;
pub(crate) use table::{Admission, Context, Table};
use unneeded::Told;
pub use unneeded::{Unneeded, Wish};
pub(crate) use unseen::Unseen;

use crate::{
    anatomy::{Incident, Trouble},
    packet::{Endpoint, Heading, Segment, Toward},
    protocol::{Chunk, Conversation, End, Machine, Protocol},
};

/// Taken for the round trip of a connection whose opening was not seen: 3 ms, as Wireshark does to tell reordering from
/// retransmission.
const ROUND_TRIP_NS: u64 = 3_000_000;

/// The deadline of what has none.
pub(crate) const NEVER: u64 = u64::MAX;

/// One connection.
pub(crate) struct Flow {
    streams: [Stream; 2],
    /// How each stream ended, once it did.
    finished: [bool; 2],
    reset: bool,
    opening: Opening,
    /// Whether each end has said that it has no room.
    closed: [bool; 2],
    /// Whether any segment of each stream was seen.
    seen: [bool; 2],
    /// How often one side has proven that it gets what is not seen here.
    proofs: u32,
    /// What of each stream was told to be unneeded.
    told: Option<Box<Told>>,
    conversation: Machine,
    /// When the last packet came.
    pub(crate) last_ns: u64,
    /// The deadline under which the table has filed it, or [`NEVER`].
    pub(crate) filed_ns: u64,
    /// What the table has on its books for it.
    pub(crate) booked: Booked,
}

/// What of a flow the table has in its totals.
#[derive(Clone, Copy, Default)]
pub(crate) struct Booked {
    /// Bytes. Limits keep it far below what this could not tell.
    pub(crate) memory: u32,
    /// Sessions begun and not reported.
    pub(crate) open: u32,
}

impl Flow {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            streams: [Stream::new(), Stream::new()],
            finished: [false; 2],
            reset: false,
            opening: Opening::default(),
            closed: [false; 2],
            seen: [false; 2],
            proofs: 0,
            told: None,
            conversation: Machine::new(protocol),
            last_ns: 0,
            filed_ns: NEVER,
            booked: Booked::default(),
        }
    }

    /// Whether both sides have said all, or one has cut the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.reset || self.finished == [true; 2]
    }

    /// Whether it stands between two sessions, with nothing under way in either direction.
    fn is_at_rest(&self) -> bool {
        self.conversation.is_at_rest() && self.streams.iter().all(Stream::is_at_rest)
    }

    /// Whether a SYN with this sequence number begins another connection on the same ports.
    pub(crate) fn is_renewed_by(&self, toward: Toward, seq: u32) -> bool {
        // A SYN takes one sequence number, so the first byte of its connection is the next.
        self.streams[toward as usize].first_seq().is_some_and(|first| first != seq.wrapping_add(1))
    }

    /// Sequence numbers of the first bytes, which name the connection.
    fn first_seqs(&self) -> [Option<u32>; 2] {
        self.streams.each_ref().map(Stream::first_seq)
    }

    /// Takes a segment in and hands on what has come into order by it.
    pub(crate) fn segment(&mut self, key: &Key, toward: Toward, segment: &Segment<'_>, cx: &mut Context<'_>) {
        let now_ns = cx.now_ns;
        self.last_ns = now_ns;
        if let Some((offset, acked)) = self.is_straight(toward, segment) {
            return self.go_straight(toward, segment, (offset, acked), cx);
        }
        let (own, opposite) = (toward as usize, toward.opposite() as usize);
        let mut has_received = false;
        let at = self.streams[own].offset(segment.seq, now_ns);
        let acked = segment.ack.and_then(|ack| {
            let acked = self.streams[opposite].offset(ack, now_ns)?;
            // Where a repetition stands in its stream says nothing of when it was sent, nor does a probe, one byte behind.
            let by = at.filter(|at| *at >= self.streams[own].frontier());
            has_received = self.streams[opposite].acknowledge(acked, by, now_ns);
            // The SYN-ACK tells where the client's bytes start, were its own SYN not seen.
            if segment.syn {
                self.streams[opposite].start(acked);
            }
            Some(acked)
        });
        let got = acked.filter(|_| !segment.rst);
        self.conversation.packet(toward, now_ns, segment.payload_len.into(), got);
        self.opening.note(toward, segment, now_ns);
        self.note_window(toward, segment, acked.unwrap_or(0), now_ns);
        // What a reset acknowledges may be made up, by a firewall between the two.
        if has_received || !self.seen[toward as usize] {
            self.watch(key, toward, has_received && !segment.rst, cx);
        }
        let Some(mut offset) = at else {
            cx.ledger.segments_out_of_window += 1;
            return;
        };
        if segment.syn {
            offset += 1;
            self.streams[own].start(offset);
        } else if segment.payload_len == 0 && !segment.rst {
            self.streams[own].stands_at(offset, acked);
        }
        let piece = self.piece(toward, segment, (offset, acked), now_ns);
        if segment.payload_len > 0 || piece.mark != Mark::None {
            self.take(toward, piece, cx);
        }
        self.run(now_ns, cx);
    }

    /// The part of its stream that a segment brings.
    fn piece<'a>(
        &self,
        toward: Toward,
        segment: &Segment<'a>,
        (offset, acked): (u64, Option<u64>),
        now_ns: u64,
    ) -> Piece<&'a [u8]> {
        // A repetition acknowledges more than its bytes did when they were first sent.
        let end = offset + u64::from(segment.payload_len);
        let stream = &self.streams[toward as usize];
        let sent_with = stream.sent_with(end);
        Piece {
            offset,
            time_ns: now_ns,
            acked: acked.map_or(0, |acked| sent_with.map_or(acked, |sent| sent.min(acked))),
            is_bound: stream.is_repeated(end, acked.unwrap_or(u64::MAX)),
            bytes: segment.payload,
            cut: u64::from(segment.payload_len) - segment.payload.len() as u64,
            mark: match (segment.rst, segment.fin) {
                (true, _) => Mark::Reset,
                (_, true) => Mark::Fin,
                _ => Mark::None,
            },
            packets: 1,
            is_old: false,
            trouble: None,
        }
    }

    /// Takes in what a segment brings of its stream.
    fn take(&mut self, toward: Toward, piece: Piece<&[u8]>, cx: &mut Context<'_>) {
        let own = toward as usize;
        let (time_ns, offset) = (piece.time_ns, piece.offset);
        let has_payload = piece.end() > offset;
        let round_trip_ns = self.round_trip_ns();
        let mut trouble = has_payload.then(|| self.streams[own].judge(&piece, round_trip_ns)).flatten();
        let mut is_repeated = true;
        if piece.cut == 0 {
            is_repeated = !self.take_part(toward, &Piece { trouble, ..piece }, cx);
        } else {
            for part in self.parts(toward, piece) {
                if self.take_part(toward, &Piece { trouble, ..part }, cx) {
                    // It is on the first that is new.
                    (is_repeated, trouble) = (false, None);
                }
            }
        }
        if is_repeated {
            cx.ledger.segments_repeated += 1;
            if let Some(trouble) = trouble {
                self.conversation.incident(Incident { time_ns, toward, trouble }, offset);
            }
        }
    }

    /// Takes in a part that has no holes. Whether anything in it is new.
    #[inline]
    fn take_part(&mut self, toward: Toward, part: &Piece<&[u8]>, cx: &mut Context<'_>) -> bool {
        let done = self.streams[toward.opposite() as usize].next();
        match self.streams[toward as usize].take(part, done) {
            Taken::Now(skip) => self.deliver(toward, part, skip, cx),
            Taken::Queued => {}
            Taken::Repeated => return false,
        }
        true
    }

    /// What a repetition needs at least: the sender hears that bytes are missing only after a round trip.
    fn round_trip_ns(&self) -> u64 {
        self.opening.handshake().map_or(ROUND_TRIP_NS, |handshake| handshake.round_trip_ns())
    }

    /// Takes note of an end that has no more room: the transfer toward it, which it has up to `got`, stands still.
    fn note_window(&mut self, toward: Toward, segment: &Segment<'_>, got: u64, now_ns: u64) {
        if segment.syn || segment.rst {
            return;
        }
        let is_closed = segment.window == 0;
        if is_closed != std::mem::replace(&mut self.closed[toward as usize], is_closed) && is_closed {
            let incident =
                Incident { time_ns: now_ns, toward: toward.opposite(), trouble: Trouble::ZeroWindow };
            self.conversation.incident(incident, got);
        }
    }

    /// Watches whether both directions are seen. `has_received`: the segment's sender has got a packet since its
    /// last one.
    fn watch(&mut self, key: &Key, toward: Toward, has_received: bool, cx: &mut Context<'_>) {
        let heading = |toward| Heading::of(key.side, toward);
        if !self.seen[toward as usize] {
            self.seen[toward as usize] = true;
            cx.unseen.withdraw(key.interface, heading(toward), self.proofs);
            self.proofs = 0;
        }
        if has_received && !self.seen[toward.opposite() as usize] {
            cx.unseen.prove(key.interface, heading(toward.opposite()), cx.now_ns);
            self.proofs = self.proofs.saturating_add(1);
        }
    }

    /// The flow is over, for this reason: what waits is handed on, missed bytes as gaps, and all sessions reported.
    pub(crate) fn end(&mut self, end: End, cx: &mut Context<'_>) {
        self.settle(u64::MAX, cx);
        loop {
            while self.deliver_ready(cx) {}
            // What is behind a hole that the receiver never acknowledged has not reached its program either.
            let missed = Toward::BOTH.into_iter().find(|way| self.streams[*way as usize].is_behind());
            if self.is_over() || !missed.is_some_and(|way| self.force(way, cx)) {
                break;
            }
        }
        // A reset counts, too, behind bytes that the network has lost.
        self.reset |= self.streams.iter().any(Stream::is_reset);
        let end = match end {
            _ if self.reset => End::Reset,
            _ if self.finished == [true; 2] => End::Fin,
            other => other,
        };
        self.conversation.end(end, &mut cx.out.reports);
    }

    fn deliver<B: AsRef<[u8]>>(
        &mut self,
        toward: Toward,
        piece: &Piece<B>,
        skip: usize,
        cx: &mut Context<'_>,
    ) {
        let Some(bytes) = piece.bytes.as_ref().get(skip..) else { return };
        let offset = piece.offset + skip as u64;
        if !bytes.is_empty() {
            let chunk = Chunk {
                toward,
                time_ns: piece.time_ns,
                offset,
                acked: piece.acked,
                is_bound: piece.is_bound,
                bytes,
                packets: if skip == 0 { piece.packets } else { 0 },
                trouble: piece.trouble,
            };
            self.conversation.chunk(&chunk, cx.limits, &mut cx.out.reports);
        }
        let bytes_end = offset + bytes.len() as u64;
        let from = bytes_end.max(self.streams[toward as usize].next().unwrap_or(0));
        if piece.end() > from {
            self.conversation.gap(toward, piece.end() - from, &mut cx.out.reports);
        }
        match piece.mark {
            Mark::None => self.streams[toward as usize].advance(piece.end()),
            Mark::Fin => {
                // FIN takes a sequence number of its own.
                self.streams[toward as usize].advance(piece.end() + 1);
                if !std::mem::replace(&mut self.finished[toward as usize], true) {
                    self.conversation.fin(toward, &mut cx.out.reports);
                }
            }
            Mark::Reset => {
                self.streams[toward as usize].advance(piece.end());
                self.reset = true;
            }
        }
    }

    /// Sessions that have begun since the last call.
    #[inline]
    pub(crate) fn take_begun(&mut self) -> u32 {
        self.conversation.take_begun()
    }

    /// What it holds now.
    #[inline]
    pub(crate) fn holds(&self) -> Booked {
        let streams: usize = self.streams.iter().map(Stream::memory).sum();
        let memory = table::ENTRY + size_of::<Self>() + streams + self.conversation.memory();
        Booked { memory: u32::try_from(memory).unwrap_or(u32::MAX), open: self.conversation.open() }
    }

    /// Adds what the flow knows to what its conversation has reported since there were so many.
    #[inline]
    pub(crate) fn sign(&self, key: &Key, reported: usize, cx: &mut Context<'_>) {
        if cx.out.reports.len() == reported {
            return;
        }
        let Self { streams, opening, .. } = self;
        for report in cx.out.reports.range_mut(reported..) {
            let session = &mut report.session;
            report.ended_ns = cx.out.now_ns;
            (session.interface, session.side) = (key.interface, key.side);
            (session.client, session.server) = (key.client.into(), key.server.into());
            session.anatomy.handshake = opening.handshake();
            let (toward, offset) = report.first;
            session.first_seq = streams[toward as usize].seq(offset);
            session.opposite_seq = streams[toward.opposite() as usize].seq(report.first_acked);
        }
    }
}
