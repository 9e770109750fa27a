//! Which Redis, and who we are there. It refuses to show a password, wherever it was written.

use std::{fmt, path::PathBuf, time::Duration};

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use crate::export::text;

/// Where Redis is, unless said otherwise: the seed's namespace.
const DEFAULT_URL: &str = "redis://redis.clover-system:6379";

/// What a user sets.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `redis://HOST[:PORT][/DB]`, `rediss://` for TLS, `unix:///PATH`, or `HOST[:PORT]`.
    pub url: String,
    /// Name for AUTH; wins over one in the URL. None or empty is the default user.
    pub user: Option<String>,
    /// Password for AUTH; wins over one in the URL.
    pub password: Option<String>,
    /// Certificate authorities for `rediss://`, PEM; read at each connection. None takes the system's, or the file
    /// that `SSL_CERT_FILE` names.
    pub ca: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { url: DEFAULT_URL.to_owned(), user: None, password: None, ca: None }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &without_secrets(&self.url))
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

/// Settings that can never work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Redis address `{url}` {problem}: write redis://HOST[:PORT][/DB], rediss://HOST[:PORT][/DB] for TLS, or \
     unix:///PATH"
)]
pub struct SettingsError {
    url: String,
    problem: String,
}

/// Settings that were understood.
pub(super) struct Target {
    pub(super) info: ConnectionInfo,
    pub(super) ca: Option<PathBuf>,
    /// For messages, without secrets.
    pub(super) shown: String,
}

impl Settings {
    /// Understands the settings; looks nothing up and opens nothing.
    pub(super) fn target(&self) -> Result<Target, SettingsError> {
        let wrong =
            |problem: &str| SettingsError { url: without_secrets(&self.url), problem: problem.to_owned() };
        let given = self.url.trim();
        let url = if given.contains("://") { given.to_owned() } else { format!("redis://{given}") };
        let info = url.as_str().into_connection_info().map_err(|error| wrong(&text::chain(&error)))?;
        let tls = match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(wrong("asks for TLS without verification"));
            }
            ConnectionAddr::TcpTls { .. } => true,
            _ => false,
        };
        if self.ca.is_some() && !tls {
            return Err(wrong("has no TLS, but certificate authorities are set"));
        }
        let mut redis =
            info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(user) = set(&self.user) {
            redis = redis.set_username(user);
        }
        if let Some(password) = set(&self.password) {
            redis = redis.set_password(password);
        } else if redis.username().is_some() && redis.password().is_none() {
            // A user with `nopass` takes any.
            redis = redis.set_password("");
        }
        let keepalive =
            TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive)
            .set_user_timeout(Duration::from_secs(10));
        let shown = text::shown(&info.addr().to_string(), 200);
        Ok(Target { info: info.set_redis_settings(redis).set_tcp_settings(tcp), ca: self.ca.clone(), shown })
    }
}

/// The URL without user, password and query, where a unix socket's are.
fn without_secrets(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let (scheme, rest) =
        url.split_once("://").map_or(("", url), |(_, rest)| (&url[..url.len() - rest.len()], rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    text::shown(&format!("{scheme}{rest}"), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings { url: url.to_owned(), ..Settings::default() }
    }

    #[test]
    fn addresses() {
        for (url, shown) in [
            (DEFAULT_URL, "redis.clover-system:6379"),
            ("redis", "redis:6379"),
            (" redis:1234 ", "redis:1234"),
            ("redis://u:p@h:1/2", "h:1"),
            ("rediss://h", "h:6379"),
            ("unix:///run/redis.sock?pass=p", "/run/redis.sock"),
        ] {
            let target = settings(url).target().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target.shown, shown, "{url}");
        }
        for wrong in
            ["", "http://h", "redis://", "rediss://h/#insecure", "redis://h:99999", "redis://me:secret@"]
        {
            let error = settings(wrong).target().err().unwrap_or_else(|| panic!("{wrong}"));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let plain = Settings { ca: Some("/ca.pem".into()), ..settings("redis://h") };
        assert!(plain.target().is_err(), "a CA without TLS is a mistake");
    }

    #[test]
    fn user_and_password_win_over_the_url_and_are_never_shown() {
        let mut settings = settings("redis://a:secret1@h");
        let given = |settings: &Settings| {
            let target = settings.target().unwrap();
            let redis = target.info.redis_settings();
            (redis.username().map(str::to_owned), redis.password().map(str::to_owned))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(given(&settings), (some("a"), some("secret1")));
        settings.password = some("secret2");
        assert_eq!(given(&settings), (some("a"), some("secret2")));
        settings.user = some("b");
        assert_eq!(given(&settings), (some("b"), some("secret2")));
        assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
        settings = Settings { user: some("b"), password: some(""), ..Settings::default() };
        assert_eq!(given(&settings), (some("b"), some("")));
        assert_eq!(given(&Settings::default()), (None, None));
    }
}
