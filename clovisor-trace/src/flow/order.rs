//! What of a connection is handed on next, and when it is no longer waited for what is missing.

use super::{Context, Flow, Stream};
use crate::{limits::Limits, packet::Toward, protocol::Conversation};

impl Flow {
    /// Hands on all that is in order, and what has waited long enough.
    pub(crate) fn run(&mut self, now_ns: u64, cx: &mut Context<'_>) {
        if self.streams.iter().all(Stream::is_at_rest) {
            self.streams.iter_mut().for_each(Stream::rest);
            return;
        }
        self.settle(now_ns.saturating_sub(cx.limits.settle_ns), cx);
        if self.streams.iter().all(|stream| stream.next().is_none()) {
            return;
        }
        loop {
            while self.deliver_ready(cx) {}
            let stuck = Toward::BOTH.into_iter().find(|way| self.is_stuck(*way, now_ns, cx.limits));
            if !stuck.is_some_and(|toward| self.force(toward, cx)) {
                return;
            }
        }
    }

    /// Whether a stream has been held up for long enough. One that only waits for what is missing in the opposite stream has as
    /// much time as that has.
    fn is_stuck(&mut self, toward: Toward, now_ns: u64, limits: &Limits) -> bool {
        let is_held_up = self.streams.each_mut().map(|stream| stream.is_stuck(now_ns, limits));
        let own = &self.streams[toward as usize];
        is_held_up[self.waits_for(toward) as usize] || own.is_full(limits)
    }

    /// The stream whose missing bytes hold this one up, or itself.
    fn waits_for(&self, toward: Toward) -> Toward {
        let [own, opposite] = [toward, toward.opposite()].map(|way| self.streams[way as usize].hole());
        if own.is_none() && opposite.is_some() { toward.opposite() } else { toward }
    }

    /// Starts the streams that were met in their middle before a time, or that hold too much.
    pub(super) fn settle(&mut self, met_before_ns: u64, cx: &mut Context<'_>) {
        for toward in Toward::BOTH {
            if self.streams[toward as usize].settle(met_before_ns, cx.limits) {
                self.conversation.gap(toward, 0, &mut cx.out.reports);
            }
        }
    }

    pub(super) fn deliver_ready(&mut self, cx: &mut Context<'_>) -> bool {
        // Where both could go on, the one that was seen first does.
        let came_ns = |way: Toward| self.streams[way as usize].head_ns().unwrap_or(u64::MAX);
        let is_late = came_ns(Toward::Server) > came_ns(Toward::Client);
        let first = if is_late { Toward::Client } else { Toward::Server };
        for toward in [first, first.opposite()] {
            let opposite = self.streams[toward.opposite() as usize].next();
            if let Some(piece) = self.streams[toward as usize].pop(opposite) {
                self.deliver(toward, &piece, 0, cx);
                return true;
            }
        }
        false
    }

    /// Moves a stream on: past its hole, past the hole of the opposite stream that it waits for, or, where
    /// acknowledgements contradict each other, without waiting.
    pub(super) fn force(&mut self, toward: Toward, cx: &mut Context<'_>) -> bool {
        for way in [toward, toward.opposite()] {
            let stream = &mut self.streams[way as usize];
            if let (Some(len), Some(next)) = (stream.hole(), stream.next()) {
                stream.advance(next + len);
                self.conversation.gap(way, len, &mut cx.out.reports);
                return true;
            }
        }
        // Each waits for the other, by what only repetitions acknowledged: a request comes before its response, unless it is
        // the response that is known to be one.
        let mut ways = Toward::BOTH;
        ways.sort_by_key(|way| !self.streams[*way as usize].is_next_bound());
        ways.into_iter().any(|way| {
            let piece = self.streams[way as usize].pop_regardless();
            piece.is_some_and(|piece| {
                self.deliver(way, &piece, 0, cx);
                true
            })
        })
    }

    /// When [`run`](Self::run) has something to do, were no packet to come.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<u64> {
        if self.streams.iter().all(|stream| stream.next().is_some() && !stream.is_stalled()) {
            return None;
        }
        let ways = Toward::BOTH.into_iter();
        ways.filter_map(|way| self.streams[self.waits_for(way) as usize].deadline(limits)).min()
    }
}
