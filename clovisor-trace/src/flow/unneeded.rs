//! Stretches of a stream that nobody looks at: bodies of known length, tunnels, connections without a parser.
//!
//! Whoever picks packets is told, so that it need not copy them, only their headers, or count them ([`counted`](super::counted)). What then comes without its payload is
//! taken as if it had come: any bytes will do, and all that follows is the same. It refuses to take anything so that was not told
//! before: that is a gap.

use std::{net::SocketAddr, ops::Range};

use super::{Flow, Key, Mark, Piece, Stream};
use crate::{
    limits::Limits,
    packet::{Segment, Side, Toward},
    protocol::Conversation,
};

/// Most bytes that are told of at once. What is in the stretch must be told from what is behind it by 32 bits of sequence
/// number, also where packets come late.
const LONGEST: u64 = 1 << 30;
/// Packets in a row of which the headers came where they could have been counted, until it is told again that nothing is missing: whoever
/// picks packets may have seen some in another order than they came here, and waits to hear that all are here. To tell costs as much as one
/// such packet or two.
const TOLD_AGAIN_AFTER: u8 = 32;
/// In the place of bytes that nobody looks at; most packets have no more.
static ANY: [u8; 64 << 10] = [0; 64 << 10];

/// What is wished of whoever picks the packets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unneeded {
    /// Number of the interface.
    pub interface: u32,
    /// Whether the pod there is server or client.
    pub side: Side,
    /// Address of the client.
    pub client: SocketAddr,
    /// Address of the server.
    pub server: SocketAddr,
    /// What is wished.
    pub wish: Wish,
}

/// What can be wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Bytes of each direction that nobody looks at, first of the client: of packets that have no others the headers are enough, or
    /// that they are counted. This takes the place of what was told before.
    Spare {
        /// Sequence numbers from the first of these bytes up to behind the last, less than 2^31 apart; equal if there are none. What
        /// is before the first has come, or is not waited for any more.
        bytes: [(u32, u32); 2],
        /// Whether packets may be counted: nothing of either direction is missing, both have begun, and since what was told before is
        /// heeded, a packet of each was the newest of it. So whoever picks packets has seen how far both have come, even if it did
        /// not remember that when it heard of the connection first.
        counts: bool,
    },
    /// The connection has been silent, as far as is known here: whether anything was counted is to be answered by
    /// [`Tracer::answer_counted`](crate::Tracer::answer_counted). It is soon given up.
    Ask,
    /// The connection is no longer followed: all bytes are needed again.
    Forget,
}

/// What a flow has told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) ways: [ToldWay; 2],
    /// When the last packet had come and when it was asked, if it waits for an answer.
    pub(super) asked: Option<(u64, u64)>,
    /// Whether something has been missing since, so that nothing was counted; it is told again when all has come.
    has_missed: bool,
    /// Packets that have come since without payload and with nothing counted among them.
    pub(super) trimmed: u8,
    /// Directions of which a packet was the newest since one has come without its payload.
    met: [bool; 2],
}

/// What was told of a direction.
#[derive(Default)]
pub(super) struct ToldWay {
    /// Offsets of the bytes that nobody looks at.
    range: Range<u64>,
    /// Offset up to which packets are known to have been counted.
    pub(super) counted: u64,
}

impl Told {
    /// Notes a packet that is the newest of its direction. Whether with it there is one of each since what was told is heeded.
    fn meet(&mut self, toward: Toward, segment: &Segment<'_>, stream: &Stream) -> bool {
        let is_heeded = self.met != [false; 2] || (segment.payload.is_empty() && segment.payload_len > 0);
        let end = segment.seq.wrapping_add(segment.payload_len);
        let is_newest = stream.next().is_some_and(|next| stream.seq(next) == end);
        let is_news = is_heeded && is_newest && !std::mem::replace(&mut self.met[toward as usize], true);
        is_news && self.met == [true; 2]
    }
}

impl Unneeded {
    pub(super) fn new(key: &Key, wish: Wish) -> Self {
        let Key { interface, side, client, server } = *key;
        Self { interface, side, client: client.into(), server: server.into(), wish }
    }

    pub(super) fn key(&self) -> Key {
        Key::of(self.interface, self.side, self.client, self.server)
    }
}

impl Flow {
    /// What is to be told when a segment of a direction has come, or some were counted, if anything.
    pub(super) fn tell_unneeded(
        &mut self,
        key: &Key,
        toward: Toward,
        segment: Option<&Segment<'_>>,
        limits: &Limits,
    ) -> Option<Unneeded> {
        let least = limits.unneeded?;
        let is_ready = self.is_told_again(toward, segment);
        let brings = segment.is_none_or(|segment| segment.payload_len > 0);
        ((brings && self.has_more_unneeded(toward, least)) || is_ready).then(|| self.spare(key))
    }

    /// Whether there are more bytes ahead that nobody looks at than was told.
    fn has_more_unneeded(&mut self, toward: Toward, least: u64) -> bool {
        let Some(next) = self.streams[toward as usize].next() else { return false };
        let told = self.told.as_ref().map_or(0..0, |told| told.ways[toward as usize].range.clone());
        let until = next.saturating_add(self.conversation.unneeded(toward).min(LONGEST));
        let ahead = told.end.saturating_sub(next);
        // Of what has no end the rest is told when half of it has come.
        let is_news = until.saturating_sub(next + ahead) >= least && ahead < LONGEST / 2;
        if is_news {
            let start = if told.contains(&next) { told.start } else { next };
            self.told.get_or_insert_default().ways[toward as usize].range = start..until;
        }
        is_news
    }

    /// Whether packets may be counted, and that is news: something was missing, nothing is counted, or how far both directions have come
    /// was not known to whoever picks packets.
    fn is_told_again(&mut self, toward: Toward, segment: Option<&Segment<'_>>) -> bool {
        let Some(told) = &mut self.told else { return false };
        let has_met = segment.is_some_and(|it| told.meet(toward, it, &self.streams[toward as usize]));
        let is_trimmed = segment.is_some_and(Segment::is_trimmed);
        told.trimmed = told.trimmed.saturating_add(is_trimmed.into());
        let is_whole = self.streams.iter().all(Stream::is_whole);
        let has_missed = std::mem::replace(&mut told.has_missed, !is_whole);
        is_whole && (has_missed || has_met || told.trimmed >= TOLD_AGAIN_AFTER)
    }

    /// All that nobody looks at, as it is told now.
    fn spare(&mut self, key: &Key) -> Unneeded {
        let is_met = self.told.as_mut().is_some_and(|told| {
            told.trimmed = 0;
            told.met == [true; 2]
        });
        let bytes = Toward::BOTH.map(|toward| {
            let stream = &self.streams[toward as usize];
            let end = self.told.as_ref().map_or(0, |told| told.ways[toward as usize].range.end);
            let next = stream.next().unwrap_or(0);
            (stream.seq(next), stream.seq(end.max(next)))
        });
        let counts = is_met && self.streams.iter().all(Stream::is_whole);
        Unneeded::new(key, Wish::Spare { bytes, counts })
    }

    /// A piece with any bytes in the place of those that did not come because nobody looks at them, in parts of as many as are at
    /// hand.
    pub(super) fn parts<'a>(
        &self,
        toward: Toward,
        piece: Piece<&'a [u8]>,
    ) -> impl Iterator<Item = Piece<&'a [u8]>> + use<'a> {
        let told = self.told.as_ref().map(|told| told.ways[toward as usize].range.clone());
        let is_told =
            told.is_some_and(|told| told.start <= piece.end() - piece.cut && piece.end() <= told.end);
        let mut rest = Some(piece);
        std::iter::from_fn(move || {
            let piece = rest.take()?;
            if piece.cut == 0 || !is_told {
                return Some(piece);
            }
            let most = usize::try_from(piece.cut).unwrap_or(usize::MAX).min(ANY.len());
            let bytes = if piece.bytes.is_empty() { &ANY[..most] } else { piece.bytes };
            let offset = piece.offset + bytes.len() as u64;
            let cut = piece.end() - offset;
            if cut == 0 {
                return Some(Piece { bytes, cut, ..piece });
            }
            rest = Some(Piece { offset, bytes: &[], cut, packets: 0, ..piece });
            Some(Piece { bytes, cut: 0, mark: Mark::None, ..piece })
        })
    }
}
