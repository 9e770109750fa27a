//! Part of a stream, from one segment.

use crate::anatomy::Trouble;

/// What ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    Fin,
    Reset,
}

/// Part of a stream from one segment.
#[derive(Clone, Debug)]
pub(crate) struct Piece<B> {
    pub(crate) offset: u64,
    pub(crate) time_ns: u64,
    /// How far its sender had acknowledged the opposite stream; 0 if it said nothing.
    pub(crate) acked: u64,
    /// Whether its sender may have acknowledged less when it first sent it: this is a repetition.
    pub(crate) is_bound: bool,
    pub(crate) bytes: B,
    /// Bytes behind `bytes` that the segment had on the wire but the capture cut.
    pub(crate) cut: u64,
    pub(crate) mark: Mark,
    /// Segments that begin with it: none if a part of its segment was delivered before, more than one if they were only counted.
    pub(crate) packets: u32,
    /// Whether it was sent, or the receiver even had it, before it came here.
    pub(crate) is_old: bool,
    /// What is wrong with how its first byte came.
    pub(crate) trouble: Option<Trouble>,
}

/// How an incoming piece was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is next: deliver it now, its first so many bytes left out, without a copy.
    Now(usize),
    /// It waits for its turn.
    Queued,
    /// All of it was delivered before.
    Repeated,
}

impl<B: AsRef<[u8]>> Piece<B> {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes.as_ref().len() as u64 + self.cut
    }
}

impl Piece<Vec<u8>> {
    /// Takes off what is before an offset.
    pub(super) fn trim(&mut self, offset: u64) {
        if offset <= self.offset {
            return;
        }
        let (end, bytes_end) = (self.end(), self.offset + self.bytes.len() as u64);
        let skip =
            usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..skip);
        if skip > 0 {
            self.packets = 0;
        }
        self.cut = end - bytes_end.max(offset).min(end);
        self.offset = self.offset.max(offset);
    }
}
