//! From an error's kind to the exit code and the error document: the one place that knows both.

use std::process::ExitCode;

use highwater::{Error, Kind};
use serde_json::{Value, json};

use crate::remedy;

/// The exit code of a kind.
pub(crate) fn code(kind: Kind) -> ExitCode {
    ExitCode::from(number(kind))
}

fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Bug => 1,
        Kind::Input => 2,
        Kind::NotFound => 3,
        Kind::Conflict => 4,
        Kind::Corrupt => 5,
        Kind::Fenced => 6,
        Kind::Denied => 7,
        Kind::Unavailable => 8,
        Kind::Stale => 9,
        Kind::Quarantined => 10,
        Kind::Interrupted => 130,
    }
}

/// The document of an error.
pub(crate) fn document(error: &Error) -> Value {
    json!({
        "error": {
            "kind": error.kind().name(),
            "message": error.message(),
            "hint": remedy::hint(error),
            "entry": error.entry(),
        }
    })
}

/// The lines of an error, the last one without its end.
pub(crate) fn lines(error: &Error) -> String {
    let summary = error.summary();
    match remedy::hint(error) {
        Some(hint) => format!("error: {summary}\nhint: {hint}"),
        None => format!("error: {summary}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_all_four_fields() {
        let error = Error::not_found("no such snapshot").with_entry("ab");
        let expected = json!({"error": {
            "kind": "not_found", "message": "no such snapshot", "hint": null, "entry": "ab",
        }});
        assert_eq!(document(&error), expected);
        assert_eq!(lines(&error.with_remedy("look")), "error: ab: no such snapshot\nhint: look");
    }
}
