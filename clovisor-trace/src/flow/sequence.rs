//! Sequence numbers of one direction as 64-bit offsets, so that wrapping (RFC 9293 section 3.4) stops here.

/// Offset of the first sequence number met, far from zero so that earlier bytes have offsets too.
const ORIGIN: u64 = 1 << 33;
/// A segment further off than TCP's largest window (RFC 7323 section 2.3) does not belong to the connection.
const WINDOW: i64 = 1 << 30;

/// A sequence number and its offset, from which others are reckoned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    anchor: Option<(u32, u64)>,
}

impl Sequence {
    /// Offset of a sequence number; `None` if it is too far off to be of this connection.
    pub(super) fn offset(&mut self, seq: u32) -> Option<u64> {
        let (anchor, at) = *self.anchor.get_or_insert((seq, ORIGIN));
        let distance = i64::from(seq.wrapping_sub(anchor).cast_signed());
        (distance.abs() <= WINDOW).then(|| at.saturating_add_signed(distance))
    }

    /// Sequence number at an offset.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
    pub(super) fn seq(&self, offset: u64) -> u32 {
        self.anchor.map_or(0, |(anchor, at)| anchor.wrapping_add(offset.wrapping_sub(at) as u32))
    }

    /// Follows the stream to an offset, so that no distance ever reaches half of the sequence space.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are offsets modulo 2^32")]
    pub(super) fn follow(&mut self, offset: u64) {
        if let Some((seq, at)) = &mut self.anchor {
            *seq = seq.wrapping_add(offset.saturating_sub(*at) as u32);
            *at = offset.max(*at);
        }
    }
}
