//! One rtnetlink request and all its answers.
//!
//! It refuses to wait for ever on nothing: the kernel ends each answer with an acknowledgement, an error or
//! "done", which rtnetlink turns into the end of the stream.

use std::io;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

/// Sends `request` with `flags` (NLM_F_REQUEST is added), and collects what comes back.
///
/// # Errors
/// The kernel's errno, or that the connection is closed.
pub(super) async fn ask(
    handle: &Handle,
    request: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | flags;
    let mut answers = std::pin::pin!(handle.clone().request(message).map_err(io::Error::other)?);
    let mut collected = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => collected.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(collected)
}
