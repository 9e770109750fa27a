//! Tables of what can be written into each key.

use clovisor_trace::Protocol;

use super::*;

fn value(key: &str, text: &str) -> (String, Raw) {
    (key.to_owned(), Raw::Strings(vec![text.to_owned()]))
}

fn parsed(values: &[(&str, &str)]) -> (Config, Vec<EntryError>) {
    parse(&values.iter().map(|(key, text)| value(key, text)).collect())
}

fn rule(namespace: &str, label: Option<(&str, &str)>) -> LabelRule {
    let label = label.map(|(key, value)| (key.to_owned(), value.to_owned()));
    LabelRule { namespace: namespace.to_owned(), label }
}

#[test]
fn nothing_written_is_the_default() {
    for values in [vec![], vec![(LABELS, "")], vec![(LABELS, " ,\n, "), (EGRESS, ""), (SERVER, "")]] {
        assert_eq!(parsed(&values), (Config::default(), vec![]), "{values:?}");
    }
    let missing = KEYS.iter().map(|key| ((*key).to_owned(), Raw::Missing)).collect();
    assert_eq!(parse(&missing), (Config::default(), vec![]));
}

#[test]
fn labels() {
    let (long, too_long) = ("n".repeat(63), "n".repeat(64));
    for (text, expected) in [
        ("default", rule("default", None)),
        (" shop ", rule("shop", None)),
        ("shop:app:web", rule("shop", Some(("app", "web")))),
        ("shop:app : web", rule("shop", Some(("app", "web")))),
        ("shop:app.kubernetes.io/name:Web_1.2", rule("shop", Some(("app.kubernetes.io/name", "Web_1.2")))),
        ("shop:app:", rule("shop", Some(("app", "")))),
        (long.as_str(), rule(&long, None)),
    ] {
        let (config, errors) = parsed(&[(LABELS, text)]);
        assert_eq!((config.labels, errors), (vec![expected], vec![]), "{text}");
    }
    for text in [
        "Shop",
        "-shop",
        "shop-",
        "sh_op",
        "shop:app",
        "shop::",
        "shop::x",
        "shop:-a:b",
        "shop:a:-b",
        "shop:a b:c",
        "shop:a:b:c",
        "shop:/a:b",
        "shop:A.b/a:b",
        "shop:a/b/c:d",
        "läden",
        ":app:web",
        "*",
        &too_long,
        "a\u{1b}[2J",
    ] {
        let (config, errors) = parsed(&[(LABELS, text)]);
        assert_eq!(config.labels, vec![NO_POD], "{text}: all wrong must not mean the default namespace");
        let [error] = errors.as_slice() else { panic!("{text}: {errors:?}") };
        assert!(error.key == LABELS && error.expected.contains("write <namespace>"), "{text}: {error:?}");
        assert!(!error.entry.contains('\u{1b}') && !error.expected.contains('\u{1b}'), "{error:?}");
    }
}

#[test]
fn entries_are_parted_trimmed_and_taken_once_and_a_wrong_one_leaves_the_others() {
    let (config, errors) = parsed(&[(LABELS, "b, a\nb:x:y\r\n,a,Wrong,  b")]);
    assert_eq!(config.labels, [rule("b", None), rule("a", None), rule("b", Some(("x", "y")))]);
    assert_eq!(errors.iter().map(|error| error.entry.as_str()).collect::<Vec<_>>(), ["Wrong"]);
    let list = Raw::Strings(["a", "b,c", "a"].map(str::to_owned).to_vec());
    let (config, errors) = parse(&[(LABELS.to_owned(), list)].into());
    assert_eq!((config.labels, errors), (["a", "b", "c"].map(|name| rule(name, None)).to_vec(), vec![]));
}

#[test]
fn egress() {
    let http = |address: Option<&str>, port, prefix: Option<&str>| EgressTarget {
        address: address.map(|address| address.parse().unwrap()),
        port,
        protocol: Protocol::Http,
        pod_prefix: prefix.map(str::to_owned),
    };
    let tcp = |target: EgressTarget| EgressTarget { protocol: Protocol::Tcp, ..target };
    for (text, expected) in [
        ("10.0.0.1:80", http(Some("10.0.0.1"), 80, None)),
        ("0:80", http(None, 80, None)),
        ("0.0.0.0:80", http(None, 80, None)),
        ("[::]:80", http(None, 80, None)),
        ("0:80:web-", http(None, 80, Some("web-"))),
        ("10.0.0.1:5432=tcp", tcp(http(Some("10.0.0.1"), 5432, None))),
        ("10.0.0.1:5432=tcp:web", tcp(http(Some("10.0.0.1"), 5432, Some("web")))),
        ("[fd00::1]:80", http(Some("fd00::1"), 80, None)),
        ("[fd00::1]:80=http:web.0", http(Some("fd00::1"), 80, Some("web.0"))),
        ("[::ffff:10.0.0.1]:80", http(Some("10.0.0.1"), 80, None)),
    ] {
        let (config, errors) = parsed(&[(EGRESS, text)]);
        assert_eq!((config.egress, errors), (vec![expected], vec![]), "{text}");
    }
    for text in [
        "80",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:+80",
        "10.0.0.1:http",
        "example.com:80",
        "fd00::1:80",
        "[fd00::1]",
        "[fd00::1]80",
        "[10.0.0.1]:80",
        ":80",
        "0:80=",
        "0:80=smtp",
        "0:80:",
        "0:80:Web",
        "0:80:-web",
        "0:80:web:tcp",
        "0:80:web=tcp",
        "10.0.0.0/8:80",
        "[fd00::1:80",
        "0:80 81",
    ] {
        let (config, errors) = parsed(&[(EGRESS, text)]);
        assert_eq!((config.egress, errors.len()), (vec![], 1), "{text}");
        assert!(errors[0].expected.contains("write <IP>:<port>"), "{text}: {errors:?}");
    }
    let (config, errors) = parsed(&[(EGRESS, "0:80,0:81"), (EGRESS_MISSPELT, "0:82,0:81,0:x")]);
    assert_eq!(config.egress, [80, 81, 82].map(|port| http(None, port, None)));
    assert_eq!((errors.len(), errors[0].key.as_str()), (1, EGRESS_MISSPELT));
}

#[test]
fn where_traces_go() {
    for (values, expected) in [
        (vec![(SERVER, "jaeger")], "otlp://jaeger:4317"),
        (vec![(SERVER, "jaeger:14268")], "jaeger+http://jaeger:14268"),
        (vec![(COLLECTOR, "jaeger")], "jaeger+http://jaeger:14268"),
        (vec![(COLLECTOR, "jaeger:9999")], "jaeger+http://jaeger:9999"),
        (vec![(COLLECTOR, "[fd00::1]:80")], "jaeger+http://[fd00::1]:80"),
        (vec![(COLLECTOR, "otlp://jaeger")], "otlp://jaeger:4317"),
        (vec![(COLLECTOR, "none")], "none"),
        (vec![(AGENT, "jaeger")], "jaeger+udp://jaeger:6831"),
        (vec![(AGENT, "jaeger:5000")], "jaeger+udp://jaeger:5000"),
        (vec![(AGENT, "a"), (COLLECTOR, "c"), (SERVER, "s")], "otlp://s"),
        (vec![(AGENT, "a"), (COLLECTOR, "c")], "jaeger+http://c"),
    ] {
        let (config, errors) = parsed(&values);
        assert_eq!((config.traces, errors), (Some(expected.parse().unwrap()), vec![]), "{values:?}");
    }
}

#[test]
fn wrong_addresses_are_said_and_the_next_one_that_is_valid_is_taken() {
    for (values, expected, wrong) in [
        (vec![(SERVER, "jaeger:1")], None, 1),
        (vec![(SERVER, "jaeger:1"), (AGENT, "jaeger")], Some("jaeger+udp://jaeger"), 1),
        (vec![(SERVER, "ftp://x, otlp://y")], Some("otlp://y"), 1),
        (vec![(SERVER, "otlp://x, otlp://y")], Some("otlp://x"), 1),
        (vec![(COLLECTOR, "a b")], None, 1),
    ] {
        let (config, errors) = parsed(&values);
        let expected = expected.map(|address| address.parse().unwrap());
        assert_eq!((config.traces, errors.len()), (expected, wrong), "{values:?}: {errors:?}");
    }
    let (_, errors) = parsed(&[(SERVER, "otlp://me:secret@jaeger"), (COLLECTOR, "me:secret@jaeger")]);
    assert_eq!(errors.len(), 2);
    assert!(!format!("{errors:?}").contains("secret"), "{errors:?}");
}

#[test]
fn what_is_no_value_is_said_and_selects_nothing() {
    let hash = |key: &str| (key.to_owned(), Raw::Unusable("a hash".to_owned()));
    let (config, errors) = parse(&KEYS.iter().map(|key| hash(key)).collect());
    assert_eq!(config, Config { labels: vec![NO_POD], ..Config::default() });
    assert_eq!(errors.len(), KEYS.len());
    assert!(errors.iter().all(|error| error.expected.contains("a hash")), "{errors:?}");
}

#[test]
fn amounts_are_bounded() {
    let many: Vec<String> = (0..=MOST_ENTRIES).map(|n| format!("n{n}")).collect();
    let (config, errors) = parse(&[value(LABELS, &many[..MOST_ENTRIES].join(","))].into());
    assert_eq!((config.labels.len(), errors.len()), (MOST_ENTRIES, 0));
    let (config, errors) = parse(&[value(LABELS, &many.join("\n"))].into());
    assert_eq!((config.labels.len(), errors.len()), (MOST_ENTRIES, 1));
    let (_, errors) = parsed(&[(EGRESS, &"0".repeat(100_000))]);
    assert!(errors.len() == 1 && errors[0].entry.len() < 500, "{errors:?}");
}
