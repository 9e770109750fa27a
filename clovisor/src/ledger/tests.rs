//! Accounts in words, and books that must not balance.

use clovisor_trace::Outcome;

use super::*;

#[test]
fn an_account_that_does_not_balance_says_so() {
    let mut account = Account::new("packets", 3, [("a", 1), ("none", 0), ("b", 2)]);
    assert_eq!(account.to_string(), "packets   3 = 1 a + 2 b");
    account.note = "here".to_owned();
    assert_eq!(account.to_string(), "packets   3 = 1 a + 2 b (here)");
    for (came, difference, sign) in [(2, 1, "IS NOT"), (3, 0, "="), (4, 1, "IS NOT")] {
        account.came = came;
        assert_eq!(account.difference(), difference);
        assert!(account.to_string().contains(sign), "{account}");
    }
    assert_eq!(Account::new("spans", 0, []).to_string(), "spans     0 = 0");
}

#[test]
fn an_open_account_may_have_more_behind_it_and_never_less() {
    let mut account = Account { open: true, ..Account::new("captured", 3, [("a", 5)]) };
    assert_eq!((account.difference(), account.to_string().as_str()), (0, "captured  3 <= 5 a"));
    account.came = 6;
    assert_eq!(account.difference(), 1);
    assert!(account.to_string().contains("IS NOT"));
}

/// Books of a run in which something of everything happened.
fn books() -> Books {
    let mut tracer =
        Ledger { packets: 7, segments: 4, fragments: 3, fragments_dropped: 1, ..Ledger::default() };
    (tracer.flows_begun, tracer.flows_ended, tracer.flows_open) = (3, 2, 1);
    (tracer.sessions_begun, tracer.sessions_open) = (6, 1);
    tracer.sessions[0][Outcome::Complete as usize] = 5;
    Books {
        source: Source::File { packets: 9, not_selected: 2 },
        capture: Some(Account::new("capture", 7, [("written", 7)])),
        tracer,
        handed_on: 3,
        sampled_out: 1,
        beyond_limit: 1,
        not_taken: 1,
        sinks: Sinks::Each(vec![(
            "a".to_owned(),
            Snapshot { pushed: 2, exported: 1, dropped_refused: 1, ..Snapshot::default() },
        )]),
    }
}

#[test]
fn every_account_is_watched() {
    assert_eq!(books().balance(), Ok(()));
    type Change = fn(&mut Books);
    let wrong: [(&str, Change); 7] = [
        ("packets", |books| books.source = Source::File { packets: 10, not_selected: 2 }),
        ("packets", |books| books.tracer.packets += 1),
        ("flows", |books| books.tracer.flows_open += 1),
        ("sessions", |books| books.tracer.sessions_open += 1),
        ("sessions", |books| books.sampled_out += 1),
        ("sessions", |books| books.handed_on += 1),
        ("spans", |books| books.not_taken = 0),
    ];
    for (of, change) in wrong {
        let mut books = books();
        change(&mut books);
        assert_eq!(books.balance().map_err(|wrong| wrong.of), Err(of));
    }
}

#[test]
fn what_the_kernel_captured_must_be_found() {
    let side = |events, still| KernelSide {
        buffers: Counters { events, held: 2, ..Counters::default() },
        still,
        ..KernelSide::default()
    };
    let books = |kernel| Books {
        source: Source::Kernel(Box::new(kernel)),
        tracer: Ledger { packets: 5, stray: 5, ..Ledger::default() },
        ..Books::default()
    };
    // No verdict counts them: while the kernel goes on that is for later, at the end it is wrong.
    assert_eq!(books(side(5, false)).balance(), Ok(()));
    let wrong = books(side(5, true)).balance().expect_err("seven came of none");
    assert_eq!((wrong.of, wrong.came, wrong.accounted), ("captured", 0, 7));
    let mut lost = side(5, true);
    lost.lost.push(("veth0".to_owned(), 3));
    assert_eq!(books(lost).balance().map_err(|wrong| wrong.of), Err("lost"));
    let mut shed = side(5, true);
    shed.shed.insert("shop/cart-1".to_owned(), ShedValue { packets: 3, sessions: 2 });
    assert_eq!(books(shed.clone()).balance().map_err(|wrong| wrong.of), Err("shed"));
    let mut left_out = books(shed);
    // Of the tracer's own: packets that were under way when a connection was left out.
    left_out.tracer = Ledger { packets: 5, stray: 2, shed: 3, shed_requests: 1, ..Ledger::default() };
    assert_eq!((left_out.tracer.balance(), left_out.sessions_shed()), (Ok(()), 3));
    let account = left_out.accounts().into_iter().find(|account| account.of == "shed").expect("it is there");
    assert_eq!(
        account.to_string(),
        "shed      0 IS NOT (please report this) 3 of shop/cart-1 (about 3 sessions)"
    );
    left_out.tracer.shed = 0;
    assert!(left_out.tracer.balance().is_err());
}
