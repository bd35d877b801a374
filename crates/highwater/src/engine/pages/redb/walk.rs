//! The walk over the pages that a commit slot of a redb file leads to. Each is verified with the checksum
//! that what leads to it has.

use xxhash_rust::xxh3::Xxh3;

use super::header::{Header, Layout, PagePlace, Root, Slot};
use crate::engine::pages::bits::Bits;
use crate::engine::pages::bytes::{array, u16_at, u32_at, u64_at};
use crate::engine::pages::source::{Source, Window};
use crate::engine::pages::{Result, Seen, damaged, unknown};

/// The first byte of a page, and of the values of a key that has several.
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const INLINE: u8 = 1;
const SUBTREE: u8 = 3;
/// Bytes of what leads to the values of a key: type (1), root (32).
const SUBTREE_BYTES: u64 = 33;
/// The first byte of the definition of a table.
const NORMAL: u8 = 3;
const MULTIMAP: u8 = 4;
/// Bytes of a definition: type (1), length (8), root with its flag (33), two widths with flags (10),
/// two alignments (8).
const DEFINITION_BYTES: u64 = 60;
/// Bytes of a savepoint as far as the root that it keeps: version (1), two numbers (16), root with its
/// flag (33).
const SAVEPOINT_BYTES: u64 = 50;
const SAVEPOINTS: &[u8] = b"persistent_savepoints";
/// How much of the name of a table is shown.
const NAME_BYTES_MAX: u64 = 40;
/// The width of the keys of the tree of freed pages.
const FREED_KEY_BYTES: u64 = 16;
/// redb calls a deeper tree corrupt (`MAX_BTREE_DEPTH`).
const DEPTH_MAX: u32 = 128;
/// A page is hashed in pieces of this many bytes.
const PIECE_BYTES: u64 = 1 << 16;

/// What the values of a tree are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Bytes that lead nowhere.
    Data,
    /// Definitions of tables; of the system, if the flag says so.
    Tables { system: bool },
    /// The values of a key that has several, each of this width.
    Several(Option<u64>),
    /// Savepoints.
    Savepoints,
}

/// A tree that is walked.
#[derive(Clone, Copy, Debug)]
struct Tree<'t> {
    name: &'t str,
    key_bytes: Option<u64>,
    value_bytes: Option<u64>,
    values: Values,
}

struct Walk<'a> {
    source: &'a Source<'a>,
    layout: Layout,
    reached: Bits,
    /// The roots of the user tables that savepoints keep.
    savepoints: Vec<Root>,
    /// Savepoints that were not walked, because there are too many.
    more: bool,
    /// Pages may have been reached before: they are shared with what was walked already.
    shared: bool,
    /// The bytes that a checksum was verified of: from, to.
    #[cfg(test)]
    covered: Vec<(u64, u64)>,
}

/// How many savepoints are walked.
const SAVEPOINTS_MAX: usize = 1000;

/// Verifies all pages that the slot leads to.
pub(super) fn all(
    source: &Source<'_>,
    header: &Header,
    slot: &Slot,
    seen: &mut Seen,
) -> Result<()> {
    let mut walk = Walk::new(source, header.layout)?;
    walk.slot(slot)?;
    seen.reached = walk.reached.count();
    if walk.more {
        seen.unlooked.push(format!("Only {SAVEPOINTS_MAX} savepoints were looked at."));
    }
    Ok(())
}

/// The bytes that a checksum was verified of, below what the slot leads to.
#[cfg(test)]
pub(super) fn covered(source: &Source<'_>, layout: Layout, slot: &Slot) -> Vec<(u64, u64)> {
    let mut walk = Walk::new(source, layout).unwrap();
    walk.slot(slot).unwrap();
    walk.covered
}

/// A leaf whose checksum fits.
struct Leaf {
    /// Where its entries are reported.
    heads: Window,
    /// Where they are.
    body: Window,
    count: u64,
    key_bytes: Option<u64>,
    value_bytes: Option<u64>,
}

/// Where keys begin and end, and values.
type Span = (u64, u64);

impl Leaf {
    fn arrays(&self) -> u64 {
        let arrays =
            [self.key_bytes, self.value_bytes].iter().filter(|width| width.is_none()).count();
        (arrays as u64).saturating_mul(4).saturating_mul(self.count).saturating_add(4)
    }

    fn word(&mut self, source: &Source<'_>, at: u64) -> Result<u64> {
        let bytes = self.heads.get(source, at, 4)?;
        Ok(u32_at(bytes, 0).map(u64::from).unwrap_or_default())
    }

    /// Where the first `count` keys end.
    fn keys_end(&mut self, source: &Source<'_>, count: u64) -> Result<u64> {
        match (self.key_bytes, count.checked_sub(1)) {
            (_, None) => Ok(self.arrays()),
            (Some(width), _) => Ok(width.saturating_mul(count).saturating_add(self.arrays())),
            (None, Some(last)) => self.word(source, last.saturating_mul(4).saturating_add(4)),
        }
    }

    /// Where the first `count` values end.
    fn values_end(&mut self, source: &Source<'_>, count: u64) -> Result<u64> {
        let keys = if self.key_bytes.is_none() { self.count.saturating_mul(4) } else { 0 };
        match (self.value_bytes, count.checked_sub(1)) {
            (_, None) => self.keys_end(source, self.count),
            (Some(width), _) => {
                let start = self.keys_end(source, self.count)?;
                Ok(width.saturating_mul(count).saturating_add(start))
            }
            (None, Some(last)) => {
                self.word(source, last.saturating_mul(4).saturating_add(4).saturating_add(keys))
            }
        }
    }

    fn entry(&mut self, source: &Source<'_>, index: u64) -> Result<(Span, Span)> {
        let next = index.saturating_add(1);
        let key = (self.keys_end(source, index)?, self.keys_end(source, next)?);
        Ok((key, (self.values_end(source, index)?, self.values_end(source, next)?)))
    }

    /// Bytes of an entry, at most `most` of them.
    fn bytes(&mut self, source: &Source<'_>, span: Span, most: u64) -> Result<&[u8]> {
        self.body.get(source, span.0, span.1.saturating_sub(span.0).min(most))
    }
}

impl<'a> Walk<'a> {
    fn new(source: &'a Source<'a>, layout: Layout) -> Result<Walk<'a>> {
        Ok(Walk {
            source,
            layout,
            reached: Bits::new(layout.pages())?,
            savepoints: Vec::new(),
            more: false,
            shared: false,
            #[cfg(test)]
            covered: Vec::new(),
        })
    }

    /// All that a slot leads to.
    fn slot(&mut self, slot: &Slot) -> Result<()> {
        self.tables("the list of system tables", true, slot.system)?;
        self.tables("the list of tables", false, slot.user)?;
        let freed = Tree {
            name: "the list of freed pages",
            key_bytes: Some(FREED_KEY_BYTES),
            value_bytes: None,
            values: Values::Data,
        };
        self.root(freed, slot.freed)?;
        self.shared = true;
        for root in std::mem::take(&mut self.savepoints) {
            self.tables("the list of tables that a savepoint keeps", false, Some(root))?;
        }
        Ok(())
    }

    /// A tree of tables, and the tables.
    fn tables(&mut self, name: &str, system: bool, root: Option<Root>) -> Result<()> {
        let values = Values::Tables { system };
        self.root(Tree { name, key_bytes: None, value_bytes: None, values }, root)
    }

    fn root(&mut self, tree: Tree<'_>, root: Option<Root>) -> Result<()> {
        root.map_or(Ok(()), |root| self.page(tree, root, 1))
    }

    /// A page, and all that it leads to.
    fn page(&mut self, tree: Tree<'_>, root: Root, depth: u32) -> Result<()> {
        let name = tree.name;
        if depth > DEPTH_MAX {
            return damaged(format!("The tree of {name} is deeper than {DEPTH_MAX} pages."));
        }
        let Some(place) = self.layout.place(root.page) else {
            return damaged(format!("A page of {name} is not in the regions of the file."));
        };
        if !self.claim(name, place)? {
            return Ok(());
        }
        let mut head = [0; 4];
        self.source.fill(place.offset, &mut head)?;
        let count = u16_at(&head, 2).map(u64::from).unwrap_or_default();
        match head.first() {
            Some(&LEAF) if count > 0 => self.leaf(tree, root, place, count, depth),
            Some(&BRANCH) if count > 0 => self.branch(tree, root, place, count, depth),
            _ => damaged(format!(
                "The page of {name} at byte {} is no page of a tree.",
                place.offset
            )),
        }
    }

    /// Marks a page as reached; false where it was and may be.
    fn claim(&mut self, name: &str, place: PagePlace) -> Result<bool> {
        let end = place.first.saturating_add(place.count);
        let known = self.reached.contains(place.first);
        if known && self.shared {
            return Ok(false);
        }
        for page in place.first..end {
            if !self.reached.insert(page) {
                return damaged(format!(
                    "The page of {name} at byte {} is pointed at twice.",
                    place.offset
                ));
            }
        }
        Ok(true)
    }

    /// Whether the first bytes of a page are what the checksum is of.
    fn verify(&mut self, name: &str, place: PagePlace, end: u64, checksum: u128) -> Result<()> {
        let misfit = || {
            damaged(format!(
                "The checksum of the page of {name} at byte {} does not fit.",
                place.offset
            ))
        };
        if end > place.bytes {
            return misfit();
        }
        let mut hasher = Xxh3::new();
        let mut piece = vec![0; usize::try_from(end.min(PIECE_BYTES)).unwrap_or(0)];
        let mut at = 0;
        while at < end {
            let length = end.saturating_sub(at).min(PIECE_BYTES);
            piece.truncate(usize::try_from(length).unwrap_or(0));
            self.source.fill(place.offset.saturating_add(at), &mut piece)?;
            hasher.update(&piece);
            at = at.saturating_add(length);
        }
        #[cfg(test)]
        self.covered.push((place.offset, place.offset + end));
        if hasher.digest128() == checksum { Ok(()) } else { misfit() }
    }

    fn branch(
        &mut self,
        tree: Tree<'_>,
        root: Root,
        place: PagePlace,
        keys: u64,
        depth: u32,
    ) -> Result<()> {
        let children = keys.saturating_add(1);
        let pages = children.saturating_mul(16).saturating_add(8);
        let keys_at = children.saturating_mul(8).saturating_add(pages);
        let mut window = Window::new(place.offset, place.bytes);
        let end = match tree.key_bytes {
            Some(width) => width.saturating_mul(keys).saturating_add(keys_at),
            None => {
                let last = keys.saturating_sub(1).saturating_mul(4).saturating_add(keys_at);
                u32_at(window.get(self.source, last, 4)?, 0).map(u64::from).unwrap_or_default()
            }
        };
        self.verify(tree.name, place, end.max(keys_at), root.checksum)?;
        let mut sums = Window::new(place.offset, place.bytes);
        for index in 0..children {
            let sum = sums.get(self.source, index.saturating_mul(16).saturating_add(8), 16)?;
            let sum = array(sum, 0).map(u128::from_le_bytes).unwrap_or_default();
            let at = index.saturating_mul(8).saturating_add(pages);
            let page = u64_at(window.get(self.source, at, 8)?, 0).unwrap_or_default();
            self.page(tree, Root::child(page, sum), depth.saturating_add(1))?;
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        tree: Tree<'_>,
        root: Root,
        place: PagePlace,
        count: u64,
        depth: u32,
    ) -> Result<()> {
        let window = || Window::new(place.offset, place.bytes);
        let Tree { name, key_bytes, value_bytes, values } = tree;
        let mut leaf = Leaf { heads: window(), body: window(), count, key_bytes, value_bytes };
        let end = leaf.values_end(self.source, count)?;
        self.verify(name, place, end.max(4), root.checksum)?;
        if values == Values::Data {
            return Ok(());
        }
        for index in 0..count {
            let (key, value) = leaf.entry(self.source, index)?;
            if key.0 > key.1 || value.0 > value.1 || key.1 > end || value.1 > end {
                return damaged(format!(
                    "The page of {name} at byte {} has an entry that is not within it.",
                    place.offset
                ));
            }
            match values {
                Values::Data => {}
                Values::Tables { system } => self.table(&mut leaf, key, value, system)?,
                Values::Several(width) => self.several(name, &mut leaf, value, width, depth)?,
                Values::Savepoints => self.savepoint(&mut leaf, value)?,
            }
        }
        Ok(())
    }

    /// The table that a definition is of.
    fn table(&mut self, leaf: &mut Leaf, key: Span, value: Span, system: bool) -> Result<()> {
        let key = leaf.bytes(self.source, key, NAME_BYTES_MAX)?.to_vec();
        let shown: String =
            String::from_utf8_lossy(&key).chars().flat_map(char::escape_debug).collect();
        let name = format!("table \"{shown}\"");
        let bytes = leaf.bytes(self.source, value, DEFINITION_BYTES)?;
        let width = |flag: usize| {
            let width = u32_at(bytes, flag.saturating_add(1)).map(u64::from);
            bytes.get(flag).zip(width).map(|(flag, width)| (*flag != 0).then_some(width))
        };
        let parts = (bytes.first(), Root::at(bytes, 9, 10), width(42), width(47));
        let (Some(&kind), Some(root), Some(key_bytes), Some(value_bytes)) = parts else {
            return damaged(format!("The definition of {name} is cut."));
        };
        if (u32_at(bytes, 52), u32_at(bytes, 56)) != (Some(1), Some(1)) {
            return unknown(format!("The {name} is aligned in a way that is not known here."));
        }
        let values = match kind {
            NORMAL if system && key == SAVEPOINTS => Values::Savepoints,
            NORMAL => Values::Data,
            MULTIMAP => Values::Several(value_bytes),
            _ => return unknown(format!("The {name} is of a kind that is not known here.")),
        };
        let value_bytes = if kind == MULTIMAP { None } else { value_bytes };
        self.root(Tree { name: &name, key_bytes, value_bytes, values }, root)
    }

    /// The values of a key, where they are on pages of their own.
    fn several(
        &mut self,
        name: &str,
        leaf: &mut Leaf,
        value: Span,
        width: Option<u64>,
        depth: u32,
    ) -> Result<()> {
        let bytes = leaf.bytes(self.source, value, SUBTREE_BYTES)?;
        let root = match bytes.first() {
            Some(&INLINE) => return Ok(()),
            Some(&SUBTREE) => Root::at(bytes, 0, 1),
            _ => None,
        };
        let Some(root) = root else {
            return damaged(format!(
                "The values of a key of {name} are not as the format has them."
            ));
        };
        let values = Values::Data;
        let tree = Tree { name, key_bytes: width, value_bytes: Some(0), values };
        root.map_or(Ok(()), |root| self.page(tree, root, depth.saturating_add(1)))
    }

    /// The root of the user tables that a savepoint keeps.
    fn savepoint(&mut self, leaf: &mut Leaf, value: Span) -> Result<()> {
        let bytes = leaf.bytes(self.source, value, SAVEPOINT_BYTES)?;
        match Root::at(bytes, 17, 18) {
            Some(None) => Ok(()),
            Some(Some(root)) if self.savepoints.len() < SAVEPOINTS_MAX => {
                self.savepoints.push(root);
                Ok(())
            }
            Some(Some(_)) => {
                self.more = true;
                Ok(())
            }
            None => damaged("A savepoint is cut."),
        }
    }
}
