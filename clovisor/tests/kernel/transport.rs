//! The two ways on which packets come: when their reader is woken.

use std::time::Duration;

use clovisor::datapath::attach::Way;
use clovisor::datapath::clock::monotonic_ns;
use clovisor::datapath::packets::{Packets, SMALLEST_BUFFER, Transport};
use tokio::time::timeout;

use crate::buffers::test;
use crate::netns::POD_V4;
use crate::traffic::{Traced, exchange, upload};

/// Long enough for a wake-up on any machine, short enough to wait for none.
const MOMENT: Duration = Duration::from_millis(200);

async fn is_woken(packets: &Packets) -> bool {
    timeout(MOMENT, packets.filled()).await.is_ok()
}

#[test]
fn only_a_ring_that_fills_up_wakes_its_reader() {
    test("only_a_ring_that_fills_up_wakes_its_reader", &[], |net| async move {
        let mut traced = Traced::new(16 * SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        let drain = |packets: &mut Packets| {
            let mut count = 0;
            packets.drain(monotonic_ns(), &mut |_, _| count += 1);
            count
        };
        drain(&mut traced.packets);
        assert!(traced.sees(&net), "nothing is captured");
        assert!(!is_woken(&traced.packets).await, "woken by a few packets");
        let is_ring = traced.packets.transport() == Transport::Ring;
        for round in 0..3 {
            upload(&net, POD_V4, 32 * SMALLEST_BUFFER);
            assert_eq!(is_woken(&traced.packets).await, is_ring, "round {round}");
            assert!(!is_woken(&traced.packets).await, "woken twice");
            let lost = traced.kernel.lost().unwrap();
            assert!(lost > 0, "the ring was not full");
            assert!(drain(&mut traced.packets) > 0);
            traced.events();
        }
        assert_eq!(traced.packets.counters().events, traced.kernel.verdicts().unwrap().emitted());
    });
}

#[test]
fn a_ring_that_was_empty_for_long_wakes_its_reader_for_the_next_packet() {
    test("a_ring_that_was_empty_for_long_wakes_its_reader_for_the_next_packet", &[], |net| async move {
        let mut traced = Traced::new(16 * SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        let packets = &mut traced.packets;
        let is_ring = packets.transport() == Transport::Ring;
        let drain = |packets: &mut Packets| {
            let mut count = 0;
            packets.drain(monotonic_ns() + 10_000_000, &mut |_, _| count += 1);
            count
        };
        for _ in 0..2 {
            assert!(!packets.is_quiet());
            for _ in 0..20 {
                assert_eq!(drain(packets), 0);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(packets.is_quiet(), is_ring, "it can tell of the next packet");
            assert!(!is_woken(packets).await, "woken by nothing");
            exchange(&net, POD_V4, b"ping", b"pong");
            assert_eq!(is_woken(packets).await, is_ring);
            assert!(drain(packets) > 0);
            assert!(!packets.is_quiet());
            exchange(&net, POD_V4, b"ping", b"pong");
            assert!(!is_woken(packets).await, "woken by few packets while it comes by itself");
            assert!(drain(packets) > 0);
        }
    });
}

#[test]
fn few_packets_of_a_ring_may_wait_longer() {
    test("few_packets_of_a_ring_may_wait_longer", &[], |net| async move {
        let mut traced = Traced::new(16 * SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        let packets = &mut traced.packets;
        let is_ring = packets.transport() == Transport::Ring;
        let mut count = 0;
        let before = monotonic_ns();
        packets.drain(before, &mut |_, _| count += 1);
        exchange(&net, POD_V4, b"ping", b"pong");
        // As if they had come within a microsecond, and then the rest in the time that it took.
        packets.drain(before + 1_000, &mut |_, _| count += 1);
        assert!(!packets.is_sparse());
        tokio::time::sleep(Duration::from_millis(20)).await;
        packets.drain(monotonic_ns(), &mut |_, _| count += 1);
        assert_eq!(packets.is_sparse(), is_ring);
        assert_eq!(count, traced.kernel.verdicts().unwrap().emitted());
    });
}

#[test]
fn perf_buffers_hold_back_what_is_young_and_a_ring_does_not() {
    test("perf_buffers_hold_back_what_is_young_and_a_ring_does_not", &[], |net| async move {
        let mut traced = Traced::new(16 * SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        let before = monotonic_ns();
        upload(&net, POD_V4, SMALLEST_BUFFER);
        let count = |packets: &mut Packets, now_ns: u64| {
            let mut count = 0;
            packets.drain(now_ns, &mut |_, _| count += 1);
            count
        };
        let emitted = traced.kernel.verdicts().unwrap().emitted();
        // As if it were only a little later. A ring gives what is there, but not for ever: up to the first that came since.
        let early = count(&mut traced.packets, before);
        let is_ring = traced.packets.transport() == Transport::Ring;
        assert_eq!((early, traced.packets.counters().held), if is_ring { (1, 0) } else { (0, emitted) });
        assert_eq!(early + count(&mut traced.packets, monotonic_ns() + 10_000_000), emitted);
        let counters = traced.packets.counters();
        assert_eq!((counters.events, counters.lost, counters.late, counters.invalid), (emitted, 0, 0, 0));
    });
}
