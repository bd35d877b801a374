//! The rows of the demo's databases. Every value follows from its place, so that a restored row can be compared
//! without a copy of the original.

/// Rows of the RocksDB.
pub(crate) const ROWS: u64 = 1500;
/// How many of them are in tables; the others are only in the log.
pub(crate) const ROWS_FLUSHED: u64 = 1450;
/// Bytes of a value.
const VALUE_BYTES: usize = 64;

/// The key of a row.
pub(crate) fn key(row: u64) -> [u8; 8] {
    row.to_be_bytes()
}

/// The value of a row of the database of this name: bytes that look random.
pub(crate) fn value(database: &str, row: u64) -> Vec<u8> {
    let mut state = database.bytes().fold(row.wrapping_add(1), |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    while bytes.len() < VALUE_BYTES {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes
}
