//! One rtnetlink request and all its answers.
//!
//! It refuses to wait for ever on nothing: the kernel ends each answer with an acknowledgement, an error or
//! "done", which rtnetlink turns into the end of the stream.

use std::io;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

/// How often a dump is asked for that the kernel calls inconsistent, for something changed meanwhile.
const DUMPS: usize = 4;

/// Sends `request` with `flags` (NLM_F_REQUEST is added), and collects what comes back. A dump during which
/// something changed is asked for again, a few times; the last one counts as it is.
///
/// A dump can fail at its end, in the code of "done", which comes only through a connection with
/// `set_forward_done(true)`: without that, such a dump looks empty.
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
    for _ in 1..DUMPS {
        let (answers, is_consistent) = ask_once(handle, message.clone()).await?;
        if is_consistent {
            return Ok(answers);
        }
    }
    ask_once(handle, message).await.map(|(answers, _)| answers)
}

async fn ask_once(
    handle: &Handle,
    message: NetlinkMessage<RouteNetlinkMessage>,
) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
    let mut answers = std::pin::pin!(handle.clone().request(message).map_err(io::Error::other)?);
    let mut collected = Vec::new();
    let mut is_consistent = true;
    while let Some(answer) = answers.next().await {
        is_consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => collected.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(-done.code));
            }
            _ => {}
        }
    }
    Ok((collected, is_consistent))
}
