//! The example `judge`, as a stranger runs it: JSON in, a verdict or a message out.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Cargo builds the examples of a package with its tests, beside the directory of the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(|deps| deps.parent()).unwrap();
    let name = format!("judge{}", std::env::consts::EXE_SUFFIX);
    let example = built.join("examples").join(name);
    let build = "cargo build -p highwater-guard --example judge";
    assert!(example.is_file(), "{} is missing: {build}", example.display());
    example
}

fn run(input: &str) -> Output {
    let piped = Stdio::piped;
    let mut child =
        Command::new(example()).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn answers(input: &str, verdict: &str) {
    let output = run(input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{input}: {stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{verdict}\n"), "{input}");
}

fn refuses(input: &str, message: &str) {
    let output = run(input);
    assert!(!output.status.success(), "{input}");
    assert!(output.stdout.is_empty(), "{input}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(message), "{input}: {stderr}");
}

const OURS: &str = r#""ours": {"signed": 6, "revoked": 5, "received": 5, "closing": false}"#;

#[test]
fn the_example_judges_evidence_beside_our_numbers() {
    let held = r#""report": {"revocations_held": 5, "signatures_taken": 6}"#;
    let lost = r#""report": {"revocations_held": 6, "signatures_taken": 6}"#;
    answers(&format!(r#"{{{OURS}, "policy": "peer", {held}}}"#), r#"{"clear":"peer"}"#);
    answers(
        &format!(r#"{{{OURS}, "policy": "peer", {lost}}}"#),
        r#"{"blocked":"revocation_lost"}"#,
    );
    answers(&format!(r#"{{{OURS}, "policy": "witness"}}"#), r#"{"wait":"nothing_heard"}"#);
    answers(
        &format!(r#"{{{OURS}, "policy": "peer", "chain": "confirmed", {lost}}}"#),
        r#""closed""#,
    );
}

#[test]
fn the_example_judges_evidence_as_an_object() {
    let witness = r#"{"signed": 6, "revoked": 5, "received": 5, "closing": false,
        "continuous": true, "owned": true}"#;
    let evidence = format!(
        r#"{{"chain": null, "backup": null, "witness": {witness}, "report": null,
        "policy": "witness"}}"#
    );
    answers(&format!(r#"{{{OURS}, "evidence": {evidence}}}"#), r#"{"clear":"witness"}"#);
}

#[test]
fn the_example_refuses_what_it_cannot_read() {
    refuses("", "EOF");
    refuses("[]", "invalid type");
    refuses("{}", "`ours` is missing");
    refuses(&format!("{{{OURS}}}"), "missing field `policy`");
    refuses(&format!(r#"{{{OURS}, "policy": "nobody"}}"#), "unknown variant `nobody`");
    refuses(&format!(r#"{{{OURS}, "policy": "peer", "surplus": 1}}"#), "unknown field `surplus`");
    refuses(
        &format!(r#"{{{OURS}, "evidence": {{"policy": "peer"}}, "chain": null}}"#),
        "fields beside `ours` and `evidence`",
    );
    refuses(
        r#"{"ours": {"signed": -1, "revoked": 5, "received": 5, "closing": false},
        "policy": "peer"}"#,
        "invalid value",
    );
}
