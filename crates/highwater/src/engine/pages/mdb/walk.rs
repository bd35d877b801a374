//! The walk over the pages of an LMDB or libmdbx file that its trees and its list of free pages lead to.

use super::order::{Order, Rule, Wrong};
use super::page::{BIG_DATA, DUP_DATA, Header, Kind, Node, Page, SUB_DATA};
use super::{
    Counts, DB_FLAGS, DEPTH_MAX, DUP_FIXED, DUP_SORT, Dialect, INTEGER_DUP, INTEGER_KEY,
    RECORD_BYTES, REVERSE_DUP, REVERSE_KEY, Record,
};
use crate::engine::pages::bits::Bits;
use crate::engine::pages::bytes::u64_at;
use crate::engine::pages::source::Source;
use crate::engine::pages::{Result, damaged};

/// A list of free pages is read in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 16;
/// How many databases are named whose order was not checked.
const NAMED_MAX: usize = 3;
/// How much of the name of a database is shown.
const NAME_CHARS_MAX: usize = 40;

/// What the meta page says of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) dialect: Dialect,
    /// Bytes of a page.
    pub(crate) page_bytes: usize,
    /// Whole pages in the file.
    pub(crate) pages: u64,
    /// The first page that was never in use.
    pub(crate) limit: u64,
    /// The transaction that the meta page is of.
    pub(crate) txnid: u64,
}

/// What is known of the pages so far.
pub(crate) struct Walk<'a> {
    source: &'a Source<'a>,
    extent: Extent,
    reached: Bits,
    free: Bits,
    /// Free pages behind the end of the file.
    free_beyond: u64,
    /// Databases whose keys are not in the order of their flags.
    unordered: Vec<String>,
    unordered_count: u64,
    /// A record counts more pages than there are, as the engine may have counted them.
    miscounted: bool,
}

/// What a tree is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Free,
    Main,
    Named,
    Duplicates,
}

/// A tree while it is walked.
struct Tree<'t> {
    name: &'t str,
    role: Role,
    record: Record,
    counts: Counts,
    order: Order,
    /// It has the records of other databases.
    parent: bool,
    /// Values of a key are not in the order of the flags.
    unordered: bool,
}

impl<'a> Walk<'a> {
    /// A walk that has reached the meta pages.
    pub(crate) fn new(source: &'a Source<'a>, extent: Extent) -> Result<Walk<'a>> {
        // Each page beyond the end takes a number in a list of free pages, which is in the file.
        let numbers = source.size().checked_div(extent.dialect.number_bytes() as u64);
        let beyond = extent.limit.saturating_sub(extent.pages);
        if numbers.is_none_or(|numbers| beyond > numbers) {
            return cut(extent);
        }
        let mut reached = Bits::new(extent.limit)?;
        for meta in 0..extent.dialect.metas() {
            reached.insert(meta);
        }
        let free = Bits::new(extent.limit)?;
        Ok(Walk {
            source,
            extent,
            reached,
            free,
            free_beyond: 0,
            unordered: Vec::new(),
            unordered_count: 0,
            miscounted: false,
        })
    }

    /// Pages that were reached.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.count()
    }

    /// Pages that are listed as free.
    pub(crate) fn free(&self) -> u64 {
        self.free.count()
    }

    /// What could not be told of the numbers of pages.
    pub(crate) fn miscounted(&self) -> Option<String> {
        self.miscounted.then(|| {
            "The numbers of branch and leaf pages were not checked where a key has several values: some are too high, \
             as the engine itself makes them."
                .to_owned()
        })
    }

    /// What could not be checked of the order of keys.
    pub(crate) fn unordered(&self) -> Option<String> {
        let more = if self.unordered_count > NAMED_MAX as u64 { " and others" } else { "" };
        let names = self.unordered.join(", ");
        (self.unordered_count > 0).then(|| {
            format!(
                "The order of keys or of their values was not checked in {names}{more}: it is not that of \
                 the flags, and a program may have one of its own."
            )
        })
    }

    /// Walks the list of free pages; every page beyond the end of the file has to be in it
    /// (`mdb.c` of LMDB, `mm_last_pg`).
    pub(crate) fn free_list(&mut self, record: Record) -> Result<()> {
        let record = Record { flags: INTEGER_KEY, ..record };
        self.tree(record, Role::Free, "the list of free pages")?;
        if self.free_beyond < self.extent.limit.saturating_sub(self.extent.pages) {
            return cut(self.extent);
        }
        Ok(())
    }

    /// Walks the main database, and those that it names.
    pub(crate) fn main(&mut self, record: Record) -> Result<()> {
        self.tree(record, Role::Main, "the main database").map(|_| ())
    }

    /// Walks a tree. Returns how many entries it has, and whether they are in order.
    fn tree(&mut self, record: Record, role: Role, name: &str) -> Result<(u64, bool)> {
        if record.flags & !DB_FLAGS != 0 {
            return damaged(format!("The record of {name} has flags that there are not."));
        }
        let order = order_of(record.flags, role);
        let counts = Counts::default();
        let mut tree = Tree { name, role, record, counts, order, parent: false, unordered: false };
        let empty = record.root == self.extent.dialect.invalid();
        if record.depth > DEPTH_MAX || empty != (record.depth == 0) {
            return damaged(format!("The record of {name} says that it is {} deep.", record.depth));
        }
        if !empty {
            self.page(&mut tree, record.root, 1)?;
        }
        if tree.counts != record.counts && !self.may_miscount(&tree) {
            return damaged(format!(
                "The record of {name} says that it has {}, but it has {}.",
                told(record.counts),
                told(tree.counts)
            ));
        }
        if let (Some(page), true) = (tree.order.broken(), tree.parent) {
            // Names are looked up with the comparison of the flags.
            return out_of_order(page, name, Wrong::Order);
        }
        let ordered = tree.order.broken().is_none() && !tree.unordered;
        if !ordered && role != Role::Duplicates {
            self.unordered_count = self.unordered_count.saturating_add(1);
            if self.unordered.len() < NAMED_MAX {
                self.unordered.push(name.to_owned());
            }
        }
        Ok((tree.counts.entries, ordered))
    }

    /// Whether the engine itself may have counted so: where a key has several values, LMDB 0.9.36 and
    /// libmdbx 0.11 to 0.13 were seen to count branch and leaf pages that they have given back. Nothing
    /// depends on these numbers.
    fn may_miscount(&mut self, tree: &Tree<'_>) -> bool {
        let Tree { role, record, counts, .. } = tree;
        let several = *role == Role::Duplicates || record.flags & DUP_SORT != 0;
        let told = record.counts;
        let same = Counts { leaves: counts.leaves, branches: counts.branches, ..told } == *counts;
        let over = same && told.leaves >= counts.leaves && told.branches >= counts.branches;
        self.miscounted |= over && several;
        over && several
    }

    fn page(&mut self, tree: &mut Tree<'_>, number: u64, level: u16) -> Result<()> {
        self.claim(number, 1)?;
        let bytes = self.source.read(self.offset(number), self.extent.page_bytes)?;
        let page = match Page::parse(self.extent.dialect, &bytes, number) {
            Ok(page) => page,
            Err(what) => return damaged(format!("Page {number} of {} {what}.", tree.name)),
        };
        let leaf = page.kind != Kind::Branch;
        if leaf != (level == tree.record.depth) {
            return damaged(format!(
                "Page {number} of {} is at level {level} of a tree that is {} deep, where it can't be.",
                tree.name, tree.record.depth
            ));
        }
        if page.kind == Kind::Leaf2 {
            tree.counts.leaves = tree.counts.leaves.saturating_add(1);
            return self.items(tree, number, &page);
        }
        if let Err(what) = page.check_nodes() {
            return damaged(format!("Page {number} of {} {what}.", tree.name));
        }
        if leaf {
            tree.counts.leaves = tree.counts.leaves.saturating_add(1);
            return page.nodes().try_for_each(|node| self.entry(tree, number, &node));
        }
        tree.counts.branches = tree.counts.branches.saturating_add(1);
        // What the first key of a branch is does not matter (`mdb_node_search`, `low`).
        for (index, node) in page.nodes().enumerate() {
            if index > 0 {
                tree.divider(number, node.key)?;
            }
            self.page(tree, node.child, level.saturating_add(1))?;
        }
        Ok(())
    }

    /// The keys of a page without nodes.
    fn items(&mut self, tree: &mut Tree<'_>, number: u64, page: &Page<'_>) -> Result<()> {
        let size = usize::try_from(tree.record.item_bytes).unwrap_or(usize::MAX);
        let items = page.items(size).filter(|_| tree.record.flags & DUP_FIXED != 0);
        let Some(items) = items else {
            return damaged(format!(
                "Page {number} of {} has no items of {size} bytes.",
                tree.name
            ));
        };
        for item in items {
            tree.key(number, item)?;
            tree.counts.entries = tree.counts.entries.saturating_add(1);
        }
        Ok(())
    }

    /// An entry of a leaf.
    fn entry(&mut self, tree: &mut Tree<'_>, number: u64, node: &Node<'_>) -> Result<()> {
        tree.key(number, node.key)?;
        let duplicates = tree.role == Role::Duplicates;
        let sorted = tree.record.flags & DUP_SORT != 0;
        let entries = match node.flags {
            0 if duplicates && node.length != 0 => {
                return damaged(format!("Page {number} of {} has a value of a value.", tree.name));
            }
            0 => {
                if tree.role == Role::Free {
                    let mut list = FreeList::new(self.extent, node, number)?;
                    list.pass(self, node.data)?;
                    list.end()?;
                }
                1
            }
            BIG_DATA if !duplicates => {
                self.overflow(tree, number, node)?;
                1
            }
            SUB_DATA if tree.role == Role::Main => {
                tree.parent = true;
                let record = self.record(tree, number, node)?;
                self.tree(record, Role::Named, &named(node.key))?;
                1
            }
            DUP_DATA if sorted => self.sub_page(tree, number, node)?,
            flags if flags == DUP_DATA | SUB_DATA && sorted => {
                let record = self.record(tree, number, node)?;
                let record = Record { flags: dup_flags(tree.record.flags), ..record };
                let (entries, ordered) = self.tree(record, Role::Duplicates, tree.name)?;
                tree.unordered |= !ordered;
                entries
            }
            flags => {
                return damaged(format!(
                    "Page {number} of {} has a node with the flags {flags:#x}, which can't be there.",
                    tree.name
                ));
            }
        };
        tree.counts.entries = tree.counts.entries.saturating_add(entries);
        Ok(())
    }

    fn record(&self, tree: &Tree<'_>, number: u64, node: &Node<'_>) -> Result<Record> {
        match Record::at(self.extent.dialect, node.data, 0) {
            Some(record) if node.data.len() == RECORD_BYTES => Ok(record),
            _ => damaged(format!(
                "Page {number} of {} has the record of a database of {} bytes.",
                tree.name,
                node.data.len()
            )),
        }
    }

    /// The values of one key, in a page of their own within the node. Returns how many there are.
    fn sub_page(&mut self, tree: &mut Tree<'_>, number: u64, node: &Node<'_>) -> Result<u64> {
        let dialect = self.extent.dialect;
        let parsed = Page::parse_sub(dialect, node.data).and_then(|page| {
            if page.kind == Kind::Leaf { page.check_nodes().map(|()| page) } else { Ok(page) }
        });
        let header = Header::at(dialect, node.data);
        let (Ok(page), Some(header)) = (&parsed, header) else {
            let what = parsed.err().unwrap_or_default();
            return damaged(format!(
                "Page {number} of {} has the values of a key on a page in it that {what}.",
                tree.name
            ));
        };
        let flags = dup_flags(tree.record.flags);
        let record = Record {
            item_bytes: u32::from(header.item_bytes),
            flags,
            depth: 1,
            counts: Counts::default(),
            root: number,
        };
        let mut values = Tree {
            name: tree.name,
            role: Role::Duplicates,
            record,
            counts: Counts::default(),
            order: order_of(flags, Role::Duplicates),
            parent: false,
            unordered: false,
        };
        if page.kind == Kind::Leaf2 {
            self.items(&mut values, number, page)?;
        } else {
            page.nodes().try_for_each(|node| self.entry(&mut values, number, &node))?;
        }
        tree.unordered |= values.order.broken().is_some();
        Ok(values.counts.entries)
    }

    /// A large value, which has pages of its own.
    fn overflow(&mut self, tree: &mut Tree<'_>, number: u64, node: &Node<'_>) -> Result<()> {
        let dialect = self.extent.dialect;
        let first = dialect.number_at(node.data, 0).unwrap_or(u64::MAX);
        self.claim(first, 1)?;
        let mut bytes = [0; 32];
        self.source.fill(self.offset(first), &mut bytes)?;
        let header = Header::at(dialect, &bytes);
        let Some(header) = header.filter(|header| header.is_overflow() && header.number == first)
        else {
            return damaged(format!(
                "Page {first} is not the large value that page {number} of {} says.",
                tree.name
            ));
        };
        let bytes = u64::from(node.length).saturating_add(dialect.header() as u64);
        let needed = bytes.div_ceil(self.extent.page_bytes as u64);
        let count = u64::from(header.pages);
        if count < needed {
            return damaged(format!(
                "The large value on page {first} has {count} pages, and needs {needed}."
            ));
        }
        self.claim(first.saturating_add(1), count.saturating_sub(1))?;
        tree.counts.overflows = tree.counts.overflows.saturating_add(count);
        if tree.role != Role::Free {
            return Ok(());
        }
        let mut list = FreeList::new(self.extent, node, number)?;
        let mut at = self.offset(first).saturating_add(dialect.header() as u64);
        let mut rest = usize::try_from(node.length).unwrap_or(usize::MAX);
        let mut piece = vec![0; PIECE_BYTES.min(rest)];
        while rest > 0 {
            let length = rest.min(PIECE_BYTES);
            piece.truncate(length);
            self.source.fill(at, &mut piece)?;
            list.pass(self, &piece)?;
            rest = rest.saturating_sub(length);
            at = at.saturating_add(length as u64);
        }
        list.end()
    }

    /// Marks pages as reached.
    fn claim(&mut self, first: u64, count: u64) -> Result<()> {
        let Extent { dialect, pages, limit, .. } = self.extent;
        let end = first.checked_add(count).filter(|&end| end <= limit);
        let Some(end) = end.filter(|_| first >= dialect.metas()) else {
            return damaged(format!(
                "Page {first} is pointed at, and is not among the {limit} pages in use."
            ));
        };
        if end > pages {
            return damaged(format!(
                "The file is cut: page {} is in use, and the file has {pages} pages.",
                end.saturating_sub(1)
            ));
        }
        for number in first..end {
            if !self.reached.insert(number) {
                return damaged(format!("Page {number} is pointed at twice."));
            }
            if self.free.contains(number) {
                return damaged(format!("Page {number} is in use, and listed as free."));
            }
        }
        Ok(())
    }

    /// Marks a page as free.
    fn release(&mut self, number: u64) -> Result<()> {
        let Extent { dialect, pages, limit, .. } = self.extent;
        if number < dialect.metas() || number >= limit {
            return damaged(format!("Page {number} is listed as free, and there is none."));
        }
        if self.reached.contains(number) {
            return damaged(format!("Page {number} is in use, and listed as free."));
        }
        if !self.free.insert(number) {
            return damaged(format!("Page {number} is listed as free twice."));
        }
        if number >= pages {
            self.free_beyond = self.free_beyond.saturating_add(1);
        }
        Ok(())
    }

    /// Where a page of the file begins; its number was checked.
    fn offset(&self, number: u64) -> u64 {
        number.saturating_mul(self.extent.page_bytes as u64)
    }
}

impl Tree<'_> {
    fn key(&mut self, page: u64, key: &[u8]) -> Result<()> {
        match self.order.key(page, key) {
            Ok(()) => Ok(()),
            Err(wrong) => out_of_order(page, self.name, wrong),
        }
    }

    fn divider(&mut self, page: u64, key: &[u8]) -> Result<()> {
        match self.order.divider(page, key) {
            Ok(()) => Ok(()),
            Err(wrong) => out_of_order(page, self.name, wrong),
        }
    }
}

/// The pages that one transaction freed, as they pass: how many, and their numbers from the highest
/// down (`midl.h` of LMDB).
struct FreeList {
    dialect: Dialect,
    page: u64,
    left: Option<u64>,
    room: u64,
    last: u64,
}

impl FreeList {
    fn new(extent: Extent, node: &Node<'_>, page: u64) -> Result<FreeList> {
        let key = u64_at(node.key, 0).filter(|_| node.key.len() == 8);
        if key.is_none_or(|txnid| txnid == 0 || txnid > extent.txnid) {
            return damaged(format!(
                "Page {page} of the list of free pages names a transaction that there was not."
            ));
        }
        let dialect = extent.dialect;
        let room = u64::from(node.length).checked_div(dialect.number_bytes() as u64).unwrap_or(0);
        Ok(FreeList { dialect, page, left: None, room, last: u64::MAX })
    }

    /// The next bytes, whole numbers of them.
    fn pass(&mut self, walk: &mut Walk<'_>, bytes: &[u8]) -> Result<()> {
        let numbers = bytes.chunks_exact(self.dialect.number_bytes());
        for number in numbers.map_while(|number| self.dialect.number_at(number, 0)) {
            match self.left {
                None if number >= self.room => return self.wrong(),
                None => self.left = Some(number),
                Some(0) => return Ok(()),
                Some(_) if number >= self.last => return self.wrong(),
                Some(left) => {
                    walk.release(number)?;
                    self.left = Some(left.saturating_sub(1));
                    self.last = number;
                }
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        if self.left == Some(0) { Ok(()) } else { self.wrong() }
    }

    fn wrong(&self) -> Result<()> {
        damaged(format!(
            "Page {} of the list of free pages has numbers that are too many or not in order.",
            self.page
        ))
    }
}

/// How the keys of a tree are ordered.
fn order_of(flags: u16, role: Role) -> Order {
    let (rule, certain) = match role {
        Role::Free => (Rule::Integer, true),
        _ if flags & REVERSE_KEY != 0 => (Rule::Reverse, true),
        _ if flags & INTEGER_KEY != 0 => (Rule::Integer, true),
        _ => (Rule::Lexical, false),
    };
    Order::new(rule, certain)
}

/// The flags of the tree that the values of one key are in.
fn dup_flags(flags: u16) -> u16 {
    let pairs = [(INTEGER_DUP, INTEGER_KEY), (REVERSE_DUP, REVERSE_KEY), (DUP_FIXED, DUP_FIXED)];
    pairs.iter().filter(|(of, _)| flags & of != 0).fold(0, |all, (_, own)| all | own)
}

fn cut<T>(extent: Extent) -> Result<T> {
    damaged(format!(
        "The file is cut: it has {} whole pages of {} bytes, and {} are in use.",
        extent.pages, extent.page_bytes, extent.limit
    ))
}

fn out_of_order<T>(page: u64, name: &str, wrong: Wrong) -> Result<T> {
    damaged(match wrong {
        Wrong::Twice => format!("Page {page} of {name} has a key that was there before."),
        Wrong::Order => format!("Page {page} of {name} has a key that is not in order."),
    })
}

fn told(counts: Counts) -> String {
    let Counts { branches, leaves, overflows, entries } = counts;
    format!("{branches} branch, {leaves} leaf and {overflows} overflow pages and {entries} entries")
}

fn named(key: &[u8]) -> String {
    let name = String::from_utf8_lossy(key);
    let shown: String = name.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect();
    format!("the database \"{shown}\"")
}
