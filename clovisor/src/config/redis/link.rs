//! One connection to Redis: opened, asked to tell of changes, and watched for its end.
//!
//! It refuses to come back by itself: whoever holds it opens another one and loads everything again, since changes in
//! between were told to nobody. Every command ends by [`COMMAND`].

use std::{path::Path, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult,
    TlsCertificates, Value, aio::MultiplexedConnection,
};
use tokio::{sync::Notify, time::timeout};

use super::{
    fault::{Fault, Kind, is_answer},
    settings::Target,
};
use crate::config::parse::KEYS;

/// Longest wait for an answer; a Redis of this load answers in a millisecond.
const COMMAND: Duration = Duration::from_secs(2);
/// Longest wait for a connection, names looked up and all.
const CONNECT: Duration = Duration::from_secs(5);

/// What Redis tells without being asked. A change is a permit, not a message: any number of them is one.
#[derive(Debug, Default)]
struct Told {
    changed: Notify,
    closed: Notify,
}

/// A connection.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    /// Why Redis does not tell of changes, if it does not.
    pub(super) untold: Option<Fault>,
    told: Arc<Told>,
}

impl Link {
    /// Connects, and has Redis tell of changes if it can.
    pub(super) async fn open(target: &Target) -> Result<Self, Fault> {
        let what = format!("cannot connect to Redis at {}", target.shown);
        let opening = async {
            match open_with(target, ProtocolVersion::RESP3).await {
                // Before Redis 6 there is neither RESP3 nor tracking.
                Err(error) if is_old(&error) => open_with(target, ProtocolVersion::RESP2).await,
                opened => opened,
            }
        };
        let (mut connection, told) = match timeout(CONNECT, opening).await {
            Ok(opened) => opened.map_err(|error| Fault::of(&what, &error))?,
            Err(_) => return Err(Fault::new(&what, Kind::Silent, "no connection in time")),
        };
        let untold = match track(&mut connection).await {
            Ok(()) => None,
            Err(error) if is_answer(&error) => Some(Fault::of("Redis does not tell of changes", &error)),
            Err(error) => return Err(Fault::of(&what, &error)),
        };
        Ok(Self { connection, untold, told })
    }

    /// Waits until something changed.
    pub(super) async fn changed(&self) {
        self.told.changed.notified().await;
    }

    /// Waits until the connection is gone.
    pub(super) async fn closed(&self) {
        self.told.closed.notified().await;
    }
}

fn is_old(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported || error.to_string().contains("unknown command")
}

async fn open_with(
    target: &Target,
    protocol: ProtocolVersion,
) -> RedisResult<(MultiplexedConnection, Arc<Told>)> {
    let redis = target.info.redis_settings().clone().set_protocol(protocol);
    let info = target.info.clone().set_redis_settings(redis);
    let client = match &target.ca {
        Some(path) => Client::build_with_tls(
            info,
            TlsCertificates { client_tls: None, root_cert: Some(certificates(path).await?) },
        )?,
        None => Client::open(info)?,
    };
    // redis brings no cryptography; an error means that the process has it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let told = Arc::new(Told::default());
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(COMMAND));
    if protocol == ProtocolVersion::RESP3 {
        let told = Arc::clone(&told);
        config = config.set_push_sender(move |push: PushInfo| -> Result<(), redis::aio::SendError> {
            match push.kind {
                PushKind::Invalidate if concerns_us(&push.data) => told.changed.notify_one(),
                PushKind::Disconnection => told.closed.notify_one(),
                _ => {}
            }
            Ok(())
        });
    }
    Ok((client.get_multiplexed_async_connection_with_config(&config).await?, told))
}

async fn certificates(path: &Path) -> RedisResult<Vec<u8>> {
    let failed = |error: std::io::Error| {
        let why = format!("cannot read the TLS authorities in {}: {error}", path.display());
        RedisError::from(std::io::Error::new(error.kind(), why))
    };
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking({
        let path = path.clone();
        move || std::fs::read(path)
    });
    read.await.map_err(std::io::Error::other).and_then(|read| read).map_err(failed)
}

/// Redis, "Client-side caching", broadcasting mode. The prefixes are the keys themselves, so that the statuses which
/// all nodes write are not told to all nodes.
async fn track(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    for key in KEYS {
        command.arg("PREFIX").arg(key);
    }
    command.exec_async(connection).await
}

/// Whether an invalidation names a key of ours; null means that everything was flushed.
fn concerns_us(data: &[Value]) -> bool {
    data.iter().any(|value| match value {
        Value::Array(keys) => keys.iter().any(|key| match key {
            Value::BulkString(key) => KEYS.iter().any(|ours| ours.as_bytes() == key.as_slice()),
            _ => false,
        }),
        other => *other == Value::Nil,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_the_configuration_concern_us() {
        let keys = |keys: &[&str]| {
            vec![Value::Array(keys.iter().map(|key| Value::BulkString(key.as_bytes().to_vec())).collect())]
        };
        assert!(concerns_us(&keys(&["clovisor_labels"])));
        assert!(concerns_us(&keys(&["x", "clovior_egress_match"])));
        assert!(concerns_us(&[Value::Nil]), "FLUSHALL");
        for others in [&["clovisor_status:node"][..], &["clovisor_labels2"], &[]] {
            assert!(!concerns_us(&keys(others)), "{others:?}");
        }
    }
}
