//! Which spans are exported: `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`, as OpenTelemetry's SDK specification
//! has them, decided by the trace id alone, so that all who see a trace decide alike.
//!
//! Without them every span is exported. (The specification's default would follow the caller's decision, and hide the
//! requests of callers that sample.) What is left out is counted, and is in the metrics of requests all the same.

use clovisor_trace::{Describe, TraceId};

/// Which spans are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampler {
    root: Root,
    /// Whether a caller that has decided is followed.
    by_parent: bool,
}

/// What is decided where no caller has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Root {
    #[default]
    All,
    None,
    /// Trace ids below this bound.
    Below(u64),
}

impl Sampler {
    /// Reads the values of both variables. On an error, what is wrong: `None` for the sampler, the text for its argument.
    pub(super) fn read(name: &str, argument: Option<&str>) -> Result<Self, Wrong> {
        let (by_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::All,
            "always_off" => Root::None,
            "traceidratio" => Root::Below(bound(argument.unwrap_or("1.0"))?),
            _ => return Err(Wrong::Name),
        };
        Ok(Self { root, by_parent })
    }

    /// Whether a span is to be exported.
    #[must_use]
    pub fn takes(&self, span: &impl Describe) -> bool {
        let span = span.head();
        if let Some(sampled) = span.parent_sampled.filter(|_| self.by_parent) {
            return sampled;
        }
        match self.root {
            Root::All => true,
            Root::None => false,
            Root::Below(bound) => number(span.trace_id) < bound,
        }
    }
}

/// Which of the variables is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Name,
    Argument,
}

/// The share of trace ids as OpenTelemetry's own libraries reckon it: of 63 bits.
fn bound(argument: &str) -> Result<u64, Wrong> {
    let share: f64 = argument.parse().map_err(|_| Wrong::Argument)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(Wrong::Argument);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^63")]
    Ok((share * (1_u64 << 63) as f64) as u64)
}

/// The random part of a trace id: its last eight bytes, without the last bit.
fn number(TraceId(id): TraceId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = id;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
}

#[cfg(test)]
mod tests {
    use clovisor_trace::Span;

    use super::*;
    use crate::export::queue::tests::span;

    #[test]
    fn each_sampler() {
        let rows = [
            ("always_on", None, [true; 6]),
            ("always_off", None, [false; 6]),
            ("traceidratio", None, [true; 6]),
            ("traceidratio", Some("0.5"), [true, false, true, false, true, false]),
            ("traceidratio", Some("0"), [false; 6]),
            ("parentbased_always_on", None, [true, true, false, false, true, true]),
            ("parentbased_always_off", None, [false, false, false, false, true, true]),
            ("parentbased_traceidratio", Some("0.5"), [true, false, false, false, true, true]),
        ];
        for (name, argument, expected) in rows {
            let sampler = Sampler::read(name, argument).unwrap();
            let parents = [None, Some(false), Some(true)];
            let spans = parents.into_iter().flat_map(|parent_sampled| {
                [0x7f, 0x80].map(|byte| {
                    let mut id = [1; 16];
                    id[8] = byte;
                    Span { trace_id: TraceId(id), parent_sampled, ..span(1) }
                })
            });
            let taken: Vec<_> = spans.map(|span| sampler.takes(&span)).collect();
            assert_eq!(taken, expected, "{name} {argument:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (name, argument, wrong) in [
            ("jaeger_remote", None, Wrong::Name),
            ("ALWAYS_ON", None, Wrong::Name),
            ("parentbased_", None, Wrong::Name),
            ("traceidratio", Some("2"), Wrong::Argument),
            ("traceidratio", Some("-0.1"), Wrong::Argument),
            ("traceidratio", Some("NaN"), Wrong::Argument),
            ("parentbased_traceidratio", Some("half"), Wrong::Argument),
        ] {
            assert_eq!(Sampler::read(name, argument), Err(wrong), "{name} {argument:?}");
        }
    }
}
