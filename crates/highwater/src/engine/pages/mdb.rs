//! The B-trees that LMDB and libmdbx share but for the width of some numbers (`mdb.c` of LMDB, `MDB_page`,
//! `MDB_node` and `MDB_db`; `mdbx.c` of libmdbx, `page_t`, `node_t` and `tree_t`).

pub(crate) mod order;
pub(crate) mod page;
pub(crate) mod walk;

use crate::engine::pages::bytes::{u16_at, u32_at, u64_at};

/// Flags of a database.
pub(crate) const REVERSE_KEY: u16 = 0x02;
pub(crate) const DUP_SORT: u16 = 0x04;
pub(crate) const INTEGER_KEY: u16 = 0x08;
pub(crate) const DUP_FIXED: u16 = 0x10;
pub(crate) const INTEGER_DUP: u16 = 0x20;
pub(crate) const REVERSE_DUP: u16 = 0x40;
/// All flags that a database is stored with.
pub(crate) const DB_FLAGS: u16 =
    REVERSE_KEY | DUP_SORT | INTEGER_KEY | DUP_FIXED | INTEGER_DUP | REVERSE_DUP;

/// Bytes of the record of a database, with both.
pub(crate) const RECORD_BYTES: usize = 48;
/// No cursor of either is deeper (`CURSOR_STACK`, `CURSOR_STACK_SIZE`).
pub(crate) const DEPTH_MAX: u16 = 32;

/// Whose B-tree it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Of LMDB with data version 1, on a host of 64 bits.
    Lmdb,
    /// Of libmdbx with data version 3.
    Mdbx,
}

impl Dialect {
    /// Bytes of the header of a page.
    pub(crate) fn header(self) -> usize {
        match self {
            Dialect::Lmdb => 16,
            Dialect::Mdbx => 20,
        }
    }

    /// What the offsets in a page count from.
    pub(crate) fn base(self) -> usize {
        match self {
            Dialect::Lmdb => 0,
            Dialect::Mdbx => 20,
        }
    }

    /// Bytes of a page number in a list of free pages and in the node of a large value.
    pub(crate) fn number_bytes(self) -> usize {
        match self {
            Dialect::Lmdb => 8,
            Dialect::Mdbx => 4,
        }
    }

    /// The root of an empty tree.
    pub(crate) fn invalid(self) -> u64 {
        match self {
            Dialect::Lmdb => u64::MAX,
            Dialect::Mdbx => u64::from(u32::MAX),
        }
    }

    /// The first page that is not a meta page.
    pub(crate) fn metas(self) -> u64 {
        match self {
            Dialect::Lmdb => 2,
            Dialect::Mdbx => 3,
        }
    }

    /// The page number at a place.
    pub(crate) fn number_at(self, bytes: &[u8], at: usize) -> Option<u64> {
        match self {
            Dialect::Lmdb => u64_at(bytes, at),
            Dialect::Mdbx => u32_at(bytes, at).map(u64::from),
        }
    }
}

/// What a database says of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The size of the items of pages without nodes.
    pub(crate) item_bytes: u32,
    pub(crate) flags: u16,
    pub(crate) depth: u16,
    pub(crate) counts: Counts,
    pub(crate) root: u64,
}

/// How much there is in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) branches: u64,
    pub(crate) leaves: u64,
    pub(crate) overflows: u64,
    pub(crate) entries: u64,
}

impl Record {
    /// Reads the record at a place.
    pub(crate) fn at(dialect: Dialect, bytes: &[u8], at: usize) -> Option<Record> {
        let bytes = bytes.get(at..)?;
        let short = |at: usize| u32_at(bytes, at).map(u64::from);
        Some(match dialect {
            Dialect::Lmdb => Record {
                item_bytes: u32_at(bytes, 0)?,
                flags: u16_at(bytes, 4)?,
                depth: u16_at(bytes, 6)?,
                counts: Counts {
                    branches: u64_at(bytes, 8)?,
                    leaves: u64_at(bytes, 16)?,
                    overflows: u64_at(bytes, 24)?,
                    entries: u64_at(bytes, 32)?,
                },
                root: u64_at(bytes, 40)?,
            },
            Dialect::Mdbx => Record {
                flags: u16_at(bytes, 0)?,
                depth: u16_at(bytes, 2)?,
                item_bytes: u32_at(bytes, 4)?,
                root: short(8)?,
                counts: Counts {
                    branches: short(12)?,
                    leaves: short(16)?,
                    overflows: short(20)?,
                    entries: u64_at(bytes, 32)?,
                },
            },
        })
    }
}
