//! Wrong usage: one line that says what, why and what to do, and the right exit code.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{netns, program::clovisor};

/// Exit code and stderr of a run.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = clovisor().args(arguments).output().unwrap();
    assert!(output.stdout.is_empty(), "an error goes to stderr");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_options_name_what_is_wrong() {
    for (arguments, said) in [
        (&["trace"][..], "--interface"),
        (&["trace", "-i", "lo", "--port", "http"], "'http' is not a port"),
        (&["trace", "-i", "lo", "--port", "80=smtp"], "use http or tcp"),
        (&["trace", "-i", "lo", "--egress", "example.com:80"], "not an IPv4 address"),
        (&["trace", "-i", "lo", "--to", "jaeger:9411"], "4318"),
        (&["trace", "-i", "lo", "--duration", "soon"], "30s"),
        (&["trace", "-i", "lo", "--attach", "xdp"], "clsact"),
        (&["trace", "-i", "lo", "--semconv", "x"], "legacy"),
        (&["trace", "-i", "lo", "--write", "-"], "add --output none"),
        (&["trace", "-i", "lo", "--write-limit", "1K"], "the least is 64K"),
        (&["read"], "FILE"),
        (&["read", "/nonexistent.pcap"], "No such file"),
        (&["read", "/"], "directory"),
        (&["read", "/dev/null"], "empty"),
        (&["frobnicate"], "unrecognized subcommand"),
    ] {
        let (code, stderr) = run(arguments);
        assert_eq!(code, Some(64), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_file_that_is_no_capture_says_so() {
    let path = std::env::temp_dir().join(format!("clovisor-cli-{}.txt", std::process::id()));
    fs::write(&path, "this is not a capture file, though it is long enough to be one").unwrap();
    let (code, stderr) = run(&["read", path.to_str().unwrap()]);
    fs::remove_file(&path).unwrap();
    assert_eq!(code, Some(64));
    assert!(stderr.contains("neither pcap nor pcapng"), "{stderr}");
}

/// The sampler decides by the trace id, and what it leaves out is accounted for.
#[test]
fn a_sampler_leaves_spans_out_and_says_so() {
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/../clovisor-trace/testdata/golden/keep-alive.pcap");
    let spans = |sampler: &str, share: &str| {
        let mut command = clovisor();
        command.args(["read", capture, "--output", "json"]);
        let output = command
            .env("OTEL_TRACES_SAMPLER", sampler)
            .env("OTEL_TRACES_SAMPLER_ARG", share)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        (String::from_utf8(output.stdout).unwrap().lines().count(), stderr)
    };
    let (all, _) = spans("always_on", "");
    let (half, stderr) = spans("traceidratio", "0.5");
    assert!(0 < half && half < all, "{half} of {all}");
    let account = format!("sessions  {all} = {half} handed on + {} sampled out", all - half);
    assert!(stderr.contains(&account), "{account} is not in {stderr}");
    assert_eq!(spans("traceidratio", "0.5").0, half, "the same traces are taken each time");
    assert_eq!(spans("parentbased_always_off", "").0, 0);
}

/// The accounts at the end of every capture that there is, also where nobody reads what comes of it.
#[test]
fn every_capture_is_accounted_for() {
    let mut captures = Vec::new();
    for folder in ["golden", "zeek"] {
        let folder = format!("{}/../clovisor-trace/testdata/{folder}", env!("CARGO_MANIFEST_DIR"));
        captures.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    captures.retain(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    assert!(captures.len() > 10, "{captures:?}");
    for capture in captures {
        for is_read in [true, false] {
            let mut command = clovisor();
            command.args(["read", "-o", "json", "--port", "80", "--port", "8080"]).arg(&capture);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let output = if is_read {
                child.wait_with_output().unwrap()
            } else {
                drop(child.stdout.take());
                child.wait_with_output().unwrap()
            };
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(!stderr.contains("IS NOT") && !stderr.contains(" queued"), "{capture:?}: {stderr}");
            for account in ["packets   ", "sessions  ", "spans     "] {
                assert!(stderr.contains(account), "{account} of {capture:?}: {stderr}");
            }
        }
    }
}

#[test]
fn help_is_help() {
    for arguments in
        [&["--help"][..], &["trace", "--help"], &["read", "--help"], &["cleanup", "--help"], &["--version"]]
    {
        let output = clovisor().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_interface_that_is_not_there() {
    netns::test("an_interface_that_is_not_there", &[], |_net| async {
        let (code, stderr) = run(&["trace", "-i", "nope0"]);
        assert_eq!(code, Some(64), "{stderr}");
        assert!(stderr.contains("`nope0`") && stderr.contains("ip link"), "{stderr}");
    });
}

#[test]
fn missing_capabilities_are_named() {
    netns::test("missing_capabilities_are_named", &["setpriv"], |_net| async {
        let program = clovisor().get_program().to_owned();
        for (dropped, named) in
            [("-all", "NET_ADMIN"), ("-net_admin", "NET_ADMIN"), ("-bpf,-sys_admin", "BPF")]
        {
            let output = Command::new("setpriv")
                .args(["--bounding-set", dropped, "--inh-caps", "-all"])
                .arg(&program)
                .args(["trace", "-i", "lo"])
                .output()
                .unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(64), "{dropped}: {stderr}");
            assert!(stderr.contains(named), "{dropped}: {stderr}");
        }
    });
}
