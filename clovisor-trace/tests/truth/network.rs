//! Two TCP stacks and a network that does to their packets all that networks do, with a tap on the way.
//!
//! Every choice comes from a tape of numbers. A tape that has run out means: no harm, go on. So a shorter tape is a
//! simpler run, and a failure shrinks to a small capture.

#![allow(unreachable_pub, reason = "modules of one test binary")]

mod harm;
mod tap;

use std::{collections::BTreeMap, ops::Range};

pub use tap::{Frame, Run};

use crate::conversation::{Conversation, Ending, Exchange};

/// What may happen to packets.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Choices, each for one moment.
    pub tape: Vec<u16>,
    /// Whether the network loses, doubles and reorders packets.
    pub rough: bool,
    /// Whether the tap is at the server's end.
    pub at_server: bool,
    /// First sequence numbers of client and server.
    pub isn: [u32; 2],
    /// Captured packets that the tap misses: one in so many places of the list.
    pub missed: Vec<bool>,
    /// Time between two captured packets, in nanoseconds.
    pub pace_ns: u64,
    /// The tap is opened when so many packets have passed.
    pub late: usize,
}

#[derive(Clone, Debug)]
struct Packet {
    from: usize,
    /// Range of the sender's stream; FIN and SYN stand outside of it.
    range: Range<usize>,
    ack: usize,
    ack_fin: bool,
    flags: Flags,
    altered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flags {
    Syn,
    SynAck,
    Data,
    Fin,
    Reset,
}

#[derive(Clone, Debug, Default)]
struct End {
    out: Vec<u8>,
    sent: usize,
    /// How far the other end has acknowledged.
    acked: usize,
    wants_fin: bool,
    fin_sent: bool,
    fin_acked: bool,
    /// How far it has received in order, what else, and whether the other end's FIN.
    received: usize,
    queue: BTreeMap<usize, usize>,
    fin_at: Option<usize>,
}

impl End {
    fn take(&mut self, packet: &Packet) {
        if packet.flags == Flags::Fin {
            self.fin_at = Some(packet.range.end);
        }
        let end = self.queue.entry(packet.range.start).or_default();
        *end = packet.range.end.max(*end);
        while let Some((start, end)) = self.queue.first_key_value().map(|(s, e)| (*s, *e)) {
            if start > self.received {
                break;
            }
            self.queue.pop_first();
            self.received = self.received.max(end);
        }
    }

    fn has_fin(&self) -> bool {
        self.fin_at == Some(self.received)
    }
}

struct Network<'a> {
    talk: &'a Conversation,
    trouble: &'a Trouble,
    ends: [End; 2],
    flying: Vec<Packet>,
    tape: usize,
    passed: usize,
    asked: usize,
    answered: usize,
    /// Responses that the client has.
    got: usize,
    /// Whether each end has said what it says behind the last exchange.
    tunnelled: [bool; 2],
    /// Interim responses of the exchange `answered` were written.
    interim: bool,
    run: Run,
}

/// Plays a conversation to its end.
pub fn play(talk: &Conversation, trouble: &Trouble) -> Run {
    let mut network = Network {
        talk,
        trouble,
        ends: [End::default(), End::default()],
        flying: Vec::new(),
        tape: 0,
        passed: 0,
        asked: 0,
        answered: 0,
        got: 0,
        tunnelled: [false; 2],
        interim: false,
        run: Run::default(),
    };
    network.shake_hands();
    for _ in 0..200_000 {
        if network.run.reset || !network.step() {
            break;
        }
    }
    for from in 0..2 {
        let len = network.ends[from].out.len();
        network.run.seen[from].resize(len, false);
    }
    network.run
}

impl Network<'_> {
    fn choice(&mut self) -> u16 {
        self.tape += 1;
        self.trouble.tape.get(self.tape - 1).copied().unwrap_or(0)
    }

    fn shake_hands(&mut self) {
        // The last of the three may be the first that has data, or come with it.
        let three = [(0, Flags::Syn), (1, Flags::SynAck), (0, Flags::Data)];
        let packets = if self.choice() % 4 == 3 { 2 } else { 3 };
        if packets == 2 {
            self.run.did.insert("handshake ends with data");
        }
        for (from, flags) in three.into_iter().take(packets) {
            let packet = Packet { from, range: 0..0, ack: 0, ack_fin: false, flags, altered: false };
            self.tap(&packet);
        }
    }

    /// One thing happens; false if nothing is left to happen.
    fn step(&mut self) -> bool {
        if let Ending::Reset(at) = self.talk.ending
            && self.passed >= at
        {
            let from = at % 2;
            self.run.did.insert(["reset by the client", "reset by the server"][from]);
            self.send(from, self.ends[from].sent..self.ends[from].sent, Flags::Reset, false);
            if !self.run.reset {
                let packet = self.flying.pop().expect("just sent");
                self.tap(&packet);
            }
            return true;
        }
        let choice = self.choice();
        if choice > 0 && self.harm(choice) {
            return true;
        }
        // What moves next; the choice turns the order, so that ends and network run at any relative speed.
        let turn = usize::from(choice / 16) % 6;
        (0..6).any(|at| match (at + turn) % 6 {
            0 => self.client_writes(),
            1 => self.server_writes(),
            2 => self.emit(0, choice),
            3 => self.emit(1, choice),
            4 => self.deliver(0),
            _ => self.deliver(1),
        }) || self.repeat_lost()
    }

    /// Where the next response of the server must be for the client to have it whole.
    fn has_response(&self, number: usize) -> bool {
        let place = self.run.places.get(number).and_then(|(_, response)| response.clone());
        let whole = self.answered > number;
        whole && place.is_some_and(|place| place.end <= self.ends[0].received)
    }

    fn client_writes(&mut self) -> bool {
        let talk = self.talk;
        while self.got < self.asked && self.has_response(self.got) {
            self.got += 1;
        }
        let answered = self.got;
        let client = &mut self.ends[0];
        if let Some(exchange) = talk.exchanges.get(self.asked)
            && self.asked < talk.habit.allows(answered)
        {
            let start = client.out.len();
            client.out.extend(&exchange.request);
            self.run.places.push((start..client.out.len(), None));
            self.asked += 1;
            return true;
        }
        let all_asked = self.asked == talk.exchanges.len();
        if answered == talk.exchanges.len() && self.tunnel(0) {
            return true;
        }
        let client = &mut self.ends[0];
        let closes = match talk.ending {
            Ending::ClientCloses | Ending::BothClose => answered == talk.exchanges.len(),
            Ending::HalfClose => true,
            Ending::ServerCloses => client.has_fin(),
            Ending::Reset(_) | Ending::Open => false,
        };
        all_asked && closes && !std::mem::replace(&mut client.wants_fin, true)
    }

    fn server_writes(&mut self) -> bool {
        let talk = self.talk;
        let Some(exchange) = talk.exchanges.get(self.answered).filter(|_| self.answered < self.asked) else {
            let all = self.answered == talk.exchanges.len();
            if all && self.tunnel(1) {
                return true;
            }
            let closes = match talk.ending {
                Ending::ServerCloses | Ending::BothClose => true,
                Ending::ClientCloses | Ending::HalfClose => self.ends[1].has_fin(),
                Ending::Reset(_) | Ending::Open => false,
            };
            return all && closes && !std::mem::replace(&mut self.ends[1].wants_fin, true);
        };
        let start = self.run.places[self.answered].0.start;
        let (head, whole) = (start + exchange.head, start + exchange.request.len());
        let received = self.ends[1].received;
        if !self.interim && received >= head {
            self.interim = true;
            self.write(exchange, 0..exchange.interim_len);
            return true;
        }
        if received >= if exchange.early { head } else { whole } {
            self.write(exchange, exchange.interim_len..exchange.response.len());
            self.interim = false;
            self.answered += 1;
            return true;
        }
        false
    }

    /// An end says what is of another protocol.
    fn tunnel(&mut self, from: usize) -> bool {
        let is_new = !self.talk.tunnel.is_empty() && !std::mem::replace(&mut self.tunnelled[from], true);
        if is_new {
            self.ends[from].out.extend(&self.talk.tunnel);
            self.run.did.insert("tunnel");
        }
        is_new
    }

    fn write(&mut self, exchange: &Exchange, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        if self.ends[1].has_fin() {
            self.run.did.insert("response behind the client's FIN");
        }
        let start = self.ends[1].out.len();
        self.ends[1].out.extend(&exchange.response[part]);
        let end = self.ends[1].out.len();
        self.run.places[self.answered].1.get_or_insert(start..end).end = end;
    }

    /// An end sends its next segment.
    fn emit(&mut self, from: usize, choice: u16) -> bool {
        let end = &self.ends[from];
        // As much as a window allows is under way.
        if end.sent < end.out.len() && end.sent - end.acked < 60_000 {
            let size = if choice == 0 { 1_400 } else { usize::from(choice) % 1_400 + 1 };
            let range = end.sent..(end.sent + size).min(end.out.len());
            self.ends[from].sent = range.end;
            let received = self.ends[from].received;
            self.run.acks[from].resize(range.end, received);
            let end = &mut self.ends[from];
            let with_fin = end.wants_fin && !end.fin_sent && end.sent == end.out.len() && choice % 2 == 1;
            end.fin_sent |= with_fin;
            if with_fin {
                self.run.did.insert("FIN with data");
            }
            self.send(from, range, if with_fin { Flags::Fin } else { Flags::Data }, false);
            return true;
        }
        if end.wants_fin && end.sent == end.out.len() && !end.fin_sent {
            self.ends[from].fin_sent = true;
            let at = self.ends[from].sent;
            self.send(from, at..at, Flags::Fin, false);
            return true;
        }
        false
    }

    fn send(&mut self, from: usize, range: Range<usize>, flags: Flags, altered: bool) {
        let end = &self.ends[from];
        if flags == Flags::Fin && self.ends[1 - from].fin_sent && !end.has_fin() {
            self.run.did.insert("FINs that cross");
        }
        let packet = Packet { from, range, ack: end.received, ack_fin: end.has_fin(), flags, altered };
        if self.is_near(from) {
            self.tap(&packet);
        }
        self.flying.push(packet);
    }

    /// Whether the tap sees packets of an end when they are sent; those of the other when they arrive.
    fn is_near(&self, from: usize) -> bool {
        (from == 1) == self.trouble.at_server
    }

    fn deliver(&mut self, from: usize) -> bool {
        let Some(at) = self.flying.iter().position(|packet| packet.from == from) else { return false };
        let packet = self.flying.remove(at);
        self.arrive(&packet);
        true
    }

    fn arrive(&mut self, packet: &Packet) {
        if !self.is_near(packet.from) {
            self.tap(packet);
        }
        let to = 1 - packet.from;
        let before = (self.ends[to].received, self.ends[to].has_fin());
        if packet.flags != Flags::Reset {
            self.ends[to].take(packet);
        }
        let sender = &mut self.ends[to];
        sender.acked = sender.acked.max(packet.ack);
        sender.fin_acked |= packet.ack_fin;
        let news = (self.ends[to].received, self.ends[to].has_fin()) != before;
        let repeated = !packet.range.is_empty() && !news;
        // New bytes or old ones again: both are acknowledged, if nothing else carries it.
        if news || repeated {
            let at = self.ends[to].sent;
            self.send(to, at..at, Flags::Data, false);
        }
    }

    /// When all is quiet, what was not acknowledged is sent again.
    fn repeat_lost(&mut self) -> bool {
        for from in 0..2 {
            let end = &self.ends[from];
            if end.acked < end.sent {
                let range = end.acked..(end.acked + 1_000).min(end.sent);
                self.send(from, range, Flags::Data, false);
                return true;
            }
            if end.fin_sent && !end.fin_acked {
                let at = end.sent;
                self.send(from, at..at, Flags::Fin, false);
                return true;
            }
        }
        false
    }
}
