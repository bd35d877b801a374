//! What fuzzers call: the rows of a store, and what they are when its channels are marked.

use highwater::Kind;

use super::values::ChannelState;
use super::{Rows, VERSION, VERSIONS, channels, is_marked, marks, stale, takes_stale};

/// The version of the store is the first byte, and none where there is no such version; then come rows, each
/// the length of its key in a byte, the key, the length of its value in two bytes, the lowest first, and the value.
pub(crate) fn rows(bytes: &[u8]) {
    let Some((&version, mut rest)) = bytes.split_first() else { return };
    let mut rows = Rows::new();
    while let Some((&key_bytes, behind)) = rest.split_first() {
        let (key, behind) = behind.split_at(usize::from(key_bytes).min(behind.len()));
        let Some((&length, behind)) = behind.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_le_bytes(length)).min(behind.len());
        let (value, behind) = behind.split_at(length);
        rows.insert(key.to_vec(), value.to_vec());
        rest = behind;
    }
    if let Some((version, _)) = VERSIONS.get(usize::from(version)) {
        rows.insert(VERSION.to_vec(), version.to_vec());
    }
    let before = channels(&rows);
    assert_eq!(before.is_ok(), marks(&rows).is_ok());
    let puts = match stale(&rows) {
        Ok(puts) => puts,
        Err(error) => return assert!(matches!(error.kind(), Kind::Input | Kind::Corrupt)),
    };
    let mut marked = rows.clone();
    for (key, value) in puts {
        let old = marked.insert(key, value.clone()).expect("a row that is there is replaced");
        assert_eq!(
            old.get(ChannelState::BYTES..),
            value.get(ChannelState::BYTES..),
            "only the state is another"
        );
        assert_eq!(old.len(), value.len());
    }
    let before = before.expect("channels that can be marked can be read");
    let after = channels(&marked).expect("marked channels can be read");
    assert_eq!(before.len(), after.len());
    for (mut old, new) in before.into_iter().zip(after) {
        if takes_stale(old.state) {
            assert!(is_marked(&marked, &new).expect("the index can be read"));
            old.state = ChannelState::Stale;
        }
        assert_eq!(old, new);
    }
    assert!(stale(&marked).expect("what is marked can be marked again").is_empty());
    assert_eq!(marks(&rows).ok(), marks(&marked).ok());
}
