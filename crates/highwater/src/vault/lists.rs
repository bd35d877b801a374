//! The entries of a part that has many: in lists, each a unit of a pack, so that a snapshot stores anew only the
//! lists in which something has changed.
//!
//! Where a list ends is told by the paths alone: an entry that comes or goes changes the list that it is in, and no
//! other. A list names packs by their ids, so that it is the same in every snapshot.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{PackId, RelPath};
use crate::records::EntryType;

use super::Vault;
use super::manifest::{EntryRecord, ListRef, Manifest, PackRef, PartRecord};
use super::pack::{FrameKind, UnitId};

/// A part of fewer entries has them in the manifest itself.
const LISTED_MIN: usize = 4096;
/// One path in so many is the last one of its list.
const ENTRIES_MEAN: u16 = 512;
/// No list has more entries.
const ENTRIES_MAX: usize = 4096;
/// No list is longer, so that it fits a frame: a part with a longer one has its entries in the manifest.
const LIST_BYTES_MAX: usize = 8 << 20;
/// Lists that are neighbours in a pack are read at once, up to so many.
const READ_AT_ONCE: usize = 16;

/// A list as it is stored. The leaves of its entries count through its own packs.
#[derive(Serialize)]
struct Wire<'a> {
    packs: &'a [PackId],
    entries: &'a [EntryRecord],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parsed {
    packs: Vec<PackId>,
    entries: Vec<EntryRecord>,
}

/// A list that was put in a pack.
#[derive(Clone)]
pub(crate) struct Listed {
    content: String,
    entries: u32,
    files: u32,
    bytes: u64,
    at: (PackId, u32),
}

/// Where lists are, by what they are known by.
pub(crate) type Known = HashMap<String, (PackId, u32)>;

/// Puts a list; tells where.
pub(crate) type Put<'a> = dyn FnMut(UnitId, &[u8]) -> Result<(PackId, u32)> + 'a;

/// Adds the lists of a snapshot to those that are known.
pub(crate) fn know(known: &mut Known, manifest: &Manifest) {
    for list in manifest.parts.iter().flat_map(|part| &part.lists) {
        if let Some(pack) = manifest.packs.get(list.pack as usize) {
            known.insert(list.content.clone(), (pack.id, list.unit));
        }
    }
}

/// Puts the entries of a part in lists, where it has many: each that is not known by `put`. `None` where they stay
/// in the manifest. Nothing of the part is changed.
///
/// # Errors
/// Those of `put`.
pub(crate) fn put_lists(
    vault: &Vault,
    part: &mut PartRecord,
    packs: &[PackRef],
    known: &mut Known,
    put: &mut Put<'_>,
) -> Result<Option<Vec<Listed>>> {
    if part.entries.len() < LISTED_MIN {
        return Ok(None);
    }
    let mut listed = Vec::new();
    let mut rest = &mut part.entries[..];
    while !rest.is_empty() {
        let (list, later) = rest.split_at_mut(length_of_list(rest));
        let Some(bytes) = written(list, packs)? else { return Ok(None) };
        let id = vault.unit_keys().id(FrameKind::Map, &bytes);
        let content = hex::encode(id.0);
        let at = match known.get(&content) {
            Some(&at) => at,
            None => {
                let at = put(id, &bytes)?;
                known.insert(content.clone(), at);
                at
            }
        };
        let (files, bytes) = totals(list);
        listed.push(Listed { content, entries: list.len() as u32, files, bytes, at });
        rest = later;
    }
    Ok(Some(listed))
}

/// Names the lists in the part, by the manifest's packs; `number` tells the place of a pack.
pub(crate) fn name_lists(
    part: &mut PartRecord,
    listed: Vec<Listed>,
    mut number: impl FnMut(PackId) -> Result<u32>,
) -> Result<()> {
    let name = |Listed { content, entries, files, bytes, at: (pack, unit) }| {
        Ok(ListRef { content, entries, files, bytes, pack: number(pack)?, unit })
    };
    part.lists = listed.into_iter().map(name).collect::<Result<_>>()?;
    Ok(())
}

/// How many regular files there are, and their bytes.
fn totals(entries: &[EntryRecord]) -> (u32, u64) {
    let files = entries.iter().filter(|entry| entry.kind == EntryType::File);
    let bytes = |bytes: u64, entry: &EntryRecord| bytes.saturating_add(entry.size);
    (files.count() as u32, entries.iter().fold(0, bytes))
}

/// How many entries the first list has.
fn length_of_list(entries: &[EntryRecord]) -> usize {
    let last = entries.iter().take(ENTRIES_MAX).position(|entry| ends_list(&entry.path));
    last.map_or(entries.len().min(ENTRIES_MAX), |last| last + 1)
}

fn ends_list(path: &RelPath) -> bool {
    let hash = blake3::hash(path.as_bytes());
    let [a, b, ..] = *hash.as_bytes();
    u16::from_le_bytes([a, b]) % ENTRIES_MEAN == 0
}

/// The bytes of a list. `None` where they are too many.
fn written(entries: &mut [EntryRecord], packs: &[PackRef]) -> Result<Option<Vec<u8>>> {
    let mut own: Vec<u32> = Vec::new();
    renumber(entries, |pack| match own.iter().position(|&known| known == pack) {
        Some(place) => Some(place as u32),
        None => {
            own.push(pack);
            Some(own.len() as u32 - 1)
        }
    });
    let ids: Option<Vec<PackId>> =
        own.iter().map(|&pack| packs.get(pack as usize).map(|pack| pack.id)).collect();
    let bytes = serde_json::to_vec(&Wire { packs: ids.as_deref().unwrap_or_default(), entries });
    renumber(entries, |place| own.get(place as usize).copied());
    if ids.is_none() {
        return Err(Error::bug("a leaf names a pack that the snapshot does not"));
    }
    let bytes =
        bytes.map_err(|error| Error::bug("a list can't be written as JSON").with_source(error))?;
    Ok((bytes.len() <= LIST_BYTES_MAX).then_some(bytes))
}

/// Gives the packs of all leaves other numbers; `false` where one has none.
fn renumber(entries: &mut [EntryRecord], mut number: impl FnMut(u32) -> Option<u32>) -> bool {
    let leaves = entries.iter_mut().flat_map(|entry| &mut entry.leaves);
    let mut packs = leaves.flat_map(|leaf| &mut leaf.packs);
    packs.all(|pack| number(*pack).map(|new| *pack = new).is_some())
}

/// The entries of a list, their leaves counting through the manifest's packs as `numbers` has them.
pub(crate) fn parse(text: &[u8], numbers: &HashMap<PackId, u32>) -> Option<Vec<EntryRecord>> {
    let Parsed { packs, mut entries } = serde_json::from_slice(text).ok()?;
    let packs: Vec<u32> =
        packs.iter().map(|pack| numbers.get(pack).copied()).collect::<Option<_>>()?;
    // As a list is read, room is made for more leaves than nearly every file has.
    entries.iter_mut().for_each(|entry| entry.leaves.shrink_to_fit());
    renumber(&mut entries, |pack| packs.get(pack as usize).copied()).then_some(entries)
}

impl Vault {
    /// Reads the entries of all parts that have lists; where it fails, a part has all of them or none.
    ///
    /// # Errors
    /// Corrupt where a list is not what the manifest names; those of the store.
    pub(crate) fn load_lists(&self, object: &str, manifest: &mut Manifest) -> Result<()> {
        let numbers: HashMap<PackId, u32> =
            manifest.packs.iter().zip(0..).map(|(pack, number)| (pack.id, number)).collect();
        for part in manifest.parts.iter_mut().filter(|part| !part.lists.is_empty()) {
            part.entries = self.entries_of(object, part, &manifest.packs, &numbers)?;
        }
        Ok(())
    }

    /// The entries in the lists of a part.
    fn entries_of(
        &self,
        object: &str,
        part: &PartRecord,
        packs: &[PackRef],
        numbers: &HashMap<PackId, u32>,
    ) -> Result<Vec<EntryRecord>> {
        let damaged = |what: &str| {
            let what = format!("the manifest is damaged: {}: {what}", part.name);
            Error::corrupt(what).with_entry(object)
        };
        if !part.entries.is_empty() {
            return Err(damaged("it has entries, and lists of them"));
        }
        let mut entries = Vec::new();
        for lists in part.lists.chunk_by(are_neighbours) {
            let pack = packs.get(lists[0].pack as usize);
            let pack = *pack.ok_or_else(|| damaged("a list is in no pack of it"))?;
            for lists in lists.chunks(READ_AT_ONCE) {
                let units = self.read_units(pack, lists[0].unit, lists.len())?;
                for (list, (id, text)) in lists.iter().zip(units) {
                    let found = parse(&text, numbers)
                        .filter(|found| found.len() == list.entries as usize)
                        .filter(|found| totals(found) == (list.files, list.bytes))
                        .filter(|_| hex::encode(id.0) == list.content);
                    entries.extend(found.ok_or_else(|| damaged("a list is another one"))?);
                }
            }
        }
        entries.shrink_to_fit();
        Ok(entries)
    }
}

/// Whether a list comes right after another one in the same pack.
fn are_neighbours(one: &ListRef, next: &ListRef) -> bool {
    one.pack == next.pack && one.unit.checked_add(1) == Some(next.unit)
}
