//! What a span says of time and of the network, as `docs/anatomy.md` has it: attributes, and events for what has a moment.

use std::borrow::Cow;

use smol_str::SmolStr;

use super::{set, set_some};
use crate::{
    anatomy::{Incident, Trouble},
    describe::{AttributeWriter, EventRef},
    outcome::Transfer,
    packet::Toward,
    protocol::Detail,
    session::Session,
    span::{Key, Value},
};

pub(super) fn attributes(out: &mut impl AttributeWriter, session: &Session) {
    set(out, "clovisor.request.packets", session.request.packets);
    set(out, "clovisor.request.bytes", session.request.bytes);
    set(out, "clovisor.response.packets", session.response.packets);
    set(out, "clovisor.response.bytes", session.response.bytes);
    if has_phases(session) {
        set_some(out, "clovisor.request.transfer_ns", session.request_transfer_ns());
        set_some(out, "clovisor.server.ack_ns", session.server_ack_ns());
        set_some(out, "clovisor.server.think_ns", session.think_ns());
        set_some(out, "clovisor.response.transfer_ns", session.response_transfer_ns());
    }
    if let Some(handshake) = session.anatomy.handshake {
        set(out, "clovisor.handshake.round_trip_ns", handshake.round_trip_ns());
        set(out, "clovisor.handshake.server_ns", handshake.server_ns);
        set(out, "clovisor.handshake.client_ns", handshake.client_ns);
        if handshake.repeated > 0 {
            set(out, "clovisor.handshake.retransmissions", u64::from(handshake.repeated));
        }
    }
    troubles(out, &session.request, Toward::Server);
    troubles(out, &session.response, Toward::Client);
}

/// Whether it is a request and then a response; in a whole connection the two directions have no such order.
fn has_phases(session: &Session) -> bool {
    !matches!(session.detail, Detail::Tcp)
}

/// Most transfers have none, so what was not seen is not said.
fn troubles(out: &mut impl AttributeWriter, transfer: &Transfer, toward: Toward) {
    for trouble in Trouble::ALL {
        let count = transfer.troubles.of(trouble);
        if count > 0 {
            set(out, counter(toward, trouble), u64::from(count));
        }
    }
}

const fn counter(toward: Toward, trouble: Trouble) -> &'static str {
    match (toward, trouble) {
        (Toward::Server, Trouble::Retransmission) => "clovisor.request.retransmissions",
        (Toward::Server, Trouble::OutOfOrder) => "clovisor.request.out_of_order",
        (Toward::Server, Trouble::Duplicate) => "clovisor.request.duplicates",
        (Toward::Server, Trouble::ZeroWindow) => "clovisor.request.zero_windows",
        (Toward::Client, Trouble::Retransmission) => "clovisor.response.retransmissions",
        (Toward::Client, Trouble::OutOfOrder) => "clovisor.response.out_of_order",
        (Toward::Client, Trouble::Duplicate) => "clovisor.response.duplicates",
        (Toward::Client, Trouble::ZeroWindow) => "clovisor.response.zero_windows",
    }
}

/// The moments of a session that are not its start or its end.
pub(super) fn events(session: &Session, epoch_ns: u64, mut each: impl FnMut(EventRef<'_>)) {
    let anatomy = &session.anatomy;
    let mut milestones = [
        ("clovisor.request.end", session.request_end_ns),
        ("clovisor.request.acked", anatomy.request_acked_ns),
        ("clovisor.response.start", anatomy.answer_start_ns),
    ];
    // Stable, here and below: what came at one moment stays in the order of cause and effect.
    milestones.sort_by_key(|(_, time_ns)| *time_ns);
    let milestones = milestones.iter().filter(|_| has_phases(session)).filter_map(|(name, time_ns)| {
        Some(EventRef { time_ns: (*time_ns)?, name: Cow::Borrowed(name), attributes: &[] })
    });
    let mut tell = |event: EventRef<'_>| {
        each(EventRef { time_ns: event.time_ns.wrapping_add(epoch_ns), ..event });
    };
    if anatomy.incidents.is_empty() {
        milestones.for_each(tell);
        return;
    }
    let mut all: Vec<EventRef<'_>> = milestones.chain(anatomy.incidents.iter().map(incident)).collect();
    all.sort_by_key(|event| event.time_ns);
    all.into_iter().for_each(&mut tell);
}

/// Which transfer an incident belongs to.
static OF_REQUEST: [(Key, Value); 1] =
    [(Cow::Borrowed("clovisor.transfer"), Value::Str(SmolStr::new_static("request")))];
static OF_RESPONSE: [(Key, Value); 1] =
    [(Cow::Borrowed("clovisor.transfer"), Value::Str(SmolStr::new_static("response")))];

fn incident(incident: &Incident) -> EventRef<'static> {
    let name = match incident.trouble {
        Trouble::Retransmission => "clovisor.retransmission",
        Trouble::OutOfOrder => "clovisor.out_of_order",
        Trouble::Duplicate => "clovisor.duplicate",
        Trouble::ZeroWindow => "clovisor.zero_window",
    };
    let attributes = if incident.toward == Toward::Server { &OF_REQUEST } else { &OF_RESPONSE };
    EventRef { time_ns: incident.time_ns, name: name.into(), attributes }
}
