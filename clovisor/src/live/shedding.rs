//! Carries out what [`Overload`] decides: tells the tracer and the kernel side, and says so in the log.
//!
//! It refuses to decide anything itself.

use std::{collections::BTreeMap, fmt::Write as _};

use clovisor_common::ShedValue;
use clovisor_trace::{ALL_LOTS, Loss};

use crate::{
    datapath::{
        clock,
        kernel::{Kernel, KernelError},
        shares::LeftOut,
    },
    overload::{Bounds, Level, Overload, Setting},
    pipeline::Pipeline,
};

/// Least time between two lines in the log, nanoseconds.
const SAY_EVERY_NS: u64 = 1_000_000_000;
/// Interfaces named on one line.
const MOST_NAMED: usize = 8;

/// Interfaces that are gone or not known, where only pods are named.
const OTHERS: &str = "others";

/// What is left out, and what was.
pub(super) struct Shedding {
    overload: Overload,
    unneeded: [Option<u64>; 2],
    left_out: LeftOut,
    /// What was told of interfaces.
    shares: BTreeMap<u32, u32>,
    sharers: usize,
    said: Level,
    said_ns: Option<u64>,
}

impl Shedding {
    pub(super) fn new(setting: Setting, buffer: usize, now_ns: u64) -> Self {
        let bounds = Bounds { buffer, cpu: setting.cpu };
        Self {
            overload: Overload::new(bounds, now_ns),
            unneeded: setting.unneeded,
            left_out: LeftOut::default(),
            shares: BTreeMap::new(),
            sharers: 1,
            said: Level::Nothing,
            said_ns: None,
        }
    }

    pub(super) fn packet(&mut self, interface: u32, captured: u32) {
        self.overload.packet(interface, captured);
    }

    pub(super) fn lost(&mut self, loss: &Loss) {
        self.overload.lost(loss.interface, loss.packets);
    }

    /// What has waited was fetched, and so many interfaces are traced: decides, if it is time to.
    pub(super) fn fetched(
        &mut self,
        kernel: &mut Kernel,
        pipeline: &mut Pipeline,
        interfaces: usize,
        now_ns: u64,
    ) {
        if self.overload.fetched(now_ns) {
            let before = self.overload.level();
            if before == Level::Sessions {
                self.look(kernel);
            }
            self.overload.decide(now_ns, clock::process_ns());
            let level = self.overload.level();
            if level != before {
                pipeline.tell_unneeded(self.unneeded[usize::from(level > Level::Nothing)]);
            }
            self.tell(kernel, pipeline, interfaces);
        }
        while let Some(shed) = pipeline.poll_shed() {
            match kernel.leave_out(&shed) {
                Ok(()) => pipeline.left_out(&shed, clock::monotonic_ns()),
                // The tracer then leaves out whatever comes.
                Err(error) => tracing::debug!("cannot tell the kernel to leave out a connection: {error}"),
            }
        }
    }

    /// Brings up to date what the kernel side has left out.
    pub(super) fn look(&mut self, kernel: &Kernel) {
        match self.left_out.look(kernel) {
            Ok(news) => {
                for (interface, packets) in news {
                    self.overload.shed(interface, packets);
                }
            }
            // The account of it then shows what is missing.
            Err(error) => tracing::debug!("cannot look at what is left out: {error}"),
        }
    }

    /// Tells of shares that have changed.
    fn tell(&mut self, kernel: &mut Kernel, pipeline: &mut Pipeline, interfaces: usize) {
        let sharers = self.overload.sharers(interfaces);
        if sharers != self.sharers && kernel.set_sharers(sharers as u64).is_ok() {
            self.sharers = sharers;
        }
        let shares = self.overload.shares();
        let over = self.shares.keys().filter(|interface| !shares.contains_key(interface));
        let changed: Vec<_> = (shares.iter().map(|(interface, share)| (*interface, Some(*share))))
            .chain(over.map(|interface| (*interface, None)))
            .filter(|(interface, share)| self.shares.get(interface).copied() != *share)
            .collect();
        for (interface, share) in changed {
            // What the kernel side does not know is tried again, and the tracer must not be ahead of it.
            if let Err(error) = kernel.set_share(interface, share) {
                tracing::debug!("cannot tell the kernel the share of interface {interface}: {error}");
                continue;
            }
            pipeline.set_share(interface, share);
            match share {
                Some(share) => self.shares.insert(interface, share),
                None => self.shares.remove(&interface),
            };
        }
    }

    /// An interface was detached a while ago.
    pub(super) fn forget(&mut self, kernel: &mut Kernel, interface: u32) -> Result<(), KernelError> {
        self.look(kernel);
        self.overload.forget(interface);
        self.shares.remove(&interface);
        self.left_out.forget(kernel, interface)
    }

    pub(super) fn level(&self) -> Level {
        self.overload.level()
    }

    /// What was left out, by pod or interface.
    pub(super) fn totals(
        &mut self,
        kernel: &Kernel,
        called: impl Fn(u32) -> String,
    ) -> BTreeMap<String, ShedValue> {
        self.look(kernel);
        let mut totals = BTreeMap::<String, ShedValue>::new();
        for (id, shed) in self.left_out.by_interface().chain([(None, self.left_out.past())]) {
            let sum = totals.entry(id.map_or_else(|| OTHERS.to_owned(), &called)).or_default();
            sum.packets += shed.packets;
            sum.sessions += shed.sessions;
        }
        totals
    }

    /// The line that is due, if one is: what is left out now, if that is something else than was said last, once a second at most.
    pub(super) fn line(&mut self, now_ns: u64, called: impl Fn(u32) -> String) -> Option<String> {
        let level = self.overload.level();
        let early = self.said_ns.is_some_and(|said| now_ns.saturating_sub(said) < SAY_EVERY_NS);
        if level == self.said || early {
            return None;
        }
        let before = std::mem::replace(&mut self.said, level);
        self.said_ns = Some(now_ns);
        if level == Level::Nothing {
            return Some("no longer overloaded: nothing is left out".to_owned());
        }
        let why = self.overload.pressure().name();
        let mut line = if level > before {
            format!("overloaded, as {why}: leaving out {}", level.name())
        } else {
            format!("less overloaded: leaving out {} only", level.name())
        };
        let mut named = 0;
        for (interface, share) in self.overload.shares().iter().take(MOST_NAMED) {
            let between = if named == 0 { "; traced are" } else { "," };
            let percent = u64::from(*share) * 100 / u64::from(ALL_LOTS);
            _ = write!(line, "{between} {percent} % of the connections of {}", called(*interface));
            named += 1;
        }
        let more = self.overload.shares().len() - named;
        if more > 0 {
            _ = write!(line, " and parts of {more} more interfaces");
        }
        Some(line)
    }
}

/// The pod that an interface is of, or what people call it.
pub(super) fn whose(pipeline: &Pipeline, names: &BTreeMap<u32, String>, id: u32) -> String {
    let text = |key| pipeline.resource(id)?.text(key);
    match (text("k8s.namespace.name"), text("k8s.pod.name")) {
        (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
        _ => names.get(&id).cloned().unwrap_or_else(|| format!("interface {id}")),
    }
}
