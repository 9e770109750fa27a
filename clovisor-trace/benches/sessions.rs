//! What the tracer costs by itself: prepared packets to sessions, on one core, with nothing before or behind. One element is one
//! session.

mod traffic;

use std::hint::black_box;

use clovisor_trace::{Limits, Tracer};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use traffic::{Frame, REQUESTS, frames};

/// Sessions that come of it. A function of its own in the binary, so that callgrind can count it alone.
#[inline(never)]
fn trace(frames: &[Frame]) -> u32 {
    let mut tracer = Tracer::new(Limits::default());
    let mut sessions = 0;
    let mut end_ns = 0;
    for packet in traffic::packets(frames) {
        end_ns = packet.time_ns;
        tracer.handle_packet(&packet);
        while let Some(session) = tracer.poll_session() {
            black_box(&session);
            sessions += 1;
        }
    }
    tracer.finish(end_ns);
    sessions + u32::try_from(std::iter::from_fn(|| tracer.poll_session()).count()).expect("few")
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packets to sessions");
    group.throughput(Throughput::Elements(REQUESTS.into())).sample_size(20);
    for connections in [1, 64, 1_000, 8_000] {
        let frames = frames(connections);
        group.bench_with_input(BenchmarkId::from_parameter(connections), &frames, |bencher, frames| {
            bencher.iter(|| {
                assert_eq!(trace(frames), REQUESTS, "all of them, or it is not the work that is measured");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
