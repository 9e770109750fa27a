//! The law of the whole way, from the kernel's counters to the last stage: what came in is what became of it.
//!
//! [`Books`] are one moment of all counters; [`Books::accounts`] holds each stage against the next, and
//! [`Books::balance`] says whether all of them add up. It refuses to put anything right: a count that does not add up
//! stays as it is, is printed as such, and is a fault in Clovisor.
//!
//! Exact at the end, when the kernel side is detached and the buffers are empty ([`KernelSide::still`]). Before that the kernel
//! goes on counting while it is read, so two accounts are laws in one direction: whoever makes the books reads the verdicts
//! first, so that at least what they count must be found behind them, and what is found beyond that came since
//! ([`Account::open`]). All others are exact at any moment, as they are counted by the thread that reads them, or under one lock.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use clovisor_common::{ShedValue, Verdict};
use clovisor_trace::{Imbalance, Ledger};

use crate::{
    datapath::{kernel::Verdicts, packets::Counters},
    export::Snapshot,
    overload::Level,
};

/// What came in, then what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// What is counted.
    pub of: &'static str,
    /// How many came in.
    pub came: u64,
    /// What became of them; all parts together are `came`, or the account does not balance.
    pub parts: Vec<(Cow<'static, str>, u64)>,
    /// Which one of several of this name.
    pub note: String,
    /// Whether more may have come since `came` was read, so that the parts may be more, and never less.
    pub open: bool,
    /// Whether it is shown to users where it balances; others repeat what those say.
    pub shown: bool,
}

impl Account {
    /// An account that is shown.
    #[must_use]
    pub fn new(of: &'static str, came: u64, parts: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        let parts = parts.into_iter().map(|(name, count)| (name.into(), count)).collect();
        Self { of, came, parts, shown: true, ..Self::default() }
    }

    /// All parts together.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.parts.iter().map(|(_, count)| count).sum()
    }

    /// By how much the parts do not make up the whole.
    #[must_use]
    pub fn difference(&self) -> u64 {
        if self.open {
            self.came.saturating_sub(self.accounted())
        } else {
            self.came.abs_diff(self.accounted())
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.difference() {
            0 if self.open => "<=",
            0 => "=",
            _ => "IS NOT (please report this)",
        };
        write!(f, "{:9} {} {sign} ", self.of, self.came)?;
        let mut parts = self.parts.iter().filter(|(_, count)| *count > 0);
        match parts.next() {
            None => write!(f, "0")?,
            Some((name, count)) => write!(f, "{count} {name}")?,
        }
        parts.try_for_each(|(name, count)| write!(f, " + {count} {name}"))?;
        if self.note.is_empty() { Ok(()) } else { write!(f, " ({})", self.note) }
    }
}

/// What happened to packets before they came to the tracer, live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSide {
    /// What the classifiers did, read before all else.
    pub verdicts: Verdicts,
    /// What came over the buffers.
    pub buffers: Counters,
    /// Packets lost, by interface: what the tracer was told.
    pub lost: Vec<(String, u64)>,
    /// What was left out, by pod or interface: packets, and the sessions that they began.
    pub shed: BTreeMap<String, ShedValue>,
    /// What is left out now.
    pub level: Level,
    /// Packets that were only counted, and not yet told.
    pub untold: u64,
    /// Packets lost, by CPU.
    pub lost_by_cpu: Vec<u64>,
    /// Whether nothing comes any more: detached, and the buffers are empty.
    pub still: bool,
}

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel.
    Kernel(Box<KernelSide>),
    /// A capture file.
    File {
        /// Packets in it, as far as it was read.
        packets: u64,
        /// Those that the rules did not pick.
        not_selected: u64,
    },
}

impl Default for Source {
    fn default() -> Self {
        Self::Kernel(Box::default())
    }
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sinks {
    /// Each span to each of these, by name.
    Each(Vec<(String, Snapshot)>),
    /// Each span to one of these, by kind.
    One(BTreeMap<&'static str, Snapshot>),
}

impl Default for Sinks {
    fn default() -> Self {
        Self::One(BTreeMap::new())
    }
}

/// One moment of all counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Packets on their way to the tracer.
    pub source: Source,
    /// Packets that came to be written into a capture file, if one is written.
    pub capture: Option<Account>,
    /// Packets, flows and sessions in the tracer.
    pub tracer: Ledger,
    /// Sessions of which a span was handed on.
    pub handed_on: u64,
    /// Sessions of which the sampler wants no span.
    pub sampled_out: u64,
    /// Sessions that ended after the user's limit was reached.
    pub beyond_limit: u64,
    /// Spans that no sink took because the program was asked to end, or its reader has gone.
    pub not_taken: u64,
    /// Spans in the sinks.
    pub sinks: Sinks,
}

impl Books {
    /// The kernel side, if packets come from there.
    #[must_use]
    pub fn kernel(&self) -> Option<&KernelSide> {
        match &self.source {
            Source::Kernel(kernel) => Some(kernel),
            Source::File { .. } => None,
        }
    }

    /// Packets that were wanted: those captured, and those lost.
    #[must_use]
    pub fn packets_wanted(&self) -> u64 {
        self.kernel().map_or(0, |kernel| kernel.verdicts.emitted() + kernel.verdicts.lost())
    }

    /// Packets that were wanted and lost, by reason.
    #[must_use]
    pub fn packets_lost(&self) -> [(&'static str, u64); 4] {
        let kernel = self.kernel().cloned().unwrap_or_default();
        [
            ("buffer_full", kernel.verdicts.of(Verdict::LostNoRoom)),
            ("no_reader", kernel.verdicts.of(Verdict::LostNoReader)),
            ("fragment_dropped", self.tracer.fragments_dropped),
            ("unreadable", kernel.buffers.invalid),
        ]
    }

    /// Sessions that were left out: those that packets began which the kernel side left out, or the tracer.
    #[must_use]
    pub fn sessions_shed(&self) -> u64 {
        let by_kernel =
            self.kernel().map_or(0, |kernel| kernel.shed.values().map(|shed| shed.sessions).sum());
        by_kernel + self.tracer.shed_requests
    }

    /// What became of the spans of all sinks together.
    #[must_use]
    pub fn spans(&self) -> Snapshot {
        let add = |all, spans: &Snapshot| all + *spans;
        match &self.sinks {
            Sinks::Each(sinks) => sinks.iter().map(|(_, spans)| spans).fold(Snapshot::default(), add),
            Sinks::One(sinks) => sinks.values().fold(Snapshot::default(), add),
        }
    }

    /// Every account, in the order of the way.
    #[must_use]
    pub fn accounts(&self) -> Vec<Account> {
        let mut accounts = self.packets();
        accounts.extend(self.capture.clone());
        let tracer = &self.tracer;
        let hidden = |account| Account { shown: false, ..account };
        accounts.push(hidden(Account::new("traced", tracer.packets, fates(tracer))));
        let flows = [("ended", tracer.flows_ended), ("open", tracer.flows_open)];
        accounts.push(hidden(Account::new("flows", tracer.flows_begun, flows)));
        let outcomes = [("ended", tracer.sessions_ended()), ("open", tracer.sessions_open)];
        accounts.push(hidden(Account::new("outcomes", tracer.sessions_begun, outcomes)));
        let sessions = [
            ("handed on", self.handed_on),
            ("sampled out", self.sampled_out),
            ("beyond the limit", self.beyond_limit),
            ("open", tracer.sessions_open),
        ];
        accounts.push(Account::new("sessions", tracer.sessions_begun, sessions));
        match &self.sinks {
            Sinks::Each(sinks) => accounts.extend(
                sinks.iter().map(|(name, spans)| Account { note: name.clone(), ..self.spans_of(spans) }),
            ),
            Sinks::One(_) => accounts.push(self.spans_of(&self.spans())),
        }
        accounts
    }

    /// The packets' accounts up to the tracer.
    fn packets(&self) -> Vec<Account> {
        let fates = fates(&self.tracer);
        match &self.source {
            Source::File { packets, not_selected } => {
                vec![Account::new(
                    "packets",
                    *packets,
                    fates.into_iter().chain([("not selected", *not_selected)]),
                )]
            }
            Source::Kernel(kernel) => {
                let lost = Account {
                    of: "lost",
                    came: kernel.verdicts.lost(),
                    parts: kernel.lost.iter().map(|(name, count)| (name.clone().into(), *count)).collect(),
                    open: !kernel.still,
                    shown: kernel.verdicts.lost() > 0,
                    ..Account::default()
                };
                let shed = Account {
                    of: "shed",
                    came: kernel.verdicts.of(Verdict::Shed),
                    parts: kernel
                        .shed
                        .iter()
                        .map(|(name, shed)| (format!("of {name}").into(), shed.packets))
                        .collect(),
                    note: format!("about {} sessions", self.sessions_shed()),
                    open: !kernel.still,
                    shown: self.sessions_shed() > 0 || kernel.verdicts.of(Verdict::Shed) > 0,
                };
                let tracer = &self.tracer;
                let counted = Account {
                    shown: kernel.verdicts.of(Verdict::Counted) > 0,
                    open: !kernel.still,
                    ..Account::new(
                        "counted",
                        kernel.verdicts.of(Verdict::Counted),
                        [
                            ("of sessions", tracer.counted),
                            ("after the end", tracer.counted_late),
                            ("not told yet", kernel.untold),
                        ],
                    )
                };
                let more = [("unreadable", kernel.buffers.invalid), ("held back", kernel.buffers.held)];
                let captured =
                    Account::new("captured", kernel.verdicts.emitted(), fates.into_iter().chain(more));
                vec![seen(&kernel.verdicts), lost, shed, counted, Account { open: !kernel.still, ..captured }]
            }
        }
    }

    fn spans_of(&self, spans: &Snapshot) -> Account {
        let parts = [
            ("exported", spans.exported),
            ("queued", spans.queued),
            ("lost, queue full", spans.dropped_queue_full),
            ("lost, given up", spans.dropped_given_up),
            ("lost, refused", spans.dropped_refused),
            ("not taken", self.not_taken),
        ];
        Account::new("spans", self.handed_on, parts)
    }

    /// Whether everything that came in is accounted for.
    ///
    /// # Errors
    /// The first account that does not add up.
    pub fn balance(&self) -> Result<(), Imbalance> {
        self.tracer.balance()?;
        match self.accounts().iter().find(|account| account.difference() > 0) {
            None => Ok(()),
            Some(wrong) => Err(Imbalance { of: wrong.of, came: wrong.came, accounted: wrong.accounted() }),
        }
    }
}

/// What the kernel side did with the packets that it saw. Each has one verdict, so this is what was seen by
/// construction; that every packet of an interface is seen is shown by tests, against the interface's own counters.
fn seen(verdicts: &Verdicts) -> Account {
    let name = |verdict| match verdict {
        Verdict::Emitted => "captured",
        Verdict::EmittedCut => "captured cut",
        Verdict::EmittedTrimmed => "captured without payload",
        Verdict::NotIp => "not IP",
        Verdict::NotTcp => "not TCP",
        Verdict::NotSelected => "not selected",
        Verdict::Malformed => "malformed",
        Verdict::FragmentNotSelected => "fragments not selected",
        Verdict::LostNoRoom => "LOST, buffer full",
        Verdict::LostNoReader => "LOST, no reader",
        Verdict::Shed => "left out",
        Verdict::Counted => "only counted",
    };
    let parts = Verdict::ALL.map(|verdict| (name(verdict), verdicts.of(verdict)));
    Account::new("packets", verdicts.total(), parts)
}

/// What became of packets in the tracer.
fn fates(ledger: &Ledger) -> [(&'static str, u64); 8] {
    [
        ("of sessions", ledger.segments),
        ("fragments joined", ledger.fragments - ledger.fragments_dropped),
        ("fragments lost", ledger.fragments_dropped),
        ("without a connection", ledger.stray),
        ("after the end", ledger.after_end),
        ("left out", ledger.shed),
        ("not TCP", ledger.not_tcp),
        ("malformed", ledger.malformed),
    ]
}

#[cfg(test)]
mod tests;
