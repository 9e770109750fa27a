//! Ways out of the demo's node for traces. The node's namespace has no way out, but `--to` names a receiver as the
//! host sees it, Jaeger on localhost for one. A relay listens on the node's loopback and passes on what comes, to
//! that one receiver; the address is rewritten to the relay.
//!
//! It knows of the address only where host and port are; what else is in there is for `clovisor` to judge.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netns::Namespace;

/// The node's loopback, where all relays listen.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An address cut where host and port stand.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
    rest: &'a str,
}

/// Cuts `[scheme://]host[:port][/rest]`; none for a word that is no address (`stdout`) or cannot be read.
fn parse(address: &str) -> Option<Parts<'_>> {
    if ["stdout", "none"].contains(&address) {
        return None;
    }
    let authority = address.find("://").map_or(0, |at| at + 3);
    let (scheme, after) = address.split_at(authority);
    let (authority, rest) = after.split_at(after.find('/').unwrap_or(after.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default_port(scheme)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some(Parts { scheme, host, port, rest })
}

/// The port that is meant where none is named; without a scheme that is OTLP over gRPC.
fn default_port(scheme: &str) -> u16 {
    match scheme {
        "http://" => 80,
        "https://" => 443,
        "jaeger+http://" => 14268,
        "jaeger+udp://" => 6831,
        _ => 4317,
    }
}

/// Starts a relay in `node` for the address where it needs one, and returns the address to use in there.
pub(crate) fn open(node: &Namespace, address: &str) -> Result<String> {
    let Some(parts) = parse(address) else { return Ok(address.to_owned()) };
    let receiver = (parts.host, parts.port)
        .to_socket_addrs()
        .map_err(|error| anyhow!(error))
        .and_then(|mut found| found.next().context("no address"))
        .with_context(|| format!("cannot find the host `{}` of --to {address}", parts.host))?;
    let (tcp, udp) = sockets(node, parts.port).with_context(|| {
        format!("cannot listen on port {} of the demo's node for --to {address}", parts.port)
    })?;
    thread::spawn(move || relay_tcp(&tcp, receiver));
    thread::spawn(move || relay_udp(&udp, receiver));
    Ok(format!("{}{LOOPBACK}:{}{}", parts.scheme, parts.port, parts.rest))
}

/// Listening sockets in the namespace. A socket stays in the namespace in which it was made, so a thread goes there
/// to make them and ends, and the process as a whole never leaves the host's.
fn sockets(node: &Namespace, port: u16) -> Result<(TcpListener, UdpSocket)> {
    let path = node.path();
    let make = move || -> io::Result<(TcpListener, UdpSocket)> {
        move_into_link_name_space(File::open(path)?.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok((TcpListener::bind((LOOPBACK, port))?, UdpSocket::bind((LOOPBACK, port))?))
    };
    let made = thread::spawn(make).join().map_err(|_| anyhow!("the thread in the namespace failed"))?;
    Ok(made?)
}

/// Passes connections on, each by two threads. A receiver that is not there shows as a connection that closes.
fn relay_tcp(listener: &TcpListener, receiver: SocketAddr) {
    for near in listener.incoming().flatten() {
        let Ok(far) = TcpStream::connect(receiver) else { continue };
        let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
        thread::spawn(move || pump(near, far));
        thread::spawn(move || pump(far_too, near_too));
    }
}

/// Copies one direction to its end, and tells the other side of it.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    // An error is the end of the connection like any other, and both programs see it as such.
    let _ = io::copy(&mut from, &mut to).and_then(|_| to.flush());
    let _ = to.shutdown(Shutdown::Write);
}

/// Passes datagrams on, one way: nobody answers to Jaeger's agent protocol.
fn relay_udp(listener: &UdpSocket, receiver: SocketAddr) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let any = if receiver.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let Ok(out) = UdpSocket::bind(any) else { return };
    while let Ok((length, _)) = listener.recv_from(&mut buffer) {
        let _ = out.send_to(&buffer[..length], receiver);
    }
}

#[cfg(test)]
mod tests {
    use super::{Parts, parse};

    #[test]
    fn addresses_are_cut_at_host_and_port() {
        let table = [
            ("otlp://localhost:4317", ("otlp://", "localhost", 4317, "")),
            ("http://[::1]:4318/v1/traces", ("http://", "::1", 4318, "/v1/traces")),
            ("jaeger+udp://127.0.0.1:6831", ("jaeger+udp://", "127.0.0.1", 6831, "")),
            ("jaeger+udp://127.0.0.1", ("jaeger+udp://", "127.0.0.1", 6831, "")),
            ("jaeger.example", ("", "jaeger.example", 4317, "")),
            ("jaeger.example:14268", ("", "jaeger.example", 14268, "")),
            ("[2001:db8::1]", ("", "2001:db8::1", 4317, "")),
        ];
        for (address, (scheme, host, port, rest)) in table {
            assert_eq!(parse(address), Some(Parts { scheme, host, port, rest }), "{address}");
        }
        for word in ["stdout", "none", "", "host:port", "://"] {
            assert_eq!(parse(word), None, "{word}");
        }
    }
}
