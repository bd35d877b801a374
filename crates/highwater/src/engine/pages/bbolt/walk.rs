//! The walk over the pages that the buckets of a bbolt file and its list of free pages lead to.

use std::cmp::Ordering;

use super::{HEADER_BYTES, Meta, NO_FREE_LIST};
use crate::engine::pages::bits::Bits;
use crate::engine::pages::bytes::{u16_at, u32_at, u64_at};
use crate::engine::pages::source::{Source, Window};
use crate::engine::pages::{Result, Seen, damaged, unknown};

/// Flags of a page; it has one of them.
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
const FREE_LIST: u16 = 0x10;
/// The flag of an element that is a bucket.
pub(super) const BUCKET: u32 = 0x01;
/// Bytes of an element, before the key: of a branch offset (4), length (4), page (8); of a leaf flags
/// (4), offset (4), length of the key (4) and of the value (4).
const ELEMENT_BYTES: u64 = 16;
/// Bytes of a bucket: its root page (8) and a sequence (8). Where the root is 0, its page follows.
const BUCKET_BYTES: u64 = 16;
/// Where this is the count of a list of free pages, the count is the first of the numbers.
const COUNT_BEHIND: u16 = 0xffff;
/// A list of free pages is read in pieces of so many bytes.
const PIECE_BYTES: u64 = 1 << 16;
/// How much of a key is compared.
const KEY_BYTES_MAX: u64 = 1 << 16;
/// No path through pages and buckets is longer.
pub(super) const DEPTH_MAX: u32 = 200;

/// Checks all pages.
pub(super) fn all(source: &Source<'_>, meta: Meta, seen: &mut Seen) -> Result<()> {
    let mut reached = Bits::new(meta.limit)?;
    reached.insert(0);
    reached.insert(1);
    let free = Bits::new(meta.limit)?;
    let mut walk = Walk { source, meta, reached, free };
    if meta.free_list != NO_FREE_LIST {
        walk.free_list()?;
    }
    walk.page(&mut Order::default(), meta.root, 1)?;
    seen.reached = walk.reached.count();
    seen.free = walk.free.count();
    if meta.free_list == NO_FREE_LIST {
        seen.free = meta.limit.saturating_sub(seen.reached);
    } else if let Some(page) = walk.reached.first_in_neither(&walk.free) {
        seen.lost = meta.limit.saturating_sub(seen.reached).saturating_sub(seen.free);
        seen.unlooked.push(format!(
            "Pages ({}, the first is {page}) are neither in use nor listed as free: bbolt's own check calls \
             that an error, but bbolt itself loses room where a transaction deletes buckets that it has \
             changed. What is in them was not looked at.",
            seen.lost
        ));
    }
    Ok(())
}

struct Walk<'a> {
    source: &'a Source<'a>,
    meta: Meta,
    reached: Bits,
    free: Bits,
}

/// A page with those that it runs over into, or the page of a bucket within a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The page that it is on.
    pub(super) page: u64,
    /// Where it is in the file.
    pub(super) offset: u64,
    length: u64,
    pub(super) flags: u16,
    count: u16,
}

/// An element within its run; places are from the start of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    key: (u64, u64),
    pub(super) value: (u64, u64),
    pub(super) flags: u32,
    pub(super) child: u64,
}

/// The last key of a tree that has passed.
#[derive(Debug, Default)]
struct Order {
    last: Option<Vec<u8>>,
    /// It leads to a page: the key that follows may be equal to it.
    leads: bool,
}

impl Order {
    fn follows(&mut self, key: &[u8], leads: bool) -> bool {
        let last = self.last.get_or_insert_default();
        let follows = match last.as_slice().cmp(key) {
            Ordering::Less => true,
            // There is no key of no bytes: there was none before. A long one was not read whole.
            Ordering::Equal => self.leads || key.len() as u64 == KEY_BYTES_MAX,
            Ordering::Greater => false,
        };
        last.clear();
        last.extend_from_slice(key);
        self.leads = leads;
        follows
    }
}

/// Reads the header of a page; tells the first page behind it and those that it runs over into.
pub(super) fn run_of(source: &Source<'_>, meta: Meta, page: u64) -> Result<(Run, u64)> {
    let limit = meta.limit;
    if page < 2 || page >= limit {
        return damaged(format!(
            "Page {page} is pointed at, and is not among the {limit} pages in use."
        ));
    }
    let offset = page.saturating_mul(meta.page_bytes);
    let mut header = [0; HEADER_BYTES];
    source.fill(offset, &mut header)?;
    let id = u64_at(&header, 0).unwrap_or_default();
    if id != page {
        return damaged(format!("Page {page} says that its number is {id}."));
    }
    let count = u64::from(u32_at(&header, 12).unwrap_or_default()).saturating_add(1);
    let end = page.saturating_add(count);
    if end > limit {
        return damaged(format!("Page {page} runs over beyond the {limit} pages in use."));
    }
    let run = Run {
        page,
        offset,
        length: count.saturating_mul(meta.page_bytes),
        flags: u16_at(&header, 8).unwrap_or_default(),
        count: u16_at(&header, 10).unwrap_or_default(),
    };
    Ok((run, end))
}

/// Where the elements of a bucket are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Root {
    /// From a page on.
    Page(u64),
    /// On a page within the element itself.
    Within(Run),
}

/// The root of a bucket that is an element of a leaf.
pub(super) fn root_of(source: &Source<'_>, run: Run, element: Element) -> Result<Root> {
    let (at, length) = element.value;
    let wrong = || damaged(format!("Page {} has a bucket that is cut.", run.page));
    if length < BUCKET_BYTES {
        return wrong();
    }
    let offset = run.offset.saturating_add(at);
    let mut bytes = [0; 8];
    source.fill(offset, &mut bytes)?;
    let root = u64::from_le_bytes(bytes);
    if root != 0 {
        return Ok(Root::Page(root));
    }
    let length = length.saturating_sub(BUCKET_BYTES);
    if length < HEADER_BYTES as u64 {
        return wrong();
    }
    let offset = offset.saturating_add(BUCKET_BYTES);
    let mut header = [0; HEADER_BYTES];
    source.fill(offset, &mut header)?;
    let flags = u16_at(&header, 8).unwrap_or_default();
    let count = u16_at(&header, 10).unwrap_or_default();
    Ok(Root::Within(Run { page: run.page, offset, length, flags, count }))
}

impl Walk<'_> {
    fn free_list(&mut self) -> Result<()> {
        let run = self.run(self.meta.free_list)?;
        if run.flags != FREE_LIST {
            return damaged(format!("Page {} is not the list of free pages.", run.page));
        }
        let mut rest = u64::from(run.count);
        let mut at = HEADER_BYTES as u64;
        if run.count == COUNT_BEHIND {
            let mut bytes = [0; 8];
            self.source.fill(run.offset.saturating_add(at), &mut bytes)?;
            rest = u64::from_le_bytes(bytes);
            at = at.saturating_add(8);
            if rest < u64::from(COUNT_BEHIND) {
                return damaged(format!("The list of free pages on page {} is damaged.", run.page));
            }
        }
        let end = rest.checked_mul(8).and_then(|length| length.checked_add(at));
        if end.is_none_or(|end| end > run.length) {
            return damaged(format!("The list of free pages on page {} is cut.", run.page));
        }
        let mut last = 1;
        while rest > 0 {
            let count = rest.min(PIECE_BYTES / 8);
            let length = usize::try_from(count.saturating_mul(8)).unwrap_or(0);
            let bytes = self.source.read(run.offset.saturating_add(at), length)?;
            for id in bytes.chunks_exact(8).filter_map(|id| u64_at(id, 0)) {
                if id <= last || id >= self.meta.limit {
                    return damaged(format!(
                        "The list of free pages names page {id}, which can't be there."
                    ));
                }
                if self.reached.contains(id) || !self.free.insert(id) {
                    return damaged(format!("Page {id} is in use, and listed as free."));
                }
                last = id;
            }
            rest = rest.saturating_sub(count);
            at = at.saturating_add(length as u64);
        }
        Ok(())
    }

    /// Reads the header of a page, and marks it and those that it runs over into as reached.
    fn run(&mut self, page: u64) -> Result<Run> {
        let (run, end) = run_of(self.source, self.meta, page)?;
        for number in page..end {
            if self.free.contains(number) {
                return damaged(format!("Page {number} is in use, and listed as free."));
            }
            if !self.reached.insert(number) {
                return damaged(format!("Page {number} is pointed at twice."));
            }
        }
        Ok(run)
    }

    /// A page of a tree, and all that it leads to.
    fn page(&mut self, order: &mut Order, page: u64, depth: u32) -> Result<()> {
        if depth > DEPTH_MAX {
            return unknown(format!("Its buckets are nested deeper than {DEPTH_MAX} pages."));
        }
        let run = self.run(page)?;
        match run.flags {
            LEAF => self.leaf(order, run, depth),
            BRANCH if run.count > 0 => self.branch(order, run, depth),
            flags => damaged(format!(
                "Page {page} has the flags {flags:#06x} and {} elements, which no page of a tree has.",
                run.count
            )),
        }
    }

    fn branch(&mut self, order: &mut Order, run: Run, depth: u32) -> Result<()> {
        let mut elements = Elements::new(self.source, run);
        while let Some(element) = elements.next()? {
            if !order.follows(elements.key(element)?, true) {
                return out_of_order(run);
            }
            self.page(order, element.child, depth.saturating_add(1))?;
        }
        Ok(())
    }

    fn leaf(&mut self, order: &mut Order, run: Run, depth: u32) -> Result<()> {
        let mut elements = Elements::new(self.source, run);
        while let Some(element) = elements.next()? {
            if !order.follows(elements.key(element)?, false) {
                return out_of_order(run);
            }
            match element.flags {
                0 => {}
                BUCKET => self.bucket(run, element, depth)?,
                flags => {
                    return damaged(format!(
                        "Page {} has an element with the flags {flags:#x}, which there are not.",
                        run.page
                    ));
                }
            }
        }
        Ok(())
    }

    fn bucket(&mut self, run: Run, element: Element, depth: u32) -> Result<()> {
        let within = match root_of(self.source, run, element)? {
            Root::Page(root) => {
                return self.page(&mut Order::default(), root, depth.saturating_add(1));
            }
            Root::Within(within) => within,
        };
        let Run { flags, count, .. } = within;
        // A bucket that has others is never within a value (`bucket.go`, `inlineable`).
        let mut order = Order::default();
        let mut elements = Elements::new(self.source, within);
        while let Some(element) = elements.next()? {
            if element.flags != 0 || flags != LEAF {
                break;
            }
            if !order.follows(elements.key(element)?, false) {
                return out_of_order(within);
            }
        }
        if flags != LEAF || elements.index != u64::from(count) {
            return damaged(format!("Page {} has a bucket whose page is damaged.", run.page));
        }
        Ok(())
    }
}

/// The elements of a run, one after the other.
pub(super) struct Elements<'a> {
    source: &'a Source<'a>,
    run: Run,
    /// How many have passed.
    index: u64,
    /// Where the last one ends, and the next one begins: bbolt leaves no gaps (`inode.go`,
    /// `WriteInodeToPage`), so that elements that are missing are found.
    end: u64,
    heads: Window,
    keys: Window,
}

impl<'a> Elements<'a> {
    pub(super) fn new(source: &'a Source<'a>, run: Run) -> Elements<'a> {
        let heads = ELEMENT_BYTES.saturating_mul(u64::from(run.count));
        let end = heads.saturating_add(HEADER_BYTES as u64);
        let window = || Window::new(run.offset, run.length);
        Elements { source, run, index: 0, end, heads: window(), keys: window() }
    }

    pub(super) fn next(&mut self) -> Result<Option<Element>> {
        if self.index >= u64::from(self.run.count) {
            return Ok(None);
        }
        let at = ELEMENT_BYTES.saturating_mul(self.index).saturating_add(HEADER_BYTES as u64);
        let Run { page, length, .. } = self.run;
        let wrong = || damaged(format!("Page {page} has an element that is not within it."));
        if self.end > length {
            return wrong();
        }
        let head = self.heads.get(self.source, at, ELEMENT_BYTES)?;
        let word = |at: usize| u32_at(head, at).map(u64::from).unwrap_or_default();
        let (flags, offset, key, value, child) = match self.run.flags {
            BRANCH => (0, word(0), word(4), 0, u64_at(head, 8).unwrap_or_default()),
            _ => (u32_at(head, 0).unwrap_or_default(), word(4), word(8), word(12), 0),
        };
        let start = at.saturating_add(offset);
        let middle = start.saturating_add(key);
        let end = middle.saturating_add(value);
        if key == 0 || start != self.end || end > length {
            return wrong();
        }
        self.index = self.index.saturating_add(1);
        self.end = end;
        Ok(Some(Element { key: (start, key), value: (middle, value), flags, child }))
    }

    pub(super) fn key(&mut self, element: Element) -> Result<&[u8]> {
        let (at, length) = element.key;
        self.keys.get(self.source, at, length.min(KEY_BYTES_MAX))
    }
}

fn out_of_order<T>(run: Run) -> Result<T> {
    damaged(format!("Page {} has a key that is not in order.", run.page))
}
