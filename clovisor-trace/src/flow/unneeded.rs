//! Stretches of a stream that nobody looks at: bodies of known length, tunnels, connections without a parser.
//!
//! Whoever picks packets is told, so that it need not copy them, only their headers. What then comes without its payload is
//! taken as if it had come: any bytes will do, and all that follows is the same. It refuses to take anything so that was not told
//! before: that is a gap.

use std::{net::SocketAddr, ops::Range};

use super::{Flow, Key, Mark, Piece};
use crate::{limits::Limits, packet::Toward, protocol::Conversation};

/// Most bytes that are told of at once. What is in the stretch must be told from what is behind it by 32 bits of sequence
/// number, also where packets come late.
const LONGEST: u64 = 1 << 30;
/// In the place of bytes that nobody looks at; most packets have no more.
static ANY: [u8; 64 << 10] = [0; 64 << 10];

/// Bytes of one direction of a connection that nobody looks at: of packets that have no others the headers are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unneeded {
    /// Number of the interface.
    pub interface: u32,
    /// Address of the client.
    pub client: SocketAddr,
    /// Address of the server.
    pub server: SocketAddr,
    /// The direction.
    pub toward: Toward,
    /// Sequence numbers from the first of these bytes up to behind the last, less than 2^31 apart. This takes the place of what was
    /// told of the direction before; if both are equal, nothing else does.
    pub bytes: (u32, u32),
}

/// What was told of a direction, in offsets.
pub(super) type Told = Range<u64>;

impl Flow {
    /// What is to be told of a direction, if anything.
    pub(super) fn tell_unneeded(&mut self, key: &Key, toward: Toward, limits: &Limits) -> Option<Unneeded> {
        let least = limits.unneeded?;
        let next = self.streams[toward as usize].next()?;
        let told = self.told.as_ref().map_or(0..0, |told| told[toward as usize].clone());
        let until = next.saturating_add(self.conversation.unneeded(toward).min(LONGEST));
        let ahead = told.end.saturating_sub(next);
        // Of what has no end the rest is told when half of it has come.
        if until.saturating_sub(next + ahead) < least || ahead >= LONGEST / 2 {
            return None;
        }
        let goes_on = told.contains(&next);
        let told = if goes_on { told.start } else { next }..until;
        self.told.get_or_insert_with(|| Box::new([0..0, 0..0]))[toward as usize] = told;
        Some(self.unneeded(key, toward, next..until))
    }

    /// Takes back what was told, once the flow is no longer followed.
    pub(super) fn take_back(&self, key: &Key) -> impl Iterator<Item = Unneeded> {
        Toward::BOTH.into_iter().filter_map(move |toward| {
            let stream = &self.streams[toward as usize];
            let next = stream.next()?;
            self.told
                .as_ref()
                .is_some_and(|told| told[toward as usize].end > next)
                .then(|| self.unneeded(key, toward, next..next))
        })
    }

    fn unneeded(&self, key: &Key, toward: Toward, bytes: Range<u64>) -> Unneeded {
        let Key { interface, client, server, .. } = *key;
        let stream = &self.streams[toward as usize];
        Unneeded {
            interface,
            client: client.into(),
            server: server.into(),
            toward,
            bytes: (stream.seq(bytes.start), stream.seq(bytes.end)),
        }
    }

    /// A piece with any bytes in the place of those that did not come because nobody looks at them, in parts of as many as are at
    /// hand.
    pub(super) fn parts<'a>(
        &self,
        toward: Toward,
        piece: Piece<&'a [u8]>,
    ) -> impl Iterator<Item = Piece<&'a [u8]>> + use<'a> {
        let told = self.told.as_ref().map(|told| told[toward as usize].clone());
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
            rest = Some(Piece { offset, bytes: &[], cut, continued: true, ..piece });
            Some(Piece { bytes, cut: 0, mark: Mark::None, ..piece })
        })
    }
}
