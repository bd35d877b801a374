//! What an import does to a vault beside putting objects: its intent, its record, what a killed one
//! has left.

use std::collections::{HashMap, HashSet};

use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{Epoch, NodeName, PackId, SnapshotId};

use super::folder::Folder;
use super::intent::intent_name;
use super::nodes::NodeRecord;
use super::pack::pack_name;
use super::seal::ObjectKind;
use super::sealed;
use super::store::Store;
use super::trash::{Purpose, TrashRecord};
use super::{
    HEADER_NAME, Header, Intent, Location, Manifest, MasterKey, SlotDoc, SnapshotName, Vault,
};

impl Vault {
    /// Puts the intent of an import; a conflict where one of the same snapshot stands.
    pub(crate) fn put_import_intent(&self, intent: &Intent) -> Result<()> {
        let name = intent_name(intent.snapshot);
        let object = sealed::seal(self, ObjectKind::Intent, &name, intent)?;
        if self.store().put_new(&name, object)? {
            return Ok(());
        }
        Err(Error::conflict("the snapshot is being written, or an import of it was killed")
            .with_entry(name)
            .with_remedy(
                "wait for it to end; what was killed, the next import by the same user collects",
            ))
    }

    /// A conflict where a prune deletes a pack that the snapshot needs, or where the snapshot was
    /// forgotten. To be asked once the intent of the import stands: a prune that claims later finds it.
    pub(crate) fn refuse_beside_prune(&self, manifest: &Manifest) -> Result<()> {
        let trash = self.trash()?;
        trash.refuse_unknown()?;
        if trash.forgotten(manifest.snapshot).is_some() {
            return Err(Error::conflict("the snapshot was forgotten in this vault")
                .with_entry(manifest.snapshot.to_string())
                .with_remedy(Remedy::Undelete(manifest.snapshot.to_string(), None)));
        }
        let claims = trash.records.iter().filter(|record| record.doc.purpose == Purpose::Delete);
        let claimed = |record: &TrashRecord| {
            record.doc.names(manifest.snapshot)
                || manifest.packs.iter().any(|pack| record.doc.packs.contains(&pack.id))
        };
        match claims.into_iter().find(|record| claimed(record)) {
            None => Ok(()),
            Some(claim) => Err(Error::conflict("a prune is deleting what the snapshot needs")
                .with_entry(claim.name.clone())
                .with_remedy("import again once it has ended")
                .with_remedy(Remedy::Prune)),
        }
    }

    /// The packs that are in the vault, with their sizes.
    pub(crate) fn packs_present(&self) -> Result<HashMap<String, u64>> {
        let listed = self.store().list(Some(Folder::Packs.name()))?;
        Ok(listed.into_iter().map(|listed| (listed.name, listed.size)).collect())
    }

    /// The packs of the visible snapshots: what can be built upon.
    pub(crate) fn packs_visible(&self) -> Result<HashSet<PackId>> {
        let mut visible = HashSet::new();
        for name in self.snapshot_names(None)? {
            match self.outline(&name) {
                Ok(manifest) => visible.extend(manifest.packs.iter().map(|pack| pack.id)),
                // A damaged one hides its own packs alone.
                Err(error) if error.kind() == Kind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(visible)
    }

    /// The packs that some manifest of the vault names, whether its snapshot is visible or not.
    fn packs_needed(&self) -> Result<HashSet<PackId>> {
        let mut needed = HashSet::new();
        for listed in self.store().list(Some(Folder::Snapshots.name()))? {
            let name = SnapshotName::parse(&listed.name)
                .ok_or_else(|| super::sealed::foreign(&listed.name))?;
            match self.outline(&name) {
                Ok(manifest) => needed.extend(manifest.packs.iter().map(|pack| pack.id)),
                // It was deleted since the list was made.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(needed)
    }

    /// Removes the intent of an import that was killed, then its packs, under a claim. A pack stays
    /// that a manifest or another intent names: somebody else has put it since.
    ///
    /// Packs are listed first, then intents, then manifests: who puts a pack has put an intent
    /// before it, and deletes that only after the manifest. What they name is looked up again once the
    /// claim stands, as who imports looks for claims once its intent stands.
    pub(crate) fn discard_import(&self, intent: &Intent) -> Result<()> {
        self.delete_intent(intent.snapshot)?;
        let present = self.packs_present()?;
        let Some(kept) = self.packs_kept()? else { return Ok(()) };
        let loose = intent.import.iter().flatten().copied();
        let loose: Vec<PackId> = loose
            .filter(|pack| !kept.contains(pack) && present.contains_key(&pack_name(*pack)))
            .collect();
        self.delete_claimed(loose.clone(), || {
            Ok(self.packs_kept()?.is_none_or(|kept| loose.iter().any(|pack| kept.contains(pack))))
        })
    }

    /// The packs that a manifest, or the intent of an import, names; `None` where a damaged one keeps
    /// that from being known.
    pub(super) fn packs_kept(&self) -> Result<Option<HashSet<PackId>>> {
        let mut kept = HashSet::new();
        for listed in self.store().list(Some(Folder::Intents.name()))? {
            match self.open_intent(&listed.name) {
                Ok(intent) => kept.extend(intent.import.into_iter().flatten()),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) if error.kind() == Kind::Corrupt => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        match self.packs_needed() {
            Ok(needed) => kept.extend(needed),
            Err(error) if error.kind() == Kind::Corrupt => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(kept))
    }

    /// Refuses a snapshot that would be visible to nobody, or would stand where another one does, or
    /// ahead of the ones that the node's owner goes on to make.
    pub(crate) fn refuse_import(&self, manifest: &Manifest) -> Result<()> {
        let node = &manifest.node;
        if let Some(record) = self.node_record(node)? {
            if record.uid.is_some_and(|uid| uid != manifest.uid) {
                return Err(parted(node, "the vault knows another node under the same name"));
            }
            if record.hides(manifest.epoch, manifest.seq) {
                return Err(Error::fenced("its writer had lost the ownership when it was written")
                    .with_entry(node.to_string())
                    .with_remedy("it was never visible, and is not what the node went on from"));
            }
            refuse_ahead(&record, manifest.epoch)?;
        }
        let same_place = |name: &SnapshotName| {
            (name.epoch, name.seq) == (manifest.epoch, manifest.seq)
                && name.snapshot != manifest.snapshot
        };
        if self.snapshot_names(Some(node))?.iter().any(same_place) {
            return Err(parted(node, "the vault has another snapshot in the same place"));
        }
        Ok(())
    }

    /// Makes sure that the node has a record before its manifest is there: a manifest without one is
    /// that of a vault from which somebody has deleted it. `ours` are the snapshots that are imported,
    /// which an import that was killed may have put already.
    ///
    /// # Errors
    /// Corrupt where the record of the node's other snapshots is gone, or was set back.
    pub(crate) fn prepare_import(
        &self,
        manifest: &Manifest,
        by: &str,
        ours: &[SnapshotId],
    ) -> Result<()> {
        let node = &manifest.node;
        let mut others = self.standing_names(Some(node))?;
        others.retain(|name| !ours.contains(&name.snapshot));
        let record = self.node_record(node)?;
        self.refuse_set_back(node, &others, record.as_ref())?;
        if record.is_some_and(|record| record.epoch >= manifest.epoch && record.uid.is_some()) {
            return Ok(());
        }
        self.update_node(node, |record| {
            refuse_ahead(record, manifest.epoch)?;
            if record.number == 0 {
                record.claimed_by = by.to_owned();
                record.reason = Some("imported from an archive".to_owned());
            }
            record.epoch = record.epoch.max(manifest.epoch);
            record.uid = record.uid.or(Some(manifest.uid));
            Ok(())
        })?;
        Ok(())
    }

    /// Records an imported snapshot, where the record doesn't tell of it: newest and marks rise, the
    /// owner stays.
    pub(crate) fn record_import(&self, manifest: &Manifest) -> Result<()> {
        if self.node_record(&manifest.node)?.is_some_and(|record| tells_of(&record, manifest)) {
            return Ok(());
        }
        self.update_node(&manifest.node, |record| {
            refuse_ahead(record, manifest.epoch)?;
            record.epoch = record.epoch.max(manifest.epoch);
            record.uid = record.uid.or(Some(manifest.uid));
            if record.newest.is_none_or(|(_, seq)| seq < manifest.seq) {
                record.lead(manifest);
            }
            record.raise_marks(manifest);
            Ok(())
        })?;
        Ok(())
    }

    /// The one visible snapshot of an id, if there is one.
    pub(crate) fn find_snapshot(
        &self,
        node: &NodeName,
        snapshot: SnapshotId,
    ) -> Result<Option<SnapshotName>> {
        let names = self.snapshot_names(Some(node))?;
        Ok(names.into_iter().find(|name| name.snapshot == snapshot))
    }
}

/// A local directory in which nothing is but what a killed import had put of the same slots, before it
/// was a vault. `None`: something else is there.
pub(super) fn begun_copy(
    location: &Location,
    slots: &[SlotDoc],
    env: &Env,
) -> Result<Option<Store>> {
    let Location::Local(path) = location else { return Ok(None) };
    let failed = |error| Error::io("looking at the vault's directory", error);
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let ours = [Folder::Keys.name(), Folder::Intents.name(), super::local::TEMPORARY];
        if !ours.iter().any(|ours| name == *ours) {
            return Ok(None);
        }
    }
    let store = Store::open(location, env)?;
    let (probes, others): (Vec<_>, Vec<_>) =
        store.list(None)?.into_iter().partition(|listed| super::probe::is_probe(&listed.name));
    for listed in others {
        let Some(slot) = slots.iter().find(|slot| slot.object_name() == listed.name) else {
            return Ok(None);
        };
        if store.get(&listed.name)? != slot.to_bytes()? {
            return Ok(None);
        }
    }
    store.collect_temporary()?;
    probes.iter().try_for_each(|listed| store.delete(&listed.name))?;
    Ok(Some(store))
}

/// Puts slots and, last, the header: before that it is no vault.
pub(super) fn fill_copy(
    store: &Store,
    header: &Header,
    slots: &[SlotDoc],
    master: &MasterKey,
    place: &Location,
    env: &Env,
) -> Result<Header> {
    let traits = store.probe(env)?.judge(&place.to_string(), false)?;
    let header = Header::new(header.vault, header.created, traits, master)?;
    for slot in slots {
        slot.verify(master)?;
        store.put_new(&slot.object_name(), slot.to_bytes()?)?;
    }
    env.fault(FaultPoint::ImportVault)?;
    if !store.put_new(HEADER_NAME, header.to_bytes()?)? {
        return Err(Error::conflict("another vault was made in the same place"));
    }
    Ok(header)
}

/// Removes what [`fill_copy`] has put, unless it is a vault by now.
pub(super) fn empty_copy(store: &Store, slots: &[SlotDoc]) -> Result<()> {
    if store.size(HEADER_NAME)?.is_some() {
        return Ok(());
    }
    slots.iter().try_for_each(|slot| store.delete(&slot.object_name()))
}

/// Whether the record needs no change for a snapshot.
fn tells_of(record: &NodeRecord, manifest: &Manifest) -> bool {
    let seen = |(name, mark): (&String, &super::manifest::Mark)| {
        record.marks.get(name).is_some_and(|highest| *highest >= mark.value)
    };
    record.newest.is_some_and(|(_, seq)| seq >= manifest.seq)
        && record.epoch >= manifest.epoch
        && manifest.marks.iter().all(seen)
}

/// An owner under an older epoch would go on below the imported snapshot: its newer ones would not be
/// `latest`.
fn refuse_ahead(record: &NodeRecord, epoch: Epoch) -> Result<()> {
    if record.writer.is_none() || record.epoch >= epoch {
        return Ok(());
    }
    Err(Error::fenced(format!(
        "the node was taken over after this vault parted: its owner here is {}",
        record.claimed_by
    ))
    .with_entry(record.node.to_string())
    .with_remedy(Remedy::TakeOver(None))
    .with_remedy(Remedy::ReleaseOwner))
}

fn parted(node: &NodeName, what: &str) -> Error {
    Error::conflict(format!("{what}: the two vaults have parted"))
        .with_entry(node.to_string())
        .with_remedy("import into an empty place: that makes a vault of its own")
}
