//! Live tracing: the kernel's packets through the pipeline, whoever decides what is attached.

mod said;
mod shedding;
mod sparing;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clovisor_common::protocol;
use clovisor_trace::{Protocol, SessionSpan, capture::Statistics};
use tokio::time::{Instant, sleep_until};

use crate::{
    capture::Capture,
    datapath::{
        attach::{AttachError, Attached, Attacher, How, Way},
        clock,
        interface::{Interface, Orientation},
        kernel::{self, Kernel, Verdicts},
        losses::Losses,
        packets::{Buffers, HOLD_BACK, Packets},
        spared::Spared,
    },
    ledger::{Books, KernelSide, Sinks, Source},
    overload::{Level, Setting},
    pipeline::{Names, Pipeline},
};
use said::Said;
use shedding::{Shedding, whose};
use sparing::hand_in;

/// How often packets are fetched: what waiting adds to the age of a span, against a wake-up each time.
pub(crate) const FETCH: Duration = Duration::from_millis(5);
/// The same where few packets come. A turn costs the same however few, as caches are cold; where many come, longer turns would keep a
/// processor from others for longer.
const SPARSE_FETCH: Duration = Duration::from_millis(10);
/// The same where no packets come, and the next one wakes us: sessions are then told of timeouts no later than this.
const QUIET_FETCH: Duration = Duration::from_millis(100);
/// How often it is checked that nothing has come in front of the classifiers.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);

/// The loaded kernel side, its packets, and what is made of them.
pub(crate) struct Live {
    kernel: Kernel,
    attacher: Attacher,
    packets: Packets,
    losses: Losses,
    /// What nobody looks at, and what was counted of it.
    spared: Spared,
    said: Said,
    /// What is left out under overload, if anything ever is.
    shedding: Option<Shedding>,
    /// Names of interfaces, by number, until they are retired.
    names: BTreeMap<u32, String>,
    pub(crate) pipeline: Pipeline,
    /// What to add to kernel time to get time since the Unix epoch.
    epoch_ns: u64,
    /// Where packets are written, if they are.
    capture: Option<Capture>,
    /// When packets were fetched last.
    fetched: Instant,
}

impl Live {
    /// Loads the kernel side; nothing is attached yet.
    pub(crate) fn load(
        attacher: Attacher,
        mut pipeline: Pipeline,
        buffers: Buffers,
        shedding: Option<Setting>,
        verbose: bool,
    ) -> Result<Self> {
        pipeline.keep_sessions();
        let mut kernel = Kernel::load(buffers, verbose).context("cannot load the eBPF programs")?;
        let packets = kernel.packets().context("cannot open the packet buffers")?;
        let mib = packets.buffer_bytes() >> 20;
        tracing::debug!("packets come by {}, {mib} MiB", packets.transport());
        let epoch_ns = clock::offset_to_unix_ns().cast_unsigned();
        let now_ns = clock::monotonic_ns();
        let losses = Losses::new(now_ns);
        let shedding = shedding.map(|setting| Shedding::new(setting, packets.buffer_bytes(), now_ns));
        let (said, names) = (Said::default(), BTreeMap::new());
        let (spared, capture) = (Spared::default(), None);
        Ok(Self {
            kernel,
            attacher,
            packets,
            losses,
            spared,
            said,
            shedding,
            names,
            pipeline,
            epoch_ns,
            capture,
            fetched: Instant::now(),
        })
    }

    /// What is to be added to kernel time to get time since the Unix epoch.
    pub(crate) fn epoch_ns(&self) -> u64 {
        self.epoch_ns
    }

    /// From now on writes every packet.
    pub(crate) fn write_to(&mut self, capture: Capture) {
        self.capture = Some(capture);
    }

    /// What packets are written to; after [`Self::stop`] to be closed.
    pub(crate) fn capture(&mut self) -> &mut Option<Capture> {
        &mut self.capture
    }

    /// Attaches an interface and says how.
    pub(crate) async fn attach(
        &mut self,
        interface: &Interface,
        names: Names,
        rules: &kernel::Rules,
        way: Way,
    ) -> Result<()> {
        self.pipeline.name(interface.id, names);
        let name = match &interface.namespace {
            Some(namespace) => format!("{} inside {}", interface.name, namespace.file().display()),
            None => interface.name.clone(),
        };
        self.names.insert(interface.id, name);
        self.kernel.set_rules(interface.id, rules)?;
        let attached = self
            .attacher
            .attach(&mut self.kernel, interface, way)
            .await
            .with_context(|| format!("cannot attach to {}", interface.name))?;
        let how = match attached.how {
            How::Clsact => "clsact filters",
            How::Tcx => "tcx links",
        };
        let seen = match (&interface.namespace, interface.orientation) {
            (Some(namespace), _) => format!("inside {}", namespace.file().display()),
            (None, Orientation::Host) => "from the host's end of the veth".to_owned(),
            (None, Orientation::Pod) => "from its own end".to_owned(),
        };
        tracing::info!("tracing {} {seen}, by {how}", interface.name);
        if !attached.first {
            tracing::warn!("another program runs first on {} and may keep packets from us", interface.name);
        }
        Ok(())
    }

    /// A number for an interface inside a pod's namespace.
    pub(crate) fn number(&mut self) -> u32 {
        self.attacher.number()
    }

    /// Changes rules and names of an attached interface; its flows go on.
    pub(crate) fn update(&mut self, interface: u32, names: Names, rules: &kernel::Rules) -> Result<()> {
        self.pipeline.name(interface, names);
        Ok(self.kernel.set_rules(interface, rules)?)
    }

    /// Takes the classifiers off an interface. Its last packets may still be on their way: see [`Self::retire`].
    pub(crate) async fn detach(&mut self, interface: u32) -> Result<(), AttachError> {
        self.attacher.detach(&mut self.kernel, interface).await
    }

    /// Hands on what is open on an interface that was detached a while ago.
    pub(crate) fn retire(&mut self, interface: u32, out: &mut impl FnMut(&SessionSpan<'_>)) {
        let now_ns = clock::monotonic_ns();
        self.look(now_ns);
        self.count_rest(Some(interface), now_ns);
        self.pipeline.finish_interface(interface, now_ns, self.epoch_ns, out);
        if let Err(error) = self.losses.forget(&mut self.kernel, interface) {
            tracing::debug!("cannot forget what was lost at interface {interface}: {error}");
        }
        if let Some(shedding) = &mut self.shedding
            && let Err(error) = shedding.forget(&mut self.kernel, interface)
        {
            tracing::debug!("cannot forget what was left out at interface {interface}: {error}");
        }
        self.names.remove(&interface);
    }

    /// Fetches what the kernel has picked, and ends sessions whose time is over.
    pub(crate) fn fetch(&mut self, out: &mut impl FnMut(&SessionSpan<'_>)) {
        let now_ns = clock::monotonic_ns();
        // Before any session is handed on that may have lost packets.
        self.look(now_ns);
        let Self { packets, pipeline, spared, epoch_ns, capture, shedding, .. } = self;
        packets.drain(now_ns, &mut |header, data| {
            if let Some(shedding) = shedding.as_mut() {
                shedding.packet(header.interface, header.captured_len);
            }
            hand_in(pipeline, spared, capture, header, data, *epoch_ns, out);
        });
        // Packets younger than this may still come, so the tracer's clock must not pass them.
        let hold_back = u64::try_from(HOLD_BACK.as_nanos()).unwrap_or(u64::MAX);
        let settled_ns = now_ns.saturating_sub(hold_back);
        pipeline.tick(settled_ns, *epoch_ns, out);
        if let Some(capture) = capture {
            capture.clock(settled_ns);
        }
        self.spare(settled_ns);
        self.shed(now_ns);
        self.kernel.flush_log();
        self.fetched = Instant::now();
    }

    /// Leaves out what is too much.
    fn shed(&mut self, now_ns: u64) {
        let Self { shedding: Some(shedding), kernel, pipeline, names, .. } = self else { return };
        shedding.fetched(kernel, pipeline, names.len(), now_ns);
        if let Some(line) = shedding.line(now_ns, |id| whose(pipeline, names, id)) {
            tracing::warn!("{line}");
        }
    }

    /// Waits until it is time for [`Self::fetch`] again, or so many packets wait that it must come sooner. May be dropped at any time.
    pub(crate) async fn time_to_fetch(&self) {
        let is_shedding = self.shedding.as_ref().is_some_and(|shedding| shedding.level() > Level::Nothing);
        let wait = match &self.packets {
            _ if is_shedding => FETCH,
            packets if packets.is_quiet() => QUIET_FETCH,
            packets if packets.is_sparse() => SPARSE_FETCH,
            _ => FETCH,
        };
        tokio::select! {
            () = sleep_until(self.fetched + wait) => {}
            () = self.packets.filled() => {}
        }
    }

    /// Whether so much time has passed that packets should be fetched between two steps of long work.
    pub(crate) fn is_due(&self) -> bool {
        self.fetched.elapsed() >= FETCH
    }

    /// Sees to it that the classifiers still come first, and that the clocks still agree. Returns the interfaces that
    /// are gone. Packets are fetched meanwhile.
    pub(crate) async fn recheck(&mut self, out: &mut impl FnMut(&SessionSpan<'_>)) -> Vec<u32> {
        self.epoch_ns = clock::offset_to_unix_ns().cast_unsigned();
        if let Some(capture) = &mut self.capture {
            let (kernel, losses) = (&self.kernel, &self.losses);
            capture.second(|interface, is_only| statistics(kernel, losses, interface, is_only));
        }
        let mut gone = Vec::new();
        let mut round = self.attacher.round();
        while let Some(done) = self.attacher.recheck_some(&mut self.kernel, &mut round).await {
            done.into_iter().for_each(|(interface, changed)| gone.extend(say_changed(interface, changed)));
            if self.is_due() {
                self.fetch(out);
            }
        }
        gone
    }

    /// Detaches everywhere, then hands on the last packets and what is open.
    pub(crate) async fn stop(&mut self, out: &mut impl FnMut(&SessionSpan<'_>)) -> Result<(), AttachError> {
        let detached = self.detach_all(out).await;
        // A classifier that ran when its filter was taken off ends within this time, as everywhere.
        tokio::time::sleep(HOLD_BACK).await;
        let now_ns = clock::monotonic_ns();
        self.look(now_ns);
        self.say(now_ns, true);
        let Self { packets, pipeline, spared, epoch_ns, capture, .. } = self;
        packets.flush(&mut |header, data| hand_in(pipeline, spared, capture, header, data, *epoch_ns, out));
        self.count_rest(None, now_ns);
        let Self { pipeline, epoch_ns, .. } = self;
        let now_ns = clock::monotonic_ns();
        pipeline.finish(now_ns, *epoch_ns, out);
        if let Some(capture) = &mut self.capture {
            let (kernel, losses) = (&self.kernel, &self.losses);
            capture.end(now_ns, |interface, is_only| statistics(kernel, losses, interface, is_only));
        }
        detached
    }

    /// Hundreds of interfaces take longer than the buffers hold: packets are fetched meanwhile.
    async fn detach_all(&mut self, out: &mut impl FnMut(&SessionSpan<'_>)) -> Result<(), AttachError> {
        let mut result = Ok(());
        for id in self.attacher.held() {
            result = result.and(self.detach(id).await);
            if self.is_due() {
                self.fetch(out);
            }
        }
        result
    }

    /// All counters now; `still` if this is after a [`Self::stop`] that detached. [`ledger`](crate::ledger) says why they are
    /// read in this order.
    pub(crate) fn books(&mut self, sinks: Sinks, still: bool) -> Books {
        // They were readable before; where they no longer are, the accounts show that.
        let verdicts = self.kernel.verdicts().unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Verdicts::default()
        });
        self.look(clock::monotonic_ns());
        self.packets.read();
        let past = Some(("at interfaces that are gone".to_owned(), self.losses.past()));
        let by_interface =
            self.losses.by_interface().map(|(id, packets)| (format!("at {}", self.called(id)), packets));
        let lost = by_interface.chain(past).collect();
        let (shed, level) = match &mut self.shedding {
            Some(shedding) => {
                (shedding.totals(&self.kernel, |id| whose(&self.pipeline, &self.names, id)), shedding.level())
            }
            None => Default::default(),
        };
        // For people who look for a busy CPU; no account has it.
        let lost_by_cpu = self.kernel.lost_by_cpu().unwrap_or_default();
        // The account of what was counted then shows what is missing.
        let untold = self.spared.untold(&self.kernel).unwrap_or_default();
        let buffers = self.packets.counters();
        let kernel = KernelSide { verdicts, buffers, lost, untold, lost_by_cpu, shed, level, still };
        self.pipeline.books(Source::Kernel(Box::new(kernel)), sinks)
    }

    /// Tells the tracer, and now and then the log, what the kernel side has lost since the last look.
    fn look(&mut self, now_ns: u64) {
        match self.losses.look(&self.kernel, now_ns) {
            Ok(losses) => {
                for loss in &losses {
                    self.pipeline.lost(loss);
                    if let Some(capture) = &mut self.capture {
                        capture.lost(loss);
                    }
                    if let Some(shedding) = &mut self.shedding {
                        shedding.lost(loss);
                    }
                    self.said.note(self.called(loss.interface), loss);
                }
            }
            // The account of losses then shows what is missing.
            Err(error) => tracing::debug!("cannot look for losses: {error}"),
        }
        self.say(now_ns, false);
    }

    fn say(&mut self, now_ns: u64, last: bool) {
        if let Some(line) = self.said.line(now_ns, last, self.epoch_ns) {
            tracing::error!("{line}");
        }
    }

    /// What people call an interface.
    fn called(&self, interface: Option<u32>) -> String {
        match interface {
            None => "an interface not known".to_owned(),
            Some(id) => self.names.get(&id).cloned().unwrap_or_else(|| format!("interface {id}")),
        }
    }
}

/// Says what a look at an interface has led to; its number, if it is gone.
fn say_changed(interface: u32, changed: Result<Attached, AttachError>) -> Option<u32> {
    match changed {
        Ok(attached) => tracing::info!("attached to {} again, to come first", attached.interface.name),
        Err(AttachError::Gone(name)) => {
            tracing::info!("interface {name} is gone");
            return Some(interface);
        }
        Err(error) => tracing::warn!("interface {interface} is not traced, and is tried again: {error}"),
    }
    None
}

/// What is known of an interface: what was lost there, and, where there is no other, what the kernel side has counted, which is of
/// all interfaces together.
fn statistics(kernel: &Kernel, losses: &Losses, interface: u32, is_only: bool) -> Statistics {
    let lost = losses.by_interface().find(|(of, _)| *of == Some(interface)).map_or(0, |(_, packets)| packets);
    let lost = Statistics { lost: Some(lost), ..Statistics::default() };
    match kernel.verdicts() {
        Ok(verdicts) if is_only => Statistics {
            received: Some(verdicts.total()),
            accepted: Some(verdicts.emitted() + verdicts.lost()),
            ..lost
        },
        _ => lost,
    }
}

/// The number of a protocol in the kernel side's maps.
pub(crate) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Http => protocol::HTTP,
        Protocol::Tcp => protocol::TCP,
    }
}
