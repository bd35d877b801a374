use std::fs;

use super::*;

/// A fragment as a log holds it; with the number of the log where it has one.
fn fragment(kind: u8, number: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let mut covered = vec![kind];
    covered.extend(number.into_iter().flat_map(u32::to_le_bytes));
    covered.extend_from_slice(payload);
    let mut bytes = mask(crc32c::crc32c(&covered)).to_le_bytes().to_vec();
    bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&covered);
    bytes
}

fn read(bytes: &[u8]) -> Extent {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000007.log");
    fs::write(&path, bytes).unwrap();
    extent(&File::open(path).unwrap(), 7, bytes.len() as u64).unwrap()
}

#[test]
fn a_log_ends_behind_its_last_whole_record_wherever_it_is_cut() {
    let records = [fragment(1, None, b"one"), fragment(1, None, &[7; 300]), fragment(1, None, b"")];
    let whole = records.concat();
    let ends: Vec<usize> = records
        .iter()
        .scan(0, |end, record| {
            *end += record.len();
            Some(*end)
        })
        .collect();
    for cut in 0..=whole.len() {
        let last = ends.iter().rev().find(|end| **end <= cut).copied().unwrap_or_default();
        let extent = read(&whole[..cut]);
        assert_eq!(extent.bytes, last as u64, "{cut}");
        assert_eq!(extent.end, if last == cut { End::Whole } else { End::Torn }, "{cut}");
        assert_eq!(extent.writes, last > 0);
    }
}

#[test]
fn a_record_over_several_blocks_counts_once_its_last_part_is_there() {
    let first = fragment(1, None, b"one");
    let part = BLOCK_BYTES - 7;
    let long = [
        fragment(2, None, &vec![1; part - first.len()]),
        fragment(3, None, &vec![2; part]),
        fragment(4, None, &[3; 10]),
    ];
    let bytes = [first.clone(), long.concat()].concat();
    assert_eq!(read(&bytes).bytes, bytes.len() as u64);
    for cut in [first.len() + 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, bytes.len() - 1] {
        let extent = read(&bytes[..cut]);
        assert_eq!((extent.bytes, extent.end), (first.len() as u64, End::Torn), "{cut}");
    }
}

#[test]
fn what_was_preallocated_is_no_damage_and_a_changed_byte_is() {
    let bytes = [fragment(1, None, b"one"), fragment(1, None, b"two"), fragment(1, None, b"three")];
    let whole = bytes.concat();
    let mut allocated = whole.clone();
    allocated.resize(whole.len() + 3 * BLOCK_BYTES, 0);
    assert_eq!((read(&allocated).bytes, read(&allocated).end), (whole.len() as u64, End::Whole));
    for at in 0..bytes[0].len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x40;
        let extent = read(&changed);
        assert_eq!(extent.bytes, 0, "{at}");
        // A length that reaches beyond the end looks like a record that is not there yet.
        assert!(matches!(extent.end, End::Damaged(_) | End::Torn), "{at}: {extent:?}");
        assert!(at == 4 || at == 5 || extent.end != End::Torn, "{at}: {extent:?}");
    }
    // The last byte of a block is followed by others.
    let full = fragment(1, None, &vec![5; BLOCK_BYTES - 7]);
    let mut changed = [full.clone(), full].concat();
    changed[100] ^= 1;
    assert!(matches!(read(&changed).end, End::Damaged(_)));
}

#[test]
fn a_file_that_was_another_logs_ends_where_that_one_begins() {
    let own = [fragment(5, Some(7), b"one"), fragment(5, Some(7), b"two")].concat();
    let old = [own.clone(), fragment(5, Some(3), b"old")].concat();
    assert_eq!(
        read(&old),
        Extent { bytes: own.len() as u64, writes: true, recycled: true, end: End::Whole }
    );
    // In the middle of what was there before.
    let mut over = own.clone();
    over.extend_from_slice(&fragment(5, Some(3), &[9; 100])[20..]);
    assert_eq!((read(&over).bytes, read(&over).end), (own.len() as u64, End::Whole));
}

#[test]
fn notes_are_passed_over_and_unknown_records_are_not() {
    let note = [
        fragment(9, None, &[1, 0, 0, 0]),
        fragment(10, None, b"sizes"),
        fragment(130, None, b"before"),
    ];
    let extent = read(&note.concat());
    assert_eq!(
        (extent.bytes, extent.writes, extent.end),
        (note.concat().len() as u64, false, End::Whole)
    );
    let ignorable = [fragment(200, None, b"?"), fragment(1, None, b"one")].concat();
    assert_eq!(read(&ignorable).bytes, ignorable.len() as u64);
    let unknown =
        [fragment(1, None, b"one"), fragment(60, None, b"?"), fragment(1, None, b"two")].concat();
    assert!(matches!(read(&unknown).end, End::Damaged(_)));
}
