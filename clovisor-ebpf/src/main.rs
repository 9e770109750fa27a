//! The kernel side of Clovisor: traffic control classifiers that copy chosen packets to user space. Two are for
//! interfaces of the agent's own network namespace, two for interfaces inside pods' namespaces.
//!
//! A packet goes through [`packet`] (where are its headers?), [`select`] (is it wanted?), [`count`] (is
//! its number enough?) and [`emit`] (copy it), and gets exactly one [`Verdict`], which is counted. It refuses to judge what a packet means: no
//! payload is looked at here.
//!
//! Invariants: no packet is changed, and every path returns "go on with the chain".
//!
//! An interface goes by one number everywhere. In the agent's own namespace that is its index. Indexes repeat
//! between namespaces, so inside a pod it is a number that the agent gave out, see [`maps::inside`].
#![no_std]
#![no_main]

mod count;
mod emit;
mod maps;
mod packet;
mod select;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
#[cfg(not(feature = "perf"))]
use aya_log_ebpf::debug;
use clovisor_common::{Verdict, direction};
use packet::Headers;
use select::Worth;

/// TC_ACT_UNSPEC for classifiers and TCX_NEXT for tcx: both let the next program of the chain decide.
const GO_ON: i32 = -1;

/// What the pod sends: the host side of its veth receives it.
#[classifier]
fn handle_ingress(ctx: TcContext) -> i32 {
    run(&ctx, maps::interface(&ctx), direction::FROM_POD)
}

/// What the pod receives: the host side of its veth sends it.
#[classifier]
fn handle_egress(ctx: TcContext) -> i32 {
    run(&ctx, maps::interface(&ctx), direction::TO_POD)
}

/// What the pod receives, at its own interface.
#[classifier]
fn pod_ingress(ctx: TcContext) -> i32 {
    run(&ctx, maps::inside(&ctx), direction::TO_POD)
}

/// What the pod sends, at its own interface.
#[classifier]
fn pod_egress(ctx: TcContext) -> i32 {
    run(&ctx, maps::inside(&ctx), direction::FROM_POD)
}

#[inline(always)]
fn run(ctx: &TcContext, interface: u32, direction: u8) -> i32 {
    let verdict = judge(ctx, interface, direction).unwrap_or_else(|verdict| verdict);
    maps::count(verdict, direction);
    // The level is a constant of the loaded program (user space sets it before loading), so at any level but
    // debug the verifier removes these lines. aya-log writes to a ring buffer, so the object for kernels without has none.
    #[cfg(not(feature = "perf"))]
    match verdict {
        Verdict::Malformed => {
            debug!(ctx, "malformed packet: interface {}, {} bytes", interface, ctx.len());
        }
        Verdict::LostNoRoom | Verdict::LostNoReader => {
            debug!(ctx, "packet lost: interface {}, {} bytes", interface, ctx.len());
        }
        _ => {}
    }
    GO_ON
}

/// The way of one packet. `Err` is the verdict of a packet that goes no further.
#[inline(always)]
fn judge(ctx: &TcContext, interface: u32, direction: u8) -> Result<Verdict, Verdict> {
    let mut headers = Headers::default();
    packet::parse(ctx, &mut headers)?;
    let choice = select::choose(&headers, interface, direction)?;
    let now = emit::now();
    let kept = match select::remember(ctx, &headers, choice, interface, direction, now) {
        Worth::All => ctx.len(),
        Worth::Headers => headers.payload_at,
        Worth::Count => return Err(Verdict::Counted),
        Worth::Nothing => return Err(Verdict::Shed),
    };
    emit::emit(ctx, &headers, choice, interface, direction, now, kept)
}

/// Nothing here can panic; the compiler wants it written down.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel gives `bpf_perf_event_output` and `bpf_ktime_get_ns` only to programs that say they are
/// GPL-compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
