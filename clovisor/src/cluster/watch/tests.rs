//! The watch against an API server that lists, tells, forgets, breaks, refuses and goes away.
//!
//! Loopback only. Every wait ends by itself: on the state that is waited for, or after [`PATIENCE`] as a failure.

use std::time::Duration;

use serde_json::{Value, json};

use super::{server::Server, *};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for anything to come that should not; a slow machine only makes the test weaker.
const QUIET: Duration = Duration::from_millis(300);

/// Tries again at once, so to say.
struct Soon;

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(20))
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {}
}

fn watch(server: &Server) -> Watch {
    let url = format!("http://{}", server.address).parse().unwrap();
    start_paced(client::connect(kube::Config::new(url)).unwrap(), "n1", || Soon)
}

fn pod(uid: &str, app: &str) -> Value {
    json!({"metadata": {"uid": uid, "namespace": "default", "labels": {"app": app}}, "spec": {"nodeName": "n1", "containers": []}})
}

fn service(port: u16) -> Value {
    json!({"metadata": {"namespace": "default"}, "spec": {"ports": [{"name": "http", "port": port}]}})
}

/// Waits for a state.
async fn until(state: &mut Receiver<Arc<State>>, what: impl Fn(&State) -> bool) -> Arc<State> {
    let wait = tokio::time::timeout(PATIENCE, state.wait_for(|state| what(state)));
    let found = wait.await.map(|found| found.unwrap().clone());
    found.unwrap_or_else(|_| panic!("did not come: {:?}", state.borrow()))
}

/// Waits for anything else, which no state says.
async fn eventually(what: impl Fn() -> bool) {
    let look = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
}

fn uids(state: &State) -> Vec<&str> {
    state.cluster.pods.keys().map(String::as_str).collect()
}

fn live(state: &State) -> bool {
    state.synced && state.connected
}

#[tokio::test]
async fn what_is_there_comes_whole_and_only_of_this_node() {
    let server = Server::start().await;
    for number in 0..450 {
        server.put("pods", &format!("p{number}"), pod(&format!("u{number}"), "a"));
    }
    server.put("services", "web", service(80));
    let watch = watch(&server);
    let state = until(&mut watch.subscribe(), live).await;
    assert_eq!((state.cluster.pods.len(), state.cluster.services.len()), (450, 1));
    assert_eq!(state, watch.state());
    let requests = server.requests();
    let pods: Vec<_> = requests.iter().filter(|target| target.contains("/pods")).collect();
    assert!(pods.iter().all(|target| target.contains("fieldSelector=spec.nodeName%3Dn1")), "{pods:?}");
    assert_eq!(pods.iter().filter(|target| target.contains("continue=")).count(), 2, "pages: {pods:?}");
}

#[tokio::test]
async fn objects_come_change_and_go() {
    let server = Server::start().await;
    let watch = watch(&server);
    let mut state = watch.subscribe();
    assert!(until(&mut state, live).await.cluster.pods.is_empty());
    server.put("pods", "p", pod("u1", "a"));
    until(&mut state, |state| uids(state) == ["u1"]).await;
    server.put("pods", "p", pod("u1", "b"));
    until(&mut state, |state| state.cluster.pods["u1"].labels["app"] == "b").await;
    let key = ("default".to_owned(), "web".to_owned());
    server.put("services", "web", service(80));
    until(&mut state, |state| state.cluster.services.contains_key(&key)).await;
    server.put("services", "web", service(81));
    until(&mut state, |state| state.cluster.services[&key].ports[0].port == 81).await;
    server.delete("services", "web");
    until(&mut state, |state| state.cluster.services.is_empty()).await;
    // The name comes again with another pod, as of a StatefulSet.
    server.delete("pods", "p");
    server.put("pods", "p", pod("u2", "a"));
    let state = until(&mut state, |state| uids(state) == ["u2"]).await;
    assert!(live(&state));
}

#[tokio::test]
async fn what_is_not_read_wakes_nobody() {
    let server = Server::start().await;
    server.put("pods", "p", pod("u1", "a"));
    let watch = watch(&server);
    let mut state = watch.subscribe();
    until(&mut state, live).await;
    eventually(|| server.watches() == 2).await;
    let before = state.borrow_and_update().clone();
    for beat in 0..20 {
        let mut heartbeat = pod("u1", "a");
        heartbeat["status"] =
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": beat.to_string()}]});
        server.put("pods", "p", heartbeat);
    }
    // A list that brings the same is no change either.
    server.forget_history();
    server.gone();
    eventually(|| server.watches() == 2).await;
    tokio::time::sleep(QUIET).await;
    assert!(!state.has_changed().unwrap());
    assert!(Arc::ptr_eq(&before, &watch.state()));
    server.put("pods", "p", pod("u1", "b"));
    until(&mut state, |state| state.cluster.pods["u1"].labels["app"] == "b").await;
}

#[tokio::test]
async fn a_list_after_410_replaces_all_at_once_and_is_no_outage() {
    let server = Server::start().await;
    server.put("pods", "old", pod("u1", "a"));
    server.put("pods", "stays", pod("u2", "a"));
    let watch = watch(&server);
    let mut state = watch.subscribe();
    let before = until(&mut state, live).await;
    eventually(|| server.watches() == 2).await;
    server.end_watches();
    // Nobody is told of these; the place in history is gone when the watches come back.
    server.delete("pods", "old");
    server.put("pods", "new", pod("u3", "a"));
    server.forget_history();
    let after = tokio::time::timeout(PATIENCE, async {
        loop {
            state.changed().await.unwrap();
            let seen = state.borrow_and_update().clone();
            assert!(live(&seen));
            if uids(&seen) != ["u1", "u2"] {
                return seen;
            }
        }
    });
    let after = after.await.unwrap();
    assert_eq!(uids(&after), ["u2", "u3"]);
    assert!(Arc::ptr_eq(&before.cluster.pods["u2"], &after.cluster.pods["u2"]));
}

#[tokio::test]
async fn a_watch_that_ends_is_resumed_without_a_list() {
    let server = Server::start().await;
    let watch = watch(&server);
    let mut state = watch.subscribe();
    until(&mut state, live).await;
    eventually(|| server.watches() == 2).await;
    let lists = |server: &Server| server.requests().iter().filter(|one| !one.contains("watch=")).count();
    let before = lists(&server);
    server.end_watches();
    server.put("pods", "p", pod("u1", "a"));
    let now = until(&mut state, |state| uids(state) == ["u1"]).await;
    assert!(live(&now));
    assert_eq!(lists(&server), before);
}

#[tokio::test]
async fn an_outage_keeps_the_last_state_and_its_end_brings_what_changed() {
    let mut server = Server::start().await;
    server.put("pods", "old", pod("u1", "a"));
    server.put("pods", "stays", pod("u2", "a"));
    server.put("services", "web", service(80));
    let watch = watch(&server);
    let mut state = watch.subscribe();
    until(&mut state, live).await;
    for round in 0..3 {
        server.down().await;
        let away = until(&mut state, |state| !state.connected).await;
        assert!(away.synced);
        server.put("pods", &format!("new{round}"), pod(&format!("v{round}"), "a"));
        if round == 0 {
            server.delete("pods", "old");
        }
        // Also a server that came back from a backup: its history starts anew.
        server.forget_history();
        tokio::time::sleep(QUIET).await;
        let still = watch.state();
        assert_eq!(still.cluster, away.cluster, "nothing goes, nobody knows better");
        server.up().await;
        until(&mut state, |state| live(state) && state.cluster.pods.contains_key(&format!("v{round}"))).await;
    }
    assert_eq!(uids(&watch.state()), ["u2", "v0", "v1", "v2"]);
    // And it is followed again, even though nothing had changed meanwhile.
    server.down().await;
    until(&mut state, |state| !state.connected).await;
    server.up().await;
    until(&mut state, live).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_at_first() {
    let mut server = Server::start().await;
    server.put("pods", "p", pod("u1", "a"));
    server.down().await;
    let watch = watch(&server);
    tokio::time::sleep(QUIET).await;
    assert_eq!(*watch.state(), State::default());
    server.up().await;
    assert_eq!(uids(&*until(&mut watch.subscribe(), live).await), ["u1"]);
}

#[tokio::test]
async fn a_missing_right_leaves_the_rest_and_is_mended_live() {
    let server = Server::start().await;
    server.put("pods", "p", pod("u1", "a"));
    server.refuse(Some(("services", 403)));
    let watch = watch(&server);
    let mut state = watch.subscribe();
    let half = until(&mut state, |state| uids(state) == ["u1"]).await;
    assert!(!half.synced && !half.connected);
    server.refuse(None);
    until(&mut state, live).await;
    // The right is taken away later: what is known stays.
    server.refuse(Some(("pods", 403)));
    server.end_watches();
    let lost = until(&mut state, |state| !state.connected).await;
    assert_eq!((uids(&lost), lost.synced), (vec!["u1"], true));
    server.refuse(None);
    until(&mut state, live).await;
}

#[tokio::test]
async fn a_server_that_refuses_our_place_in_history_is_listed_anew() {
    let server = Server::start().await;
    let watch = watch(&server);
    let mut state = watch.subscribe();
    until(&mut state, live).await;
    // 504: "Too large resource version", after a restore from a backup.
    for code in [410, 500, 504] {
        eventually(|| server.watches() == 2).await;
        server.refuse_watches(Some(code));
        server.end_watches();
        server.put("pods", "p", pod(&format!("u{code}"), "a"));
        until(&mut state, |state| state.cluster.pods.contains_key(&format!("u{code}"))).await;
        server.refuse_watches(None);
        until(&mut state, live).await;
    }
}

#[tokio::test]
async fn a_right_to_list_without_the_right_to_watch_is_one_outage() {
    let server = Server::start().await;
    server.refuse_watches(Some(403));
    let watch = watch(&server);
    let mut state = watch.subscribe();
    until(&mut state, |state| state.synced && !state.connected).await;
    server.put("pods", "p", pod("u1", "a"));
    // What can be listed is still taken.
    until(&mut state, |state| uids(state) == ["u1"]).await;
    for _ in 0..50 {
        assert!(!watch.state().connected);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.refuse_watches(None);
    until(&mut state, live).await;
}

#[tokio::test]
async fn dropped_it_lets_go() {
    let server = Server::start().await;
    let watch = watch(&server);
    let mut state = watch.subscribe();
    until(&mut state, live).await;
    eventually(|| server.watches() == 2).await;
    drop(watch);
    eventually(|| server.watches() == 0).await;
    assert!(state.changed().await.is_err(), "no sender is left");
}

#[test]
fn the_wait_grows_but_not_beyond_ten_seconds() {
    let waits: Vec<_> = Pace::default().take(12).collect();
    assert!(waits[0] >= Duration::from_millis(800) && waits[0] <= Duration::from_millis(1_600), "{waits:?}");
    assert!(waits[5..].iter().all(|&wait| wait == Duration::from_secs(10)), "{waits:?}");
}
