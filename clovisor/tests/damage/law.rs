//! What clients say that they asked and got, and the law that the sessions of a tracer are held against.
//!
//! A client's line is `PATH METHOD STATUS BYTES STATE`; the last part of the path is the request's id, which servers send back
//! in `X-Answers`. STATE is `whole`, `cut` (a response that did not end), `failed` (no response), or `wrong` (not the response to
//! this request: a fault of the ends, not of the tracer).

use std::collections::{HashMap, HashSet};

use crate::program::{Ended, Session};

/// A request that a client got a response to.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) status: String,
    /// Bytes of the body that the client got.
    pub(crate) body: u64,
    /// Bytes of request and response as they were on the connection, where the client knows.
    pub(crate) exact: Option<[u64; 2]>,
    pub(crate) is_whole: bool,
    /// How many requests had this id.
    pub(crate) times: usize,
}

/// What all clients say.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) sent: HashSet<String>,
    pub(crate) answered: Vec<Answered>,
}

impl Told {
    /// Takes what a client wrote.
    pub(crate) fn lines(&mut self, text: &str) {
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [path, method, status, bytes, state] = words[..] else { panic!("a client said: {line}") };
            let id = id_of(path).to_owned();
            self.sent.insert(id.clone());
            assert_ne!(state, "wrong", "the ends themselves have mixed up responses: {line}");
            if state != "failed" {
                let (method, status) = (method.to_owned(), status.to_owned());
                let (body, is_whole) = (bytes.parse().unwrap(), state == "whole");
                self.answered.push(Answered { id, method, status, body, exact: None, is_whole, times: 1 });
            }
        }
    }

    /// Takes what another client said.
    pub(crate) fn add(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.answered.extend(other.answered);
    }
}

/// The id at the end of a path or an URL.
pub(crate) fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The id of the request of a session; empty if the request was not seen.
pub(crate) fn request_id(session: &Session) -> String {
    id_of(&(session.attribute("url.path") + &session.attribute("url.full"))).to_owned()
}

/// Sessions that break the law: the request's id, and how.
pub(crate) type Faults = Vec<(String, String)>;

/// Holds what a tracer said against what the clients said. Returns the number of pairs, and what breaks the law.
pub(crate) fn hold(at: &str, ended: &Ended, told: &Told) -> (usize, Faults) {
    let (mut pairs, mut faults) = (0, Faults::new());
    let mut sessions: HashMap<String, Vec<&Session>> = HashMap::new();
    for session in &ended.sessions {
        let id = request_id(session);
        let mut fault = |what: &str| faults.push((id.clone(), format!("{at}: {what}: {}", session.0)));
        let answers = session.attribute("http.response.header.x-answers");
        let has_response = !session.attribute("http.response.status_code").is_empty();
        pairs += usize::from(has_response);
        if id.is_empty() {
            fault("no request");
        } else if !told.sent.contains(&id) {
            fault("a request that nobody sent");
        } else if has_response && answers != id {
            fault("a WRONG PAIR");
        }
        sessions.entry(id).or_default().push(session);
    }
    if ended.stderr.contains("IS NOT") || ended.stderr.to_lowercase().contains("lost") {
        faults.push((String::new(), format!("{at}: packets were lost, or an account does not balance")));
    }
    for answered in &told.answered {
        let of_id = sessions.get(&answered.id).map(Vec::as_slice).unwrap_or_default();
        if let Err(what) = seen(answered, of_id) {
            let shown: Vec<_> = of_id.iter().map(|session| session.0.to_string()).collect();
            let what = format!("{at}: {what}: {answered:?}\n    {}", shown.join("\n    "));
            faults.push((answered.id.clone(), what));
        }
    }
    (pairs, faults)
}

/// Whether a request and its response are among the sessions of its id as they must be.
fn seen(answered: &Answered, sessions: &[&Session]) -> Result<(), String> {
    let is_complete = |session: &Session| session.attribute("clovisor.outcome") == "complete";
    let has_status = |session: &&&Session| !session.attribute("http.response.status_code").is_empty();
    let with_response: Vec<_> = sessions.iter().filter(has_status).collect();
    // A client may ask again if the reset came before it had read anything of the response.
    let is_again = !answered.is_whole && with_response.len() > answered.times;
    if with_response.len() != answered.times && !is_again {
        return Err(format!("{} sessions with a response", with_response.len()));
    }
    // A response before the end of the request may cut the request off, or not.
    let is_early = answered.status == "413";
    for session in with_response {
        if !is_early && is_complete(session) != answered.is_whole {
            return Err("seen to another end than the client".to_owned());
        }
        for (name, expected) in
            [("http.request.method", &answered.method), ("http.response.status_code", &answered.status)]
        {
            if &session.attribute(name) != expected {
                return Err(format!("another {name}"));
            }
        }
        let [request, response] = ["clovisor.request.bytes", "clovisor.response.bytes"]
            .map(|name| session.attribute(name).parse::<u64>().unwrap());
        if answered.is_whole && response < answered.body {
            return Err(format!("{response} bytes of response"));
        }
        if answered.exact.is_some_and(|exact| exact != [request, response]) {
            return Err(format!("{request} bytes of request and {response} of response"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    use serde_json::json;

    use super::{Told, hold};
    use crate::program::{Ended, Session};

    /// What a tracer says: path of the request, id in the response, outcome.
    fn ended(sessions: &[(&str, &str, &str)]) -> Ended {
        let session = |&(path, answers, outcome): &(&str, &str, &str)| {
            Session(json!({"attributes": {
                "url.path": path, "http.request.method": "GET", "http.response.status_code": 200,
                "http.response.header.x-answers": [answers], "clovisor.outcome": outcome,
                "clovisor.request.bytes": 50, "clovisor.response.bytes": 100,
            }}))
        };
        let sessions = sessions.iter().map(session).collect();
        Ended { status: ExitStatus::from_raw(0), sessions, stderr: String::new() }
    }

    #[test]
    fn what_breaks_the_law_is_found() {
        let mut told = Told::default();
        told.lines("/small/a GET 200 5 whole\n/reset/b GET 200 5 cut\n/small/c GET 0 0 failed");
        let right = [("/small/a", "a", "complete"), ("/reset/b", "b", "reset")];
        assert_eq!(hold("", &ended(&right), &told), (2, vec![]));
        for wrong in [
            // Paired wrongly, cut off, missed, twice, made up, without a request, ended otherwise.
            vec![("/small/a", "b", "complete"), right[1]],
            vec![("/small/a", "a", "closed"), right[1]],
            vec![right[1]],
            vec![right[0], right[0], right[1]],
            vec![right[0], right[1], ("/small/d", "d", "complete")],
            vec![right[0], right[1], ("", "a", "request_unobserved")],
            vec![right[0], ("/reset/b", "b", "complete")],
        ] {
            assert_ne!(hold("", &ended(&wrong), &told).1, vec![], "{wrong:?}");
        }
        let mut lossy = ended(&right);
        lossy.stderr = "packets 3 = 2 captured + 1 LOST, buffer full".to_owned();
        assert_ne!(hold("", &lossy, &told).1, vec![]);
        told.answered[0].body = 101;
        assert_ne!(hold("", &ended(&right), &told).1, vec![], "fewer bytes than the client got");
        told.answered[0].body = 5;
        told.answered[0].exact = Some([50, 99]);
        assert_ne!(hold("", &ended(&right), &told).1, vec![], "not as many bytes as the client got");
    }
}
