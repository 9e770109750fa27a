//! What a span says of time and of the network, as `docs/anatomy.md` has it: attributes, and events for what has a moment.

use super::{set, set_some};
use crate::{
    anatomy::{Incident, Trouble},
    outcome::Transfer,
    packet::Toward,
    protocol::Detail,
    session::Session,
    span::{Attributes, Event},
};

pub(super) fn attributes(attributes: &mut Attributes, session: &Session) {
    set(attributes, "clovisor.request.packets", session.request.packets);
    set(attributes, "clovisor.request.bytes", session.request.bytes);
    set(attributes, "clovisor.response.packets", session.response.packets);
    set(attributes, "clovisor.response.bytes", session.response.bytes);
    if has_phases(session) {
        set_some(attributes, "clovisor.request.transfer_ns", session.request_transfer_ns());
        set_some(attributes, "clovisor.server.ack_ns", session.server_ack_ns());
        set_some(attributes, "clovisor.server.think_ns", session.think_ns());
        set_some(attributes, "clovisor.response.transfer_ns", session.response_transfer_ns());
    }
    if let Some(handshake) = session.anatomy.handshake {
        set(attributes, "clovisor.handshake.round_trip_ns", handshake.round_trip_ns());
        set(attributes, "clovisor.handshake.server_ns", handshake.server_ns);
        set(attributes, "clovisor.handshake.client_ns", handshake.client_ns);
        if handshake.repeated > 0 {
            set(attributes, "clovisor.handshake.retransmissions", u64::from(handshake.repeated));
        }
    }
    troubles(attributes, &session.request, Toward::Server);
    troubles(attributes, &session.response, Toward::Client);
}

/// Whether it is a request and then a response; in a whole connection the two directions have no such order.
fn has_phases(session: &Session) -> bool {
    !matches!(session.detail, Detail::Tcp)
}

/// Most transfers have none, so what was not seen is not said.
fn troubles(attributes: &mut Attributes, transfer: &Transfer, toward: Toward) {
    for trouble in Trouble::ALL {
        let count = transfer.troubles.of(trouble);
        if count > 0 {
            set(attributes, counter(toward, trouble), u64::from(count));
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
pub(super) fn events(session: &Session, epoch_ns: u64) -> Vec<Event> {
    let anatomy = &session.anatomy;
    let milestones = [
        ("clovisor.request.end", session.request_end_ns),
        ("clovisor.request.acked", anatomy.request_acked_ns),
        ("clovisor.response.start", anatomy.answer_start_ns),
    ];
    let mut events = Vec::with_capacity(milestones.len() + anatomy.incidents.len());
    if has_phases(session) {
        for (name, time_ns) in milestones {
            let Some(time_ns) = time_ns else { continue };
            events.push(Event { time_ns, name: name.into(), attributes: Attributes::new() });
        }
    }
    events.extend(anatomy.incidents.iter().map(incident));
    // Stable: what came at one moment stays in the order of cause and effect.
    events.sort_by_key(|event| event.time_ns);
    for event in &mut events {
        event.time_ns = event.time_ns.wrapping_add(epoch_ns);
    }
    events
}

fn incident(incident: &Incident) -> Event {
    let name = match incident.trouble {
        Trouble::Retransmission => "clovisor.retransmission",
        Trouble::OutOfOrder => "clovisor.out_of_order",
        Trouble::Duplicate => "clovisor.duplicate",
        Trouble::ZeroWindow => "clovisor.zero_window",
    };
    let transfer = if incident.toward == Toward::Server { "request" } else { "response" };
    let mut attributes = Attributes::new();
    set(&mut attributes, "clovisor.transfer", transfer);
    Event { time_ns: incident.time_ns, name: name.into(), attributes }
}
