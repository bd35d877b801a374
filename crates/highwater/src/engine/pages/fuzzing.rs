//! What fuzzers call: the walks over page files, none of which trusts a number in the file.

use super::{Depth, bbolt, lmdb, mdbx, redb};
use crate::engine::fuzzing::file_of;

/// The bytes are a file of each of the four engines. What is found sound as a whole can be opened.
pub(crate) fn pages(bytes: &[u8]) {
    let file = file_of(bytes);
    for check in [lmdb::check, mdbx::check, bbolt::check, redb::check] {
        let opened = check(&file, Depth::Open).map(drop);
        if check(&file, Depth::Full).is_ok() {
            opened.expect("a file that is sound can be opened");
        }
    }
}
