//! The values of our keys, whatever type they have: a string, a list or a set. A type that cannot hold entries, or an
//! amount that no configuration has, is told as such; nothing is read without a bound on its number.

use std::collections::BTreeMap;

use redis::{RedisError, RedisResult, aio::MultiplexedConnection};

use crate::config::parse::{KEYS, MOST_ENTRIES, Raw};

/// Longest string: the most entries, at the longest that they can be.
const MOST_BYTES: usize = 512 * 1024;
/// Most members of a set; it has no order, so that its first ones cannot be taken alone.
const MOST_MEMBERS: usize = 16 * MOST_ENTRIES;
/// A key can change its type between two commands, but hardly again and again.
const TRIES: usize = 3;

/// Reads [`KEYS`].
pub(super) async fn values(connection: &mut MultiplexedConnection) -> RedisResult<BTreeMap<String, Raw>> {
    for _ in 1..TRIES {
        match values_once(connection).await {
            Err(error) if is_wrong_type(&error) => {}
            result => return result,
        }
    }
    values_once(connection).await
}

fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

async fn values_once(connection: &mut MultiplexedConnection) -> RedisResult<BTreeMap<String, Raw>> {
    let mut pipe = redis::pipe();
    for key in KEYS {
        pipe.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = pipe.query_async(connection).await?;
    let mut values = BTreeMap::new();
    for (key, of_type) in KEYS.into_iter().zip(types) {
        values.insert(key.to_owned(), value(connection, key, &of_type).await?);
    }
    Ok(values)
}

async fn value(connection: &mut MultiplexedConnection, key: &str, of_type: &str) -> RedisResult<Raw> {
    Ok(match of_type {
        "none" => Raw::Missing,
        "string" => {
            let bytes: Vec<u8> =
                redis::cmd("GETRANGE").arg(key).arg(0).arg(MOST_BYTES).query_async(connection).await?;
            if bytes.len() > MOST_BYTES {
                Raw::Unusable(format!("a string of more than {MOST_BYTES} bytes"))
            } else {
                strings([bytes])
            }
        }
        "list" => {
            // One more than is taken, so that more are noticed.
            let entries: Vec<Vec<u8>> =
                redis::cmd("LRANGE").arg(key).arg(0).arg(MOST_ENTRIES).query_async(connection).await?;
            strings(entries)
        }
        "set" => {
            let members: usize = redis::cmd("SCARD").arg(key).query_async(connection).await?;
            if members > MOST_MEMBERS {
                return Ok(Raw::Unusable(format!("a set of more than {MOST_MEMBERS} members")));
            }
            let mut entries: Vec<Vec<u8>> = redis::cmd("SMEMBERS").arg(key).query_async(connection).await?;
            entries.sort_unstable();
            strings(entries)
        }
        other => Raw::Unusable(format!("a value of type {other}")),
    })
}

fn strings(values: impl IntoIterator<Item = Vec<u8>>) -> Raw {
    Raw::Strings(values.into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect())
}
