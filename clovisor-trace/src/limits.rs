//! How much a [`Tracer`](crate::Tracer) may hold, and how long it waits.

/// Bounds of a tracer; each has a default with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows followed at once; the one that was idle longest makes room. 131,072 is four times what a node of 110
    /// pods with 300 connections each has open; idle, they take 48 MiB.
    pub flows: usize,
    /// Bytes held in all flows together: segments out of order, heads in part, requests that wait for their
    /// response; and ends that are remembered. These are forgotten first when it is reached, then the flow that was idle longest
    /// is given up. 64 MiB is a quarter of the agent's memory limit.
    pub memory: usize,
    /// Bytes that one stream may hold of segments out of order: 8 MiB, a full receive window in flight (6 MiB at most with
    /// Linux' usual `tcp_rmem`) in segments of 500 bytes, each of which costs 100 more. Beyond it the oldest hole is declared a
    /// gap.
    pub stream: usize,
    /// Longest head of a message in bytes: 64 KiB, eight times what nginx and Go accept by default.
    pub head: usize,
    /// Requests without response in one flow: 1,024, ten times the deepest pipelining that clients do.
    pub pipeline: usize,
    /// Fragmented datagrams open at once.
    pub datagrams: usize,
    /// A flow silent for so long is given up; its open sessions end as `timeout`. 2 minutes: above the default
    /// request timeouts of the common proxies (60 s).
    pub idle_ns: u64,
    /// How long a closed connection is remembered, so that late repetitions of its segments do not look like
    /// a new one: 30 s, half of TCP's TIME-WAIT in Linux.
    pub linger_ns: u64,
    /// How long a hole waits for its bytes once the receiver has acknowledged them: they were on the wire, so
    /// only reordering on the way to us can still bring them. 100 ms, far above what queues reorder.
    pub reorder_ns: u64,
    /// How long a stream met in its middle waits for earlier segments before its first one counts as the
    /// start: 20 ms.
    pub settle_ns: u64,
    /// How many bytes in a row nobody must need before [`Tracer::poll_unneeded`](crate::Tracer::poll_unneeded) tells of them; `None`:
    /// it never does.
    pub unneeded: Option<u64>,
    /// Names of headers, in lower case, that sessions keep for export; none by default.
    pub headers: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 131_072,
            memory: 64 << 20,
            stream: 8 << 20,
            head: 64 << 10,
            pipeline: 1024,
            datagrams: 256,
            idle_ns: 120_000_000_000,
            linger_ns: 30_000_000_000,
            reorder_ns: 100_000_000,
            settle_ns: 20_000_000,
            unneeded: None,
            headers: Vec::new(),
        }
    }
}
