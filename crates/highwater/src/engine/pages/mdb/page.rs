//! One page of a B-tree of LMDB or libmdbx, or one that lies in a node of another.

use super::Dialect;
use crate::engine::pages::bytes::{part, u16_at, u32_at};

/// Flags of a page.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
pub(crate) const META: u16 = 0x08;
const DIRTY: u16 = 0x10;
const LEAF2: u16 = 0x20;
const SUB: u16 = 0x40;
/// Nobody clears it, and it means nothing in a file (`P_SPILLED` of libmdbx).
const SPILLED: u16 = 0x2000;
/// Bytes of the header of a node, with both.
const NODE_BYTES: usize = 8;
/// Bytes of the offset of a node.
const OFFSET_BYTES: usize = 2;

/// Flags of a node.
pub(crate) const BIG_DATA: u16 = 0x01;
pub(crate) const SUB_DATA: u16 = 0x02;
pub(crate) const DUP_DATA: u16 = 0x04;

/// What is on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keys, and the pages between them.
    Branch,
    /// Keys and values.
    Leaf,
    /// Keys of one size, without nodes.
    Leaf2,
}

/// A page whose header is in bounds.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    dialect: Dialect,
    bytes: &'a [u8],
    pub(crate) kind: Kind,
    pub(crate) count: usize,
    /// Where its nodes begin.
    upper: usize,
}

/// A node that lies within its page.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) key: &'a [u8],
    /// What lies in the page; the number of another where it is a large value.
    pub(crate) data: &'a [u8],
    /// The bytes of the whole value.
    pub(crate) length: u32,
    pub(crate) flags: u16,
    /// The child of a branch.
    pub(crate) child: u64,
}

/// Numbers in the header of a page, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) number: u64,
    pub(crate) item_bytes: u16,
    pub(crate) flags: u16,
    pub(crate) lower: u16,
    pub(crate) upper: u16,
    /// How many pages a large value has.
    pub(crate) pages: u32,
}

impl Header {
    /// Reads the header of a page.
    pub(crate) fn at(dialect: Dialect, bytes: &[u8]) -> Option<Header> {
        let (number, rest) = match dialect {
            Dialect::Lmdb => (0, 8),
            Dialect::Mdbx => (16, 8),
        };
        let rest = bytes.get(rest..)?;
        let ignored = if dialect == Dialect::Mdbx { SPILLED } else { 0 };
        Some(Header {
            number: dialect.number_at(bytes, number)?,
            item_bytes: u16_at(rest, 0)?,
            flags: u16_at(rest, 2)? & !ignored,
            lower: u16_at(rest, 4)?,
            upper: u16_at(rest, 6)?,
            pages: u32_at(rest, 4)?,
        })
    }

    /// Whether it is the first page of a large value.
    pub(crate) fn is_overflow(&self) -> bool {
        self.flags == OVERFLOW
    }

    fn kind(&self, sub: bool) -> Option<Kind> {
        let flags = match sub {
            // Nobody clears that of a page in a node.
            true if self.flags & SUB != 0 => self.flags & !(SUB | DIRTY),
            true => return None,
            false => self.flags,
        };
        match flags {
            BRANCH if !sub => Some(Kind::Branch),
            LEAF => Some(Kind::Leaf),
            flags if flags == LEAF | LEAF2 => Some(Kind::Leaf2),
            _ => None,
        }
    }
}

impl<'a> Page<'a> {
    /// A page of the file.
    pub(crate) fn parse(
        dialect: Dialect,
        bytes: &'a [u8],
        number: u64,
    ) -> Result<Page<'a>, String> {
        let Some(header) = Header::at(dialect, bytes) else { return Err("is cut".into()) };
        if header.number != number {
            return Err(format!("says that its number is {}", header.number));
        }
        Page::with(dialect, bytes, header, false)
    }

    /// A page in a node.
    pub(crate) fn parse_sub(dialect: Dialect, bytes: &'a [u8]) -> Result<Page<'a>, String> {
        let Some(header) = Header::at(dialect, bytes) else { return Err("is cut".into()) };
        Page::with(dialect, bytes, header, true)
    }

    fn with(
        dialect: Dialect,
        bytes: &'a [u8],
        header: Header,
        sub: bool,
    ) -> Result<Page<'a>, String> {
        let Some(kind) = header.kind(sub) else {
            return Err(format!(
                "has the flags {:#06x}, which no page of a tree has",
                header.flags
            ));
        };
        let wrong = || "has bounds that are not within it".to_owned();
        let base = dialect.base();
        let lower = usize::from(header.lower).checked_add(base).ok_or_else(wrong)?;
        let upper = usize::from(header.upper).checked_add(base).ok_or_else(wrong)?;
        let offsets = lower.checked_sub(dialect.header()).ok_or_else(wrong)?;
        // Those of a page without nodes only count, and are beyond its end where items have one byte.
        let bound = kind == Kind::Leaf2 || (lower <= upper && upper <= bytes.len());
        if !bound || offsets.checked_rem(OFFSET_BYTES) != Some(0) {
            return Err(wrong());
        }
        let count = offsets.checked_div(OFFSET_BYTES).unwrap_or(0);
        Ok(Page { dialect, bytes, kind, count, upper })
    }

    /// The items of a page without nodes.
    pub(crate) fn items(&self, size: usize) -> Option<std::slice::ChunksExact<'a, u8>> {
        let length = self.count.checked_mul(size).filter(|_| size > 0)?;
        Some(part(self.bytes, self.dialect.header(), length)?.chunks_exact(size))
    }

    /// The node at an index, and the bytes that it takes.
    pub(crate) fn node(&self, index: usize) -> Option<(Node<'a>, usize)> {
        let offset = index.checked_mul(OFFSET_BYTES)?.checked_add(self.dialect.header())?;
        let at = usize::from(u16_at(self.bytes, offset)?).checked_add(self.dialect.base())?;
        if at < self.upper || at.checked_rem(2) != Some(0) {
            return None;
        }
        let bytes = self.bytes.get(at..)?;
        let word = u32_at(bytes, 0)?;
        let flags = u16_at(bytes, 4)?;
        let key_bytes = usize::from(u16_at(bytes, 6)?);
        let key = part(bytes, NODE_BYTES, key_bytes)?;
        let key_end = NODE_BYTES.checked_add(key_bytes)?;
        if self.kind == Kind::Branch {
            let high = match self.dialect {
                Dialect::Lmdb => u64::from(flags).checked_shl(32)?,
                Dialect::Mdbx => 0,
            };
            let node = Node { key, data: &[], length: 0, flags: 0, child: u64::from(word) | high };
            return Some((node, even(key_end)?));
        }
        let flags = match self.dialect {
            Dialect::Lmdb => flags,
            Dialect::Mdbx => flags & 0xff,
        };
        let length = match flags & BIG_DATA {
            0 => usize::try_from(word).ok()?,
            _ => self.dialect.number_bytes(),
        };
        let data = part(bytes, key_end, length)?;
        let size = even(key_end.checked_add(length)?)?;
        Some((Node { key, data, length: word, flags, child: 0 }, size))
    }

    /// Checks that all nodes are within the page, and do not overlap.
    pub(crate) fn check_nodes(&self) -> Result<(), String> {
        let mut taken = 0_usize;
        for index in 0..self.count {
            let Some((_, size)) = self.node(index) else {
                return Err(format!("has a node (number {index}) that is not within it"));
            };
            taken = taken.saturating_add(size);
        }
        // The last node of a page in a node may end without its padding.
        let room = self.bytes.len().saturating_sub(self.upper);
        if even(room).is_none_or(|room| taken > room) {
            return Err("has nodes that overlap".into());
        }
        Ok(())
    }

    /// Its nodes; all of them after [`Page::check_nodes`].
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Node<'a>> {
        (0..self.count).map_while(|index| self.node(index)).map(|(node, _)| node)
    }
}

fn even(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(2)
}
