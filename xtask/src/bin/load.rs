//! The client of the benchmarks: many kept-alive connections to one server or several, at a rate or as fast as they go.
//!
//! At a rate the load is open: each request has its instant, whatever became of those before, and its latency counts from that
//! instant, also where no connection was free (Tene's "coordinated omission"). Each request carries a number that its response
//! must bring back (as `X-Item`, the request's own path). Sockets are bound to a device and refuse gateways, so nothing leaves by
//! another way.
//!
//! It says `open` when all connections are, sends when it is told so by a line, prints its report, and keeps the connections
//! until its input ends, so that others can be measured at each of these points.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write, stdin};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes of a request, as long as a browser's shortest.
const REQUEST: usize = 150;
/// How long responses are waited for behind the last request.
const PATIENCE: Duration = Duration::from_secs(2);
/// What opening all connections may take, and what one of them may.
const OPEN: Duration = Duration::from_secs(120);
const OPEN_ONE: i64 = 10;
/// What is read at once: as much as one packet of a veth pair can hold.
const READ: usize = 64 * 1024;
/// Files that are open beside the connections.
const OTHER_FILES: u64 = 32;
/// The timer among the connections' numbers.
const TIMER: u64 = u64::MAX;

/// The client of `cargo xtask bench`.
#[derive(Parser)]
struct Arguments {
    /// Interface that every connection is bound to
    #[arg(long)]
    device: String,
    /// The server; several get the connections in turn
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
    /// Connections, all opened before the first request
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    connections: u32,
    /// Addresses that the connections come from, in turn: one address has ports for about 60,000
    #[arg(long)]
    from: Vec<IpAddr>,
    /// What the path of each request begins with; the request's number follows
    #[arg(long, default_value = "/item/")]
    path: String,
    /// End after so many requests, before the time is over
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    requests: u64,
    /// Requests a second; 0 asks as fast as responses come
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    rate: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
}

struct Connection {
    stream: TcpStream,
    to: SocketAddr,
    /// What has come of a head that is not whole yet.
    head: Vec<u8>,
    /// Bytes of the body that are still to come.
    left: usize,
    /// Whether the head under way says that it answers this connection's request.
    is_own: bool,
    /// Number of the request under way, and when it was due.
    asked: Option<(u64, Instant)>,
}

impl Connection {
    fn open(arguments: &Arguments, number: usize) -> Result<Self> {
        let to = arguments.to[number % arguments.to.len()];
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::BindToDevice, &arguments.device.clone().into())
            .with_context(|| format!("cannot bind to {}", arguments.device))?;
        setsockopt(&fd, sockopt::DontRoute, &true)?;
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        // Only while it connects: later it does not block.
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(OPEN_ONE))?;
        let turn = number / arguments.to.len();
        if let Some(from) = arguments.from.get(turn % arguments.from.len().max(1)) {
            // The port is chosen when it connects, and need be free for this server only.
            setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
            bind(raw, &SockaddrStorage::from(SocketAddr::new(*from, 0)))
                .with_context(|| format!("cannot send from {from}"))?;
        }
        connect(raw, &SockaddrStorage::from(to)).with_context(|| format!("connection {number} to {to}"))?;
        let stream = TcpStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(Self { stream, to, head: Vec::new(), left: 0, is_own: false, asked: None })
    }

    fn ask(&mut self, number: u64, due: Instant, path: &str) -> Result<()> {
        let to = self.to;
        let mut request = format!("GET {path}{number:012} HTTP/1.1\r\nHost: {to}\r\nX-Pad: ");
        let pad = REQUEST.saturating_sub(request.len() + 4);
        request.extend(std::iter::repeat_n('x', pad));
        request.push_str("\r\n\r\n");
        // It fits into an empty socket buffer, and this one is empty: the response before has come.
        self.stream.write_all(request.as_bytes()).context("the server does not take a request")?;
        self.asked = Some((number, due));
        Ok(())
    }

    /// Reads what has come: bytes of bodies, and if a response is whole by it, when its request was due and whether it is
    /// its own.
    fn read(&mut self, buffer: &mut [u8], path: &str) -> Result<(u64, Option<(Instant, bool)>)> {
        let mut bodies = 0;
        loop {
            let came = match self.stream.read(buffer) {
                Ok(0) => anyhow::bail!("the server has closed a connection"),
                Ok(len) => &buffer[..len],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((bodies, None)),
                Err(error) => return Err(error).context("a connection broke"),
            };
            let body = if self.left == 0 {
                let Some(body) = self.take_head(came, path)? else { continue };
                body
            } else {
                came.len()
            };
            self.left = self.left.checked_sub(body).context("the server says more than it was asked")?;
            bodies += u64::try_from(body)?;
            if self.left == 0 {
                let (_, due) = self.asked.take().context("the server answers what nobody asked")?;
                return Ok((bodies, Some((due, self.is_own))));
            }
        }
    }

    /// Looks for a whole head; the number of bytes behind it, which are the body's.
    fn take_head(&mut self, came: &[u8], path: &str) -> Result<Option<usize>> {
        self.head.extend_from_slice(came);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(len) = response.parse(&self.head)? else { return Ok(None) };
        ensure!(response.code == Some(200), "the server answers {:?}", response.code);
        let header = |name: &str| {
            let mut all = response.headers.iter();
            all.find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
        };
        let (number, _) = self.asked.context("the server answers what nobody asked")?;
        self.left = std::str::from_utf8(header("content-length").context("no Content-Length")?)?.parse()?;
        self.is_own = header("x-item") == Some(format!("{path}{number:012}").as_bytes());
        let body = self.head.len() - len;
        self.head.clear();
        Ok(Some(body))
    }
}

/// What came of it.
#[derive(Default)]
struct Tally {
    asked: u64,
    wrong: u64,
    body_bytes: u64,
    latencies_ns: Vec<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let files = Some(u64::from(arguments.connections) + OTHER_FILES);
    if getrlimit(Resource::Nofile).current < files {
        setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })
            .context("so many connections are not allowed")?;
    }
    let mut load = Load::new(&arguments)?;
    println!("open");
    let mut told = stdin().lines();
    if told.next().is_none() {
        return Ok(());
    }
    load.begin();
    load.run()?;
    println!("{}", load.report());
    // The end of the input, or an input that is broken: in both cases nobody is there any more.
    let _ = told.next();
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
        let (mut connections, start) = (Vec::new(), Instant::now());
        for number in 0..usize::try_from(arguments.connections)? {
            let connection = Connection::open(arguments, number)?;
            ensure!(
                start.elapsed() < OPEN,
                "only {number} connections are open after {} s: the server does not take them faster",
                OPEN.as_secs()
            );
            epoll.add(&connection.stream, EpollEvent::new(EpollFlags::EPOLLIN, u64::try_from(number)?))?;
            connections.push(connection);
        }
        Ok(Self {
            arguments,
            epoll,
            timer,
            idle: (0..connections.len()).collect(),
            connections,
            start,
            end: start,
            due: start,
            tally: Tally::default(),
        })
    }

    fn begin(&mut self) {
        self.start = Instant::now();
        self.end = self.start + Duration::from_secs(self.arguments.seconds.into());
        self.due = self.start;
    }

    fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 128];
        let mut buffer = vec![0; READ];
        while self.ask()? {
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(100_u8))?;
            for event in &events[..ready] {
                let Ok(number) = usize::try_from(event.data()) else { continue };
                let Some(connection) = self.connections.get_mut(number) else { continue };
                let (bytes, answer) = connection.read(&mut buffer, &self.arguments.path)?;
                self.tally.body_bytes += bytes;
                if let Some((due, is_own)) = answer {
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
        if now >= self.end || self.tally.asked >= self.arguments.requests {
            let all_came = self.idle.len() == self.connections.len();
            return Ok(!all_came && now < self.end + PATIENCE);
        }
        let rate = self.arguments.rate;
        while let Some(&number) = self.idle.front().filter(|_| rate == 0 || self.due <= now) {
            if self.tally.asked >= self.arguments.requests {
                return Ok(true);
            }
            self.idle.pop_front();
            let due = if rate == 0 { Instant::now() } else { self.due };
            self.connections[number].ask(self.tally.asked, due, &self.arguments.path)?;
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
        let due = due.min(self.arguments.requests);
        serde_json::json!({
            "asked": self.tally.asked,
            "answered": latencies.len(),
            "wrong": self.tally.wrong,
            "body_bytes": self.tally.body_bytes,
            "not_asked": due.saturating_sub(self.tally.asked),
            "seconds": self.arguments.seconds,
            "p50_ns": quantile(500),
            "p99_ns": quantile(990),
            "max_ns": latencies.last(),
        })
    }
}
