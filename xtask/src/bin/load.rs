//! The client of the benchmarks: many kept-alive connections to one server, at a rate or as fast as they go.
//!
//! At a rate the load is open: each request has its instant, whatever became of those before, and its latency counts from that
//! instant, also where no connection was free (Tene's "coordinated omission"). Each request carries a number that its response
//! must bring back. Sockets are bound to a device and refuse gateways, so nothing leaves by another way.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Bytes of a request, as long as a browser's shortest.
const REQUEST: usize = 150;
/// How long responses are waited for behind the last request.
const PATIENCE: Duration = Duration::from_secs(2);
/// The timer among the connections' numbers.
const TIMER: u64 = u64::MAX;

/// The client of `cargo xtask bench`.
#[derive(Parser)]
struct Arguments {
    /// Interface that every connection is bound to
    #[arg(long)]
    device: String,
    /// The server
    #[arg(long)]
    to: SocketAddr,
    /// Connections, all opened before the first request
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Requests a second; 0 asks as fast as responses come
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    rate: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
}

struct Connection {
    stream: TcpStream,
    /// What has come of the response under way.
    came: Vec<u8>,
    /// Number of the request under way, and when it was due.
    asked: Option<(u64, Instant)>,
}

impl Connection {
    fn open(arguments: &Arguments) -> Result<Self> {
        let family = if arguments.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::BindToDevice, &arguments.device.clone().into())
            .with_context(|| format!("cannot bind to {}", arguments.device))?;
        setsockopt(&fd, sockopt::DontRoute, &true)?;
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(arguments.to))
            .with_context(|| format!("cannot connect to {}", arguments.to))?;
        let stream = TcpStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(Self { stream, came: Vec::with_capacity(4096), asked: None })
    }

    fn ask(&mut self, number: u64, due: Instant, to: SocketAddr) -> Result<()> {
        let mut request = format!("GET /item/{number:012} HTTP/1.1\r\nHost: {to}\r\nX-Pad: ");
        let pad = REQUEST.saturating_sub(request.len() + 4);
        request.extend(std::iter::repeat_n('x', pad));
        request.push_str("\r\n\r\n");
        // It fits into an empty socket buffer, and this one is empty: the response before has come.
        self.stream.write_all(request.as_bytes()).context("the server does not take a request")?;
        self.asked = Some((number, due));
        Ok(())
    }

    /// Reads what has come. The number and the due time of the request that is answered by it, and whether the
    /// response is its own.
    fn read(&mut self) -> Result<Option<(Instant, bool)>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => anyhow::bail!("the server has closed a connection"),
                Ok(len) => self.came.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("a connection broke"),
            }
            if let Some(body) = whole_response(&self.came)? {
                let Some((number, due)) = self.asked.take() else {
                    anyhow::bail!("the server answers what nobody asked");
                };
                let is_own = body.starts_with(format!("/item/{number:012}").as_bytes());
                self.came.clear();
                return Ok(Some((due, is_own)));
            }
        }
        Ok(None)
    }
}

/// The body, if all of it has come.
fn whole_response(bytes: &[u8]) -> Result<Option<&[u8]>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    ensure!(response.code == Some(200), "the server answers {:?}", response.code);
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length.context("no Content-Length")?.value)?.parse()?;
    ensure!(bytes.len() <= head + length, "the server says more than it was asked");
    Ok(bytes.get(head..head + length))
}

/// What came of it.
#[derive(Default)]
struct Tally {
    asked: u64,
    wrong: u64,
    latencies_ns: Vec<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut load = Load::new(&arguments)?;
    load.run()?;
    println!("{}", load.report());
    Ok(())
}

struct Load<'a> {
    arguments: &'a Arguments,
    epoll: Epoll,
    timer: TimerFd,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    start: Instant,
    end: Instant,
    /// The instant of the next request, at a rate.
    due: Instant,
    tally: Tally,
}

impl<'a> Load<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let mut connections = Vec::new();
        for number in 0..u64::from(arguments.connections) {
            let connection = Connection::open(arguments)?;
            epoll.add(&connection.stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
            connections.push(connection);
        }
        let start = Instant::now();
        Ok(Self {
            arguments,
            epoll,
            timer,
            idle: (0..connections.len()).collect(),
            connections,
            start,
            end: start + Duration::from_secs(arguments.seconds.into()),
            due: start,
            tally: Tally::default(),
        })
    }

    fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 128];
        while self.ask()? {
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(100_u8))?;
            for event in &events[..ready] {
                let Ok(number) = usize::try_from(event.data()) else { continue };
                let Some(connection) = self.connections.get_mut(number) else { continue };
                if let Some((due, is_own)) = connection.read()? {
                    self.tally.latencies_ns.push(u64::try_from(due.elapsed().as_nanos())?);
                    self.tally.wrong += u64::from(!is_own);
                    self.idle.push_back(number);
                }
            }
        }
        Ok(())
    }

    /// Sends what is due. Whether there is more to come.
    fn ask(&mut self) -> Result<bool> {
        let now = Instant::now();
        if now >= self.end {
            let all_came = self.idle.len() == self.connections.len();
            return Ok(!all_came && now < self.end + PATIENCE);
        }
        let rate = self.arguments.rate;
        while let Some(&number) = self.idle.front().filter(|_| rate == 0 || self.due <= now) {
            self.idle.pop_front();
            let due = if rate == 0 { Instant::now() } else { self.due };
            self.connections[number].ask(self.tally.asked, due, self.arguments.to)?;
            self.tally.asked += 1;
            if rate > 0 {
                let at = self.tally.asked * 1_000_000_000 / u64::from(rate);
                self.due = self.start + Duration::from_nanos(at);
            }
        }
        if rate > 0 && self.due > now {
            let after = TimeSpec::from_duration(self.due - now);
            self.timer.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?;
        }
        Ok(true)
    }

    fn report(&mut self) -> serde_json::Value {
        let latencies = &mut self.tally.latencies_ns;
        latencies.sort_unstable();
        let quantile = |per_mille: usize| {
            latencies.get((latencies.len() * per_mille / 1000).min(latencies.len().saturating_sub(1)))
        };
        // Those that were due and had no connection in time are the server's debt, too.
        let due = u64::from(self.arguments.rate) * u64::from(self.arguments.seconds);
        serde_json::json!({
            "asked": self.tally.asked,
            "answered": latencies.len(),
            "wrong": self.tally.wrong,
            "not_asked": due.saturating_sub(self.tally.asked),
            "seconds": self.arguments.seconds,
            "p50_ns": quantile(500),
            "p99_ns": quantile(990),
            "max_ns": latencies.last(),
        })
    }
}
