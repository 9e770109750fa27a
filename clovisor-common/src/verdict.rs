//! What became of a packet in the kernel: each packet gets exactly one verdict, each verdict has a counter.

use crate::direction;

/// What a classifier did with a packet. Every one of them lets the chain go on.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Captured whole.
    Emitted = 0,
    /// Captured, but cut at [`MAX_CAPTURE`](crate::MAX_CAPTURE).
    EmittedCut = 1,
    /// Neither IPv4 nor IPv6.
    NotIp = 2,
    /// IP, but not TCP.
    NotTcp = 3,
    /// TCP, but neither a listening port nor an egress target.
    NotSelected = 4,
    /// A header is cut short or contradicts itself.
    Malformed = 5,
    /// A later fragment whose first fragment was not selected, or not seen.
    FragmentNotSelected = 6,
    /// Selected, but the buffer had no room.
    LostNoRoom = 7,
    /// Selected, but nothing reads the perf buffer of this CPU (-ENOENT), or the copy failed (-EFAULT).
    LostNoReader = 8,
    /// Captured without its payload, which nobody looks at ([`Window`](crate::Window)).
    EmittedTrimmed = 9,
    /// Selected, but of a connection that is left out, because its interface is over its share ([`SessionValue`](crate::SessionValue)).
    Shed = 10,
    /// Selected, but only counted, since it says nothing but that bytes go on that nobody looks at ([`counting`](crate::counting)).
    Counted = 11,
}

impl Verdict {
    /// All verdicts, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Emitted,
        Self::EmittedCut,
        Self::NotIp,
        Self::NotTcp,
        Self::NotSelected,
        Self::Malformed,
        Self::FragmentNotSelected,
        Self::LostNoRoom,
        Self::LostNoReader,
        Self::EmittedTrimmed,
        Self::Shed,
        Self::Counted,
    ];

    /// Those of packets that got to user space, or their headers did.
    pub const EMITTED: [Self; 3] = [Self::Emitted, Self::EmittedCut, Self::EmittedTrimmed];

    /// Those of packets that were wanted and did not get to user space.
    pub const LOST: [Self; 2] = [Self::LostNoRoom, Self::LostNoReader];

    /// Number of counters: one for each verdict and direction.
    pub const COUNTERS: u32 = Self::ALL.len() as u32 * 2;

    /// Index of the counter of this verdict for packets of a [`direction`].
    #[must_use]
    pub const fn index(self, dir: u8) -> u32 {
        self as u32 + if dir == direction::TO_POD { Self::ALL.len() as u32 } else { 0 }
    }

    /// Name in ledgers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emitted => "emitted",
            Self::EmittedCut => "emitted_cut",
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::NotSelected => "not_selected",
            Self::Malformed => "malformed",
            Self::FragmentNotSelected => "fragment_not_selected",
            Self::LostNoRoom => "lost_no_room",
            Self::LostNoReader => "lost_no_reader",
            Self::EmittedTrimmed => "emitted_trimmed",
            Self::Shed => "shed",
            Self::Counted => "counted",
        }
    }
}
