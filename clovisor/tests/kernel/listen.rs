//! Listening on a port that the test has listened on before.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

/// Another thread that starts a program right now has a copy of the last listener until its `exec`, and with that the port
/// stays taken for a moment.
pub(crate) fn listen(address: IpAddr, port: u16) -> TcpListener {
    let started = Instant::now();
    loop {
        match TcpListener::bind((address, port)) {
            Err(error)
                if error.kind() == ErrorKind::AddrInUse && started.elapsed() < Duration::from_secs(2) =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            bound => return bound.unwrap(),
        }
    }
}
