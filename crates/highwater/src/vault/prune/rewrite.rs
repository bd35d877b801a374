//! Rewriting: what is still needed of packs that are mostly unneeded goes to new packs, and each
//! snapshot that needs it gets a manifest of the next generation. What was replaced stays for the
//! grace period, as if it had been forgotten.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;

use crate::control::{Control, Event};
use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::ids::{NodeUid, PackId, SnapshotId};
use crate::vault::intent::{BACKUP_TIME_MAX, Intent};
use crate::vault::lists::{self, Known, Listed};
use crate::vault::manifest::{EntryRecord, Leaf, Manifest, PackRef, PackTable, Runs};
use crate::vault::pack::FrameKind;
use crate::vault::read::leaf_packs;
use crate::vault::runs::{self, Run, UnitPlace};
use crate::vault::trash::{Purpose, TrashRecord};
use crate::vault::writer::{Points, Writer};
use crate::vault::{Actor, SnapshotName, Vault};

use super::copy::Reader;
use super::survey::Survey;
use super::usage::{Fill, LeafIdentity, Usage, choose, leaf_identity};
use super::{RewritePlan, Rewriting, Rewritten, busy};

/// Runs up to so many bytes stand in the manifest itself.
const INLINE_BYTES_MAX: usize = 256;

/// Decides what would be rewritten; reads the index of every pack.
pub(super) fn plan(
    vault: &Vault,
    names: &[SnapshotName],
    options: &Rewriting,
    control: &Control,
) -> Result<(RewritePlan, Vec<Fill>)> {
    let fills = Usage::of(vault, names, control)?.fills(vault)?;
    let chosen = choose(&fills, options.unused_max, options.bytes_max);
    let plan = RewritePlan {
        bytes_unused: fills.iter().map(Fill::unused).sum(),
        packs: chosen.len() as u64,
        bytes: chosen.iter().map(|fill| fill.used).sum(),
    };
    Ok((plan, chosen))
}

/// Rewrites what is due; nothing where another prune is at work.
pub(super) fn run(
    vault: &Vault,
    actor: &Actor,
    options: &Rewriting,
    control: &Control,
) -> Result<Rewritten> {
    let writer = actor.writer(&control.env)?;
    Survey::begin(vault)?.bury(vault, control, |intent| intent.is_killed_rewriting(writer))?;
    let Some(first) = vault.snapshot_names(None)?.into_iter().next() else {
        return Ok(Rewritten::default());
    };
    control.env.fault(FaultPoint::RewriteIntent)?;
    let intent = Intent {
        version: 1,
        snapshot: SnapshotId::random(&control.env)?,
        // It is for no node in particular.
        uid: NodeUid::from_bytes([0; 16]),
        node: first.node,
        parent: None,
        writer,
        start: control.env.now(),
        boot: crate::vault::boot(),
        rewrite: true,
        import: None,
    };
    vault.put_intent(&intent)?;
    let mut task = Task {
        vault,
        control,
        rewriting: intent.snapshot,
        start: control.env.monotonic(),
        victims: BTreeMap::new(),
        moved: HashMap::new(),
        leaves: HashMap::new(),
        lists: HashMap::new(),
        known: Known::new(),
        by: actor.name.clone(),
        tried: false,
        put: 0,
    };
    match task.carry_out(options) {
        Ok(rewritten) => {
            control.env.fault(FaultPoint::RewriteDone)?;
            vault.delete_intent(intent.snapshot)?;
            Ok(rewritten)
        }
        Err(error) => {
            // Once a manifest was tried it may be visible, whatever was answered: a prune that comes
            // later sees what is needed.
            match task.tried {
                false => vault.discard(intent.snapshot)?,
                true => vault.delete_intent(intent.snapshot)?,
            }
            Err(error)
        }
    }
}

/// A leaf whose units have moved.
struct NewLeaf {
    packs: Vec<PackId>,
    runs: Runs,
}

struct Task<'a> {
    vault: &'a Vault,
    control: &'a Control,
    rewriting: SnapshotId,
    start: Duration,
    victims: BTreeMap<PackId, PackRef>,
    /// Where units of the victims are now.
    moved: HashMap<(PackId, u32), (PackId, u32)>,
    leaves: HashMap<LeafIdentity, NewLeaf>,
    /// The lists of each part of the snapshots that have any, as they are once units have moved.
    lists: HashMap<SnapshotId, Vec<Option<Vec<Listed>>>>,
    /// Lists that are in no victim.
    known: Known,
    by: String,
    /// A manifest was to be put, and may be there.
    tried: bool,
    /// Manifests that were put.
    put: u64,
}

impl Task<'_> {
    fn carry_out(&mut self, options: &Rewriting) -> Result<Rewritten> {
        // The intent stands; so whoever claims from now on sees it. Whoever has claimed before goes
        // first.
        let survey = Survey::begin(self.vault)?;
        survey.trash.refuse_damaged()?;
        let claimed = |record: &TrashRecord| record.doc.purpose == Purpose::Delete;
        if survey.trash.records.iter().any(claimed)
            || survey.is_rewritten_beside(Some(self.rewriting))
        {
            return Err(busy());
        }
        let mut names = self.vault.snapshot_names(None)?;
        let (_, chosen) = plan(self.vault, &names, options, self.control)?;
        self.victims = chosen.iter().map(|fill| (fill.pack.id, fill.pack)).collect();
        if chosen.is_empty() {
            return Ok(Rewritten::default());
        }
        let bytes_total = chosen.iter().map(|fill| fill.used).sum();
        self.control.report(Event::Stage { name: "rewrite", bytes_total });
        // The newest first: it is what a restore reads in order.
        names.reverse();
        let vault = self.vault;
        let points = Points { pack: FaultPoint::RewritePack, frame: FaultPoint::RewriteFrame };
        let mut writer = Writer::new(vault, self.rewriting, 0, points, self.control);
        let copied = names.iter().try_for_each(|name| self.copy(name, &mut writer));
        let copied = copied
            .and_then(|()| names.iter().try_for_each(|name| self.put_lists(name, &mut writer)));
        let copied = copied.and_then(|()| writer.finish());
        let sizes = writer.packs.clone();
        if let Err(error) = copied {
            writer.abort()?;
            return Err(error);
        }
        for name in &names {
            self.control.cancel.check()?;
            self.replace(name, &sizes)?;
        }
        Ok(Rewritten {
            manifests: self.put,
            packs: self.victims.len() as u64,
            bytes: sizes.values().sum(),
        })
    }

    /// Copies what a snapshot needs of the victims, file by file.
    fn copy(&mut self, name: &SnapshotName, writer: &mut Writer<'_>) -> Result<()> {
        let manifest = self.vault.manifest(name)?;
        let mut reader = Reader::new(self.vault);
        for entry in manifest.entries() {
            for number in 0..entry.leaves.len() {
                self.control.cancel.check()?;
                self.copy_leaf(&manifest, entry, number, &mut reader, writer)?;
            }
        }
        Ok(())
    }

    fn copy_leaf(
        &mut self,
        manifest: &Manifest,
        entry: &EntryRecord,
        number: usize,
        reader: &mut Reader<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<()> {
        let leaf = &entry.leaves[number];
        let old_packs = leaf_packs(manifest, leaf).unwrap_or_default();
        if !old_packs.iter().any(|pack| self.victims.contains_key(&pack.id)) {
            return Ok(());
        }
        let identity = leaf_identity(leaf, &old_packs);
        if self.leaves.contains_key(&identity) {
            return Ok(());
        }
        let loaded = self.vault.load_leaf(manifest, entry, number)?;
        let mut packs = Vec::new();
        let mut drawn: Vec<Run> = Vec::new();
        for unit in &loaded.units {
            let Some(place) = unit.place else {
                runs::push(&mut drawn, None);
                continue;
            };
            let pack = loaded.packs[place.pack as usize];
            let (id, unit) = match self.moved.get(&(pack.id, place.unit)) {
                Some(&moved) => moved,
                None if self.victims.contains_key(&pack.id) => {
                    let (kind, id, bytes) = reader.unit(pack, place.unit)?;
                    let at = writer.add(kind, id, &bytes)?;
                    self.moved.insert((pack.id, place.unit), at);
                    at
                }
                None => (pack.id, place.unit),
            };
            runs::push(&mut drawn, Some(UnitPlace { pack: number_of(&mut packs, id), unit }));
        }
        let bytes = runs::encode(&drawn);
        let runs = if bytes.len() <= INLINE_BYTES_MAX {
            Runs::Inline(BASE64.encode(bytes))
        } else {
            let id = self.vault.unit_keys().id(FrameKind::Map, &bytes);
            let (pack, unit) = writer.add(FrameKind::Map, id, &bytes)?;
            Runs::Stored { pack: number_of(&mut packs, pack), unit }
        };
        self.leaves.insert(identity, NewLeaf { packs, runs });
        Ok(())
    }

    /// Writes the lists of a snapshot anew, where they name places that have moved, or lie in a victim.
    fn put_lists(&mut self, name: &SnapshotName, writer: &mut Writer<'_>) -> Result<()> {
        let outline = self.vault.outline(name)?;
        let moves = outline.packs.iter().any(|pack| self.victims.contains_key(&pack.id));
        if !moves || outline.parts.iter().all(|part| part.lists.is_empty()) {
            return Ok(());
        }
        lists::know(&mut self.known, &outline);
        self.known.retain(|_, (pack, _)| !self.victims.contains_key(pack));
        let manifest = self.vault.manifest(name)?;
        let mut moved = self.moved_leaves(manifest, |_| Ok(0))?;
        let (vault, known) = (self.vault, &mut self.known);
        let mut put = |id, bytes: &[u8]| writer.add(FrameKind::Map, id, bytes);
        let Manifest { parts, packs, .. } = &mut moved;
        let mut put_part = |part| lists::put_lists(vault, part, packs, known, &mut put);
        let listed = parts.iter_mut().map(&mut put_part).collect::<Result<_>>()?;
        self.lists.insert(name.snapshot, listed);
        Ok(())
    }

    /// Puts the next generation of a snapshot, if units of it have moved.
    fn replace(&mut self, name: &SnapshotName, sizes: &HashMap<PackId, u64>) -> Result<()> {
        let old = self.vault.manifest(name)?;
        if !old.packs.iter().any(|pack| self.victims.contains_key(&pack.id)) {
            return Ok(());
        }
        let mut manifest = self.next_generation(old, sizes)?;
        self.verify(&manifest, sizes)?;
        let late = self.control.env.monotonic().saturating_sub(self.start) > BACKUP_TIME_MAX;
        if late || !self.vault.intent_stands(self.rewriting)? {
            return Err(given_up());
        }
        self.control.env.fault(FaultPoint::RewriteManifest)?;
        self.tried = true;
        self.vault.put_manifest(&mut manifest)?;
        self.control.env.fault(FaultPoint::RewriteSecondLook)?;
        // As with a backup: who takes this rewriting for dead removes the intent first.
        if !self.vault.intent_stands(self.rewriting)? {
            self.vault.stays_without_intent(&manifest, &self.by)?;
            return Err(given_up());
        }
        self.put += 1;
        Ok(())
    }

    /// Every map that has changed leads to units that are there.
    fn verify(&self, manifest: &Manifest, sizes: &HashMap<PackId, u64>) -> Result<()> {
        for entry in manifest.entries() {
            for (number, leaf) in entry.leaves.iter().enumerate() {
                self.control.cancel.check()?;
                let mut packs = leaf_packs(manifest, leaf).into_iter().flatten();
                if packs.any(|pack| sizes.contains_key(&pack.id)) {
                    self.vault.load_leaf(manifest, entry, number)?;
                }
            }
        }
        Ok(())
    }

    fn next_generation(&self, old: Manifest, sizes: &HashMap<PackId, u64>) -> Result<Manifest> {
        let mut sizes = sizes.clone();
        sizes.extend(old.packs.iter().map(|pack| (pack.id, pack.size)));
        let unknown = || Error::bug("a leaf names an unknown pack");
        let size_of = |id: PackId| sizes.get(&id).copied().ok_or_else(unknown);
        let mut manifest = self.moved_leaves(old, size_of)?;
        manifest.generation += 1;
        let listed = self.lists.get(&manifest.snapshot).cloned().unwrap_or_default();
        let Manifest { parts, packs, .. } = &mut manifest;
        let mut table = PackTable::of(std::mem::take(packs));
        for (part, listed) in parts.iter_mut().zip(listed) {
            if let Some(listed) = listed {
                lists::name_lists(part, listed, |id| table.number(id, size_of))?;
            }
        }
        *packs = table.packs;
        manifest.version = manifest.version_needed();
        match manifest.packs.iter().any(|pack| self.victims.contains_key(&pack.id)) {
            true => Err(Error::bug("a rewritten snapshot still needs an old pack")),
            false => Ok(manifest),
        }
    }

    /// The snapshot with its leaves where they are now, and without lists of its entries.
    fn moved_leaves(
        &self,
        mut manifest: Manifest,
        size_of: impl Fn(PackId) -> Result<u64>,
    ) -> Result<Manifest> {
        let old_packs = std::mem::take(&mut manifest.packs);
        let mut table = PackTable::of(Vec::new());
        for part in &mut manifest.parts {
            part.lists.clear();
            for leaf in part.entries.iter_mut().flat_map(|entry| &mut entry.leaves) {
                let packs = leaf.packs.iter();
                let packs: Vec<PackRef> =
                    packs.filter_map(|&pack| old_packs.get(pack as usize).copied()).collect();
                let (ids, runs) = match self.leaves.get(&leaf_identity(leaf, &packs)) {
                    Some(new) => (new.packs.clone(), new.runs.clone()),
                    None => (packs.iter().map(|pack| pack.id).collect(), leaf.runs.clone()),
                };
                let number = |id| table.number(id, &size_of);
                let packs = ids.into_iter().map(number).collect::<Result<_>>()?;
                *leaf = Leaf { content: leaf.content, packs, runs };
            }
        }
        manifest.packs = table.packs;
        Ok(manifest)
    }
}

/// The place of a pack in a leaf's list; new ones are added.
fn number_of(packs: &mut Vec<PackId>, pack: PackId) -> u32 {
    match packs.iter().rposition(|&known| known == pack) {
        Some(place) => place as u32,
        None => {
            packs.push(pack);
            (packs.len() - 1) as u32
        }
    }
}

fn given_up() -> Error {
    Error::conflict("the rewriting took so long that its packs were given up")
        .with_remedy("prune again")
}
