//! What the agent costs from prepared packets to bytes that only have to be written, on one core: the tracer makes sessions, the
//! pipeline says what their spans are, and an encoder writes them in batches as long as those of the queue. One element is one session.

#[path = "../../clovisor-trace/benches/traffic/mod.rs"]
mod traffic;

use std::{hint::black_box, mem::replace};

use clovisor::export::{Form, json::Lines, otlp::Groups};
use clovisor::pipeline::{Names, Pipeline};
use clovisor_trace::{Limits, Resource, Semconv, SessionSpan};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use traffic::{Frame, REQUESTS, frames};

/// What follows the tracer does not know connections.
const CONNECTIONS: u32 = 64;
/// Spans of a batch, as many as the queue makes.
const BATCH: usize = 512;
/// So that times have as many digits as they have live.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// What is made of packets; how many sessions there were.
type Way = fn(&[Frame]) -> usize;

/// As what each span says, which nobody hears. A function of its own in the binary, as the others, so that callgrind can count it
/// alone.
#[inline(never)]
fn to_spans(frames: &[Frame]) -> usize {
    describe(frames, |span| _ = black_box(span))
}

/// As JSON lines.
#[inline(never)]
fn to_json(frames: &[Frame]) -> usize {
    in_batches(frames, |lines: Lines| _ = black_box(lines))
}

/// As OTLP's protobuf.
#[inline(never)]
fn to_otlp(frames: &[Frame]) -> usize {
    in_batches(frames, |mut groups: Groups| drop(black_box(groups.message())))
}

/// Encodes in pieces, and hands these over as batches, as a queue does; how many spans there were.
fn in_batches<F: Form>(frames: &[Frame], send: impl Fn(F)) -> usize {
    let (mut batch, mut piece) = (None, F::default());
    let count = describe(frames, |span| {
        piece.add(span);
        let waiting = batch.as_ref().map_or(0, F::spans) + piece.spans();
        if waiting == BATCH || piece.bytes() >= F::FULL {
            let another = piece.another();
            let full = replace(&mut piece, another);
            match &mut batch {
                Some(batch) => assert!(batch.gather(full).is_none(), "a batch is one message"),
                none => *none = Some(full),
            }
        }
        if waiting == BATCH {
            batch.take().into_iter().for_each(&send);
        }
    });
    batch.into_iter().chain([piece]).for_each(send);
    count
}

/// Hands all spans to `each`; how many there were.
fn describe(frames: &[Frame], mut each: impl FnMut(&SessionSpan<'_>)) -> usize {
    let mut pipeline = Pipeline::new(Limits::default(), Semconv::Stable, None);
    let mut resource = Resource::service("shop");
    resource.attributes.push(("clovisor.interface".into(), "eth0".into()));
    pipeline.name(1, Names::all(resource));
    let (mut count, mut end_ns) = (0, 0);
    let mut out = |span: &SessionSpan<'_>| {
        count += 1;
        each(span);
    };
    for packet in traffic::packets(frames) {
        end_ns = packet.time_ns;
        pipeline.packet(&packet, EPOCH_NS, &mut out);
    }
    pipeline.finish(end_ns, EPOCH_NS, &mut out);
    count
}

fn all(criterion: &mut Criterion) {
    let frames = frames(CONNECTIONS);
    let mut group = criterion.benchmark_group("packets to");
    group.throughput(Throughput::Elements(REQUESTS.into())).sample_size(20);
    for (name, way) in [("spans", to_spans as Way), ("JSON", to_json), ("OTLP", to_otlp)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                assert_eq!(
                    way(&frames),
                    REQUESTS as usize,
                    "all of them, or it is not the work that is measured"
                );
            });
        });
    }
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);
