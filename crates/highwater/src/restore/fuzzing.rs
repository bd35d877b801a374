//! What fuzzers call: the journal, which only the node's owner could have changed.

use super::journal::Journal;

/// A journal that is read is written as one that is the same.
pub(crate) fn journal(bytes: &[u8]) {
    let Ok(journal) = Journal::parse(bytes) else { return };
    let written = serde_json::to_vec_pretty(&journal).expect("a journal is JSON");
    let again = Journal::parse(&written).expect("what is written can be read");
    assert_eq!(journal, again);
    let undone = again.rollback(again.time);
    assert_eq!(undone.incoming.other(), again.incoming);
}
