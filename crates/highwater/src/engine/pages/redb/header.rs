//! The first page of a redb file: where pages are, and the two commit slots.

use xxhash_rust::xxh3::xxh3_128;

use super::wrong;
use crate::engine::pages::bytes::{array, part, u32_at, u64_at};
use crate::engine::pages::source::Source;
use crate::engine::pages::{Result, damaged, unknown};

const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
const GOD_BYTE_AT: usize = 9;
/// Flags of the god byte.
const PRIMARY: u8 = 1;
const RECOVERY: u8 = 2;
const TWO_PHASES: u8 = 4;
/// The primary slot may not have reached the disk.
const UNFLUSHED: u8 = 8;
const SLOT_AT: usize = 64;
const SLOT_BYTES: usize = 128;
/// The checksum is of the bytes of the slot before it.
const SLOT_SUM_AT: usize = 112;
const HEADER_BYTES: usize = SLOT_AT + 2 * SLOT_BYTES;
/// The file formats that are known here.
const VERSION_MIN: u8 = 2;
pub(super) const VERSION_MAX: u8 = 3;
/// A region has at most so many pages, and there are at most so many regions.
const PAGES_MAX: u64 = 1 << 20;
const REGIONS_MAX: u64 = 1 << 20;
/// Bytes of the root of a tree: page (8), checksum (16), length (8).
const ROOT_BYTES: usize = 32;

/// Where a page is: region, place in it in pages of its order, order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageNumber(u64);

/// The root of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) page: PageNumber,
    pub(super) checksum: u128,
}

impl Root {
    /// The root at a place, where the byte at `flag` says that there is one.
    pub(super) fn at(bytes: &[u8], flag: usize, at: usize) -> Option<Option<Root>> {
        let page = PageNumber(u64_at(bytes, at)?);
        let checksum = u128::from_le_bytes(array(bytes, at.checked_add(8)?)?);
        part(bytes, at, ROOT_BYTES)?;
        Some((*bytes.get(flag)? != 0).then_some(Root { page, checksum }))
    }

    /// The child of a branch.
    pub(super) fn child(page: u64, checksum: u128) -> Root {
        Root { page: PageNumber(page), checksum }
    }
}

/// What a commit slot tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) version: u8,
    pub(super) user: Option<Root>,
    pub(super) system: Option<Root>,
    /// The pages that are to be freed; in tables of the system from version 3 on.
    pub(super) freed: Option<Root>,
    pub(super) transaction: u64,
    /// Its checksum fits.
    sound: bool,
}

/// The regions of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) page_bytes: u64,
    header_pages: u64,
    region_pages: u64,
    full: u64,
    trailing: u64,
}

/// The header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) primary: usize,
    /// It was not closed.
    pub(super) recovery: bool,
    two_phases: bool,
    pub(super) layout: Layout,
    slots: [Slot; 2],
}

/// Where a page is in the file, and which bits stand for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PagePlace {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Header {
    /// Reads the header, and compares the regions with the size of the file.
    pub(super) fn read(source: &Source<'_>) -> Result<Header> {
        let bytes = source.read(0, HEADER_BYTES)?;
        if part(&bytes, 0, MAGIC.len()) != Some(&MAGIC) {
            return wrong("it has not the magic number of redb");
        }
        let god = bytes.get(GOD_BYTE_AT).copied().unwrap_or_default();
        if god & !(PRIMARY | RECOVERY | TWO_PHASES | UNFLUSHED) != 0 {
            return unknown(format!("The file has the flags {god:#x}, which are not known here."));
        }
        let slots = [slot(&bytes, 0), slot(&bytes, 1)];
        let [Some(one), Some(two)] = slots else { return wrong("it is cut") };
        let known = |slot: &Slot| (VERSION_MIN..=VERSION_MAX).contains(&slot.version);
        let version = one.version;
        // There was no format 0.
        let other = (one.version == two.version && version != 0) || one.sound || two.sound;
        if !known(&one) && !known(&two) && other {
            return unknown(format!(
                "The file is of file format {version} of redb, not of {VERSION_MIN} or {VERSION_MAX}."
            ));
        }
        let recovery = god & (RECOVERY | UNFLUSHED) != 0;
        let Some(layout) = layout(&bytes, source.size(), recovery) else {
            return wrong("the sizes of its regions can't be");
        };
        if layout.end().is_none_or(|end| end > source.size()) {
            return damaged(format!(
                "The file is cut: it has {} bytes, and its regions go on behind its end.",
                source.size()
            ));
        }
        if layout.end() != Some(source.size()) && recalculated(layout, source.size()).is_none() {
            return damaged(format!(
                "The file has {} bytes, which is not the end of a page of its regions.",
                source.size()
            ));
        }
        let primary = usize::from(god & PRIMARY);
        let two_phases = god & TWO_PHASES != 0;
        let slots = [one, two].map(|slot| Slot { sound: slot.sound && known(&slot), ..slot });
        Ok(Header { primary, recovery, two_phases, layout, slots })
    }

    /// The slot that counts, and the one that redb would go back to (`select_primary_slot`).
    pub(super) fn slots(&self) -> Result<(&Slot, Option<&Slot>)> {
        let [one, two] = &self.slots;
        let (primary, secondary) = if self.primary == 0 { (one, two) } else { (two, one) };
        if primary.sound && (self.two_phases || !secondary.sound) {
            return Ok((primary, None));
        }
        // A slot that is damaged in a file that was closed was not in the middle of a commit.
        if !primary.sound && (!self.recovery || self.two_phases || !secondary.sound) {
            return wrong("the checksum of its primary commit slot does not fit");
        }
        if !primary.sound {
            return Ok((secondary, None));
        }
        let newer = secondary.transaction > primary.transaction;
        let (first, other) = if newer { (secondary, primary) } else { (primary, secondary) };
        Ok((first, self.recovery.then_some(other)))
    }
}

impl Layout {
    /// All pages of data, each of the smallest size.
    pub(super) fn pages(&self) -> u64 {
        self.full.saturating_mul(self.region_pages).saturating_add(self.trailing)
    }

    /// Where the last region ends; it begins with the second page of the file.
    fn end(&self) -> Option<u64> {
        let mut pages = self.region()?.checked_mul(self.full)?.checked_add(1)?;
        if self.trailing > 0 {
            pages = pages.checked_add(self.header_pages)?.checked_add(self.trailing)?;
        }
        pages.checked_mul(self.page_bytes)
    }

    fn region(&self) -> Option<u64> {
        self.header_pages.checked_add(self.region_pages)
    }

    /// Where a page is; `None` where it is in no region.
    pub(super) fn place(&self, number: PageNumber) -> Option<PagePlace> {
        let order = u32::try_from(number.0 >> 59).ok()?;
        let count = 1_u64.checked_shl(order)?;
        let index = number.0 & (PAGES_MAX - 1).checked_shr(order)?;
        let region = number.0.checked_shr(20)? & (REGIONS_MAX - 1);
        let within = index.checked_mul(count)?;
        let room = match region.cmp(&self.full) {
            std::cmp::Ordering::Less => self.region_pages,
            std::cmp::Ordering::Equal => self.trailing,
            std::cmp::Ordering::Greater => return None,
        };
        if within.checked_add(count)? > room {
            return None;
        }
        let before = region.checked_mul(self.region()?)?;
        let page = before.checked_add(self.header_pages)?.checked_add(within)?.checked_add(1)?;
        Some(PagePlace {
            offset: page.checked_mul(self.page_bytes)?,
            bytes: count.checked_mul(self.page_bytes)?,
            first: region.checked_mul(self.region_pages)?.checked_add(within)?,
            count,
        })
    }
}

fn slot(bytes: &[u8], index: usize) -> Option<Slot> {
    let at = index.checked_mul(SLOT_BYTES)?.checked_add(SLOT_AT)?;
    let bytes = part(bytes, at, SLOT_BYTES)?;
    let sum = u128::from_le_bytes(array(bytes, SLOT_SUM_AT)?);
    let version = *bytes.first()?;
    let freed = Root::at(bytes, 3, 72)?;
    Some(Slot {
        version,
        user: Root::at(bytes, 1, 8)?,
        system: Root::at(bytes, 2, 40)?,
        freed: freed.filter(|_| version < VERSION_MAX),
        transaction: u64_at(bytes, 104)?,
        sound: sum == xxh3_128(part(bytes, 0, SLOT_SUM_AT)?),
    })
}

fn layout(bytes: &[u8], size: u64, recovery: bool) -> Option<Layout> {
    let word = |at: usize| u32_at(bytes, at).map(u64::from);
    let layout = Layout {
        page_bytes: word(12)?,
        header_pages: word(16)?,
        region_pages: word(20)?,
        full: word(24)?,
        trailing: word(28)?,
    };
    let Layout { page_bytes, header_pages, region_pages, full, trailing } = layout;
    let regions = full.checked_add(u64::from(trailing > 0))?;
    let sound = page_bytes.is_power_of_two()
        && (HEADER_BYTES as u64..=1 << 20).contains(&page_bytes)
        && header_pages <= PAGES_MAX
        && (1..=PAGES_MAX).contains(&region_pages);
    if !sound {
        return None;
    }
    if recovery {
        // The counts may have been cut off in the middle of a change.
        return recalculated(layout, size);
    }
    (trailing <= region_pages && (1..=REGIONS_MAX).contains(&regions)).then_some(layout)
}

/// The regions of a file of this size; `None` where a file can't have it.
fn recalculated(layout: Layout, size: u64) -> Option<Layout> {
    let pages = size.checked_div(layout.page_bytes)?.checked_sub(1)?;
    let region = layout.region()?;
    let full = pages.checked_div(region)?;
    let rest = pages.checked_rem(region)?;
    let trailing = if rest == 0 { 0 } else { rest.checked_sub(layout.header_pages)? };
    let layout = Layout { full, trailing, ..layout };
    let whole = layout.end() == Some(size) && (rest == 0 || trailing > 0) && pages > 0;
    (whole && full <= REGIONS_MAX).then_some(layout)
}
