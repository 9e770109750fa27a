//! All flows that are followed, and those that have just ended.
//!
//! Bounded in number and memory: the flow that was silent longest makes room. A connection that has ended is
//! remembered for a while, so that a late repetition of its segments does not look like a new one.

mod counted;

use std::collections::BTreeSet;

use hashlink::{LinkedHashMap, linked_hash_map::RawEntryMut};

use super::{Booked, Flow, Key, NEVER, Shed, Unneeded, Unseen, Wish, share::Shares, stray::Strays};
use crate::{
    ledger::Ledger,
    limits::Limits,
    outbox::Outbox,
    packet::{Packet, Segment, Toward},
    protocol::End,
};

/// What the table has for a flow beside its own: its key again, two links, and its place in the index.
pub(super) const ENTRY: usize = size_of::<Key>() + 32;
/// The same for an end that is remembered.
const END: usize = ENTRY + size_of::<Ended>();

/// What the table works with and for.
pub(crate) struct Context<'a> {
    pub(crate) now_ns: u64,
    pub(crate) limits: &'a Limits,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) out: &'a mut Outbox,
    pub(crate) unseen: &'a mut Unseen,
}

/// A connection that has ended.
struct Ended {
    at_ns: u64,
    /// Sequence numbers of the first bytes of its streams.
    first_seq: [Option<u32>; 2],
    /// If it goes on and is left out: up to when packets of it may have been picked all the same.
    shed_until_ns: Option<u64>,
}

/// What a segment without a flow deserves.
pub(crate) enum Admission {
    /// It has a flow, or now got one.
    Flow,
    /// It belongs to a connection that has ended.
    AfterEnd,
    /// It belongs to a connection that is left out.
    Shed,
    /// It says nothing that a flow could start from.
    Stray,
}

/// The flows, least recently active first.
pub(crate) struct Table {
    flows: LinkedHashMap<Key, Box<Flow>>,
    ended: LinkedHashMap<Key, Ended>,
    strays: Strays,
    deadlines: BTreeSet<(u64, Key)>,
    shares: Shares,
    total: Total,
}

/// What all flows hold together.
#[derive(Clone, Copy, Default)]
struct Total {
    memory: usize,
    /// Sessions begun and not reported.
    open: u64,
    /// Sessions begun.
    begun: u64,
}

impl Total {
    /// Puts what a flow holds now in the place of what it held before.
    #[inline]
    fn replace(&mut self, before: Booked, now: Booked, begun: u32) {
        self.memory = self.memory - before.memory as usize + now.memory as usize;
        self.open = self.open - u64::from(before.open) + u64::from(now.open);
        self.begun += u64::from(begun);
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            flows: LinkedHashMap::new(),
            ended: LinkedHashMap::new(),
            strays: Strays::default(),
            deadlines: BTreeSet::new(),
            shares: Shares::default(),
            total: Total::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Sessions that have begun and not ended.
    pub(crate) fn open_sessions(&self) -> u64 {
        self.total.open
    }

    /// Sessions that have begun, ended ones included.
    pub(crate) fn begun_sessions(&self) -> u64 {
        self.total.begun
    }

    pub(crate) fn memory(&self) -> usize {
        self.total.memory + self.ended.len() * END
    }

    /// Gives a segment to its flow, which it may begin or end.
    pub(crate) fn segment(
        &mut self,
        packet: &Packet<'_>,
        segment: &Segment<'_>,
        cx: &mut Context<'_>,
    ) -> Admission {
        let key = Key::new(packet, segment);
        let renews = |flow: &Flow| flow.is_renewed_by(packet.toward, segment.seq);
        if segment.syn && !segment.rst && self.flows.get(&key).is_some_and(|flow| renews(flow)) {
            self.finish(&key, End::Capture, cx);
        }
        if self.give(&key, packet.toward, segment, cx) {
            return Admission::Flow;
        }
        let admission = self.admit(&key, packet.toward, segment, cx.now_ns);
        match admission {
            Admission::Flow => {
                self.insert(key, packet, segment, cx);
                self.give(&key, packet.toward, segment, cx);
            }
            Admission::Stray => self.strays.note(&key, packet.toward, segment, cx.now_ns),
            Admission::AfterEnd | Admission::Shed => {}
        }
        admission
    }

    /// Gives a segment to the flow that it belongs to, if there is one. Keys are long and most segments end here: it looks for
    /// the flow once.
    fn give(&mut self, key: &Key, toward: Toward, segment: &Segment<'_>, cx: &mut Context<'_>) -> bool {
        let Self { flows, deadlines, shares, total, .. } = self;
        let RawEntryMut::Occupied(mut entry) = flows.raw_entry_mut().from_key(key) else { return false };
        entry.to_back();
        let flow = entry.into_mut();
        let reported = cx.out.reports.len();
        flow.segment(key, toward, segment, cx);
        flow.sign(key, reported, cx);
        if let Some(unneeded) = flow.tell_unneeded(key, toward, Some(segment), cx.limits) {
            cx.out.unneeded.push_back(unneeded);
        }
        book(flow, key, total, deadlines, cx.limits);
        let is_over = flow.is_over();
        if !is_over && !shares.takes(key) && flow.is_at_rest() {
            self.leave_out(key, cx);
        }
        self.shed(key, is_over, cx);
        true
    }

    /// Of an interface only connections with lots below its share are followed.
    pub(crate) fn set_share(&mut self, interface: u32, share: Option<u32>) {
        self.shares.set(interface, share);
    }

    /// Packets of a connection that is left out, which were picked later than this, are of one that was given back.
    pub(crate) fn left_out(&mut self, shed: &Shed, until_ns: u64) {
        if let Some(ended) = self.ended.get_mut(&shed.key()) {
            ended.shed_until_ns = ended.shed_until_ns.map(|_| until_ns);
        }
    }

    /// Leaves out a connection that is at rest. Packets of its next session may be under way already: it is remembered as those that
    /// have ended are.
    fn leave_out(&mut self, key: &Key, cx: &mut Context<'_>) {
        let first_seq = self.flows.get(key).map_or([None; 2], |flow| flow.first_seqs());
        self.finish(key, End::Capture, cx);
        cx.ledger.flows_shed += 1;
        let shed = Shed::new(key);
        let ended = Ended { at_ns: cx.now_ns, first_seq, shed_until_ns: Some(u64::MAX) };
        self.remember(key, ended, cx.limits);
        cx.out.shed.push_back(shed);
    }

    fn admit(&mut self, key: &Key, toward: Toward, segment: &Segment<'_>, now_ns: u64) -> Admission {
        if let Some(ended) = self.ended.get(key) {
            let repeated = ended.first_seq[toward as usize] == Some(segment.seq.wrapping_add(1));
            match ended.shed_until_ns {
                Some(until_ns) if now_ns <= until_ns => return Admission::Shed,
                None if !segment.syn || repeated => return Admission::AfterEnd,
                _ => self.ended.remove(key),
            };
        }
        if segment.payload_len == 0 && !segment.syn { Admission::Stray } else { Admission::Flow }
    }

    fn insert(&mut self, key: Key, packet: &Packet<'_>, segment: &Segment<'_>, cx: &mut Context<'_>) {
        while self.flows.len() >= cx.limits.flows.max(1) {
            self.evict(cx);
        }
        cx.ledger.flows_begun += 1;
        let mut flow = Box::new(Flow::new(packet.protocol));
        if !segment.syn {
            self.strays.tell(&key, &mut flow, cx.now_ns);
        }
        self.flows.insert(key, flow);
    }

    fn evict(&mut self, cx: &mut Context<'_>) {
        if let Some(oldest) = self.flows.front().map(|(key, _)| *key) {
            cx.ledger.flows_evicted += 1;
            self.finish(&oldest, End::Limit, cx);
        }
    }

    /// Ends a flow that is over, and those that were silent longest if all hold too much.
    fn shed(&mut self, key: &Key, is_over: bool, cx: &mut Context<'_>) {
        if is_over {
            self.finish(key, End::Fin, cx);
        }
        // An end that is forgotten costs least.
        while self.memory() > cx.limits.memory && self.ended.pop_front().is_some() {}
        while self.memory() > cx.limits.memory && self.flows.len() > 1 {
            self.evict(cx);
        }
    }

    /// Ends a flow, reports its sessions and remembers that it was there.
    fn finish(&mut self, key: &Key, end: End, cx: &mut Context<'_>) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        let reported = cx.out.reports.len();
        flow.end(end, cx);
        flow.sign(key, reported, cx);
        cx.ledger.flows_ended += 1;
        self.total.replace(flow.booked, Booked::default(), flow.take_begun());
        if flow.filed_ns != NEVER {
            self.deadlines.remove(&(flow.filed_ns, *key));
        }
        if flow.told.is_some() {
            cx.out.unneeded.push_back(Unneeded::new(key, Wish::Forget));
        }
        if flow.is_over() {
            self.remember(
                key,
                Ended { at_ns: cx.now_ns, first_seq: flow.first_seqs(), shed_until_ns: None },
                cx.limits,
            );
        }
    }

    fn remember(&mut self, key: &Key, ended: Ended, limits: &Limits) {
        self.ended.insert(*key, ended);
        if self.ended.len() > limits.flows {
            self.ended.pop_front();
        }
    }

    /// Looks at the clock: holes that have waited, flows that are silent, ends that may be forgotten. Each is dealt with as of
    /// its own time and in the order of these times, so that nothing depends on how often it is looked.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now_ns = cx.now_ns;
        loop {
            let deadline = self.deadlines.first().copied().filter(|(due, _)| *due <= now_ns);
            let idle = self.idle(cx.limits).filter(|(due, _)| *due <= now_ns);
            match (deadline, idle) {
                (Some((due, key)), idle) if idle.is_none_or(|(idle, _)| due <= idle) => {
                    (cx.now_ns, cx.out.now_ns) = (due, due);
                    self.run(due, &key, cx);
                }
                (_, Some((due, key))) => {
                    (cx.now_ns, cx.out.now_ns) = (due, due);
                    if !self.asks(&key, cx) {
                        cx.ledger.flows_idle += 1;
                        self.finish(&key, End::Idle, cx);
                    }
                }
                _ => break,
            }
        }
        (cx.now_ns, cx.out.now_ns) = (now_ns, now_ns);
        while self
            .ended
            .front()
            .is_some_and(|(_, ended)| ended.at_ns.saturating_add(cx.limits.linger_ns) <= now_ns)
        {
            self.ended.pop_front();
        }
    }

    /// The flow that was silent longest, and when it is given up.
    fn idle(&self, limits: &Limits) -> Option<(u64, Key)> {
        self.flows.front().map(|(key, flow)| (flow.last_ns.saturating_add(limits.idle_ns), *key))
    }

    /// Runs a flow whose deadline has come.
    fn run(&mut self, due: u64, key: &Key, cx: &mut Context<'_>) {
        let Some(flow) = self.flows.get_mut(key) else {
            self.deadlines.remove(&(due, *key));
            return;
        };
        let reported = cx.out.reports.len();
        flow.run(due, cx);
        flow.sign(key, reported, cx);
        // A deadline that has not moved would come again at once; forget it, the next packet files it anew.
        if flow.deadline(cx.limits) == Some(due) {
            flow.filed_ns = NEVER;
            self.deadlines.remove(&(due, *key));
        } else {
            book(flow, key, &mut self.total, &mut self.deadlines, cx.limits);
            let is_over = flow.is_over();
            self.shed(key, is_over, cx);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do that a session waits for.
    pub(crate) fn poll_timeout(&self, limits: &Limits) -> Option<u64> {
        let idle = self.idle(limits).map(|(due, _)| due);
        self.deadlines.first().map(|(due, _)| *due).into_iter().chain(idle).min()
    }

    /// Whether [`handle_timeout`](Self::handle_timeout) has anything to do.
    pub(crate) fn is_due(&self, now_ns: u64, limits: &Limits) -> bool {
        let is_over = |since: u64, time: u64| since.saturating_add(time) <= now_ns;
        self.deadlines.first().is_some_and(|(due, _)| *due <= now_ns)
            || self.flows.front().is_some_and(|(_, flow)| is_over(flow.last_ns, limits.idle_ns))
            || self.ended.front().is_some_and(|(_, ended)| is_over(ended.at_ns, limits.linger_ns))
    }

    /// Tracing of an interface ends: every flow that was seen there does, and none is remembered, since the
    /// kernel may give the index to another interface.
    pub(crate) fn finish_interface(&mut self, interface: u32, cx: &mut Context<'_>) {
        let of_it = |key: &Key| key.interface == interface;
        for key in self.flows.keys().filter(|key| of_it(key)).copied().collect::<Vec<_>>() {
            self.finish(&key, End::Capture, cx);
        }
        self.ended.retain(|key, _| !of_it(key));
        self.strays.forget(interface);
        self.shares.set(interface, None);
        cx.unseen.forget(interface);
    }

    /// Tracing ends: every flow does.
    pub(crate) fn finish_all(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.flows.front().map(|(key, _)| *key) {
            self.finish(&key, End::Capture, cx);
        }
        self.ended.clear();
    }
}

/// Brings totals and deadlines up to date with a flow that has changed.
fn book(
    flow: &mut Flow,
    key: &Key,
    total: &mut Total,
    deadlines: &mut BTreeSet<(u64, Key)>,
    limits: &Limits,
) {
    let holds = flow.holds();
    total.replace(std::mem::replace(&mut flow.booked, holds), holds, flow.take_begun());
    let deadline = flow.deadline(limits).unwrap_or(NEVER);
    if deadline != flow.filed_ns {
        if flow.filed_ns != NEVER {
            deadlines.remove(&(flow.filed_ns, *key));
        }
        if deadline != NEVER {
            deadlines.insert((deadline, *key));
        }
        flow.filed_ns = deadline;
    }
}
