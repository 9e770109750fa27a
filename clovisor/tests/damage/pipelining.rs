//! A client of the tests' own that pipelines: all requests of a connection go out before a response is read. It knows every
//! byte of each request and response, and looks itself whether the responses come in order.

use std::net::{IpAddr, SocketAddr};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, tcp::OwnedReadHalf},
};

use crate::{
    clients::Asking,
    law::{Answered, Told},
    netns::thread_in,
    path::Dice,
};

/// Requests on each connection.
const DEPTHS: [usize; 7] = [1, 2, 3, 5, 17, 50, 100];

/// Asks over several connections at once.
pub(crate) fn ask(asking: &Asking, seed: u64) -> Told {
    let (namespace, asking) = (asking.namespace.clone(), asking.clone());
    let run = async move || {
        let tasks = DEPTHS.map(|depth| {
            let (asking, dice) = (asking.clone(), Dice(seed ^ depth as u64));
            tokio::spawn(async move { connection(&asking, depth, dice).await })
        });
        let mut told = Told::default();
        for task in tasks {
            told.add(task.await.unwrap());
        }
        told
    };
    thread_in(&namespace, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run())
    })
    .join()
    .unwrap()
}

/// All requests of a connection, then all responses.
async fn connection(asking: &Asking, depth: usize, mut dice: Dice) -> Told {
    let address: IpAddr = asking.host.parse().unwrap();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind_device(Some(b"eth0")).unwrap();
    let stream = socket.connect(SocketAddr::new(address, asking.port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (reading, mut writing) = stream.into_split();
    let (mut told, mut bytes) = (Told::default(), Vec::new());
    for at in 0..depth {
        let id = format!("{}pipe-{depth}-{at}", asking.round);
        let kinds = ["small", "chunked", "none", "echo", "small", "notmod", "slow", "large"];
        // Mostly small ones, so that many fit into one segment.
        let kind = match dice.roll(40) {
            rare @ (6 | 7) => kinds[usize::try_from(rare).unwrap()],
            often => kinds[usize::try_from(often % 6).unwrap()],
        };
        let length = dice.roll(3000);
        let (method, length) = match kind {
            "echo" => ("POST", length),
            "small" if length.is_multiple_of(4) => ("HEAD", 0),
            _ => ("GET", 0),
        };
        let before = bytes.len();
        let head = format!(
            "{method} /{kind}/{id} HTTP/1.1\r\nHost: pod\r\nAccept-Encoding: gzip\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        bytes.extend(head.into_bytes());
        bytes.extend(vec![b'e'; length.try_into().unwrap()]);
        told.sent.insert(id.clone());
        told.answered.push(Answered {
            id,
            method: method.to_owned(),
            status: String::new(),
            body: 0,
            exact: Some([(bytes.len() - before) as u64, 0]),
            is_whole: true,
            times: 1,
        });
    }
    let written = tokio::spawn(async move {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let size = usize::try_from(1 + dice.roll(4000)).unwrap().min(rest.len());
            writing.write_all(&rest[..size]).await.unwrap();
            rest = &rest[size..];
        }
        // Kept open until all is read.
        writing
    });
    let mut reading = BufReader::new(reading);
    for answered in &mut told.answered {
        response(&mut reading, answered).await;
    }
    drop(written.await.unwrap());
    told
}

/// Reads one response and writes down what it was.
async fn response(reading: &mut BufReader<OwnedReadHalf>, answered: &mut Answered) {
    let (mut all, mut length, mut is_chunked, mut answers) = (0, 0, false, String::new());
    let mut line = String::new();
    loop {
        line.clear();
        let got = reading.read_line(&mut line).await.unwrap();
        assert_ne!(got, 0, "the connection ended before {answered:?}");
        all += got as u64;
        let lower = line.trim_end().to_ascii_lowercase();
        if let Some(status) = lower.strip_prefix("http/1.1 ") {
            status[..3].clone_into(&mut answered.status);
        }
        match lower.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("transfer-encoding", value)) => is_chunked = value == "chunked",
            Some(("x-answers", value)) => value.clone_into(&mut answers),
            _ => {}
        }
        if lower.is_empty() {
            break;
        }
    }
    assert_eq!(answers, answered.id, "the server answered in another order");
    if answered.method == "HEAD" || ["204", "304"].contains(&answered.status.as_str()) {
        length = 0;
    } else if is_chunked {
        let mut size = 1;
        while size > 0 {
            line.clear();
            all += reading.read_line(&mut line).await.unwrap() as u64;
            size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            // The chunk and the end of its line; after the last one an empty line.
            reading.read_exact(&mut vec![0; size + 2]).await.unwrap();
            all += size as u64 + 2;
            answered.body += size as u64;
        }
        length = 0;
    }
    reading.read_exact(&mut vec![0; length]).await.unwrap();
    answered.body += length as u64;
    if let Some([_, response]) = &mut answered.exact {
        *response = all + length as u64;
    }
}
