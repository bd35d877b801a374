//! From what was captured and stored to the manifest of the snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::mem;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;

use crate::engine::{
    Barrier, Captured, EngineKind, Engines, EntryType, Metadata, PartCapture, Revised, SourceEntry,
};
use crate::error::{Error, Result};
use crate::ids::{GuardKind, PackId, RelPath, Time, decode, encode};
use crate::vault::Manifest;
use crate::vault::manifest::{EntryRecord, Leaf, Mark, PackRef, PackTable, PartRecord, Runs};

use super::assemble::{FileMap, LeafRuns};
use super::known::Comparison;
use super::pipeline::Stored;
use super::{Made, Task};

/// The leaves of a snapshot in the making, and the packs that they name.
struct Leaves {
    sizes: HashMap<PackId, u64>,
    table: PackTable,
}

impl Leaves {
    fn number(&mut self, id: PackId) -> Result<u32> {
        let unknown = || Error::bug("a map names a pack that nobody wrote");
        self.table.number(id, |id| self.sizes.get(&id).copied().ok_or_else(unknown))
    }

    fn of_map(&mut self, map: &FileMap) -> Result<Vec<Leaf>> {
        let leaf = |leaf: &super::assemble::LeafMap| {
            let packs = leaf.packs.iter().map(|&id| self.number(id)).collect::<Result<_>>()?;
            let runs = match &leaf.runs {
                LeafRuns::Inline(bytes) => Runs::Inline(BASE64.encode(bytes)),
                &LeafRuns::Stored { pack, unit } => Runs::Stored { pack, unit },
            };
            Ok(Leaf { content: leaf.content, packs, runs })
        };
        all(map.leaves.iter().map(leaf))
    }

    /// The leaves of an unchanged file: its packs go by other numbers here.
    fn again(&mut self, parent: &Manifest, path: &RelPath, leaves: &mut [Leaf]) -> Result<()> {
        let damaged = || Error::corrupt("its map names no pack").with_entry(path.to_string());
        for pack in leaves.iter_mut().flat_map(|leaf| &mut leaf.packs) {
            let known = parent.packs.get(*pack as usize).ok_or_else(damaged)?;
            *pack = self.number(known.id)?;
        }
        Ok(())
    }
}

/// All of them, without the room for more that a vector has which grows: nearly every file has one leaf.
fn all(leaves: impl ExactSizeIterator<Item = Result<Leaf>>) -> Result<Vec<Leaf>> {
    let mut found = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        found.push(leaf?);
    }
    Ok(found)
}

/// A manifest in the making: what was captured, and where the content of each file will be found.
pub(super) struct Draft {
    parts: Vec<PartRecord>,
    /// Files that the parent has, by part and entry, and where it has them.
    unchanged: Vec<((usize, usize), Vec<Leaf>)>,
    barrier: Barrier,
    time: Time,
    pause: Duration,
    marks: BTreeMap<String, Mark>,
    warnings: Vec<String>,
}

impl Draft {
    pub(super) fn of(
        task: &Task<'_>,
        captured: &Captured,
        unchanged: Vec<((usize, usize), Vec<Leaf>)>,
    ) -> Result<Draft> {
        let told = |name: &str| {
            let mut points = captured.points.iter();
            points.find(|(part, _)| part == name).map(|(_, point)| *point)
        };
        let describe = |part: &dyn PartCapture| {
            let found = captured.layout.parts.iter().find(|found| found.name == part.name());
            let (engine, root) =
                (part.engine(), found.map_or_else(RelPath::root, |found| found.root.clone()));
            PartRecord {
                name: part.name().to_owned(),
                engine,
                entry_points: own_entry_points(
                    captured.layout.engines(),
                    &task.recognised.entry_points,
                    part,
                    &root,
                ),
                root,
                engine_version: part.engine_version(),
                consistency: part.consistency(),
                replica: part.replica().or_else(|| told(part.name())),
                entries: part.entries().iter().map(entry_record).collect(),
                lists: Vec::new(),
            }
        };
        let marks = all_marks(&task.options.marks, &captured.marks)?;
        Ok(Draft {
            parts: captured.parts.iter().map(|part| describe(part.as_ref())).collect(),
            unchanged,
            barrier: captured.barrier,
            time: captured.time,
            pause: captured.pause,
            marks,
            warnings: captured.warnings.clone(),
        })
    }

    /// The manifest, now that all is stored.
    pub(super) fn complete(
        mut self,
        task: &Task<'_>,
        stored: Stored,
        mut comparison: Comparison,
    ) -> Result<Made> {
        for (part, entry, revised) in &stored.revised {
            if let Revised::Changed(source) = revised {
                self.revise(*part, *entry, source)?;
            }
        }
        let gone: HashSet<(usize, usize)> = stored
            .revised
            .iter()
            .filter(|(_, _, revised)| matches!(revised, Revised::Gone))
            .map(|(part, entry, _)| (*part, *entry))
            .collect();
        comparison.gone(self.went(&gone));
        let packs = self.place(task.base.as_ref(), &stored)?;
        self.leave_out(&gone);
        for finished in stored.finished {
            self.pause = self.pause.max(finished.blocked);
            self.warnings.extend(finished.warnings);
        }
        let options = task.options;
        let manifest = Manifest {
            version: 1,
            snapshot: task.intent.snapshot,
            generation: 0,
            node: task.intent.node.clone(),
            uid: task.identity.uid,
            seq: task.seq,
            epoch: task.epoch,
            parent: task.base.as_ref().map(|base| base.snapshot),
            time: self.time,
            barrier: self.barrier,
            guarded: task.identity.guard == Some(GuardKind::Databases),
            guard: task.identity.guard,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            restore: task.identity.restore,
            schema: options.schema,
            kinds: task.recognised.kinds.clone(),
            together: together(&task.recognised.together, &self.parts),
            marks: self.marks,
            tags: options.tags.clone(),
            packs,
            root: root_metadata(task)?,
            place: place_of(&self.parts, task)?,
            parts: self.parts,
            bytes_read: stored.bytes_read,
            bytes_stored: stored.bytes_stored,
            shrunk: Vec::new(),
        };
        let (pause, warnings) = (self.pause, self.warnings);
        Ok(Made { manifest, manifest_bytes: 0, pause, comparison, warnings })
    }

    /// Records an entry as it was captured in the end; one that came meanwhile is added.
    fn revise(&mut self, part: usize, entry: usize, source: &SourceEntry) -> Result<()> {
        let entries = &mut self.parts[part].entries;
        let record = entry_record(source);
        if entry == entries.len() {
            entries.push(record);
            return Ok(());
        }
        let known = entries.get_mut(entry);
        *known.ok_or_else(|| Error::bug("an entry came before another one"))? = record;
        Ok(())
    }

    /// Files of the parent that were gone after all, as it has them.
    fn went(&mut self, gone: &HashSet<(usize, usize)>) -> Vec<EntryRecord> {
        let is_gone = |(place, _): &mut ((usize, usize), Vec<Leaf>)| gone.contains(place);
        let went: Vec<_> = self.unchanged.extract_if(.., is_gone).collect();
        let known = went.into_iter().map(|((part, entry), leaves)| EntryRecord {
            leaves,
            ..self.parts[part].entries[entry].clone()
        });
        known.collect()
    }

    /// Leaves out what was gone before it was captured, and puts what came in its order.
    fn leave_out(&mut self, gone: &HashSet<(usize, usize)>) {
        for (number, part) in self.parts.iter_mut().enumerate() {
            let mut index = 0;
            part.entries.retain(|_| {
                index += 1;
                !gone.contains(&(number, index - 1))
            });
            part.entries.sort_by(|a, b| a.path.cmp(&b.path));
        }
    }

    /// Tells each file where its content is; returns the packs that it takes.
    fn place(&mut self, parent: Option<&Manifest>, stored: &Stored) -> Result<Vec<PackRef>> {
        let old_packs = parent.map_or(&[][..], |parent| &parent.packs);
        let mut sizes: HashMap<PackId, u64> =
            old_packs.iter().map(|pack| (pack.id, pack.size)).collect();
        sizes.extend(&stored.packs);
        let mut leaves = Leaves { sizes, table: PackTable::default() };
        if stored.maps.len() != stored.read.len() {
            return Err(Error::bug("not every file that was read has a map"));
        }
        for (&(part, entry), map) in stored.read.iter().zip(&stored.maps) {
            self.parts[part].entries[entry].leaves = leaves.of_map(map)?;
        }
        if let Some(parent) = parent {
            for ((part, entry), mut known) in mem::take(&mut self.unchanged) {
                let entry = &mut self.parts[part].entries[entry];
                leaves.again(parent, &entry.path, &mut known)?;
                entry.leaves = known;
            }
        }
        Ok(leaves.table.packs)
    }
}

/// What the caller claims and what the node told at the barrier.
fn all_marks(
    claimed: &BTreeMap<String, u64>,
    told: &BTreeMap<String, u64>,
) -> Result<BTreeMap<String, Mark>> {
    let told = told.iter().map(|(name, &value)| (name.clone(), Mark { value, claimed: false }));
    let mut marks: BTreeMap<String, Mark> = told.collect();
    for (name, &value) in claimed {
        if marks.insert(name.clone(), Mark { value, claimed: true }).is_some() {
            return Err(Error::input(format!("the node tells the mark `{name}` itself"))
                .with_entry(name.clone())
                .with_remedy("leave it out of the call"));
        }
    }
    Ok(marks)
}

fn entry_record(source: &SourceEntry) -> EntryRecord {
    EntryRecord {
        path: source.path.clone(),
        kind: source.kind.clone(),
        meta: source.meta.clone(),
        size: source.size,
        holes: source.holes.clone(),
        units: source.units,
        identity: source.identity.clone(),
        leaves: Vec::new(),
    }
}

/// Where the node directory stands, where a link in it names that place.
fn place_of(parts: &[PartRecord], task: &Task<'_>) -> Result<Option<String>> {
    let place = &task.layout.dir;
    for entry in parts.iter().flat_map(|part| &part.entries) {
        if let EntryType::Symlink { target } = &entry.kind
            && Path::new(OsStr::from_bytes(&decode(target)?)).starts_with(place)
        {
            return Ok(Some(encode(place.as_os_str().as_bytes())));
        }
    }
    Ok(None)
}

fn root_metadata(task: &Task<'_>) -> Result<Metadata> {
    let found = crate::engine::look_at(task.layout.held())?;
    Ok(Metadata { xattrs: Vec::new(), ..found.meta })
}

/// The entry points of a part that its engine's name does not tell: of one whose engine is not built in, so that
/// a restore by a program without it withholds them all the same; and those of the node's kind among plain files.
fn own_entry_points(
    engines: &Engines,
    known: &[RelPath],
    part: &dyn PartCapture,
    root: &RelPath,
) -> Vec<RelPath> {
    let kind = part.engine();
    let files = part.entries().iter().filter(|entry| entry.kind == EntryType::File);
    let mut paths = files.map(|entry| &entry.path);
    if kind == EngineKind::FILES {
        return paths.filter(|path| known.contains(path)).cloned().collect();
    }
    if Engines::default().get(kind).is_some() {
        return Vec::new();
    }
    engines.entry_points(kind, root, &mut paths).unwrap_or_default()
}

/// Sets of parts that can't be restored apart, as far as they were captured.
fn together(known: &[Vec<String>], parts: &[PartRecord]) -> Vec<Vec<String>> {
    let captured = |name: &&String| parts.iter().any(|part| part.name == **name);
    let sets = known.iter().map(|set| set.iter().filter(captured).cloned().collect::<Vec<_>>());
    sets.filter(|set| set.len() > 1).collect()
}
