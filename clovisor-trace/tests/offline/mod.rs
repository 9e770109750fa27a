//! Capture files through the tracer.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{fs, ops::ControlFlow, path::Path};

use clovisor_trace::{
    Limits, PortRule, Protocol, Rules, Session, Tracer,
    capture::{self, CaptureError},
};

/// The sessions of a capture, HTTP at these ports of servers, and how reading it ended.
pub fn sessions(path: &Path, ports: &[u16]) -> (Vec<Session>, Result<(), CaptureError>) {
    let file = fs::File::open(path).expect("a capture");
    let ports = ports.iter().map(|port| PortRule { port: *port, protocol: Protocol::Http }).collect();
    let rules = Rules { ports, egress: Vec::new() };
    let mut tracer = Tracer::new(Limits::default());
    let mut last_ns = 0;
    let read = capture::read(file, |record| {
        last_ns = last_ns.max(record.time_ns);
        tracer.handle_timeout(last_ns);
        if let Some(packet) = rules.select(record.time_ns, record.interface, record.wire_len, record.data) {
            tracer.handle_packet(&packet);
        }
        ControlFlow::Continue(())
    });
    tracer.finish(last_ns);
    let sessions: Vec<_> = std::iter::from_fn(|| tracer.poll_session()).collect();
    assert_eq!(tracer.ledger().balance(), Ok(()), "{}", path.display());
    (sessions, read)
}

/// A target with its percent-encoding undone, as Zeek logs it.
pub fn unescaped(uri: &str) -> String {
    let mut parts = uri.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => text.extend([char::from(byte).to_string().as_str(), &part[2..]]),
            None => text.extend(["%", part]),
        }
    }
    text
}
