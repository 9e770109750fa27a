//! A pod whose packets are delivered past the host's end of its veth: that is noticed there, although the host's own
//! packets to it do pass; and inside the pod all is seen.

use std::collections::BTreeMap;
use std::time::Duration;

use clovisor::datapath::attach::Way;
use clovisor::datapath::kernel::Rules;
use clovisor::datapath::packets::DEFAULT_BUFFER;
use clovisor_common::{EventHeader, direction, protocol, side};
use clovisor_trace::{Heading, Limits, Outcome, Packet, Protocol, Session, Side, Toward, Tracer};

use crate::beyond::Beyond;
use crate::buffers::test;
use crate::child;
use crate::frames::SERVER_PORT;
use crate::netns::POD_V4;
use crate::traffic::{Traced, ask, serve};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn give(tracer: &mut Tracer, events: &[(EventHeader, Vec<u8>)]) {
    for (header, data) in events {
        let to_pod = header.direction == direction::TO_POD;
        assert_eq!(header.side, side::SERVER);
        tracer.handle_packet(&Packet {
            time_ns: header.time_ns,
            interface: header.interface,
            side: Side::Server,
            toward: if to_pod { Toward::Server } else { Toward::Client },
            protocol: Protocol::Http,
            wire_len: header.wire_len - u32::from(header.link_len),
            data,
        });
    }
}

fn sessions(tracer: &mut Tracer) -> Vec<Session> {
    std::iter::from_fn(|| tracer.poll_session()).collect()
}

#[test]
fn a_veth_that_is_passed_by_is_noticed_and_inside_all_is_seen() {
    test("a_veth_that_is_passed_by_is_noticed_and_inside_all_is_seen", &[], |net| async move {
        let beyond = Beyond::new(&net);
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        traced.attach(Way::Auto).await;
        let mut tracer = Tracer::new(Limits::default());
        let from_beyond = || {
            let server = serve(&net.pod, POD_V4.parse().unwrap(), REQUEST, RESPONSE);
            beyond.run(|| ask(POD_V4.parse().unwrap(), REQUEST, RESPONSE));
            server.join().unwrap();
        };
        let from_host = || {
            let server = serve(&net.pod, POD_V4.parse().unwrap(), REQUEST, RESPONSE);
            ask(POD_V4.parse().unwrap(), REQUEST, RESPONSE);
            server.join().unwrap();
        };
        // Forwarded by the stack, as most CNIs do.
        for _ in 0..12 {
            from_beyond();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        give(&mut tracer, &traced.events());
        assert_eq!(tracer.unseen().count(), 0, "both directions pass here");
        assert_eq!(sessions(&mut tracer).len(), 12);

        let _foreign = Beyond::deliver(&net);
        from_beyond();
        let events = traced.events();
        let to_pod = events.iter().filter(|(header, _)| header.direction == direction::TO_POD).count();
        assert!(to_pod == 0 && events.len() >= 3, "nothing passes it by: this test proves nothing");
        for _ in 0..12 {
            from_beyond();
            from_host();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        give(&mut tracer, &traced.events());
        assert_eq!(tracer.unseen().collect::<Vec<_>>(), [(traced.interface.index, Heading::ToPod)]);

        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        traced.events();
        let mut tracer = Tracer::new(Limits::default());
        let id = traced.attacher.number();
        let interface = child::inside("eth0", &format!("/run/netns/{}", net.pod), id);
        let ports = BTreeMap::from([(SERVER_PORT, protocol::HTTP)]);
        traced.kernel.set_rules(id, &Rules { ports, egress: BTreeMap::new() }).unwrap();
        traced.attacher.attach(&mut traced.kernel, &interface, Way::Auto).await.unwrap();
        for _ in 0..12 {
            from_beyond();
            from_host();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        give(&mut tracer, &traced.events());
        assert_eq!(tracer.unseen().count(), 0);
        let sessions = sessions(&mut tracer);
        assert_eq!(sessions.len(), 24);
        assert!(sessions.iter().all(|one| one.interface == id && one.outcome == Outcome::Complete));
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
    });
}
