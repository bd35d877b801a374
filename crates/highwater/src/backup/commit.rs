//! From what was captured and stored to the manifest of the snapshot.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;

use crate::engine::{Captured, EntryType, Metadata, SourceEntry};
use crate::error::{Error, Result};
use crate::ids::{PackId, RelPath, Seq};
use crate::vault::MANIFEST_VERSION;
use crate::vault::Manifest;
use crate::vault::manifest::{EntryRecord, Leaf, Mark, PackRef, PartRecord, Runs};

use super::assemble::{FileMap, LeafRuns};
use super::pipeline::Stored;
use super::{Made, Task};

/// The packs of a snapshot, each numbered when it is first named.
struct PackTable {
    sizes: HashMap<PackId, u64>,
    numbers: HashMap<PackId, u32>,
    packs: Vec<PackRef>,
}

impl PackTable {
    fn number(&mut self, id: PackId) -> Result<u32> {
        if let Some(&number) = self.numbers.get(&id) {
            return Ok(number);
        }
        let size = *self
            .sizes
            .get(&id)
            .ok_or_else(|| Error::bug("a map names a pack that nobody wrote"))?;
        let number = self.packs.len() as u32;
        self.packs.push(PackRef { id, size });
        self.numbers.insert(id, number);
        Ok(number)
    }

    fn leaves_of(&mut self, map: &FileMap) -> Result<Vec<Leaf>> {
        let leaf = |leaf: &super::assemble::LeafMap| {
            let packs = leaf.packs.iter().map(|&id| self.number(id)).collect::<Result<_>>()?;
            let runs = match &leaf.runs {
                LeafRuns::Inline(bytes) => Runs::Inline(BASE64.encode(bytes)),
                &LeafRuns::Stored { pack, unit } => Runs::Stored { pack, unit },
            };
            Ok(Leaf { content: leaf.content.clone(), packs, runs })
        };
        map.leaves.iter().map(leaf).collect()
    }

    /// The leaves of an unchanged file: its packs go by other numbers here.
    fn leaves_again(&mut self, parent: &Manifest, old: &EntryRecord) -> Result<Vec<Leaf>> {
        let damaged = || Error::corrupt("its map names no pack").entry(old.path.to_string());
        let leaf = |leaf: &Leaf| {
            let number = |&pack: &u32| {
                let pack = parent.packs.get(pack as usize).ok_or_else(damaged)?;
                self.number(pack.id)
            };
            let packs = leaf.packs.iter().map(number).collect::<Result<_>>()?;
            Ok(Leaf { packs, ..leaf.clone() })
        };
        old.leaves.iter().map(leaf).collect()
    }
}

/// Ends the captures and describes the snapshot. `read` tells which of the maps belongs to a file.
pub(super) fn describe(
    task: &Task<'_>,
    captured: Captured,
    known: &HashMap<RelPath, &EntryRecord>,
    read: &HashMap<(usize, usize), usize>,
    stored: Stored,
) -> Result<Made> {
    let parent = task.parent.as_ref();
    let old_packs = parent.map_or(&[][..], |parent| &parent.packs);
    let mut sizes: HashMap<PackId, u64> =
        old_packs.iter().map(|pack| (pack.id, pack.size)).collect();
    sizes.extend(&stored.packs);
    let mut table = PackTable { sizes, numbers: HashMap::new(), packs: Vec::new() };
    let mut parts = Vec::with_capacity(captured.parts.len());
    let mut pause = captured.pause;
    let mut warnings = captured.warnings;
    for (number, part) in captured.parts.into_iter().enumerate() {
        let mut entries = Vec::with_capacity(part.entries().len());
        for (place, source) in part.entries().iter().enumerate() {
            let leaves = match (read.get(&(number, place)), parent) {
                (Some(&map), _) => table.leaves_of(&stored.maps[map])?,
                (None, Some(parent)) if source.kind == EntryType::File && source.size > 0 => {
                    let old = known.get(&source.path).ok_or_else(|| {
                        Error::bug("a file was neither read nor known")
                            .entry(source.path.to_string())
                    })?;
                    table.leaves_again(parent, old)?
                }
                _ => Vec::new(),
            };
            entries.push(entry_record(source, leaves));
        }
        let root = task.layout.parts.iter().find(|found| found.name == part.name());
        let record = PartRecord {
            name: part.name().to_owned(),
            engine: part.engine(),
            root: root.map_or_else(RelPath::root, |found| found.root.clone()),
            engine_version: part.engine_version(),
            consistency: part.consistency(),
            entries,
        };
        let finished = part.finish()?;
        pause = Duration::max(pause, finished.blocked);
        warnings.extend(finished.warnings);
        parts.push(record);
    }
    let options = task.options;
    let claimed = |(name, &value): (&String, &u64)| (name.clone(), Mark { value, claimed: true });
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        snapshot: task.snapshot,
        generation: 0,
        node: task.node.clone(),
        uid: task.identity.uid,
        seq: Seq(parent.map_or(0, |parent| parent.seq.0) + 1),
        epoch: task.epoch,
        parent: parent.map(|parent| parent.snapshot),
        time: captured.time,
        barrier: captured.barrier,
        guarded: options.guarded,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        restore: task.identity.restore,
        schema: options.schema,
        marks: options.marks.iter().map(claimed).collect::<BTreeMap<_, _>>(),
        tags: options.tags.clone(),
        packs: table.packs,
        root: root_metadata(task)?,
        parts,
        bytes_read: stored.bytes_read,
        bytes_stored: stored.bytes_stored,
    };
    Ok(Made { manifest, pause, warnings })
}

fn entry_record(source: &SourceEntry, leaves: Vec<Leaf>) -> EntryRecord {
    EntryRecord {
        path: source.path.clone(),
        kind: source.kind.clone(),
        meta: source.meta.clone(),
        size: source.size,
        holes: source.holes.clone(),
        units: source.units,
        identity: source.identity.clone(),
        leaves,
    }
}

fn root_metadata(task: &Task<'_>) -> Result<Metadata> {
    let stat = std::fs::metadata(&task.layout.dir)
        .map_err(|error| Error::io("looking at the node directory", error))?;
    Ok(Metadata {
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime_ns: stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()),
        xattrs: Vec::new(),
    })
}
