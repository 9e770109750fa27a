//! Rate, errors and duration of requests by service, and who asks whom: Prometheus metrics beside the spans.
//!
//! It refuses to guess. A session whose end was not observed for a reason of ours (a capture gap, the end of tracing)
//! has no duration and says nothing of an error: it is in `clovisor_sessions_total` alone. One that the traffic shows
//! to have failed (reset, closed, silent) has an `error_type` of its own, and lasted to the last byte that was seen.
//!
//! Each family is bounded; what finds no room is counted in a series of the name `other`. A series stays when its pods
//! have gone, as counters must. No path, query or address is ever a label.

mod family;
mod histogram;
mod names;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use clovisor_trace::{Outcome, Protocol, Resource, Session, Side};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};

use self::{
    family::Family,
    histogram::Histogram,
    names::{Id, Names},
};
use crate::plan::Peer;

/// Most series of a family. A node has about a hundred pods, which answer with a few methods and statuses each; at 17
/// lines a histogram a scrape stays within 2 MB a family.
const SERIES: usize = 1000;
/// Who is not known by its address, in the service graph.
const UNKNOWN: &str = "unknown";
/// All that found no room.
const OTHER: &str = "other";

/// What was seen of requests so far. A copy is of one moment.
#[derive(Clone, Debug)]
pub struct Red {
    names: Names,
    answered: Family<Request, Histogram>,
    sent: Family<Request, Histogram>,
    edges: Family<Edge, Traffic>,
}

/// Requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Request {
    of: Party,
    method: &'static str,
    /// 0: none was seen.
    status: u16,
    /// What cut it off, if anything.
    cut_off: &'static str,
}

/// Who asks whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Edge {
    client: Party,
    server: Party,
}

/// A service and its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Party {
    service: Id,
    namespace: Id,
}

#[derive(Clone, Debug, Default)]
struct Traffic {
    total: u64,
    failed: u64,
    server: Histogram,
    client: Histogram,
}

impl Default for Red {
    fn default() -> Self {
        Self {
            // A series has at most four names.
            names: Names::new(4 * SERIES, OTHER),
            answered: Family::new(SERIES),
            sent: Family::new(SERIES),
            edges: Family::new(SERIES),
        }
    }
}

impl Collector for Red {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write(&mut encoder)
    }
}

impl Red {
    /// Counts a session of the pod behind `resource`, whose other side is `peer` where that is known.
    pub fn record(&mut self, session: &Session, resource: &Resource, peer: Option<&Peer>) {
        let cut_off = session.outcome.error_type();
        if cut_off.is_none() && !matches!(session.outcome, Outcome::Complete | Outcome::Upgraded) {
            return;
        }
        let own = self.party(resource.service_name(), resource.text("service.namespace").unwrap_or_default());
        let other = match peer {
            Some(peer) => self.party(&peer.service, &peer.namespace),
            None => self.party(UNKNOWN, ""),
        };
        let serves = session.side == Side::Server;
        let (client, server) = if serves { (other, own) } else { (own, other) };
        let traffic = self.edges.of(Edge { client, server });
        // A request that is traced on both sides is seen twice, and counted for the server. A server outside of the cluster
        // is never traced.
        if serves || peer.is_none() {
            traffic.total += 1;
            traffic.failed += u64::from(session.error_type().is_some());
        }
        // A connection lasts as long as its ends like; that is no answer's time.
        if session.protocol == Protocol::Http {
            let request = Request {
                of: own,
                method: session.method().unwrap_or_default(),
                status: session.status_code().unwrap_or_default(),
                cut_off: cut_off.unwrap_or_default(),
            };
            let (requests, time) = if serves {
                (&mut self.answered, &mut traffic.server)
            } else {
                (&mut self.sent, &mut traffic.client)
            };
            time.observe(session.duration_ns());
            requests.of(request).observe(session.duration_ns());
        }
    }

    fn party(&mut self, service: &str, namespace: &str) -> Party {
        Party { service: self.names.id(service), namespace: self.names.id(namespace) }
    }

    /// Writes all families.
    fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let answered = ("http_server_request_duration_seconds", "Time that pods took for requests");
        self.requests(encoder, answered, &self.answered, 500)?;
        let sent = ("http_client_request_duration_seconds", "Time that requests of pods took");
        // 4xx is the caller's fault, so it is an error only of the caller.
        self.requests(encoder, sent, &self.sent, 400)?;
        self.counts(encoder, ("request", "Requests between services"), |traffic| traffic.total)?;
        self.counts(encoder, ("request_failed", "Requests that failed"), |traffic| traffic.failed)?;
        let server = ("request_server_seconds", "Time of requests between services, as servers saw it");
        self.times(encoder, server, |traffic| &traffic.server)?;
        let client = ("request_client_seconds", "Time of requests between services, as clients saw it");
        self.times(encoder, client, |traffic| &traffic.client)
    }

    /// `failed`: the least status that is an error.
    fn requests(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        requests: &Family<Request, Histogram>,
        failed: u16,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (request, histogram) in requests.all().filter(|(_, histogram)| histogram.count() > 0) {
            let (service, namespace) = self.name(request.map(|request| request.of));
            let method = request.map_or(OTHER, |request| request.method);
            let status = request.filter(|request| request.status > 0);
            let status = status.map(|request| request.status.to_string()).unwrap_or_default();
            let error = match request {
                Some(request) if request.status >= failed => Cow::Borrowed(&*status),
                Some(request) => request.cut_off.into(),
                None => "".into(),
            };
            let labels = [
                ("service_name", service),
                ("service_namespace", namespace),
                ("http_request_method", method),
                ("http_response_status_code", &status),
                ("error_type", &error),
                ("url_scheme", "http"),
            ];
            histogram.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counts(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        count: impl Fn(&Traffic) -> u64,
    ) -> fmt::Result {
        let name = format!("traces_service_graph_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (edge, traffic) in self.edges.all().filter(|(_, traffic)| traffic.total > 0) {
            ConstCounter::new(count(traffic)).encode(family.encode_family(&self.ends(edge))?)?;
        }
        Ok(())
    }

    fn times(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        time: impl Fn(&Traffic) -> &Histogram,
    ) -> fmt::Result {
        let name = format!("traces_service_graph_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
        let seen = self.edges.all().map(|(edge, traffic)| (edge, time(traffic)));
        for (edge, histogram) in seen.filter(|(_, histogram)| histogram.count() > 0) {
            histogram.encode(family.encode_family(&self.ends(edge))?)?;
        }
        Ok(())
    }

    fn ends(&self, edge: Option<&Edge>) -> [(&'static str, &str); 4] {
        let (client, client_namespace) = self.name(edge.map(|edge| edge.client));
        let (server, server_namespace) = self.name(edge.map(|edge| edge.server));
        [
            ("client", client),
            ("server", server),
            ("client_service_namespace", client_namespace),
            ("server_service_namespace", server_namespace),
        ]
    }

    fn name(&self, party: Option<Party>) -> (&str, &str) {
        party.map_or((OTHER, ""), |party| (self.names.name(party.service), self.names.name(party.namespace)))
    }
}
