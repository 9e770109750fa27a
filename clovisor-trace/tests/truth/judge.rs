//! What a tracer may say of a conversation, and what it must.
//!
//! A pair called `acked` is never a wrong one. Any other pair may be wrong only where [`could_be`] shows another truth that
//! puts the same packets before the tap, so that no observer could know better.

#![allow(unreachable_pub, reason = "modules of one test binary")]

use clovisor_trace::{Detail, Outcome, Pairing, Session};

use crate::{
    conversation::{Conversation, Exchange, Habit},
    network::Run,
};

/// The numbers of the exchanges that a session's request and response say they are of.
fn numbers(session: &Session) -> (Option<usize>, Option<usize>) {
    let Detail::Http(exchange) = &session.detail else { panic!("{session:?} is not HTTP") };
    let number = |text: &str| text.parse().unwrap_or(usize::MAX);
    let request = exchange
        .request
        .as_ref()
        .map(|head| number(head.target.trim_start_matches('/').split('?').next().unwrap_or_default()));
    // A head that was cut short has no tag.
    let response = exchange.response.as_ref().and_then(|head| Some(number(&head.captured.first()?.1)));
    (request, response)
}

/// A session, for people.
pub fn line(session: &Session) -> String {
    let (asked, answered) = numbers(session);
    let Session { outcome, pairing, request, response, missing_bytes, .. } = session;
    let bytes = (request.bytes, response.bytes, missing_bytes);
    format!("{asked:?} -> {answered:?} {outcome:?} {pairing:?} {bytes:?}")
}

/// Checks that all that a session says was said.
fn check_true(session: &Session, talk: &Conversation, run: &Run) -> Result<(), String> {
    let Detail::Http(found) = &session.detail else { return Err("not HTTP".to_owned()) };
    let (asked, answered) = numbers(session);
    let truth = |number: usize| -> Result<&Exchange, String> {
        talk.exchanges.get(number.wrapping_sub(1)).ok_or(format!("{number} was never said"))
    };
    if let (Some(asked), Some(answered)) = (asked, answered)
        && asked != answered
    {
        let excused = session.pairing != Some(Pairing::Acked) && could_be(run, talk, asked, answered);
        return if excused {
            Ok(())
        } else {
            Err(format!("request {asked} is paired with response {answered}"))
        };
    }
    if let (Some(head), Some(asked)) = (&found.request, asked) {
        let exchange = truth(asked)?;
        if head.method != exchange.method || head.target != exchange.target {
            return Err(format!("{} {} was not asked", head.method, head.target));
        }
    }
    if let (Some(head), Some(answered)) = (&found.response, answered) {
        let exchange = truth(answered)?;
        let interim = found.interim.iter().all(|code| exchange.interim.contains(code));
        if head.status != exchange.status || !interim {
            return Err(format!("{} was not answered", head.status));
        }
    }
    if let (Some(head), Some(asked), None) = (&found.response, asked, answered)
        && head.status != truth(asked)?.status
    {
        let is_ordered = session.pairing != Some(Pairing::Acked);
        let mut said = (1..=talk.exchanges.len()).filter(|at| talk.exchanges[at - 1].status == head.status);
        if !said.any(|answered| is_ordered && could_be(run, talk, asked, answered)) {
            return Err(format!("{} to {asked} was not answered", head.status));
        }
    }
    if session.outcome == Outcome::Complete {
        let number = asked.or(answered).ok_or("complete without heads")?;
        let exchange = truth(number)?;
        let bytes = session.request.bytes + session.response.bytes + session.missing_bytes;
        let said = (exchange.request.len() + exchange.response.len()) as u64;
        let seen =
            if session.pairing != Some(Pairing::Acked) && bytes + hidden(run, number - 1, exchange) == said {
                true
            } else if exchange.early {
                bytes <= said
            } else {
                bytes == said
            };
        let over =
            run.places[number - 1].1.as_ref().is_some_and(|place| place.len() == exchange.response.len());
        if !seen || !over {
            return Err(format!("{number} is complete with {bytes} of {said} bytes"));
        }
    }
    Ok(())
}

/// Whether a request was sent when either end had all that the other had sent, as far as the tap can tell.
fn is_quiet(run: &Run, at: usize) -> bool {
    let start = run.places[at].0.start;
    let Some(acked) = run.acks[0].get(start).copied() else { return false };
    let latest = acked.checked_sub(1);
    latest.is_none_or(|byte| !run.seen[1][byte] || run.acks[1][byte] == start)
}

/// Bytes of interim responses that, as far as the tap can tell, the client had when it sent the request: it saw only a
/// repetition of that. In another truth they are of something before.
fn hidden(run: &Run, at: usize, exchange: &Exchange) -> u64 {
    let (request, response) = &run.places[at];
    let acked = run.shown[0].get(request.start).copied().unwrap_or(0);
    let interim = response.as_ref().map_or(0, |place| acked.saturating_sub(place.start));
    interim.min(exchange.interim_len) as u64
}

/// Whether in another truth, which puts the same packets before the tap, this response is to this request: what was
/// lost had the responses to all requests before an earlier one, and from there on order tells.
fn could_be(run: &Run, talk: &Conversation, asked: usize, answered: usize) -> bool {
    let is_lost = |at: usize| run.no_handshake || (0..at).any(|at| !is_whole(run, talk, at, &run.seen));
    let (asked, answered) = (asked - 1, answered - 1);
    (0..=asked.min(answered)).any(|back| {
        let (request, response) = (asked - back, answered - back);
        let Some(place) = &run.places[response].1 else { return false };
        let acked = run.shown[0].get(run.places[request].0.start).copied().unwrap_or(0);
        let begins = place.start..=place.start + talk.exchanges[response].interim_len;
        let received = (0..=back).all(|at| {
            let begin = run.places[response + at].1.as_ref().map_or(0, |place| place.start);
            // Later packets may have shown more.
            let had = run.told[1].get(begin.max(acked));
            had.is_some_and(|had| *had > run.places[request + at].0.start)
        });
        is_lost(request) && begins.contains(&acked) && received
    })
}

/// Whether in another truth an exchange behind a loss, although seen whole, is part of something else.
fn may_be_other(talk: &Conversation, run: &Run, at: usize) -> bool {
    let known = |at: usize| is_whole(run, talk, at, &run.seen);
    let start = run.places[at].0.start;
    let behind_loss = at > 0 && !known(at - 1);
    // A request that begins within a packet, behind bytes of which nobody knows what they are, cannot be told from these.
    let hidden = behind_loss && !run.edges[0].contains(&start);
    // Of one that the tap saw only repeated, behind a loss, nobody knows what the client had when it sent it first. In
    // another truth it was sent right behind the request before, whose response is then the one that was seen.
    let repeated = behind_loss && run.shown[0].get(start) > run.acks[0].get(start);
    // A response to a HEAD that was not seen says how long its body would be. In another truth the request was GET, and
    // what follows is that body.
    let is_head = |at: &usize| talk.exchanges[*at].method == "HEAD";
    let swallowed = (0..at).rev().take_while(|at| !known(*at)).any(|at| is_head(&at))
        || (0..at).filter(|at| is_head(at) && !known(*at)).any(|head| claims(talk, run, head, at));
    hidden || repeated || swallowed
}

/// Whether the response to a HEAD says of itself a length that would reach over the beginning of another response.
fn claims(talk: &Conversation, run: &Run, head: usize, other: usize) -> bool {
    let text = String::from_utf8_lossy(&talk.exchanges[head].response);
    let length =
        text.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
    let (Some(own), Some(other), Some(length)) = (&run.places[head].1, &run.places[other].1, length) else {
        return false;
    };
    own.end + length > other.start
}

/// Whether all bytes of an exchange are among these.
fn is_whole(run: &Run, talk: &Conversation, at: usize, bytes: &[Vec<bool>; 2]) -> bool {
    let Some((request, Some(response))) = run.places.get(at) else { return false };
    let exchange = &talk.exchanges[at];
    response.len() == exchange.response.len()
        && bytes[0][request.clone()].iter().all(|seen| *seen)
        && bytes[1][response.clone()].iter().all(|seen| *seen)
        && (!exchange.until_close || run.fins[1])
}

/// Whether, as far as the tap can tell, the client has sent a request up to here without waiting: of that one and of the end
/// of the one before it saw only what was sent again, both with the same acknowledgement. In another truth they were sent
/// together at first, too.
fn seems_to_pipeline(run: &Run, at: usize) -> bool {
    (1..=at).map(|at| run.places[at].0.start).any(|start| {
        let came = |byte: &usize| run.told[0].get(*byte).is_some_and(|told| *told != usize::MAX);
        let shown = |byte| Some(byte).filter(came).map(|byte: usize| run.shown[0][byte]);
        shown(start).is_some() && shown(start) == shown(start - 1)
    })
}

/// Whether the client is known for sending when it has all responses, and had them at this request or at one before it
/// behind which nothing was lost.
fn is_drained(talk: &Conversation, run: &Run, at: usize, first_lost: Option<usize>) -> bool {
    let size = match talk.habit {
        Habit::Waits => 1,
        Habit::Batches(size) => size,
        Habit::Window(_) => return false,
    };
    let batch = at - at % size;
    let start = run.places[batch].0.start;
    let latest = run.acks[0][start].checked_sub(1);
    // Of a repetition nobody knows what its sender had when it sent it first.
    let is_first = |byte: usize| run.seen[1][byte] && !run.was_sent[1][byte];
    let is_seen = latest.is_some_and(|byte| is_first(byte) && run.acks[1][byte] == start);
    let whole =
        (batch..=at).all(|at| is_whole(run, talk, at, &run.seen) && !run.was_sent[0][run.places[at].0.start]);
    // In its middle a batch may find both ends quiet, too, if the network is faster than the client.
    let trusted = (0..=batch).all(|at| at % size == 0 || !is_quiet(run, at));
    let all_asked = !run.no_handshake && run.seen[0][..start].iter().all(|seen| *seen);
    let has_drained = !run.no_handshake && first_lost.is_some_and(|lost| lost > size);
    is_seen && whole && trusted && (all_asked || has_drained)
}

fn is_complete(sessions: &[Session], number: usize) -> bool {
    sessions.iter().any(|session| {
        matches!(session.outcome, Outcome::Complete | Outcome::Upgraded)
            && session.missing_bytes == 0
            && numbers(session) == (Some(number), Some(number))
    })
}

/// All laws; what was broken, if one was.
pub fn judge(talk: &Conversation, run: &Run, sessions: &[Session]) -> Result<(), String> {
    for session in sessions {
        check_true(session, talk, run).map_err(|reason| format!("{reason}: {}", line(session)))?;
    }
    let answers: Vec<_> = sessions.iter().filter_map(|session| numbers(session).1).collect();
    let asks: Vec<_> = sessions.iter().filter_map(|session| numbers(session).0).collect();
    for numbers in [answers, asks] {
        let mut once = numbers.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != numbers.len() {
            return Err(format!("reported twice: {numbers:?}"));
        }
    }
    let first_lost = (0..run.places.len()).find(|at| !is_whole(run, talk, *at, &run.seen));
    let known = |at: usize| is_whole(run, talk, at, &run.seen);
    // What before it shows that a client had waited: at least that must be certain itself.
    let mut is_sure = !run.no_handshake;
    for at in 0..run.places.len() {
        let in_step = !run.no_handshake && first_lost.is_none_or(|lost| at < lost);
        let may_be_other = !in_step && may_be_other(talk, run, at);
        let was_sure = std::mem::replace(&mut is_sure, known(at) && !may_be_other);
        let waits = |at: usize| talk.habit == Habit::Waits && !seems_to_pipeline(run, at);
        // A client that waits loses no more than was hit; one that drains, no more than what it had under way.
        let has_all = || waits(at) || is_drained(talk, run, at, first_lost);
        // Where nothing is known of what came before, what comes behind must show that the client had waited.
        let shown = was_sure || if at + 1 < run.places.len() { known(at + 1) } else { run.fins == [true; 2] };
        let must = known(at) && shown && (in_step || (has_all() && !may_be_other));
        if must && !is_complete(sessions, at + 1) {
            return Err(format!("{} was seen whole and is not complete", at + 1));
        }
    }
    // A connection that is cut off may leave bytes behind of which nobody can say what they are.
    let begun =
        run.places.iter().filter(|(request, _)| run.seen[0].get(request.start) == Some(&true)).count();
    if !run.missed && !run.reset && sessions.len() != begun {
        return Err(format!("{} sessions of {begun} requests", sessions.len()));
    }
    Ok(())
}
