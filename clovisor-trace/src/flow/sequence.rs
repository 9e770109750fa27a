//! Sequence numbers of one direction as 64-bit offsets, so that wrapping (RFC 9293 section 3.4) stops here.

/// Offset of the first sequence number met, far from zero so that earlier bytes have offsets too.
const ORIGIN: u64 = 1 << 33;
/// A segment further off than TCP's largest window (RFC 7323 section 2.3) does not belong to the connection.
const WINDOW: i64 = 1 << 30;

/// A sequence number and its offset, from which others are reckoned; and the one that names the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    /// Zero as long as none was met, which no offset is.
    at: u64,
    anchor: u32,
    /// Of the first byte, once the start is known.
    first: u32,
}

impl Sequence {
    /// Offset of a sequence number; `None` if it is too far off to be of this connection.
    #[inline]
    pub(super) fn offset(&mut self, seq: u32) -> Option<u64> {
        if self.at == 0 {
            (self.anchor, self.at) = (seq, ORIGIN);
        }
        let distance = i64::from(seq.wrapping_sub(self.anchor).cast_signed());
        (distance.abs() <= WINDOW).then(|| self.at.saturating_add_signed(distance))
    }

    /// Sequence number at an offset.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
    pub(super) fn seq(&self, offset: u64) -> u32 {
        if self.at == 0 { 0 } else { self.anchor.wrapping_add(offset.wrapping_sub(self.at) as u32) }
    }

    /// Follows the stream to an offset, so that no distance ever reaches half of the sequence space.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
    #[inline]
    pub(super) fn follow(&mut self, offset: u64) {
        if self.at != 0 && offset > self.at {
            self.anchor = self.anchor.wrapping_add((offset - self.at) as u32);
            self.at = offset;
        }
    }

    /// The stream starts at this offset.
    pub(super) fn start(&mut self, offset: u64) {
        self.first = self.seq(offset);
    }

    /// Sequence number at the start, if that was told.
    pub(super) fn first(&self) -> u32 {
        self.first
    }
}
