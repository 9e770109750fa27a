//! Whether the API server is followed, and what is said about it: once when it is lost, once when it is back.
//!
//! Pure: it returns the words and the caller logs them. It refuses to repeat itself: one cause is named once until all
//! is well again, however often, and for however many resources, it is met.

use std::{collections::BTreeSet, error::Error};

use kube::runtime::watcher;

/// Resources that are followed.
const RESOURCES: usize = 2;

/// Why a resource is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody answers.
    Unreachable(String),
    /// HTTP 401.
    Unauthorized(String),
    /// HTTP 403: the right is missing.
    Forbidden(String),
    /// Any other answer that was not expected, by status or 0.
    Answer(u16, String),
}

impl Trouble {
    pub(super) fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of_client(error),
            watcher::Error::WatchError(status) => Self::of_status(status.code, &status.message),
            watcher::Error::NoResourceVersion => Self::Answer(0, error.to_string()),
        }
    }

    fn of_client(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, &status.message),
            kube::Error::Auth(_) => Self::Unauthorized(chain(error)),
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                Self::Unreachable(chain(error))
            }
            _ => Self::Answer(0, chain(error)),
        }
    }

    fn of_status(code: u16, message: &str) -> Self {
        match code {
            401 => Self::Unauthorized(message.to_owned()),
            403 => Self::Forbidden(message.to_owned()),
            _ => Self::Answer(code, message.to_owned()),
        }
    }

    /// What counts as the same cause. A right is missing for a resource, all else concerns the server.
    fn cause(&self, resource: &'static str) -> (u16, &'static str) {
        match self {
            Self::Unreachable(_) => (1, ""),
            Self::Unauthorized(_) => (401, ""),
            Self::Forbidden(_) => (403, resource),
            Self::Answer(code, _) => (*code, ""),
        }
    }

    fn words(&self, resource: &str) -> String {
        const STAYS: &str =
            "the pods and services known so far stay as they are; it is tried again by itself";
        match self {
            Self::Unreachable(why) => format!(
                "the Kubernetes API server cannot be reached ({why}): {STAYS}; if it lasts, look whether it runs and \
                 whether this node's network lets it through"
            ),
            Self::Unauthorized(why) => format!(
                "the Kubernetes API server does not accept our token or certificate ({why}): {STAYS}; if it lasts, \
                 look whether the service account still exists"
            ),
            Self::Forbidden(why) => format!(
                "the Kubernetes API server does not let us watch {resource} ({why}): {STAYS}; give the service account a \
                 ClusterRole with the verbs get, list and watch on {resource}"
            ),
            Self::Answer(code, why) => {
                let code = if *code == 0 { String::new() } else { format!(" with {code}") };
                format!(
                    "the Kubernetes API server answers{code} where it should give {resource} ({why}): {STAYS}"
                )
            }
        }
    }
}

/// What is followed and what is not.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Resources that came once, whole.
    synced: BTreeSet<&'static str>,
    /// Resources that are not followed now.
    lost: BTreeSet<&'static str>,
    /// Causes that have been named since all was well.
    named: BTreeSet<(u16, &'static str)>,
}

impl Link {
    /// A resource is not followed any more. Returns what there is to say, if it has not been said.
    pub(super) fn lost(&mut self, resource: &'static str, trouble: &Trouble) -> Option<String> {
        self.lost.insert(resource);
        self.named.insert(trouble.cause(resource)).then(|| trouble.words(resource))
    }

    /// A resource came, whole.
    pub(super) fn listed(&mut self, resource: &'static str) {
        self.synced.insert(resource);
    }

    /// A resource is followed. Returns what there is to say, if that was the last one that was lost.
    pub(super) fn back(&mut self, resource: &'static str) -> Option<String> {
        let was_lost = self.lost.remove(resource) && self.lost.is_empty();
        was_lost.then(|| {
            self.named.clear();
            "the Kubernetes API server is followed again".to_owned()
        })
    }

    /// Whether all resources came once.
    pub(super) fn synced(&self) -> bool {
        self.synced.len() == RESOURCES
    }

    /// Whether all resources are followed now.
    pub(super) fn connected(&self) -> bool {
        self.synced() && self.lost.is_empty()
    }
}

/// An error and what caused it; each part once, since some errors repeat their cause.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_said = cause.to_string();
        if !said.contains(&cause_said) {
            said = format!("{said}: {cause_said}");
        }
        next = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outage_is_one_warning_and_one_word_that_it_is_over() {
        let mut link = Link::default();
        link.listed("pods");
        assert!(link.back("pods").is_none() && !link.synced() && !link.connected());
        link.listed("services");
        assert!(link.back("services").is_none() && link.synced() && link.connected());
        let away = Trouble::Unreachable("connection refused".to_owned());
        assert!(link.lost("pods", &away).unwrap().contains("connection refused"));
        assert_eq!((link.lost("services", &away), link.lost("pods", &away)), (None, None));
        assert!(link.synced() && !link.connected());
        assert_eq!(link.back("pods"), None);
        assert!(!link.connected());
        assert!(link.back("services").unwrap().contains("again"));
        assert!(link.connected());
        assert!(link.lost("services", &away).is_some(), "the next outage is said again");
    }

    #[test]
    fn a_missing_right_is_named_for_each_resource() {
        let mut link = Link::default();
        let no = Trouble::of(&watcher::Error::InitialListFailed(kube::Error::Api(
            kube::core::Status::failure("user x cannot list", "Forbidden").with_code(403).boxed(),
        )));
        for resource in ["pods", "services"] {
            let said = link.lost(resource, &no).unwrap();
            assert!(said.contains("ClusterRole") && said.contains(&format!("watch on {resource}")), "{said}");
            assert_eq!(link.lost(resource, &no), None);
        }
    }

    #[test]
    fn another_cause_within_an_outage_is_named() {
        let mut link = Link::default();
        assert!(link.lost("pods", &Trouble::Unreachable(String::new())).is_some());
        assert!(link.lost("pods", &Trouble::Answer(503, "starting".to_owned())).unwrap().contains("503"));
        assert!(link.lost("pods", &Trouble::Unreachable(String::new())).is_none());
    }
}
