//! What fuzzers call: the index of a pack, behind its seal.

use super::{PackIndex, TAG_BYTES, end_bytes, open_index, trailer};
use crate::vault::fuzzing::{master, vault_id};
use crate::vault::seal::{HEADER_BYTES, ObjectKey, ObjectKind, Purpose};

/// The bytes are how many frames a pack has, how many bytes those take, and its index.
pub(crate) fn index(bytes: &[u8]) {
    let _ = end_bytes(bytes);
    let Some((&[frames, a, b, c, d], records)) = bytes.split_first_chunk::<5>() else { return };
    let key = ObjectKey::create(&master(), vault_id(), ObjectKind::Pack, "packs/07/fuzzing");
    let key = key.expect("the operating system gives random bytes");
    let trailer = trailer(records.len() + TAG_BYTES, usize::from(frames));
    let mut end = records.to_vec();
    key.seal(u64::from(frames), Purpose::Last, &trailer, &mut end).expect("an index is short");
    end.extend_from_slice(&trailer);
    assert_eq!(end_bytes(&end), Some(end.len() as u64));
    let data = u64::from(u32::from_le_bytes([a, b, c, d]));
    let size = HEADER_BYTES as u64 + data + end.len() as u64;
    let Some(index) = open_index(&key, &end, size) else { return };
    look(&index, data);
}

fn look(index: &PackIndex, data: u64) {
    let mut at = HEADER_BYTES as u64;
    let mut units = 0;
    for frame in 0..index.frames() {
        let record = index.frame(frame);
        assert_eq!(index.range(frame).start, at, "frames lie one behind the other");
        assert_eq!(index.first_unit(frame), units);
        let (first, last) = (units, units + u32::from(record.units) - 1);
        assert_eq!(index.locate(first), Some((frame, 0)));
        assert_eq!(index.locate(last), Some((frame, usize::from(record.units) - 1)));
        assert_eq!(index.units_of(record.kind).filter(|(unit, _)| *unit == last).count(), 1);
        (at, units) = (index.range(frame).end, last + 1);
    }
    assert_eq!(at, HEADER_BYTES as u64 + data);
    assert!(index.locate(units).is_none() && index.unit_id(units).is_none());
}
