//! Laws of the queue, on a virtual clock: nothing waits that must not, and every span is accounted for.

use std::{collections::VecDeque, future::pending, sync::Mutex};

use clovisor_trace::{Kind, Resource, Span, SpanId, Status, TraceId};
use tokio::time::sleep;

use super::{
    super::{
        sink::{Batch, ExportError},
        size,
    },
    *,
};

pub(in crate::export) fn span(id: u64) -> Span {
    Span {
        trace_id: TraceId([1; 16]),
        span_id: SpanId(id.to_be_bytes()),
        parent_span_id: None,
        parent_sampled: None,
        trace_state: String::new(),
        name: "GET".into(),
        kind: Kind::Server,
        start_ns: 1,
        end_ns: 2,
        status: Status::Unset,
        attributes: Vec::new(),
        events: Vec::new(),
        events_dropped: 0,
        resource: Arc::new(Resource::service("cart")),
    }
}

/// What a fake sink does at one call.
#[derive(Clone)]
enum Act {
    Take,
    /// Takes so many, and then asks for another try.
    TakeSome(usize),
    RefuseSome(u64),
    Later(Option<Duration>),
    Refuse,
    Close,
    Hang,
    Panic,
}

type Log = Arc<Mutex<Vec<(Duration, usize)>>>;

struct Fake {
    script: VecDeque<Act>,
    /// What it does when the script has ended.
    after: Act,
    born: Instant,
    log: Log,
}

impl Sink for Fake {
    type Form = Spans;

    fn describe(&self) -> String {
        "a fake".to_owned()
    }

    async fn export(&mut self, batch: &mut Batch<Spans>) -> Result<(), ExportError> {
        self.log.lock().unwrap().push((self.born.elapsed(), batch.left()));
        let later = |after| Err(ExportError::Retry { reason: "later".to_owned(), after });
        match self.script.pop_front().unwrap_or(self.after.clone()) {
            Act::Take => Ok(()),
            Act::TakeSome(count) => {
                let mut first = count;
                batch.accept_where(|_| first.checked_sub(1).map(|left| first = left).is_some());
                later(None)
            }
            Act::RefuseSome(count) => {
                batch.accept_but(count, "bad".to_owned());
                Ok(())
            }
            Act::Later(after) => later(after),
            Act::Refuse => Err(ExportError::Refused { reason: "never".to_owned() }),
            Act::Close => Err(ExportError::Closed { reason: "gone".to_owned() }),
            Act::Hang => pending().await,
            Act::Panic => panic!("a fault of the sink"),
        }
    }
}

fn begin(script: &[Act], after: Act, config: QueueConfig) -> (SpanQueue, Worker, Log) {
    let log = Log::default();
    let fake = Fake { script: script.to_vec().into(), after, born: Instant::now(), log: Arc::clone(&log) };
    let (queue, worker) = start(fake, config);
    (queue, worker, log)
}

fn push(queue: &SpanQueue, count: u64) {
    for id in 0..count {
        queue.push(&span(id));
    }
}

fn checked(snapshot: Snapshot) -> Snapshot {
    assert!(snapshot.balances(), "{snapshot:?}");
    snapshot
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn batches_are_full_or_half_a_second_old() {
    let (queue, worker, log) = begin(&[], Act::Take, QueueConfig::default());
    push(&queue, 600);
    sleep(SECOND).await;
    assert_eq!(*log.lock().unwrap(), [(Duration::ZERO, 512), (Duration::from_millis(500), 88)]);
    push(&queue, 1);
    let end = checked(worker.shutdown(SECOND).await);
    // A shutdown does not wait for a batch to fill.
    assert_eq!(log.lock().unwrap().last(), Some(&(SECOND, 1)));
    assert_eq!((end.exported, end.dropped(), end.queued), (601, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_sink_costs_spans_but_never_a_wait() {
    let config = QueueConfig { capacity: 100, batch: 10, ..QueueConfig::default() };
    let (queue, worker, _) = begin(&[], Act::Later(None), config);
    push(&queue, 10);
    sleep(SECOND).await;
    let before = Instant::now();
    push(&queue, 1000);
    assert_eq!(before.elapsed(), Duration::ZERO);
    let now = checked(queue.stats().snapshot());
    // The bound, and the batch that is being tried.
    assert_eq!((now.queued, now.dropped_queue_full), (110, 900));
    sleep(Duration::from_secs(61)).await;
    let now = checked(queue.stats().snapshot());
    assert_eq!((now.queued, now.dropped_given_up), (100, 10));
    let end = checked(worker.shutdown(SECOND).await);
    assert_eq!((end.pushed, end.exported, end.dropped(), end.queued), (1010, 0, 1010, 0));
}

#[tokio::test(start_paused = true)]
async fn waits_grow_and_end_after_a_minute() {
    let (queue, worker, log) = begin(&[], Act::Later(None), QueueConfig::default());
    push(&queue, 1);
    sleep(Duration::from_secs(70)).await;
    let times: Vec<_> = log.lock().unwrap().iter().map(|(at, _)| *at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] <= Duration::from_millis(101) && gaps.iter().all(|gap| *gap <= 5 * SECOND), "{gaps:?}");
    assert!((15..=35).contains(&times.len()) && times.last() < Some(&(61 * SECOND)), "{times:?}");
    assert_eq!(checked(worker.shutdown(SECOND).await).dropped_given_up, 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let (queue, worker, log) = begin(&[Act::Later(Some(7 * SECOND))], Act::Take, QueueConfig::default());
    push(&queue, 512);
    sleep(20 * SECOND).await;
    let second = log.lock().unwrap()[1].0;
    assert!(second >= 7 * SECOND && second < 8 * SECOND, "{second:?}");
    let end = checked(worker.shutdown(SECOND).await);
    assert_eq!((end.exported, end.retries), (512, 1));
}

#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_ends_with_the_batch() {
    let absurd = Act::Later(Some(Duration::from_secs(u32::MAX.into())));
    let (queue, worker, log) = begin(&[absurd], Act::Take, QueueConfig::default());
    push(&queue, 513);
    sleep(62 * SECOND).await;
    assert_eq!(log.lock().unwrap().len(), 2);
    let end = checked(worker.shutdown(SECOND).await);
    assert_eq!((end.exported, end.dropped_given_up), (1, 512));
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_is_cut_off_and_tried_again() {
    let (queue, worker, log) = begin(&[Act::Hang], Act::Take, QueueConfig::default());
    push(&queue, 512);
    sleep(11 * SECOND).await;
    let second = log.lock().unwrap()[1].0;
    assert!(second > 10 * SECOND && second < 11 * SECOND, "{second:?}");
    assert_eq!(checked(worker.shutdown(SECOND).await).exported, 512);
}

#[tokio::test(start_paused = true)]
async fn what_was_settled_is_not_sent_again() {
    let (queue, worker, log) = begin(&[Act::TakeSome(300)], Act::RefuseSome(2), QueueConfig::default());
    push(&queue, 512);
    let end = checked(worker.shutdown(SECOND).await);
    assert_eq!(log.lock().unwrap().iter().map(|(_, count)| *count).collect::<Vec<_>>(), [512, 212]);
    assert_eq!((end.exported, end.dropped_refused), (510, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_does_not_stop_the_next() {
    let (queue, worker, _) = begin(&[Act::Refuse], Act::Take, QueueConfig::default());
    push(&queue, 513);
    let end = checked(worker.shutdown(SECOND).await);
    assert_eq!((end.exported, end.dropped_refused, end.retries), (1, 512, 0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_or_broken_sink_ends_the_queue_with_every_span_counted() {
    for act in [Act::Close, Act::Panic] {
        let (queue, mut worker, _) = begin(&[Act::Take, act], Act::Take, QueueConfig::default());
        push(&queue, 1500);
        worker.ended().await;
        assert!(!queue.push(&span(1)) && !queue.push_waiting(&span(2)).await);
        let end = checked(worker.shutdown(SECOND).await);
        assert_eq!((end.exported, end.dropped_given_up), (512, 990));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_keeps_its_deadline_whatever_the_sink_does() {
    for after in [Act::Hang, Act::Later(None), Act::Later(Some(60 * SECOND))] {
        let (queue, worker, _) = begin(&[], after, QueueConfig::default());
        push(&queue, 2000);
        sleep(SECOND).await;
        let before = Instant::now();
        let end = checked(worker.shutdown(2 * SECOND).await);
        assert!(before.elapsed() <= 2 * SECOND + Duration::from_millis(10), "{:?}", before.elapsed());
        assert_eq!((end.dropped_given_up, end.queued), (2000, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tries_once_more_at_once() {
    let (queue, worker, _) = begin(&[Act::Later(Some(60 * SECOND))], Act::Take, QueueConfig::default());
    push(&queue, 512);
    sleep(SECOND).await;
    assert_eq!(checked(worker.shutdown(SECOND).await).exported, 512);
}

#[tokio::test(start_paused = true)]
async fn large_spans_fill_the_queue_before_many_do() {
    let large = |id| Span { trace_state: "x".repeat(10_000), ..span(id) };
    let config = QueueConfig { bytes: 4 * size::held(&large(0)), ..QueueConfig::default() };
    let (queue, worker, _) = begin(&[], Act::Take, config);
    // The worker does not run before this task waits.
    let taken = (0..10).filter(|id| queue.push(&large(*id))).count();
    assert_eq!(taken, 4);
    assert!(!queue.push(&large(10)), "it is full");
    sleep(SECOND).await;
    assert!(queue.push(&large(11)), "what was taken out makes room");
    let end = checked(worker.shutdown(SECOND).await);
    assert_eq!((end.pushed, end.exported, end.dropped_queue_full), (12, 5, 7));
}

#[tokio::test(start_paused = true)]
async fn a_file_waits_for_room_and_loses_nothing() {
    let config = QueueConfig { capacity: 3, batch: 2, ..QueueConfig::default() };
    let (queue, mut worker, _) = begin(&[Act::Later(None), Act::Hang], Act::Take, config);
    for id in 0..100 {
        assert!(queue.push_waiting(&span(id)).await);
    }
    drop(queue);
    worker.ended().await;
    let end = checked(worker.shutdown(SECOND).await);
    assert_eq!((end.exported, end.dropped()), (100, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_pushed_from_many_threads_during_a_shutdown_are_all_counted() {
    for _ in 0..20 {
        let (queue, worker, _) =
            begin(&[], Act::Take, QueueConfig { capacity: 64, ..QueueConfig::default() });
        let pushers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                std::thread::spawn(move || push(&queue, 5000))
            })
            .collect();
        worker.shutdown(SECOND).await;
        tokio::task::spawn_blocking(|| pushers.into_iter().for_each(|pusher| pusher.join().unwrap()))
            .await
            .unwrap();
        let end = checked(queue.stats().snapshot());
        assert_eq!((end.pushed, end.queued), (20_000, 0));
    }
}
