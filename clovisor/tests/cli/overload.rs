//! More traffic than the tracer gets processor time for: what is lost is counted, said, and marked in the sessions.

use std::{collections::HashSet, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    load::ask,
    netns,
    program::{Program, Session},
    server::Nginx,
};

/// Enough for several times the smallest buffers of a test machine, at half a kilobyte each.
const CONNECTIONS: u32 = 50;
const REQUESTS: u32 = 600;

fn id(session: &Session) -> String {
    session.attribute("http.request.header.x-request-id")
}

fn is_marked(session: &Session) -> bool {
    let mark = session.attribute("clovisor.overlaps_loss");
    assert!(["", "true"].contains(&mark.as_str()), "{mark}");
    mark == "true"
}

/// The first number behind a word that begins a line of the summary.
fn account(stderr: &str, of: &str) -> Option<usize> {
    let line = stderr.lines().find(|line| line.trim_start().starts_with(of))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn sessions_that_overlap_a_loss_are_marked_and_all_is_accounted_for() {
    let name = "sessions_that_overlap_a_loss_are_marked_and_all_is_accounted_for";
    netns::test(name, &["nginx"], |net| async move {
        let _nginx = Nginx::start(&net, "overload");
        let headers = ["--header", "x-request-id", "--header", "x-answers"];
        let program = Program::trace(
            &[&["-i", "veth0", "--port", "8080", "--buffer", "1", "--no-shedding"][..], &headers].concat(),
        );
        let pause = || tokio::time::sleep(Duration::from_millis(200));
        ask("before".to_owned(), 20).await;
        pause().await;
        program.freeze();
        let asking: Vec<_> =
            (0..CONNECTIONS).map(|connection| tokio::spawn(ask(connection.to_string(), REQUESTS))).collect();
        // Now and then it gets some time, so that there are sessions of which a part is lost.
        while !asking.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            program.signal(Signal::SIGCONT);
            tokio::time::sleep(Duration::from_millis(15)).await;
            program.freeze();
        }
        for task in asking {
            task.await.unwrap();
        }
        program.signal(Signal::SIGCONT);
        // Until it has caught up.
        let mut asked = 0;
        let mut last = String::new();
        while asked == 0 || !program.has_said(&last) {
            assert!(asked < 100, "it does not come to itself");
            ask(format!("again{asked}"), 1).await;
            last = format!("again{asked}-0");
            asked += 1;
            pause().await;
        }
        ask("after".to_owned(), 20).await;
        let ended = program.end();

        let lost = account(&ended.stderr, "lost ").expect("an account of losses");
        assert!(lost > 0, "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("lost      {lost} = {lost} at veth0")), "{}", ended.stderr);
        // At most one line a second; together they say all of it.
        let said = ended.stderr.lines().filter_map(|line| line.split_once(" of veth0; ")?.0.rsplit_once(' '));
        let said: usize = said.map(|(_, packets)| packets.parse::<usize>().unwrap()).sum();
        assert_eq!(said, lost, "{}", ended.stderr);

        let marked = ended.sessions.iter().filter(|session| is_marked(session)).count();
        assert!(marked > 0, "{}", ended.stderr);
        for session in ended.sessions.iter().filter(|session| !is_marked(session)) {
            assert_eq!(session.attribute("clovisor.outcome"), "complete", "{}", session.0);
        }
        for when in ["before-", "after-"] {
            let of_then: Vec<_> =
                ended.sessions.iter().filter(|session| id(session).starts_with(when)).collect();
            assert_eq!(of_then.len(), 20, "{when}");
            assert!(of_then.iter().all(|session| !is_marked(session)), "{when}");
        }
        for session in &ended.sessions {
            let (asked, answered) = (id(session), session.attribute("http.response.header.x-answers"));
            assert!(
                asked.is_empty() || answered.is_empty() || asked == answered,
                "a wrong pair: {}",
                session.0
            );
        }

        // Each request is a session, or at least one of its packets is among the losses.
        let seen: HashSet<_> = ended
            .sessions
            .iter()
            .flat_map(|session| [id(session), session.attribute("http.response.header.x-answers")])
            .filter(|id| !id.is_empty())
            .collect();
        let asked = (CONNECTIONS * REQUESTS + 40 + asked) as usize;
        assert!(seen.len() < asked, "this was no overload: {}", ended.stderr);
        assert!(asked - seen.len() <= lost, "{asked} asked, {} seen: {}", seen.len(), ended.stderr);
        let in_part = ended
            .sessions
            .iter()
            .filter(|session| session.attribute("clovisor.outcome") != "complete")
            .count();
        println!(
            "{in_part} seen in part; {asked} asked, {} seen, {marked} sessions marked: {}",
            seen.len(),
            ended.stderr
        );
    });
}
