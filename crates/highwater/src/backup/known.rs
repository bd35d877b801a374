//! The files of the snapshot that a backup builds on: which of them need not be read again, and how many are
//! what they were.
//!
//! What a file needs is taken out of the old snapshot, not copied, and the rest of it is dropped before the new
//! one is drawn up: with many files the records of both would take most of a backup's memory.

use std::collections::HashMap;
use std::mem;

use crate::engine::{EntryType, SourceEntry};
use crate::ids::RelPath;
use crate::vault::Manifest;
use crate::vault::manifest::{EntryRecord, Leaf};

use super::Changes;

/// The files of the snapshot before, none where there is none that can be built on.
pub(super) struct KnownFiles {
    entries: Vec<EntryRecord>,
    /// Where each file is among them, until it is found again.
    places: HashMap<RelPath, usize>,
    unchanged: u64,
    /// What there was of the files that are read.
    read: Vec<EntryRecord>,
}

/// What the new snapshot is compared with once all is stored.
pub(super) struct Comparison {
    unchanged: u64,
    /// Files that were not known to be unchanged; without what they need to be read.
    others: HashMap<RelPath, EntryRecord>,
}

impl KnownFiles {
    /// Takes them out of the manifest, which has no entries then.
    pub(super) fn take(base: Option<&mut Manifest>) -> KnownFiles {
        let mut entries = Vec::new();
        for part in base.into_iter().flat_map(|base| &mut base.parts) {
            match entries.is_empty() {
                // Nearly all entries are in one part as a rule: they are not copied.
                true => entries = mem::take(&mut part.entries),
                false => entries.append(&mut part.entries),
            }
        }
        let files = entries.iter().enumerate().filter(|(_, entry)| entry.kind == EntryType::File);
        let places = files.map(|(place, entry)| (entry.path.clone(), place)).collect();
        KnownFiles { entries, places, unchanged: 0, read: Vec::new() }
    }

    /// Where the content of a file is, if it is `unchanged`.
    pub(super) fn leaves(
        &mut self,
        source: &SourceEntry,
        unchanged: impl FnOnce(&EntryRecord) -> bool,
    ) -> Option<Vec<Leaf>> {
        let &place = self.places.get(&source.path)?;
        let known = &mut self.entries[place];
        if !unchanged(known) {
            return None;
        }
        self.places.remove(&source.path);
        self.unchanged += 1;
        Some(mem::take(&mut known.leaves))
    }

    /// What is known of a file that is to be read.
    pub(super) fn changed(&mut self, source: &SourceEntry) -> Option<EntryRecord> {
        let known = &self.entries[self.places.remove(&source.path)?];
        self.read.push(known.clone());
        Some(known.clone())
    }

    /// Drops what is not needed any more.
    pub(super) fn finish(self) -> Comparison {
        let KnownFiles { mut entries, places, unchanged, read } = self;
        let mut places: Vec<usize> = places.into_values().collect();
        places.sort_unstable();
        let left = places.into_iter().map(|place| {
            let known = &mut entries[place];
            let leaves = mem::take(&mut known.leaves);
            EntryRecord { leaves, ..known.clone() }
        });
        let others = left.chain(read).map(|known| (known.path.clone(), known)).collect();
        Comparison { unchanged, others }
    }
}

impl Comparison {
    /// Files that were unchanged when they were listed, and gone when the capture ended.
    pub(super) fn gone(&mut self, known: Vec<EntryRecord>) {
        self.unchanged -= known.len() as u64;
        self.others.extend(known.into_iter().map(|known| (known.path.clone(), known)));
    }

    /// How many files are what they were. One that was known to be unchanged is not looked at again.
    pub(super) fn changes(mut self, now: &Manifest) -> Changes {
        let (mut files, mut same, mut changed) = (0, 0, 0);
        for entry in now.entries().filter(|entry| entry.kind == EntryType::File) {
            files += 1;
            match self.others.remove(&entry.path) {
                Some(before) if before.same_content(entry) => same += 1,
                Some(_) => changed += 1,
                None => {}
            }
        }
        let unchanged = self.unchanged + same;
        let new = files - unchanged - changed;
        Changes { new, changed, unchanged, removed: self.others.len() as u64 }
    }
}
