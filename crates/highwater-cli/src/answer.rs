//! What a command answers: a document, the same for people, and what it means for the exit code.

use highwater::Kind;
use serde_json::Value;

/// The answer of a command that did what it was asked to.
pub(crate) struct Answer {
    /// For `--json`.
    pub(crate) json: Value,
    /// For people: lines, the last one without its end.
    pub(crate) human: String,
    /// What the operator should know; the document carries them where the command says so.
    pub(crate) warnings: Vec<String>,
    /// The answer is complete and yet no good news: `check` found faults, `status` found age.
    pub(crate) failed: Option<Kind>,
    /// The answer can't be asked for again, so that a closed pipe is an error.
    pub(crate) once: bool,
}

impl Answer {
    /// An answer without warnings.
    pub(crate) fn new(json: Value, human: impl Into<String>) -> Answer {
        Answer { json, human: human.into(), warnings: Vec::new(), failed: None, once: false }
    }

    /// With warnings.
    pub(crate) fn warnings(mut self, warnings: Vec<String>) -> Answer {
        self.warnings = warnings;
        self
    }

    /// With the kind of its bad news.
    pub(crate) fn failed(mut self, kind: Option<Kind>) -> Answer {
        self.failed = kind;
        self
    }
}
