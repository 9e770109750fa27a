//! Losses of the kernel side: told of the right interface, with the right count, within the right time.

use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuHashMap, PerCpuValues};
use clovisor::datapath::attach::Way;
use clovisor::datapath::clock::monotonic_ns;
use clovisor::datapath::interface::Interface;
use clovisor::datapath::kernel::{Kernel, Rules};
use clovisor::datapath::losses::Losses;
use clovisor::datapath::packets::{HOLD_BACK, SMALLEST_BUFFER};
use clovisor_common::{ANY_INTERFACE, LossValue, name, protocol};
use clovisor_trace::Loss;

use crate::buffers::test;
use crate::frames::SERVER_PORT;
use crate::netns::{Net, POD_V4};
use crate::traffic::{Traced, upload};

/// The pod's address on its second interface.
pub(crate) const SECOND: &str = "10.78.0.2";
/// More than the smallest buffer of any number of CPUs of a test machine holds.
const MUCH: usize = 16 << 20;

/// Gives host and pod a second pair, `veth1` and `eth1`, and traces it, too.
pub(crate) async fn second(net: &Net, traced: &mut Traced) -> Interface {
    net.in_host(&["ip", "link", "add", "veth1", "type", "veth", "peer", "name", "eth1", "netns", &net.pod]);
    net.in_host(&["ip", "addr", "add", "10.78.0.1/24", "dev", "veth1"]);
    net.in_host(&["ip", "link", "set", "veth1", "up"]);
    net.in_pod(&["ip", "addr", "add", &format!("{SECOND}/24"), "dev", "eth1"]);
    net.in_pod(&["ip", "link", "set", "eth1", "up"]);
    let interface = traced.attacher.interface("veth1").await.unwrap();
    let ports = [(SERVER_PORT, protocol::HTTP)].into();
    traced.kernel.set_rules(interface.id, &Rules { ports, ..Rules::default() }).unwrap();
    traced.attacher.attach(&mut traced.kernel, &interface, Way::Auto).await.unwrap();
    interface
}

/// Packets lost by the verdicts, when no more come: the last acknowledgements may be late by 40 ms.
async fn lost(kernel: &Kernel) -> u64 {
    loop {
        let before = kernel.verdicts().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if kernel.verdicts().unwrap() == before {
            assert_eq!(kernel.lost().unwrap(), before.lost());
            return before.lost();
        }
    }
}

/// All that the kernel has noted.
fn noted(kernel: &Kernel) -> u64 {
    kernel.losses().unwrap().values().map(|value| value.packets).sum()
}

/// All that was told.
fn told(losses: &Losses) -> u64 {
    losses.past() + losses.by_interface().map(|(_, packets)| packets).sum::<u64>()
}

#[test]
fn losses_are_told_by_interface_count_and_time() {
    test("losses_are_told_by_interface_count_and_time", &[], |net| async move {
        let mut traced = Traced::new(SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        let [first, second] = [traced.interface.clone(), second(&net, &mut traced).await];
        let hold_back = u64::try_from(HOLD_BACK.as_nanos()).unwrap();
        let mut looked = monotonic_ns();
        let mut losses = Losses::new(looked);
        // Nobody reads meanwhile. One interface at a time, so that the verdicts say whose losses these are.
        for (interface, address) in [(&first, POD_V4), (&second, SECOND), (&first, POD_V4)] {
            let (before, began) = (lost(&traced.kernel).await, monotonic_ns());
            upload(&net, address, MUCH);
            let packets = lost(&traced.kernel).await - before;
            assert!(packets > 0, "nothing was lost at {}", interface.name);
            let now = monotonic_ns();
            let found = losses.look(&traced.kernel, now).unwrap();
            let [loss] = found[..] else { panic!("not one loss: {found:?}") };
            assert_eq!((loss.interface, loss.packets), (Some(interface.id), packets));
            assert_eq!(loss.from_ns, looked - hold_back);
            assert!(began < loss.until_ns && loss.until_ns < now, "{began} {loss:?} {now}");
            looked = now;
            assert_eq!(losses.look(&traced.kernel, now).unwrap(), []);
        }
        // Both at once.
        let before = lost(&traced.kernel).await;
        let both = Arc::clone(&net);
        let other = net.host_thread(move || upload(&both, SECOND, MUCH));
        upload(&net, POD_V4, MUCH);
        other.join().unwrap();
        let after = lost(&traced.kernel).await;
        let found = losses.look(&traced.kernel, monotonic_ns()).unwrap();
        assert_eq!(
            found.iter().map(|loss| loss.interface).collect::<Vec<_>>(),
            [Some(first.id), Some(second.id)]
        );
        assert_eq!(found.iter().map(|loss| loss.packets).sum::<u64>(), after - before);
        assert_eq!((noted(&traced.kernel), told(&losses)), (after, after));
        // Events and losses are what was wanted; those that the buffers themselves report are among the losses.
        assert_eq!(traced.events().len() as u64, traced.kernel.verdicts().unwrap().emitted());
        assert!(traced.packets.counters().lost <= after);
    });
}

#[test]
fn what_is_forgotten_makes_room_and_stays_counted() {
    test("what_is_forgotten_makes_room_and_stays_counted", &[], |net| async move {
        let mut traced = Traced::new(SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        let second = second(&net, &mut traced).await;
        let mut losses = Losses::new(monotonic_ns());
        upload(&net, SECOND, MUCH);
        upload(&net, POD_V4, MUCH);
        traced.attacher.detach(&mut traced.kernel, second.id).await.unwrap();
        let all = lost(&traced.kernel).await;
        losses.look(&traced.kernel, monotonic_ns()).unwrap();
        losses.forget(&mut traced.kernel, second.id).unwrap();
        let left: Vec<_> = traced.kernel.losses().unwrap().into_keys().collect();
        assert_eq!(left, [None, Some(traced.interface.id)]);
        assert!(losses.past() > 0);
        assert_eq!(told(&losses), all);
        // Twice, and of one that never lost anything.
        losses.forget(&mut traced.kernel, second.id).unwrap();
        losses.forget(&mut traced.kernel, 12_345).unwrap();
        // It comes back with the same number.
        traced.attacher.attach(&mut traced.kernel, &second, Way::Auto).await.unwrap();
        let ports = [(SERVER_PORT, protocol::HTTP)].into();
        traced.kernel.set_rules(second.id, &Rules { ports, ..Rules::default() }).unwrap();
        upload(&net, SECOND, MUCH);
        let more = lost(&traced.kernel).await - all;
        let found = losses.look(&traced.kernel, monotonic_ns()).unwrap();
        let found: Vec<_> = found.iter().map(|loss: &Loss| (loss.interface, loss.packets)).collect();
        assert_eq!(found, [(Some(second.id), more)]);
        assert_eq!(told(&losses), all + more);
    });
}

#[test]
fn a_loss_that_finds_no_room_may_be_of_any_interface() {
    test("a_loss_that_finds_no_room_may_be_of_any_interface", &[], |net| async move {
        let mut traced = Traced::new(SMALLEST_BUFFER).await;
        let map = MapData::from_id(traced.kernel.map_id(name::LOSSES).unwrap()).unwrap();
        let most = map.info().unwrap().max_entries();
        let mut map = PerCpuHashMap::<_, u32, LossValue>::try_from(Map::PerCpuHashMap(map)).unwrap();
        let none = || {
            let cpus = aya::util::nr_cpus().unwrap();
            PerCpuValues::try_from(vec![LossValue::default(); cpus]).unwrap()
        };
        assert_eq!(map.get(&ANY_INTERFACE, 0).unwrap()[0], LossValue::default());
        for other in 1..most {
            map.insert(1_000_000 + other, none(), 0).unwrap();
        }
        assert!(map.insert(2_000_000, none(), 0).is_err(), "the map has more room than it says");
        traced.attach(Way::Auto).await;
        let mut losses = Losses::new(monotonic_ns());
        upload(&net, POD_V4, MUCH);
        let packets = lost(&traced.kernel).await;
        assert!(packets > 0);
        let found = losses.look(&traced.kernel, monotonic_ns()).unwrap();
        let found: Vec<_> = found.iter().map(|loss| (loss.interface, loss.packets)).collect();
        assert_eq!(found, [(None, packets)]);
    });
}
