//! Reads the output of Rust's test runner line by line, as it is with `--show-output`: which lines a person wants to
//! see, which tests say that they were skipped, and the counts. It is not asked to understand a failure.

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// To be shown as it is.
    Show,
    /// The output of a test that passed.
    Hide,
    /// A test says that it was skipped.
    Skipped {
        /// The test's name.
        test: String,
        /// Why.
        reason: String,
    },
    /// The counts of one test program.
    Result {
        /// Passed, among them those that were skipped.
        passed: usize,
        /// Failed.
        failed: usize,
        /// Not run, by their own mark.
        ignored: usize,
    },
}

/// Where in the output we are.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    in_successes: bool,
    test: String,
    /// Whether this test has already said it: each counts once.
    said: bool,
}

impl Reader {
    /// Takes the next line.
    pub(crate) fn read(&mut self, line: &str) -> Event {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            return result(counts);
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if !self.in_successes {
            return Event::Show;
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            (self.test, self.said) = (name.to_owned(), false);
        }
        match line.trim_start().strip_prefix("skipped: ") {
            Some(reason) if !self.said => {
                self.said = true;
                Event::Skipped { test: self.test.clone(), reason: reason.to_owned() }
            }
            _ => Event::Hide,
        }
    }
}

/// The counts in `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
fn result(line: &str) -> Event {
    let count = |what: &str| {
        let words: Vec<_> = line.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
    };
    Event::Result { passed: count("passed"), failed: count("failed"), ignored: count("ignored") }
}

#[cfg(test)]
mod tests {
    use super::{Event, Reader};

    const LOG: &str = "running 3 tests
test a ... ok
test b::c ... ok
test d ... FAILED

successes:

---- a stdout ----
noise
---- b::c stdout ----
skipped: no nginx (cargo xtask setup)
skipped: said twice

successes:
    a
    b::c

failures:

---- d stdout ----
skipped: not the end of this one

failures:
    d

test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn output_of_passed_tests_is_hidden_but_for_the_reason_of_a_skip() {
        let mut reader = Reader::default();
        let mut shown = 0;
        let mut others = Vec::new();
        for line in LOG.lines() {
            match reader.read(line) {
                Event::Show => shown += 1,
                Event::Hide => {}
                other => others.push(other),
            }
        }
        let skipped =
            Event::Skipped { test: "b::c".to_owned(), reason: "no nginx (cargo xtask setup)".to_owned() };
        assert_eq!(others, [skipped, Event::Result { passed: 2, failed: 1, ignored: 4 }]);
        assert_eq!(shown, 13, "the head and the failure");
    }
}
