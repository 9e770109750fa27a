//! Ways in: unix socket, password, ACL users with the least rights, and TLS.

use std::{path::Path, time::Duration};

use clovisor::config::redis::{Loaded, Settings, State};
use tokio::time::sleep;

use crate::{
    certificates, connected, field, namespaces,
    server::{Redis, has},
    settings, source, told, until,
};

/// The least that ARCHITECTURE and the manifests have to grant.
const LEAST: [&str; 16] = [
    "on",
    ">secret",
    "resetkeys",
    "%R~clovisor_*",
    "%R~clovior_*",
    "%RW~clovisor_status:*",
    "+type",
    "+getrange",
    "+lrange",
    "+scard",
    "+smembers",
    "+ping",
    "+multi",
    "+exec",
    "+client|tracking",
    "+del",
];

fn user(redis: &Redis, words: &[&str]) {
    redis.cli(&[&["acl", "setuser", "clovisor"], words].concat());
}

fn as_user(redis: &Redis) -> Settings {
    let some = |text: &str| Some(text.to_owned());
    Settings { user: some("clovisor"), password: some("secret"), ..settings(redis) }
}

#[tokio::test]
async fn unix_socket() {
    let Some(redis) = Redis::started("unix_socket", &[]) else { return };
    let url = format!("unix://{}", redis.socket().display());
    let (_source, mut config) = source(&Settings { url, ..Settings::default() });
    connected(&mut config).await;
    redis.cli(&["set", "clovisor_labels", "shop"]);
    until(&mut config, "shop", |loaded| namespaces(loaded) == ["shop"]).await;
}

#[tokio::test]
async fn a_password_is_needed_and_given() {
    let Some(mut redis) = Redis::new("password", &["--requirepass", "secret"]) else { return };
    redis.cli = ["-a", "secret", "--no-auth-warning"].map(str::to_owned).to_vec();
    redis.start();
    let with =
        |password: Option<&str>| Settings { password: password.map(str::to_owned), ..settings(&redis) };
    let (_without, none) = source(&with(None));
    let (_wrong, wrong) = source(&with(Some("wrong")));
    let (_right, mut right) = source(&with(Some("secret")));
    connected(&mut right).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!((none.borrow().state, wrong.borrow().state), (State::Never, State::Never));
    redis.cli(&["config", "set", "requirepass", ""]);
    let mut none = none;
    connected(&mut none).await;
}

#[tokio::test]
async fn the_least_rights_are_enough() {
    let Some(redis) = Redis::started("least", &[]) else { return };
    user(&redis, &[&LEAST[..], &["+hset", "+expire"]].concat());
    redis.cli(&["sadd", "clovisor_labels", "a"]);
    redis.cli(&["rpush", "clovior_egress_match", "0:80"]);
    let (_source, mut config) = source(&as_user(&redis));
    connected(&mut config).await;
    assert_eq!(told(&redis), 1);
    redis.cli(&["set", "clovisor_labels", "b,wrong!"]);
    until(&mut config, "b", |loaded| namespaces(loaded) == ["b"]).await;
    field(&redis, "error:clovisor_labels", |text| text.contains("wrong!")).await;
    assert_eq!(redis.cli(&["acl", "log"]), "", "nothing was refused");
}

#[tokio::test]
async fn the_documented_rights_are_enough() {
    let Some(redis) = Redis::started("documented", &[]) else { return };
    user(
        &redis,
        &[
            "on",
            ">secret",
            "~clovisor_*",
            "~clovior_*",
            "+@read",
            "+client|tracking",
            "+ping",
            "+multi",
            "+exec",
            "+del",
            "+hset",
            "+expire",
        ],
    );
    let (_source, mut config) = source(&as_user(&redis));
    connected(&mut config).await;
    field(&redis, "pods", |text| text == "0").await;
    assert_eq!(redis.cli(&["acl", "log"]), "", "nothing was refused");
}

#[tokio::test]
async fn without_tracking_it_polls_and_without_writing_it_still_follows() {
    let Some(redis) = Redis::started("polls", &[]) else { return };
    user(&redis, &[&LEAST[..], &["-client|tracking"]].concat());
    let (_source, mut config) = source(&as_user(&redis));
    connected(&mut config).await;
    assert_eq!(told(&redis), 0);
    for name in ["a", "b", "c"] {
        redis.cli(&["set", "clovisor_labels", name]);
        until(&mut config, name, |loaded| namespaces(loaded) == [name]).await;
    }
    assert_eq!(redis.cli(&["exists", "clovisor_status:node-1"]), "0", "HSET is refused, and DEL with it");
    assert_eq!(config.borrow().state, State::Connected);
}

#[tokio::test]
async fn reading_that_is_refused_is_no_configuration_until_it_is_allowed() {
    let Some(redis) = Redis::started("refused", &[]) else { return };
    redis.cli(&["set", "clovisor_labels", "shop"]);
    user(&redis, &["on", ">secret", "+ping"]);
    let (_source, mut config) = source(&as_user(&redis));
    sleep(Duration::from_millis(500)).await;
    assert_eq!(**config.borrow(), Loaded::default());
    user(&redis, &LEAST);
    until(&mut config, "allowed", |loaded| namespaces(loaded) == ["shop"]).await;
}

#[tokio::test]
async fn tls_with_an_authority_of_our_own_and_not_without() {
    if !has("tls", "openssl", "version") {
        return;
    }
    let Some(mut redis) = Redis::new("tls", &["--tls-auth-clients", "no"]) else { return };
    let dir = redis.dir.clone();
    certificates::make(&dir);
    for (flag, file) in
        [("--tls-cert-file", "cert.pem"), ("--tls-key-file", "key.pem"), ("--tls-ca-cert-file", "ca.pem")]
    {
        redis.flag(flag, &dir.join(file));
    }
    let port = redis.port.to_string();
    redis.flag("--tls-port", Path::new(&port));
    // The last `--port` holds: TLS alone.
    redis.flag("--port", Path::new("0"));
    redis.start();
    let url = format!("rediss://127.0.0.1:{port}");
    let (_trusting, mut trusting) =
        source(&Settings { url: url.clone(), ca: Some(dir.join("ca.pem")), ..Settings::default() });
    let (_doubting, doubting) = source(&Settings { url, ..Settings::default() });
    let (_plain, plain) = source(&settings(&redis));
    connected(&mut trusting).await;
    redis.cli(&["set", "clovisor_labels", "shop"]);
    until(&mut trusting, "shop", |loaded| namespaces(loaded) == ["shop"]).await;
    assert_eq!((doubting.borrow().state, plain.borrow().state), (State::Never, State::Never));
}
