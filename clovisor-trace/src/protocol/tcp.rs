//! A connection without a parser: one session from its first packet to its last.

use super::{
    conversation::{Chunk, Conversation, Detail, End, Report, Reports, Run},
    name::Protocol,
};
use crate::{
    anatomy::{Anatomy, Incident},
    limits::Limits,
    outcome::{Outcome, Transfer},
    packet::Toward,
    session::Session,
};

/// Counts both directions of one connection.
pub(crate) struct Tcp {
    start_ns: Option<u64>,
    end_ns: u64,
    request: Transfer,
    response: Transfer,
    request_end_ns: Option<u64>,
    response_start_ns: Option<u64>,
    anatomy: Anatomy,
    missing_bytes: u64,
    reported: bool,
    /// Whether it was told that it has begun.
    told: bool,
}

impl Tcp {
    pub(crate) fn new() -> Self {
        Self {
            start_ns: None,
            end_ns: 0,
            request: Transfer::default(),
            response: Transfer::default(),
            request_end_ns: None,
            response_start_ns: None,
            anatomy: Anatomy::default(),
            missing_bytes: 0,
            reported: false,
            told: false,
        }
    }

    fn transfer(&mut self, toward: Toward) -> &mut Transfer {
        match toward {
            Toward::Server => &mut self.request,
            Toward::Client => &mut self.response,
        }
    }

    fn report(&mut self, outcome: Outcome, out: &mut Reports) {
        let Some(start_ns) = self.start_ns.filter(|_| !self.reported) else { return };
        self.reported = true;
        out.push_back(Report {
            session: Session {
                start_ns,
                end_ns: self.end_ns.max(start_ns),
                request_end_ns: self.request_end_ns,
                response_start_ns: self.response_start_ns,
                request: self.request,
                response: self.response,
                anatomy: std::mem::take(&mut self.anatomy),
                missing_bytes: self.missing_bytes,
                ..Session::unsigned(Protocol::Tcp, outcome, Detail::Tcp)
            },
            first: (Toward::Server, 0),
            first_acked: 0,
            ended_ns: 0,
        });
    }
}

impl Conversation for Tcp {
    fn packet(&mut self, toward: Toward, time_ns: u64, payload: u64, _acked: Option<u64>) {
        self.start_ns.get_or_insert(time_ns);
        self.end_ns = self.end_ns.max(time_ns);
        self.transfer(toward).packets += 1;
        if payload > 0 {
            match toward {
                Toward::Server => self.request_end_ns = Some(time_ns),
                Toward::Client => _ = self.response_start_ns.get_or_insert(time_ns),
            }
        }
    }

    fn counted(&mut self, toward: Toward, run: &Run) {
        self.end_ns = self.end_ns.max(run.last_ns);
        self.transfer(toward).packets += u64::from(run.full) + u64::from(run.empty);
        if run.full > 0 {
            match toward {
                Toward::Server => self.request_end_ns = self.request_end_ns.max(Some(run.full_ns)),
                Toward::Client => _ = self.response_start_ns.get_or_insert(run.full_ns),
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, _limits: &Limits, _out: &mut Reports) {
        self.transfer(chunk.toward).bytes += chunk.bytes.len() as u64;
        if let Some(trouble) = chunk.trouble {
            self.incident(Incident { time_ns: chunk.time_ns, toward: chunk.toward, trouble }, chunk.offset);
        }
    }

    fn incident(&mut self, incident: Incident, _offset: u64) {
        self.transfer(incident.toward).troubles.add(incident.trouble);
        self.anatomy.keep(incident);
    }

    fn gap(&mut self, _toward: Toward, len: u64, _out: &mut Reports) {
        self.missing_bytes += len;
    }

    fn unneeded(&self, _toward: Toward) -> u64 {
        u64::MAX
    }

    fn is_at_rest(&self) -> bool {
        false
    }

    fn fin(&mut self, _toward: Toward, _out: &mut Reports) {}

    fn end(&mut self, end: End, out: &mut Reports) {
        let outcome = match end {
            End::Fin => Outcome::Complete,
            End::Reset => Outcome::Reset,
            End::Idle => Outcome::Timeout,
            End::Limit => Outcome::Truncated,
            End::Capture => Outcome::ResponseUnobserved,
        };
        self.report(outcome, out);
    }

    fn take_begun(&mut self) -> u32 {
        let has_begun = self.start_ns.is_some();
        u32::from(has_begun && !std::mem::replace(&mut self.told, has_begun))
    }

    fn open(&self) -> u32 {
        u32::from(self.start_ns.is_some() && !self.reported)
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + self.anatomy.memory()
    }
}
