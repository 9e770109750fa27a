//! A row a span for people who watch: when, which side, who asked whom for what, how it ended, how long it took.
//!
//! Rows stream, so the columns have fixed places and nothing is drawn twice. Both sets of attribute names are read,
//! OpenTelemetry's and the original's. It refuses to print what a stranger sent as it is: no control character of a
//! path or an outcome reaches the terminal. Colours are used only where asked for; see [`Style::of_stdout`].

use std::{
    borrow::Cow,
    fmt,
    io::{IsTerminal, Write},
    sync::{Arc, Mutex},
};

use clovisor_trace::{Kind, Span, Status, Value};

use super::{
    json::{Output, write},
    sink::{Batch, ExportError, Sink, Spans},
    text::shown,
};

/// How rows look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to colour.
    pub colour: bool,
    /// Characters a line may have; rows are cut to it.
    pub width: usize,
}

impl Style {
    /// What suits standard output now: colours on a terminal unless `NO_COLOR` is set (no-color.org) or the terminal
    /// is `dumb`; the terminal's width, or 120.
    #[must_use]
    pub fn of_stdout(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let plain = set("NO_COLOR").is_some() || set("TERM").as_deref() == Some("dumb");
        let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
        Self { colour: terminal && !plain, width: width.unwrap_or(120) }
    }
}

const TIME: usize = 12;
const ENDS: usize = 43;
const STATUS: usize = 7;
const DURATION: usize = 8;
/// Columns with a place of their own, and two spaces after each of them; the request takes the rest.
const FIXED: usize = TIME + 2 + 3 + 2 + ENDS + 2 + 2 + STATUS + 2 + DURATION;
/// A request cut shorter says nothing; on a narrower terminal rows wrap.
const REQUEST_MIN: usize = 16;

impl Style {
    fn request_width(self) -> usize {
        self.width.saturating_sub(FIXED).max(REQUEST_MIN)
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The line above the first row.
#[must_use]
pub fn header(style: Style) -> String {
    let request = style.request_width();
    let line = format!(
        "{:TIME$}  {:3}  {:ENDS$}  {:request$}  {:>STATUS$}  {:>DURATION$}",
        "TIME (UTC)", "", "CLIENT -> SERVER", "REQUEST", "STATUS", "DURATION"
    );
    style.paint("1", &line)
}

/// One row, without the line's end.
#[must_use]
pub fn row(span: &Span, style: Style) -> String {
    let request_width = style.request_width();
    let time = style.paint("2", &format!("{:TIME$}", time_of_day(span.start_ns)));
    let side = match span.kind {
        Kind::Server => style.paint("34", "in "),
        Kind::Client => style.paint("35", "out"),
    };
    let client = end(span, &["client.address", "srcip"], &["client.port", "srcport"]);
    let server = end(
        span,
        &["server.address", "network.peer.address", "dstip"],
        &["server.port", "network.peer.port", "dstport"],
    );
    let ends = shown(&format!("{client} -> {server}"), ENDS);
    let request = shown(&request(span), request_width);
    let (status, colour) = status(span);
    let status = style.paint(colour, &format!("{:>STATUS$}", shown(&status, STATUS)));
    let duration = duration(span.end_ns.saturating_sub(span.start_ns));
    format!("{time}  {side}  {ends:ENDS$}  {request:request_width$}  {status}  {duration:>DURATION$}")
}

fn attribute<'a>(span: &'a Span, names: &[&str]) -> Option<Cow<'a, str>> {
    names.iter().find_map(|name| match span.attribute(name)? {
        Value::Str(text) => Some(Cow::Borrowed(&**text)),
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    })
}

fn end(span: &Span, addresses: &[&str], ports: &[&str]) -> String {
    let address = attribute(span, addresses).unwrap_or("?".into());
    match attribute(span, ports) {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.into_owned(),
    }
}

/// Method and path, or the protocol of a flow that has none.
fn request(span: &Span) -> String {
    let Some(method) = attribute(span, &["http.request.method", "reqmethod"]) else {
        return attribute(span, &["clovisor.protocol"]).unwrap_or(Cow::Borrowed(&*span.name)).into_owned();
    };
    let original = attribute(span, &["http.request.method_original"]).unwrap_or(method);
    let mut path = attribute(span, &["url.path"]).map(Cow::into_owned).or_else(|| {
        let url = attribute(span, &["url.full", "requrl"])?;
        // The server has a column of its own.
        let after =
            url.split_once("://").map_or(&*url, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        Some(after.to_owned())
    });
    if let (Some(path), Some(query)) = (&mut path, attribute(span, &["url.query"])) {
        path.push('?');
        path.push_str(&query);
    }
    format!("{original} {}", path.unwrap_or_default())
}

/// The response's status, or what became of a session that has none; and its colour.
fn status(span: &Span) -> (String, &'static str) {
    let outcome = attribute(span, &["clovisor.outcome"]).filter(|outcome| outcome != "complete");
    match (attribute(span, &["http.response.status_code", "respstatuscode"]), outcome, &span.status) {
        (Some(code), None, _) => {
            let colour = match code.as_bytes().first() {
                Some(b'5') => "31",
                Some(b'4') => "33",
                Some(b'3') => "36",
                _ => "32",
            };
            (code.into_owned(), colour)
        }
        (_, Some(outcome), _) => (outcome.into_owned(), "31"),
        (None, None, Status::Error { message }) => {
            let what = attribute(span, &["error.type"]).unwrap_or(Cow::Borrowed(&**message));
            (if what.is_empty() { "error".to_owned() } else { what.into_owned() }, "31")
        }
        (None, None, Status::Unset) => ("-".to_owned(), "2"),
    }
}

fn time_of_day(ns: u64) -> String {
    let ms = ns / 1_000_000;
    let (hours, minutes, seconds) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

/// Three digits and a unit; the limits leave no room for `1000 µs` or `60.0 s` to appear by rounding.
fn duration(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let us = ns as f64 / 1e3;
    match us {
        us if us < 9.995 => format!("{us:.2} µs"),
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 9_995.0 => format!("{:.2} ms", us / 1e3),
        us if us < 99_950.0 => format!("{:.1} ms", us / 1e3),
        us if us < 999_500.0 => format!("{:.0} ms", us / 1e3),
        us if us < 9_995_000.0 => format!("{:.2} s", us / 1e6),
        us if us < 59_950_000.0 => format!("{:.1} s", us / 1e6),
        _ => {
            let seconds = ns / 1_000_000_000;
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
                (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
            }
        }
    }
}

/// A sink that prints a row a span, and the header before the first.
pub struct Table {
    output: Output,
    style: Box<dyn Fn() -> Style + Send>,
    headed: bool,
}

impl Table {
    /// A table on standard output, in the style that suits it at each batch: a terminal may change its width.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(Box::new(std::io::stdout()), || Style::of_stdout(|name| std::env::var(name).ok()))
    }

    /// A table elsewhere.
    #[must_use]
    pub fn new(output: Box<dyn Write + Send>, style: impl Fn() -> Style + Send + 'static) -> Self {
        Self { output: Arc::new(Mutex::new(output)), style: Box::new(style), headed: false }
    }
}

impl Sink for Table {
    type Form = Spans;

    fn describe(&self) -> String {
        "a table on standard output".to_owned()
    }

    async fn export(&mut self, batch: &mut Batch<Spans>) -> Result<(), ExportError> {
        let style = (self.style)();
        let mut lines = String::new();
        if !std::mem::replace(&mut self.headed, true) {
            lines.push_str(&header(style));
            lines.push('\n');
        }
        for span in batch.form().list() {
            lines.push_str(&row(span, style));
            lines.push('\n');
        }
        write(&self.output, vec![lines.into_bytes()]).await
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("headed", &self.headed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
