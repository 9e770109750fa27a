//! What the kernel side hands on, and what it need not: packets and counts to the pipeline, the tracer's wishes back.
//!
//! It refuses to judge what is not needed; the tracer does.

use clovisor_common::{EventHeader, direction, protocol, side};
use clovisor_trace::{Packet, Protocol, SessionSpan, Side, Toward, Unneeded, Wish};

use super::Live;
use crate::{
    capture::Capture,
    datapath::{kernel::KernelError, packets::record, spared::Spared},
    pipeline::Pipeline,
};

impl Live {
    /// Does what the tracer wishes of the kernel side, from which nothing that is older than `settled_ns` is on its way.
    pub(super) fn spare(&mut self, settled_ns: u64) {
        while let Some(unneeded) = self.pipeline.poll_unneeded() {
            // A failure costs time, no packet; the account of what was counted shows what it does not know.
            if let Err(error) = self.grant(&unneeded, settled_ns) {
                tracing::debug!("cannot agree with the kernel on what need not be copied: {error}");
            }
        }
    }

    fn grant(&mut self, unneeded: &Unneeded, settled_ns: u64) -> Result<(), KernelError> {
        let Self { kernel, spared, pipeline, .. } = self;
        match unneeded.wish {
            Wish::Spare { bytes, counts } => {
                if let Some(news) = spared.spare(kernel, unneeded, bytes, counts)? {
                    pipeline.counted(&news, settled_ns);
                }
            }
            Wish::Forget => {
                if let Some(news) = spared.forget(kernel, unneeded)? {
                    pipeline.counted_late(&news);
                }
            }
            Wish::Ask => {
                if let Some(news) = spared.ask(kernel, unneeded, settled_ns)? {
                    pipeline.counted(&news, settled_ns);
                    pipeline.answer_counted(unneeded, settled_ns);
                }
            }
        }
        Ok(())
    }

    /// Takes in what was counted and not told, at an interface or everywhere: nothing comes from there any more.
    pub(super) fn count_rest(&mut self, of: Option<u32>, now_ns: u64) {
        match self.spared.rest(&self.kernel, of) {
            Ok(rest) => rest.iter().for_each(|counted| self.pipeline.counted(counted, now_ns)),
            Err(error) => tracing::warn!("cannot read what was counted: {error}"),
        }
    }
}

/// Hands a packet of the kernel to the pipeline, and to the file if there is one; or what was counted.
pub(super) fn hand_in(
    pipeline: &mut Pipeline,
    spared: &mut Spared,
    capture: &mut Option<Capture>,
    header: &EventHeader,
    data: &[u8],
    epoch_ns: u64,
    out: &mut impl FnMut(&SessionSpan<'_>),
) {
    if header.direction == direction::COUNTED {
        if let Some(counted) = record::tale(data).and_then(|tale| spared.told(&tale)) {
            pipeline.counted(&counted, header.time_ns);
        }
        return;
    }
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
    if let Some(capture) = capture {
        capture.packet(header, &packet);
    }
    pipeline.packet(&packet, epoch_ns, out);
}
