//! What went wrong with Redis, why, and what to do about it; and which faults are worth saying apart.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::export::text;

/// The sorts of faults that a person tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Nobody answers there, or the connection broke.
    Unreachable,
    /// No answer in time.
    Silent,
    /// No trust between the two.
    Tls,
    /// User or password.
    Credentials,
    /// The user may not do it.
    Permission,
    /// Redis has just started.
    Loading,
    /// Anything else that Redis says.
    Refused,
}

impl Kind {
    /// Whether it goes only after a person did something, so that there is no hurry to try again.
    pub(super) fn needs_a_person(self) -> bool {
        matches!(self, Self::Tls | Self::Credentials | Self::Permission)
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "check its address and that it runs; a server that wants TLS needs rediss://"
            }
            Self::Silent => "check the network and the load of the server",
            Self::Tls => {
                "set the file of the authority that signed its certificate, and use a name that stands in it"
            }
            Self::Credentials => "set the user and password of Redis",
            Self::Permission => {
                "allow it: ACL SETUSER <user> ~clovisor_* ~clovior_* +@read +client|tracking +ping +multi +exec +del \
                 +hset +expire"
            }
            Self::Loading => "wait: it reads its data",
            Self::Refused => "see Redis's own log",
        }
    }
}

/// A fault, and the line that says it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// What failed, why, what to do.
    pub(super) line: String,
}

impl Fault {
    /// A fault of its own, where the library reports none.
    pub(super) fn new(what: &str, kind: Kind, why: &str) -> Self {
        Self { kind, line: format!("{what}: {}; {}", text::shown(why, 300), kind.remedy()) }
    }

    /// What the failure of `what` means.
    pub(super) fn of(what: &str, error: &RedisError) -> Self {
        let why = reason(error);
        Self::new(what, kind_of(error, &why), &why)
    }
}

/// Whether Redis itself answered, so that the connection is sound.
pub(super) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Why, in one line. Of commands that went together the first failure tells it; the others repeat it.
fn reason(error: &RedisError) -> String {
    let first = error.clone().into_server_errors().and_then(|errors| errors.first().cloned());
    first.map_or_else(|| text::chain(error), |(_, first)| text::chain(&first))
}

fn kind_of(error: &RedisError, why: &str) -> Kind {
    let says = |word: &str| why.contains(word);
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::BusyLoading) => Kind::Loading,
        ErrorKind::AuthenticationFailed => Kind::Credentials,
        _ if says("NOAUTH") || says("WRONGPASS") || says("invalid username-password") => Kind::Credentials,
        // A transaction that is broken off carries the reason in its text only.
        ErrorKind::Server(ServerErrorKind::NoPerm) => Kind::Permission,
        _ if says("NOPERM") || says("NoPerm") => Kind::Permission,
        _ if is_answer(error) => Kind::Refused,
        _ if says("certificate") || says("tls") || says("TLS") => Kind::Tls,
        _ if error.is_timeout() => Kind::Silent,
        ErrorKind::Io => Kind::Unreachable,
        _ => Kind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    #[test]
    fn what_redis_says_has_a_sort_and_a_remedy() {
        for (answer, kind) in [
            ("-LOADING Redis is loading the dataset in memory", Kind::Loading),
            ("-NOAUTH Authentication required.", Kind::Credentials),
            ("-WRONGPASS invalid username-password pair or user is disabled.", Kind::Credentials),
            ("-NOPERM this user has no permissions to run the 'type' command", Kind::Permission),
            ("-WRONGTYPE Operation against a key holding the wrong kind of value", Kind::Refused),
            ("-OOM command not allowed when used memory > 'maxmemory'.", Kind::Refused),
            ("-READONLY You can't write against a read only replica.", Kind::Refused),
        ] {
            let Ok(Value::ServerError(error)) = parse_redis_value(format!("{answer}\r\n").as_bytes()) else {
                panic!("{answer}");
            };
            let fault = Fault::of("cannot do it", &error.into());
            assert_eq!(fault.kind, kind, "{answer}");
            assert!(
                fault.line.starts_with("cannot do it: ") && fault.line.ends_with(kind.remedy()),
                "{fault:?}"
            );
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(Fault::of("", &refused.into()).kind, Kind::Unreachable);
        assert_eq!(
            Fault::of("", &std::io::Error::from(std::io::ErrorKind::TimedOut).into()).kind,
            Kind::Silent
        );
        let reply = std::io::Error::new(std::io::ErrorKind::InvalidData, "invalid peer certificate: Expired");
        assert_eq!(Fault::of("", &reply.into()).kind, Kind::Tls);
    }
}
