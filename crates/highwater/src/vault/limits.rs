//! What no vault has more of. Who can write to a store must not fill our memory by what it says.

use super::folder::{Folder, HEADER};

/// A pack is ended once it holds so many bytes, before compression.
pub(crate) const PACK_PLAIN_BYTES_MAX: u64 = 128 << 20;
/// No plain document (`vault.json`, a key slot) is longer.
pub(crate) const PLAIN_BYTES_MAX: u64 = 64 << 10;
/// No manifest is longer as stored: it is bounded before compression, and compression may add a little.
pub(crate) const MANIFEST_BYTES_MAX: u64 = (1 << 30) + (1 << 24);
/// Nor is any other sealed document.
const DOCUMENT_BYTES_MAX: u64 = 256 << 20;
/// No vault has more objects, and no part of a vault: a list that is longer is not read to its end.
pub(super) const LISTED_MAX: usize = 8 << 20;
/// Small uploads, and parts of large ones, that are on their way to a remote store at once.
pub(crate) const UPLOADS_IN_FLIGHT_MAX: usize = 4;

/// So many bytes of the object `name` are taken as a whole: nothing that is longer was put by us.
pub(super) fn object_bytes_max(name: &str) -> u64 {
    match Folder::of(name) {
        _ if name == HEADER => PLAIN_BYTES_MAX,
        Some(Folder::Keys) => PLAIN_BYTES_MAX,
        Some(Folder::Snapshots) => MANIFEST_BYTES_MAX,
        _ => DOCUMENT_BYTES_MAX,
    }
}
