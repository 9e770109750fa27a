//! The live configuration against a real redis-server, changed by a real redis-cli.
//!
//! Needs Debian's `redis-server`, and `openssl` for TLS; without them the tests are reported as skipped, and fail where
//! `CI` is set. Loopback and unix sockets only.

#![expect(clippy::unwrap_used, reason = "a test's own helpers fail the test")]

mod access;
mod certificates;
mod server;

use std::{sync::Arc, time::Duration};

use clovisor::config::{
    LabelRule,
    parse::NO_POD,
    redis::{Loaded, Settings, Source, State, Status, start},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use server::Redis;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Generous: counts and laws decide, timings never do.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) type Config = watch::Receiver<Arc<Loaded>>;

pub(crate) fn source(settings: &Settings) -> (Source, Config) {
    let source = start(settings, "node-1").unwrap();
    let config = source.config();
    (source, config)
}

pub(crate) fn settings(redis: &Redis) -> Settings {
    Settings { url: redis.url(), ..Settings::default() }
}

pub(crate) async fn until(config: &mut Config, what: &str, holds: impl Fn(&Loaded) -> bool) -> Arc<Loaded> {
    let waited =
        timeout(DEADLINE, config.wait_for(|loaded| holds(loaded))).await.map(|seen| seen.unwrap().clone());
    waited.unwrap_or_else(|_| panic!("{what}: {:?}", *config.borrow()))
}

pub(crate) fn namespaces(loaded: &Loaded) -> Vec<&str> {
    loaded.config.labels.iter().map(|rule| rule.namespace.as_str()).collect()
}

pub(crate) async fn connected(config: &mut Config) -> Arc<Loaded> {
    until(config, "connected", |loaded| loaded.state == State::Connected).await
}

/// How many connections Redis tells of changes: that a change was seen proves nothing, since it is polled for, too.
pub(crate) fn told(redis: &Redis) -> u32 {
    let info = redis.cli(&["info", "clients"]);
    let line = info.lines().find_map(|line| line.strip_prefix("tracking_clients:"));
    line.unwrap().trim().parse().unwrap()
}

/// Waits until a field of the status is as it should be.
pub(crate) async fn field(redis: &Redis, name: &str, holds: impl Fn(&str) -> bool) -> String {
    let mut value = String::new();
    for _ in 0..DEADLINE.as_millis() / 50 {
        value = redis.cli(&["hget", "clovisor_status:node-1", name]);
        if holds(&value) {
            return value;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} is {value:?}: {}", redis.cli(&["hgetall", "clovisor_status:node-1"]));
}

#[tokio::test]
async fn a_string_a_list_and_a_set_each_change_it() {
    let Some(redis) = Redis::started("types", &[]) else { return };
    let (_source, mut config) = source(&settings(&redis));
    let first = connected(&mut config).await;
    assert_eq!((first.version, &first.config), (1, &Default::default()));
    assert_eq!(told(&redis), 1);
    redis.cli(&["set", "clovisor_labels", "a,b\nc"]);
    until(&mut config, "a string", |loaded| namespaces(loaded) == ["a", "b", "c"]).await;
    redis.cli(&["del", "clovisor_labels"]);
    until(&mut config, "nothing", |loaded| loaded.config.labels.is_empty()).await;
    redis.cli(&["rpush", "clovisor_labels", "z", "a"]);
    until(&mut config, "a list", |loaded| namespaces(loaded) == ["z", "a"]).await;
    redis.cli(&["lpop", "clovisor_labels"]);
    until(&mut config, "a shorter list", |loaded| namespaces(loaded) == ["a"]).await;
    redis.cli(&["rename", "clovisor_labels", "other"]);
    redis.cli(&["sadd", "clovisor_labels", "y", "x"]);
    until(&mut config, "a set, sorted", |loaded| namespaces(loaded) == ["x", "y"]).await;
    redis.cli(&["set", "clovior_egress_match", "0:80:web"]);
    redis.cli(&["set", "clovisor_egress_match", "10.0.0.1:81"]);
    redis.cli(&["set", "clovisor_jaeger_agent", "jaeger"]);
    until(&mut config, "all keys", |loaded| {
        loaded.config.egress.len() == 2 && loaded.config.traces.is_some()
    })
    .await;
    redis.cli(&["flushall"]);
    until(&mut config, "flushed", |loaded| loaded.config == Default::default()).await;
}

#[tokio::test]
async fn a_value_that_is_wrong_is_told_in_the_status_until_it_is_right() {
    let Some(redis) = Redis::started("errors", &[]) else { return };
    redis.cli(&["hset", "clovisor_labels", "a", "b"]);
    redis.cli(&["set", "clovisor_egress_match", "0:80,nonsense"]);
    let (source, mut config) = source(&settings(&redis));
    let loaded = connected(&mut config).await;
    assert_eq!((loaded.config.labels.as_slice(), loaded.config.egress.len()), (&[NO_POD][..], 1));
    field(&redis, "error:clovisor_labels", |text| text.contains("hash")).await;
    field(&redis, "error:clovisor_egress_match", |text| text.contains("'nonsense'")).await;
    let status = Status {
        config_version: loaded.version,
        pods: 7,
        more: vec![("mine".to_owned(), "yes".to_owned())],
        ..Status::default()
    };
    source.report(status.clone());
    field(&redis, "pods", |text| text == "7").await;
    assert_eq!(redis.cli(&["hget", "clovisor_status:node-1", "mine"]), "yes");
    let ttl: i32 = redis.cli(&["ttl", "clovisor_status:node-1"]).parse().unwrap();
    assert!((1..=60).contains(&ttl), "{ttl}");
    source.report(Status { more: vec![], ..status });
    field(&redis, "mine", str::is_empty).await;
    redis.cli(&["del", "clovisor_labels"]);
    redis.cli(&["set", "clovisor_egress_match", "0:80"]);
    until(&mut config, "right", |loaded| loaded.errors.is_empty()).await;
    field(&redis, "error:clovisor_egress_match", str::is_empty).await;
    field(&redis, "error:clovisor_labels", str::is_empty).await;
}

#[tokio::test]
async fn a_burst_is_few_changes_and_a_status_is_none() {
    let Some(redis) = Redis::started("burst", &[]) else { return };
    let (source, mut config) = source(&settings(&redis));
    let first = connected(&mut config).await.version;
    let rpush: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    let script = "for i = 1, #ARGV do redis.call('rpush', KEYS[1], ARGV[i]) end";
    let mut words = vec!["eval", script, "1", "clovisor_labels"];
    words.extend(rpush.iter().map(String::as_str));
    redis.cli(&words);
    let seen = until(&mut config, "all", |loaded| loaded.config.labels.len() == 200).await;
    assert!(seen.version - first <= 2, "{} versions", seen.version - first);
    let reads = || {
        redis
            .cli(&["info", "commandstats"])
            .lines()
            .find(|line| line.starts_with("cmdstat_type:"))
            .map(str::to_owned)
    };
    let before = reads();
    for pods in 1..=5 {
        source.report(Status { pods, ..Status::default() });
        field(&redis, "pods", |text| text == pods.to_string()).await;
        redis.cli(&["hset", "clovisor_status:other", "pods", "1"]);
    }
    let after = reads();
    let calls = |line: &Option<String>| -> u64 {
        let line = line.clone().unwrap();
        line.split_once("calls=").unwrap().1.split(',').next().unwrap().parse().unwrap()
    };
    // The poll of the safety net may fall in between.
    assert!(
        calls(&after) - calls(&before) <= 6,
        "a status must not load the configuration: {before:?} {after:?}"
    );
}

#[tokio::test]
async fn a_redis_that_comes_late_goes_and_comes_back() {
    let Some(mut redis) = Redis::new("restart", &[]) else { return };
    let (source, mut config) = source(&settings(&redis));
    source.report(Status { pods: 3, ..Status::default() });
    sleep(Duration::from_millis(500)).await;
    assert_eq!(**config.borrow(), Loaded::default());
    redis.start();
    connected(&mut config).await;
    redis.cli(&["set", "clovisor_labels", "shop"]);
    let last = until(&mut config, "shop", |loaded| namespaces(loaded) == ["shop"]).await;
    redis.kill();
    let lost = until(&mut config, "lost", |loaded| loaded.state == State::Lost).await;
    assert_eq!((&lost.config, lost.version), (&last.config, last.version), "the last one stays");
    redis.start();
    let back = until(&mut config, "back, empty", |loaded| {
        loaded.state == State::Connected && loaded.config == Default::default()
    });
    assert!(back.await.version > last.version);
    assert_eq!(told(&redis), 1, "asked for again");
    redis.cli(&["set", "clovisor_labels", "again"]);
    until(&mut config, "told after a reconnect", |loaded| namespaces(loaded) == ["again"]).await;
    field(&redis, "pods", |text| text == "3").await;
    redis.cli(&["client", "kill", "type", "normal"]);
    redis.cli(&["set", "clovisor_labels", "thrice"]);
    until(&mut config, "told after a kill", |loaded| namespaces(loaded) == ["thrice"]).await;
}

#[tokio::test]
async fn a_redis_that_is_silent_is_lost_until_it_answers() {
    let Some(redis) = Redis::started("silent", &[]) else { return };
    let (_source, mut config) = source(&settings(&redis));
    redis.cli(&["set", "clovisor_labels", "shop"]);
    until(&mut config, "shop", |loaded| namespaces(loaded) == ["shop"]).await;
    kill(Pid::from_raw(redis.pid()), Signal::SIGSTOP).unwrap();
    let lost = until(&mut config, "lost", |loaded| loaded.state == State::Lost).await;
    assert_eq!(lost.config.labels, [LabelRule { namespace: "shop".to_owned(), label: None }]);
    kill(Pid::from_raw(redis.pid()), Signal::SIGCONT).unwrap();
    connected(&mut config).await;
    redis.cli(&["set", "clovisor_labels", "again"]);
    until(&mut config, "again", |loaded| namespaces(loaded) == ["again"]).await;
}
