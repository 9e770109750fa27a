//! Which packets of a file are wanted and whose spans theirs are: as the options say, else as a file of our own says
//! itself, else as for a newcomer.

use std::collections::{HashMap, HashSet};

use clovisor_trace::{
    Loss, Packet, Rules, Side, Toward,
    capture::{Description, Lost, Note, Origin, Record, Taken},
};

use crate::{export::Environment, pipeline::Names, pipeline::Pipeline, verbs::trace};

/// What decides over the packets of a file.
pub(super) struct Chosen {
    /// Of the options, or for a newcomer.
    rules: Rules,
    /// Whether the options say nothing of rules.
    by_default: bool,
    /// Name of the service by the options.
    service: Option<String>,
    environment: Environment,
    /// What the file says of its interfaces.
    origins: HashMap<u32, Origin>,
    /// Whether clients were traced, by the options or by any of these.
    clients: bool,
}

impl Chosen {
    pub(super) fn new(
        rules: Rules,
        by_default: bool,
        service: Option<String>,
        clients: bool,
        environment: Environment,
    ) -> Self {
        Self { rules, by_default, service, environment, origins: HashMap::new(), clients }
    }

    /// Whether neither the options nor the file say what to trace.
    pub(super) fn is_newcomers(&self) -> bool {
        self.by_default && self.origins.is_empty()
    }

    /// Takes what the file says of an interface.
    pub(super) fn interface(&mut self, described: &Description<'_>, pipeline: &mut Pipeline) {
        if described.id == 0 {
            // A section begins, which numbers its interfaces anew.
            self.origins.clear();
        }
        let Some(origin) = described.comment.and_then(|comment| comment.parse::<Origin>().ok()) else {
            return;
        };
        let name = described.name.unwrap_or("unnamed");
        if self.by_default {
            // The file may be anybody's: nothing in it may command a terminal.
            let (name, said) = (name.escape_debug(), without_mark(&origin));
            tracing::info!("interface {name} in the file: {}", said.escape_debug());
            self.clients |= origin.join || !origin.rules.egress.is_empty();
            pipeline.join(self.clients, HashSet::new());
        }
        if let Some(service) = self.service.as_ref().or(origin.service.as_ref()) {
            let resource = trace::resource(service, name, &self.environment);
            pipeline.name(described.id, Names::all(resource));
        }
        self.origins.insert(described.id, origin);
    }

    /// Whether we have written the file, so that its clock is that of the run.
    pub(super) fn is_ours(&self) -> bool {
        !self.origins.is_empty()
    }

    /// The loss that statistics tell of.
    pub(super) fn loss(&self, taken: &Taken<'_>) -> Option<Loss> {
        let Lost { packets, from_ns, until_ns, anywhere } = taken.comment?.parse().ok()?;
        Some(Loss { interface: (!anywhere).then_some(taken.interface), from_ns, until_ns, packets })
    }

    /// The packet, if it is wanted, and how late it came.
    pub(super) fn packet<'a>(&self, record: &Record<'a>) -> (Option<Packet<'a>>, u64) {
        let (time_ns, interface, wire_len, data) =
            (record.time_ns, record.interface, record.wire_len, record.data);
        // Whose "inbound" that of another program's file is, is not known.
        let (Some(origin), Some(heading)) = (self.origins.get(&interface), record.heading) else {
            return (self.rules.select(time_ns, interface, wire_len, data), 0);
        };
        let note: Note = record.comment.and_then(|comment| comment.parse().ok()).unwrap_or_default();
        let (side, protocol) = note.role.unwrap_or((Side::Server, clovisor_trace::Protocol::Tcp));
        let toward = Toward::of(side, heading);
        let packet = Packet { time_ns, interface, side, toward, protocol, wire_len, data };
        let rules = if self.by_default { &origin.rules } else { &self.rules };
        let packet = match note.role.filter(|_| self.by_default) {
            Some(_) => Some(packet),
            None => rules.select_at_pod(heading, &packet),
        };
        (packet, note.late_ns)
    }
}

fn without_mark(origin: &Origin) -> String {
    origin.to_string().split_once(' ').map_or_else(|| "no rules".to_owned(), |(_, rest)| rest.to_owned())
}
