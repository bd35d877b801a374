//! One write of a node, and how many of them may wait.

/// One write of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key, any bytes.
    pub key: Vec<u8>,
    /// The value; none deletes the key, whether it is there or not.
    pub value: Option<Vec<u8>>,
}

/// What may wait for the server, before writes wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Writes.
    pub writes: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl Default for Bound {
    fn default() -> Bound {
        Bound { writes: 100_000, bytes: 1 << 30 }
    }
}
