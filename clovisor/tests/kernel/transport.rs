//! The two ways on which packets come: when their reader is woken.

use std::time::Duration;

use clovisor::datapath::attach::Way;
use clovisor::datapath::clock::monotonic_ns;
use clovisor::datapath::packets::{Packets, SMALLEST_BUFFER, Transport};
use tokio::time::timeout;

use crate::buffers::test;
use crate::netns::POD_V4;
use crate::traffic::{Traced, upload};

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
fn what_is_too_young_makes_room_in_a_ring_that_fills_up() {
    test("what_is_too_young_makes_room_in_a_ring_that_fills_up", &[], |net| async move {
        let mut traced = Traced::new(16 * SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        let before = monotonic_ns();
        traced.packets.drain(before, &mut |_, _| {});
        upload(&net, POD_V4, 32 * SMALLEST_BUFFER);
        if !is_woken(&traced.packets).await {
            assert_eq!(traced.packets.transport(), Transport::Perf);
            return;
        }
        // As if it were only a little later: nothing is handed out, and all is taken out of the ring.
        let mut early = 0;
        traced.packets.drain(before + 2_000_000, &mut |_, _| early += 1);
        let held = traced.packets.counters().held;
        assert_eq!((early, held), (0, traced.kernel.verdicts().unwrap().emitted()));
        let lost = traced.kernel.lost().unwrap();
        assert!(traced.sees(&net), "no room was made");
        assert_eq!(traced.kernel.lost().unwrap(), lost);
    });
}
