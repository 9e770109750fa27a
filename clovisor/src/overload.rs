//! What is left out when there is more than the agent can take: by rule, in whole pieces, and of those that bring too much.
//!
//! [`Overload`] is told what comes and decides at most every [`INTERVAL`]. It is pressed where the buffer runs full, packets were lost, or
//! more processor time was used than is allowed. First bodies go: no byte that nobody looks at is copied. If that does not help, whole
//! sessions do: what may be taken is then shared between the interfaces so that each gets what it asks for up to the same bound
//! (max-min), and the share of an interface above it is the part of its connections that is traced.
//!
//! Pure: it refuses to read clocks, to know connections, and to touch the kernel side.

mod fair;

use std::collections::{BTreeMap, VecDeque};

use clovisor_trace::ALL_LOTS;

/// How often it decides: ten fetches, in which a connection at work ends some sessions, and so has left if it was to.
pub const INTERVAL_NS: u64 = 50_000_000;
/// Processor time is judged once there is so much of it since the last change, less being mostly chance, and over a second at most.
const CPU_NS: [u64; 2] = [300_000_000, 1_000_000_000];
/// The buffer is running full from seven eighths on. Half of it is usual: that is where the reader is woken.
const FULL: [usize; 2] = [7, 8];
/// There is room again below five eighths.
const ROOM: [usize; 2] = [5, 8];
/// There is processor time to spare below this part of what is allowed.
const SPARE: f64 = 0.85;
/// So much of what was taken under pressure is taken after it.
const LOWER: f64 = 0.95;
/// What is used beyond the allowed processor time is taken off at once, but never more than half: some of it is no packet's.
const LEAST: f64 = 0.5;
/// How fast more is taken without pressure: twice as much in 0.7 s.
const RAISE: f64 = 1.05;
/// For so long after pressure nothing more is taken.
const CALM_NS: u64 = 200_000_000;
/// For so long nothing must have been left out before the rule before it holds again.
const OVER_NS: u64 = 1_000_000_000;
/// How much of the newest interval is in what an interface is taken to ask for.
const NEW: f64 = 0.3;
/// How fast an interface's share is brought to what it should lead to: connections are not alike, and there may be few.
const STEPS: [f64; 2] = [0.8, 1.1];
/// Within this of what may be taken it is what may be taken.
const NEAR: f64 = 1.1;
/// Room a second that is always taken, so that it can become more: what 100 small requests a second need is no burden for any agent.
const LEAST_BUDGET: f64 = 65_536.0;
/// Least part of its connections that an interface keeps, so that each still shows something.
const LEAST_SHARE: f64 = 1.0 / 256.0;
/// What a record takes in the buffer at least, and beside its packet.
const RECORD: [u64; 2] = [128, 32];

/// What is left out now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Nothing,
    /// Bodies.
    Bodies,
    /// Bodies, and whole sessions of those that bring too much.
    Sessions,
}

impl Level {
    /// In logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Bodies => "bodies",
            Self::Sessions => "sessions",
        }
    }
}

/// What a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Setting {
    /// Processors that the agent may use; `None`: as many as it gets.
    pub cpu: Option<f64>,
    /// How many bytes in a row nobody must look at so that they are not copied, usually and under pressure; `None`: all are.
    pub unneeded: [Option<u64>; 2],
}

/// What may be taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Size of the buffer between kernel and agent, in bytes.
    pub buffer: usize,
    /// Processors that the agent may use, if that is bounded.
    pub cpu: Option<f64>,
}

/// Why it is pressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pressure {
    /// It is not.
    #[default]
    None,
    /// Packets were lost.
    Lost,
    /// The buffer runs full.
    Full,
    /// More processor time was used than is allowed.
    Cpu,
}

impl Pressure {
    /// In logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lost => "packets were lost",
            Self::Full => "the buffer runs full",
            Self::Cpu => "more processor time was used than is allowed",
        }
    }
}

/// What came of one interface: packets, and the room that they took in the buffer.
#[derive(Clone, Copy, Debug, Default)]
struct Came {
    packets: u64,
    room: u64,
}

/// What is known of an interface.
#[derive(Debug, Default)]
struct Interface {
    came: Came,
    /// Packets that were lost or left out in this interval.
    missed: u64,
    /// Room for a packet, on average.
    room: f64,
    /// Room a second that it asks for, and that was taken of it.
    wants: f64,
    taken: f64,
    /// The part of its connections that is traced, if not all.
    share: Option<f64>,
}

/// Decides what is left out.
#[derive(Debug)]
pub struct Overload {
    bounds: Bounds,
    began_ns: u64,
    interfaces: BTreeMap<u32, Interface>,
    /// Room that was taken since the last look, and at most in this interval by one.
    fetched: u64,
    fullest: u64,
    lost: bool,
    /// Processor time at the last decision, and what each interval since the last change has taken: its length and that.
    cpu_ns: Option<u64>,
    used: VecDeque<(u64, u64)>,
    level: Level,
    pressure: Pressure,
    /// When it was pressed last, and when anything was left out last.
    pressed_ns: u64,
    short_ns: u64,
    /// Room a second that all interfaces get together.
    budget: f64,
    shares: BTreeMap<u32, u32>,
}

impl Overload {
    /// Nothing has come.
    #[must_use]
    pub fn new(bounds: Bounds, now_ns: u64) -> Self {
        Self {
            bounds,
            began_ns: now_ns,
            interfaces: BTreeMap::new(),
            fetched: 0,
            fullest: 0,
            lost: false,
            cpu_ns: None,
            used: VecDeque::new(),
            level: Level::Nothing,
            pressure: Pressure::None,
            pressed_ns: 0,
            short_ns: 0,
            budget: f64::INFINITY,
            shares: BTreeMap::new(),
        }
    }

    /// A packet has come, of which so many bytes were captured.
    pub fn packet(&mut self, interface: u32, captured: u32) {
        let room = (u64::from(captured) + RECORD[1]).next_power_of_two().max(RECORD[0]);
        let came = &mut self.interfaces.entry(interface).or_default().came;
        came.packets += 1;
        came.room += room;
        self.fetched += room;
    }

    /// Packets were lost.
    pub fn lost(&mut self, interface: Option<u32>, packets: u64) {
        self.lost = true;
        self.shed(interface, packets);
    }

    /// Packets were left out.
    pub fn shed(&mut self, interface: Option<u32>, packets: u64) {
        if let Some(interface) = interface {
            self.interfaces.entry(interface).or_default().missed += packets;
        }
    }

    /// An interface is gone.
    pub fn forget(&mut self, interface: u32) {
        self.interfaces.remove(&interface);
        self.shares.remove(&interface);
    }

    /// What has waited was fetched. Whether it is time to decide.
    pub fn fetched(&mut self, now_ns: u64) -> bool {
        self.fullest = self.fullest.max(std::mem::take(&mut self.fetched));
        now_ns.saturating_sub(self.began_ns) >= INTERVAL_NS
    }

    /// Decides, `cpu_ns` being the processor time that this process has used since it began.
    pub fn decide(&mut self, now_ns: u64, cpu_ns: u64) {
        let length_ns = now_ns.saturating_sub(self.began_ns).max(1);
        let used = self.cpu_ns.replace(cpu_ns).map(|before| (length_ns, cpu_ns.saturating_sub(before)));
        self.used.extend(used);
        while self.used.len() > 1 && self.used_ns() > CPU_NS[1] {
            self.used.pop_front();
        }
        self.close(length_ns);
        let (pressure, is_calm) = self.judge();
        match pressure {
            Pressure::None if is_calm => self.relax(now_ns),
            Pressure::None => {}
            _ => self.press(pressure, now_ns),
        }
        self.share(now_ns);
        (self.began_ns, self.fullest, self.lost) = (now_ns, 0, false);
    }

    /// What is left out now.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// What it was pressed by last.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// The lot below which connections are traced, by interface; of those that are not here all are.
    #[must_use]
    pub fn shares(&self) -> &BTreeMap<u32, u32> {
        &self.shares
    }

    /// How many interfaces of so many are to share what is left of a buffer: those that have traffic, and one that may begin.
    #[must_use]
    pub fn sharers(&self, interfaces: usize) -> usize {
        (self.interfaces.len() + 1).min(interfaces).max(1)
    }

    /// Brings up to date what interfaces ask for, and what was taken.
    fn close(&mut self, length_ns: u64) {
        let a_second = 1e9 / float(length_ns);
        self.interfaces.retain(|_, interface| {
            let Came { packets, room } = std::mem::take(&mut interface.came);
            if packets > 0 {
                interface.room = float(room) / float(packets);
            }
            let a_packet = interface.room.max(float(RECORD[0]));
            let missed = float(std::mem::take(&mut interface.missed)) * a_packet;
            interface.taken += (float(room) * a_second - interface.taken) * NEW;
            interface.wants += ((float(room) + missed) * a_second - interface.wants) * NEW;
            interface.wants >= 1.0
        });
    }

    /// What it is pressed by, and whether there is room for more.
    fn judge(&self) -> (Pressure, bool) {
        let of_buffer = |[parts, all]: [usize; 2]| (self.bounds.buffer / all * parts) as u64;
        let cpu = self.cpu().unwrap_or(0.0);
        let pressure = match () {
            () if self.lost => Pressure::Lost,
            () if self.fullest >= of_buffer(FULL) => Pressure::Full,
            () if cpu > 1.0 => Pressure::Cpu,
            () => Pressure::None,
        };
        let is_known = self.bounds.cpu.is_none() || self.used_ns() >= CPU_NS[0];
        (pressure, self.fullest < of_buffer(ROOM) && is_known && cpu < SPARE)
    }

    /// Processor time that was used, as a part of what is allowed, once that can be said.
    fn cpu(&self) -> Option<f64> {
        let allowed = self.bounds.cpu.filter(|_| self.used_ns() >= CPU_NS[0])?;
        let used: u64 = self.used.iter().map(|(_, used)| used).sum();
        Some(float(used) / float(self.used_ns()) / allowed)
    }

    /// Of how much time it is known how much processor time it took.
    fn used_ns(&self) -> u64 {
        self.used.iter().map(|(length, _)| length).sum()
    }

    fn press(&mut self, pressure: Pressure, now_ns: u64) {
        self.pressure = pressure;
        (self.pressed_ns, self.short_ns) = (now_ns, now_ns);
        if self.level == Level::Nothing {
            self.level = Level::Bodies;
        } else {
            self.level = Level::Sessions;
            let over = if self.pressure == Pressure::Cpu { self.cpu().unwrap_or(1.0) } else { 1.0 };
            // Where more is taken than may be, or much less, what was decided before has yet to tell.
            let taken: f64 = self.interfaces.values().map(|interface| interface.taken).sum();
            if self.budget.is_infinite() || (self.budget / 2.0..self.budget * NEAR).contains(&taken) {
                self.budget = (self.budget.min(taken) * (LOWER / over).max(LEAST)).max(LEAST_BUDGET);
            }
        }
        // What was used before says nothing of what will be.
        self.used.clear();
    }

    fn relax(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.pressed_ns) >= CALM_NS {
            self.budget *= RAISE;
        }
        if now_ns.saturating_sub(self.short_ns) >= OVER_NS {
            (self.level, self.budget, self.short_ns) = match self.level {
                Level::Sessions => (Level::Bodies, f64::INFINITY, now_ns),
                Level::Bodies | Level::Nothing => (Level::Nothing, f64::INFINITY, now_ns),
            };
        }
    }

    /// Shares the budget.
    fn share(&mut self, now_ns: u64) {
        self.shares.clear();
        let wants: Vec<_> = self.interfaces.values().map(|interface| interface.wants).collect();
        let is_enough = self.level < Level::Sessions || wants.iter().sum::<f64>() <= self.budget;
        let bound = if is_enough { f64::INFINITY } else { fair::bound(wants, self.budget) };
        for (id, interface) in &mut self.interfaces {
            if interface.wants <= bound {
                interface.share = None;
                continue;
            }
            let share = match interface.share {
                None => bound / interface.wants,
                Some(share) => share * (bound / interface.taken).clamp(STEPS[0], STEPS[1]),
            };
            let share = share.clamp(LEAST_SHARE, 1.0);
            interface.share = Some(share);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is at most all lots"
            )]
            self.shares.insert(*id, (share * f64::from(ALL_LOTS)) as u32);
            self.short_ns = now_ns;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
