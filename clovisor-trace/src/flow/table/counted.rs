//! What was counted, to its flow; and flows that seem silent, of which something may have been counted.

use super::{super::Told, Context, Key, Table, Unneeded, Wish, book};
use crate::{flow::Counted, packet::Toward, protocol::End};

impl Table {
    /// Gives what was counted to its flow, if it is still followed.
    pub(crate) fn counted(&mut self, counted: &Counted, cx: &mut Context<'_>) {
        let key = counted.key();
        let Self { flows, deadlines, total, .. } = self;
        let Some(flow) = flows.to_back(&key) else {
            cx.ledger.counted_late += counted.packets();
            return;
        };
        cx.ledger.counted += counted.packets();
        let reported = cx.out.reports.len();
        flow.counted(counted, cx);
        flow.sign(&key, reported, cx);
        for toward in Toward::BOTH {
            cx.out.unneeded.extend(flow.tell_unneeded(&key, toward, None, cx.limits));
        }
        book(flow, &key, total, deadlines, cx.limits);
        let is_over = flow.is_over();
        self.shed(&key, is_over, cx);
    }

    /// It was asked whether anything was counted of a flow. If nothing was, nor has come since, it is over as of when it was asked.
    pub(crate) fn answered(&mut self, asked: &Unneeded, cx: &mut Context<'_>) {
        let key = asked.key();
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let Some((last_ns, asked_ns)) = flow.told.as_mut().and_then(|told| told.asked.take()) else { return };
        if flow.last_ns != asked_ns {
            return;
        }
        flow.last_ns = last_ns;
        cx.ledger.flows_idle += 1;
        self.finish(&key, End::Idle, cx);
    }

    /// Asks whether a flow that seems silent is. It is waited for as long as for packets.
    pub(super) fn asks(&mut self, key: &Key, cx: &mut Context<'_>) -> bool {
        let Some(flow) = self.flows.to_back(key) else { return false };
        let last_ns = flow.last_ns;
        let is_answered = |told: &&mut Box<Told>| told.asked.is_none_or(|(_, asked_ns)| asked_ns != last_ns);
        let Some(told) = flow.told.as_mut().filter(is_answered) else { return false };
        told.asked = Some((flow.last_ns, cx.now_ns));
        flow.last_ns = cx.now_ns;
        cx.out.unneeded.push_back(Unneeded::new(key, Wish::Ask));
        true
    }
}
