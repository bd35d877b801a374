//! What fuzzers call: the latch, a file of the node's owner that root may carry out.

use super::latch::Latch;

/// A latch that is read is written as one that is the same, and can be asked everything.
pub(crate) fn latch(bytes: &[u8]) {
    let Ok(latch) = Latch::parse(bytes) else { return };
    let written = serde_json::to_vec_pretty(&latch).expect("a latch is JSON");
    assert_eq!(latch, Latch::parse(&written).expect("what is written can be read"));
    let held = latch.channels.keys().any(|id| !latch.lets_go(id));
    assert!(latch.holds() || !held, "a channel is held, and the latch is not");
    for (id, recorded) in &latch.channels {
        let releases = [latch.to_release(id), latch.released(id), recorded.release.as_ref()];
        for release in releases.into_iter().flatten() {
            // Corrupt where the release gives no reason.
            drop(release.as_release(id));
        }
    }
    if let Some(old) = &latch.old {
        assert!(old.words().starts_with("this state is old"));
    }
}
