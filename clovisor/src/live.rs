//! Live tracing: the kernel's packets through the pipeline, whoever decides what is attached.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clovisor_common::{EventHeader, Verdict, direction, protocol, side};
use clovisor_trace::{Packet, Protocol, Side, Span, Toward};

use crate::{
    datapath::{
        attach::{AttachError, Attacher, How, Way},
        clock,
        interface::{Interface, Orientation},
        kernel::{self, Kernel, Verdicts},
        perf::{HOLD_BACK, Packets, PerfCounters},
    },
    pipeline::{Names, Pipeline},
    summary::{self, Account},
};

/// How often packets are fetched: what waiting adds to the age of a span, against a wake-up each time.
pub(crate) const FETCH: Duration = Duration::from_millis(5);
/// How often it is checked that nothing has come in front of the classifiers.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);

/// The loaded kernel side, its packets, and what is made of them.
pub(crate) struct Live {
    kernel: Kernel,
    attacher: Attacher,
    packets: Packets,
    pub(crate) pipeline: Pipeline,
    /// What to add to kernel time to get time since the Unix epoch.
    epoch_ns: u64,
}

impl Live {
    /// Loads the kernel side; nothing is attached yet.
    pub(crate) fn load(attacher: Attacher, pipeline: Pipeline, buffer: usize, verbose: bool) -> Result<Self> {
        let mut kernel = Kernel::load(verbose).context("cannot load the eBPF programs")?;
        let packets = kernel.packets(buffer).context("cannot open the packet buffers")?;
        let epoch_ns = clock::offset_to_unix_ns().cast_unsigned();
        Ok(Self { kernel, attacher, packets, pipeline, epoch_ns })
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
    pub(crate) fn retire(&mut self, interface: u32, out: &mut impl FnMut(Span)) {
        self.pipeline.finish_interface(interface, clock::monotonic_ns(), self.epoch_ns, out);
    }

    /// Fetches what the kernel has picked, and ends sessions whose time is over.
    pub(crate) fn fetch(&mut self, out: &mut impl FnMut(Span)) {
        let now_ns = clock::monotonic_ns();
        let Self { packets, pipeline, epoch_ns, .. } = self;
        packets.drain(now_ns, &mut |header, data| hand_in(pipeline, header, data, *epoch_ns, out));
        // Packets younger than this are still held back for order, so the tracer's clock must not pass them.
        let hold_back = u64::try_from(HOLD_BACK.as_nanos()).unwrap_or(u64::MAX);
        pipeline.tick(now_ns.saturating_sub(hold_back), *epoch_ns, out);
        self.kernel.flush_log();
    }

    /// Sees to it that the classifiers still come first, and that the clocks still agree. Returns the interfaces that
    /// are gone.
    pub(crate) async fn recheck(&mut self) -> Vec<u32> {
        self.epoch_ns = clock::offset_to_unix_ns().cast_unsigned();
        let mut gone = Vec::new();
        for (interface, changed) in self.attacher.recheck(&mut self.kernel).await {
            match changed {
                Ok(attached) => {
                    tracing::info!("attached to {} again, to come first", attached.interface.name);
                }
                Err(AttachError::Gone(name)) => {
                    tracing::info!("interface {name} is gone");
                    gone.push(interface);
                }
                Err(error) => {
                    tracing::warn!("interface {interface} is not traced, and is tried again: {error}");
                }
            }
        }
        gone
    }

    /// Detaches everywhere, then hands on the last packets and what is open.
    pub(crate) async fn stop(&mut self, out: &mut impl FnMut(Span)) -> Result<(), AttachError> {
        let detached = self.attacher.detach_all(&mut self.kernel).await;
        let Self { packets, pipeline, epoch_ns, .. } = self;
        packets.flush(&mut |header, data| hand_in(pipeline, header, data, *epoch_ns, out));
        pipeline.finish(clock::monotonic_ns(), *epoch_ns, out);
        detached
    }

    /// What the kernel side did with packets, and what came over the buffers.
    pub(crate) fn counts(&self) -> Result<(Verdicts, PerfCounters)> {
        Ok((self.kernel.verdicts()?, self.packets.counters()))
    }

    /// What became of every packet and session.
    pub(crate) fn accounts(&self) -> Result<Vec<Account>> {
        let verdicts = self.kernel.verdicts()?;
        let (counters, ledger) = (self.packets.counters(), self.pipeline.ledger());
        let emitted = verdicts.of(Verdict::Emitted) + verdicts.of(Verdict::EmittedCut);
        let mut fetched = summary::tracer_packets(ledger);
        fetched.of = "captured";
        fetched.came = emitted;
        fetched.parts.push(("unreadable", counters.invalid));
        Ok(vec![seen(&verdicts), fetched, summary::sessions(ledger, self.pipeline.tally())])
    }
}

/// What the kernel side did with the packets that it saw.
fn seen(verdicts: &Verdicts) -> Account {
    let name = |verdict| match verdict {
        Verdict::Emitted => "captured",
        Verdict::EmittedCut => "captured cut",
        Verdict::NotIp => "not IP",
        Verdict::NotTcp => "not TCP",
        Verdict::NotSelected => "not selected",
        Verdict::Malformed => "malformed",
        Verdict::FragmentNotSelected => "fragments not selected",
        Verdict::LostNoRoom => "LOST, buffer full",
        Verdict::LostNoReader => "LOST, no reader",
    };
    let parts = Verdict::ALL.map(|verdict| (name(verdict), verdicts.of(verdict)));
    Account { of: "packets", came: verdicts.total(), parts: parts.into() }
}

/// Hands a packet of the kernel to the pipeline.
fn hand_in(
    pipeline: &mut Pipeline,
    header: &EventHeader,
    data: &[u8],
    epoch_ns: u64,
    out: &mut impl FnMut(Span),
) {
    let side = if header.side == side::SERVER { Side::Server } else { Side::Client };
    let to_pod = header.direction == direction::TO_POD;
    // To a pod that serves, or from a pod that asks: either way it goes to the server.
    let toward = if to_pod == (side == Side::Server) { Toward::Server } else { Toward::Client };
    let packet = Packet {
        time_ns: header.time_ns,
        interface: header.interface,
        side,
        toward,
        protocol: if header.protocol == protocol::HTTP { Protocol::Http } else { Protocol::Tcp },
        wire_len: header.wire_len.saturating_sub(header.link_len.into()),
        data,
    };
    pipeline.packet(&packet, epoch_ns, out);
}

/// The number of a protocol in the kernel side's maps.
pub(crate) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Http => protocol::HTTP,
        Protocol::Tcp => protocol::TCP,
    }
}
