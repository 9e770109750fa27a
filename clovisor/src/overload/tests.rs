//! A node that is played: what comes, what the agent can take of it, and what is left out then.

use super::*;

const MIB: u64 = 1 << 20;

/// A node that is played: what comes, and what the agent can take.
struct Node {
    overload: Overload,
    now_ns: u64,
    cpu_ns: u64,
}

impl Node {
    fn new(cpu: Option<f64>) -> Self {
        Self { overload: Overload::new(Bounds { buffer: 4 << 20, cpu }, 0), now_ns: 0, cpu_ns: 0 }
    }

    /// One interval, in which so many packets of 128 bytes come at each interface, of which the share that is traced is taken, up to
    /// what the agent can take; a packet costs so much processor time. What was lost.
    fn interval(&mut self, packets: &[u64], most: u64, cost_ns: u64) -> u64 {
        self.now_ns += INTERVAL_NS;
        let (mut taken, mut lost) = (0, 0);
        for (interface, packets) in (1..).zip(packets) {
            let share = self.overload.shares().get(&interface).copied().unwrap_or(ALL_LOTS);
            let wanted = packets * u64::from(share) / u64::from(ALL_LOTS);
            self.overload.shed(Some(interface), packets - wanted);
            let room = wanted.min(most - taken);
            (0..room).for_each(|_| self.overload.packet(interface, 96));
            taken += room;
            if wanted > room {
                self.overload.lost(Some(interface), wanted - room);
                lost += wanted - room;
            }
            // Between two fetches.
            self.overload.fetched(self.now_ns - 1);
        }
        self.cpu_ns += taken * cost_ns;
        assert!(self.overload.fetched(self.now_ns));
        self.overload.decide(self.now_ns, self.cpu_ns);
        lost
    }

    fn share(&self, interface: u32) -> f64 {
        self.overload.shares().get(&interface).map_or(1.0, |share| f64::from(*share) / f64::from(ALL_LOTS))
    }
}

#[test]
fn without_pressure_nothing_is_left_out() {
    let mut node = Node::new(Some(1.0));
    for _ in 0..100 {
        node.interval(&[2_000, 500], 10_000, 5_000);
        assert_eq!((node.overload.level(), node.overload.shares().len()), (Level::Nothing, 0));
        assert_eq!(node.overload.pressure(), Pressure::None);
    }
}

#[test]
fn bodies_go_before_sessions() {
    let mut node = Node::new(None);
    node.interval(&[20_000], 10_000, 0);
    assert_eq!((node.overload.level(), node.overload.pressure()), (Level::Bodies, Pressure::Lost));
    assert!(node.overload.shares().is_empty());
    // That has helped.
    for _ in 0..10 {
        node.interval(&[9_000], 10_000, 0);
        assert_eq!(node.overload.level(), Level::Bodies);
    }
    // That has not.
    node.interval(&[20_000], 10_000, 0);
    assert_eq!(node.overload.level(), Level::Sessions);
    assert!(node.share(1) < 1.0);
}

#[test]
fn who_brings_too_much_is_left_out_and_nobody_else() {
    let mut node = Node::new(None);
    let mut lost = 0;
    for interval in 0..400 {
        let now = node.interval(&[100, 40_000, 300], 10_000, 0);
        lost += if interval < 20 { 0 } else { now };
        assert!((node.share(1) - 1.0).abs() < 1e-9 && (node.share(3) - 1.0).abs() < 1e-9);
    }
    assert_eq!(node.overload.level(), Level::Sessions);
    // About what is left of the 10,000, and now and then it is tried whether there may be more.
    assert!((0.18..0.26).contains(&node.share(2)), "{}", node.share(2));
    assert!(lost < 400 * 40_000 / 100, "{lost}");
}

#[test]
fn two_that_bring_too_much_get_the_same() {
    let mut node = Node::new(None);
    for _ in 0..400 {
        node.interval(&[100, 20_000, 40_000], 10_000, 0);
    }
    let (small, large) = (node.share(2) * 20_000.0, node.share(3) * 40_000.0);
    assert!((small - large).abs() < 1_000.0, "{small} {large}");
    assert!((node.share(1) - 1.0).abs() < 1e-9);
}

#[test]
fn after_it_all_is_given_back() {
    let mut node = Node::new(None);
    for _ in 0..100 {
        node.interval(&[40_000], 10_000, 0);
    }
    assert_eq!(node.overload.level(), Level::Sessions);
    let mut levels = Vec::new();
    for _ in 0..200 {
        node.interval(&[50], 10_000, 0);
        levels.push(node.overload.level());
    }
    assert!(node.overload.shares().is_empty());
    levels.dedup();
    assert_eq!(levels, [Level::Sessions, Level::Bodies, Level::Nothing]);
}

#[test]
fn a_buffer_that_runs_full_is_pressure_and_one_that_is_half_full_is_not() {
    let mut node = Node::new(None);
    for (bytes, expected) in
        [(2 * MIB + 4096, Pressure::None), (3 * MIB, Pressure::None), (4 * MIB, Pressure::Full)]
    {
        node.interval(&[bytes / 128], u64::MAX, 0);
        assert_eq!(node.overload.pressure(), expected, "{bytes}");
    }
}

#[test]
fn processor_time_stays_within_its_bound() {
    // What comes would take two processors, and half of one is allowed.
    let mut node = Node::new(Some(0.5));
    let mut used = Vec::new();
    for _ in 0..600 {
        let before = node.cpu_ns;
        node.interval(&[10, 10_000], u64::MAX, 10_000);
        used.push(node.cpu_ns - before);
    }
    let of = |used: &[u64]| float(used.iter().sum()) / float(used.len() as u64 * INTERVAL_NS);
    assert!(of(&used[..5]) > 1.9);
    assert!((0.35..0.52).contains(&of(&used[100..])), "{}", of(&used[100..]));
    assert!((node.share(1) - 1.0).abs() < 1e-9);
    assert_eq!(node.overload.level(), Level::Sessions);
}

#[test]
fn everybody_keeps_something() {
    // Even without packets more is used than is allowed.
    let mut node = Node::new(Some(0.1));
    for _ in 0..2_000 {
        node.cpu_ns += INTERVAL_NS / 2;
        node.interval(&[10_000, 10_000], u64::MAX, 1_000);
    }
    for interface in [1, 2] {
        assert!((LEAST_SHARE - 1e-6..LEAST_SHARE + 1e-6).contains(&node.share(interface)));
    }
}

#[test]
fn an_interface_that_is_gone_has_no_share() {
    let mut node = Node::new(None);
    for _ in 0..10 {
        node.interval(&[40_000], 10_000, 0);
    }
    assert!(node.overload.shares().contains_key(&1));
    node.overload.forget(1);
    assert!(node.overload.shares().is_empty());
}

#[test]
fn few_large_connections_take_turns_and_cost_others_nothing() {
    let mut node = Node::new(Some(0.5));
    // Of each of these the lot is known; together they would take two processors.
    let lots = [0.03, 0.3, 0.6, 0.9];
    let (mut before, mut used) = (0, Vec::new());
    for _ in 0..1_000 {
        let traced = lots.iter().filter(|lot| **lot < node.share(2)).count() as u64 * 2_500;
        node.overload.shed(Some(2), 10_000 - traced);
        // The share was applied above.
        for _ in 0..traced {
            node.overload.packet(2, 96);
        }
        node.cpu_ns += traced * 10_000;
        node.interval(&[100], u64::MAX, 10_000);
        assert!((node.share(1) - 1.0).abs() < 1e-9);
        used.push(node.cpu_ns - std::mem::replace(&mut before, node.cpu_ns));
    }
    let used = float(used[200..].iter().sum()) / float(800 * INTERVAL_NS);
    assert!((0.3..0.55).contains(&used), "{used}");
}

#[test]
fn pressure_without_traffic_does_not_outlast_itself() {
    let mut node = Node::new(Some(0.1));
    for _ in 0..40 {
        node.cpu_ns += INTERVAL_NS;
        node.interval(&[], u64::MAX, 0);
    }
    assert_eq!(node.overload.level(), Level::Sessions);
    let mut full = 0;
    for _ in 0..400 {
        node.interval(&[1_000], u64::MAX, 1_000);
        full += u32::from(node.overload.shares().is_empty());
    }
    assert!(full > 200, "{full}");
    assert_eq!(node.overload.level(), Level::Nothing);
}
