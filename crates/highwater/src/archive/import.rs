//! An import: the packs first, unreferenced and announced by an intent; then, once every byte of every
//! archive was verified, the manifests.
//!
//! A byte of an archive is known to be right by its hashes and the MAC of its end marker: the export
//! has opened every frame before it wrote them. So an import opens the sealed index of each pack that
//! it has put, and finds every unit that a snapshot names, but does not expand the frames again:
//! `check --read-data` does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use crate::control::{Control, Event};
use crate::env::FaultPoint;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{NodeName, PackId, SnapshotId, VaultId, WriterId};
use crate::vault::manifest::PackRef;
use crate::vault::pack::pack_name;
use crate::vault::upload::Ending;
use crate::vault::{
    Actor, BACKUP_TIME_MAX, ContentId, Folder, HEADER_NAME, Intent, Location, Lock, Manifest,
    Secret, SnapshotName, TEMPORARY, Vault,
};

use super::chain::{self, Begun};
use super::read::{Entry, Reader};
use super::write::packs_beyond;
use super::{ImportReport, Imported, Input};

/// Imports archives into the vault at `location`: the one that they come from, or a copy of it. Where
/// no vault is, a copy is made, which `secret` then opens as it opens the original.
///
/// # Errors
/// Corrupt where any byte of any archive is not what was written; conflict where an archive builds
/// on a snapshot that the vault doesn't have just so, or one comes twice, or before its base; input
/// where the vault is another one; fenced where the snapshot could not be seen. Whatever fails,
/// nothing becomes visible.
pub fn import(
    location: &Location,
    secret: &Secret,
    inputs: Vec<Input<'_>>,
    actor: &Actor,
    control: &Control,
) -> Result<ImportReport> {
    let begun = chain::begin(inputs, control)?;
    let archived = begun[0].reader.header.vault;
    match Vault::id_at(location, &control.env)? {
        Some(there) if there != archived => Err(another_vault(there, archived)),
        Some(_) => {
            let vault = Vault::open_with(location, secret, &control.env)?;
            run(&vault, begun, actor, control)
        }
        None => {
            let copy = Copy::make(location, secret, &begun, control)?;
            let report = run(&copy.vault, begun, actor, control);
            match report {
                Ok(report) => Ok(ImportReport { created: true, ..report }),
                Err(error) => {
                    copy.remove_if_empty()?;
                    Err(error)
                }
            }
        }
    }
}

/// Imports archives into an open vault.
///
/// # Errors
/// As [`import`].
pub fn import_into(
    vault: &Vault,
    inputs: Vec<Input<'_>>,
    actor: &Actor,
    control: &Control,
) -> Result<ImportReport> {
    run(vault, chain::begin(inputs, control)?, actor, control)
}

fn another_vault(there: VaultId, archived: VaultId) -> Error {
    Error::input(format!("the archive is of vault {archived}, and this is vault {there}")).with_remedy(
        "archives stay sealed under the key of their vault: import into it, or into a copy of it, or \
         where no vault is, which makes a copy",
    )
}

/// A copy of a vault that this import has made.
struct Copy {
    vault: Vault,
    /// The directory was there before, empty.
    stood: bool,
}

impl Copy {
    fn make(
        location: &Location,
        secret: &Secret,
        begun: &[Begun<'_>],
        control: &Control,
    ) -> Result<Copy> {
        let master = chain::unlock(begun, secret)?;
        let last = begun.last().ok_or_else(|| Error::bug("no archive is to be imported"))?;
        last.preamble.verify(&master)?;
        let stood = location.paths().iter().any(|path| path.exists());
        let (header, slots) = (&last.preamble.vault, &last.preamble.slots);
        match Vault::create_copy(location, header, slots, master, &control.env) {
            Ok(vault) => Ok(Copy { vault, stood }),
            Err(error) => {
                remove_folders(location, stood)?;
                Err(error)
            }
        }
    }

    /// Takes the copy away again, unless a snapshot of it is visible. First what makes it a vault.
    fn remove_if_empty(self) -> Result<()> {
        if !self.vault.store().list(Some(Folder::Snapshots.name()))?.is_empty() {
            return Ok(());
        }
        self.vault.store().delete(HEADER_NAME)?;
        for listed in self.vault.store().list(None)? {
            self.vault.store().delete(&listed.name)?;
        }
        remove_folders(self.vault.location(), self.stood)
    }
}

/// Removes the folders of a vault in which nothing is, and its directory unless that stood before.
fn remove_folders(location: &Location, stood: bool) -> Result<()> {
    for path in location.paths() {
        for folder in Folder::ALL.iter().map(|folder| folder.name()).chain([TEMPORARY]) {
            remove_empty(&path.join(folder))?;
        }
        if !stood {
            crate::durable::remove_empty(path)?;
        }
    }
    Ok(())
}

/// Removes a directory in which nothing is but such directories.
fn remove_empty(path: &Path) -> Result<()> {
    if !crate::durable::stat(path)?.is_some_and(|found| crate::durable::is_dir(&found)) {
        return Ok(());
    }
    for name in crate::durable::names(path)? {
        remove_empty(&path.join(name))?;
    }
    crate::durable::remove_empty(path).map(drop)
}

fn run(
    vault: &Vault,
    begun: Vec<Begun<'_>>,
    actor: &Actor,
    control: &Control,
) -> Result<ImportReport> {
    let archived = begun[0].reader.header.vault;
    if vault.id() != archived {
        return Err(another_vault(vault.id(), archived));
    }
    let _span = tracing::info_span!("import").entered();
    let bytes_total = begun.iter().map(|archive| archive.reader.header.bytes).sum();
    control.report(Event::Stage { name: "import", bytes_total });
    let mut importer = Importer {
        vault,
        actor,
        writer: actor.writer(&control.env)?,
        control,
        start: control.env.monotonic(),
        locks: BTreeMap::new(),
        taken: Vec::new(),
        put: Vec::new(),
        announced: Vec::new(),
        bytes_read: 0,
        bytes_stored: 0,
    };
    vault.collect_temporary()?;
    match begun.into_iter().try_for_each(|archive| importer.take(archive)) {
        Ok(()) => importer.commit_all(),
        Err(error) => Err(error),
    }
    .map_err(|error| match importer.discard() {
        Ok(()) => error,
        Err(_) if error.hint().is_none() => {
            error.with_remedy("what was stored already is collected by the next import or backup")
        }
        Err(_) => error,
    })?;
    let report = importer.report();
    tracing::info!(
        snapshots = report.snapshots.len(),
        bytes_stored = report.bytes_stored,
        "imported"
    );
    Ok(report)
}

/// A snapshot that an archive holds.
struct Taken {
    name: SnapshotName,
    object: Vec<u8>,
    manifest: Manifest,
    content: ContentId,
    since: Option<SnapshotId>,
    already_there: bool,
    /// Its manifest was there, or was to be put: it may be visible, whatever was answered.
    tried: bool,
}

/// An import on its way.
struct Importer<'a> {
    vault: &'a Vault,
    actor: &'a Actor,
    writer: WriterId,
    control: &'a Control,
    /// On the monotonic clock.
    start: Duration,
    /// Held until the end: no backup of these nodes runs on this machine meanwhile.
    locks: BTreeMap<NodeName, Lock>,
    taken: Vec<Taken>,
    /// Packs that this import has put.
    put: Vec<PackId>,
    /// Snapshots whose intents this import has put.
    announced: Vec<SnapshotId>,
    bytes_read: u64,
    bytes_stored: u64,
}

fn given_up() -> Error {
    Error::conflict("the import took too long, and its packs were taken for abandoned")
        .with_remedy("import again")
}

impl Importer<'_> {
    /// Reads one archive to its end, verifies it, and puts the packs that the vault doesn't have.
    fn take(&mut self, archive: Begun<'_>) -> Result<()> {
        let Begun { mut reader, preamble, manifest: entry } = archive;
        preamble.verify(self.vault.master())?;
        reader.authenticate(self.vault.master())?;
        let object = reader.manifest(&entry)?;
        let name =
            SnapshotName::parse(&entry.name).ok_or_else(|| reader.wrong("it was changed"))?;
        let (manifest, content) = self.vault.open_outline(&name, &object)?;
        if manifest.snapshot != reader.header.snapshot || content != reader.header.content {
            return Err(reader.wrong("its manifest is not the one that it announces"));
        }
        self.lock(&manifest.node)?;
        let base = self.base(&reader, &manifest)?;
        let beyond = packs_beyond(&manifest, base.as_ref());
        let already_there = self.already_there(&reader, &manifest, content)?;
        let since = reader.header.since.map(|(since, _)| since);
        let taken =
            Taken { name, object, manifest, content, since, already_there, tried: already_there };
        let missing = if already_there { HashSet::new() } else { self.announce(&taken, &beyond)? };
        self.taken.push(taken);
        for pack in beyond {
            let found = reader
                .next()?
                .filter(|found| found.name == pack_name(pack.id) && found.size == pack.size);
            let found = found.ok_or_else(|| reader.wrong("a pack of the snapshot is not in it"))?;
            if missing.contains(&pack.id) {
                self.put_pack(&mut reader, &found, pack)?;
            } else {
                reader.pass(&found, &mut |piece| {
                    self.control.report(Event::Bytes(piece.len() as u64));
                    Ok(())
                })?;
            }
        }
        if reader.next()?.is_some() {
            return Err(reader.wrong("it holds what the snapshot does not need"));
        }
        self.bytes_read += reader.end(self.vault.master())?;
        Ok(())
    }

    /// Locks a node, and collects what killed imports of it have left.
    fn lock(&mut self, node: &NodeName) -> Result<()> {
        if self.locks.contains_key(node) {
            return Ok(());
        }
        let lock = self.actor.lock_node(self.vault.id(), node)?;
        self.locks.insert(node.clone(), lock);
        self.vault.collect_leftovers(node, self.writer).map(drop)
    }

    /// The snapshot that an increment builds on: of an archive before it, or in the vault, and just
    /// the one that it was made from.
    fn base(&self, reader: &Reader<'_>, manifest: &Manifest) -> Result<Option<Manifest>> {
        let Some((since, content)) = reader.header.since else { return Ok(None) };
        let known = self.taken.iter().find(|taken| taken.name.snapshot == since);
        let (base, found) = match known {
            Some(taken) => (taken.manifest.clone(), taken.content),
            None => {
                let name = self.vault.find_snapshot(&manifest.node, since)?;
                let name = name.ok_or_else(|| {
                    Error::conflict(format!("it builds on snapshot {since}, which is not there"))
                        .with_entry(reader.name())
                        .with_remedy("import the archive of that snapshot first")
                        .with_remedy(Remedy::ExportWhole)
                })?;
                let object = self.vault.store().get(&name.object())?;
                self.vault.open_outline(&name, &object)?
            }
        };
        if found != content {
            return Err(Error::conflict(format!(
                "it builds on snapshot {since} with other content than is there: one of the two \
                 vaults was pruned since"
            ))
            .with_entry(reader.name())
            .with_remedy(Remedy::ExportWhole));
        }
        Ok(Some(base))
    }

    /// Whether the vault has the snapshot already, the same to the last byte.
    fn already_there(
        &self,
        reader: &Reader<'_>,
        manifest: &Manifest,
        content: ContentId,
    ) -> Result<bool> {
        let Some(name) = self.vault.find_snapshot(&manifest.node, manifest.snapshot)? else {
            self.vault.refuse_import(manifest)?;
            return Ok(false);
        };
        let object = self.vault.store().get(&name.object())?;
        if self.vault.open_outline(&name, &object)?.1 == content {
            return Ok(true);
        }
        Err(Error::conflict("the snapshot is there already, in other packs")
            .with_entry(reader.name())
            .with_remedy("one of the two vaults was pruned since: there is nothing to import"))
    }

    /// Puts the intent, and tells which packs are to be put.
    ///
    /// A pack that is there and belongs to no visible snapshot is somebody's leftover, and may be removed at
    /// any time: nothing is built on it.
    fn announce(&mut self, taken: &Taken, beyond: &[PackRef]) -> Result<HashSet<PackId>> {
        let manifest = &taken.manifest;
        self.control.env.fault(FaultPoint::ImportIntent)?;
        self.vault.put_import_intent(&Intent {
            version: 1,
            snapshot: manifest.snapshot,
            node: manifest.node.clone(),
            uid: manifest.uid,
            parent: taken.since,
            writer: self.writer,
            start: self.control.env.now(),
            boot: crate::vault::boot(),
            rewrite: false,
            import: Some(manifest.packs.iter().map(|pack| pack.id).collect()),
        })?;
        self.announced.push(manifest.snapshot);
        // A prune that claims from now on sees the intent and keeps the packs.
        self.vault.refuse_beside_prune(manifest)?;
        let present: HashMap<String, u64> = self.vault.packs_present()?;
        let size = |pack: &PackRef| present.get(&pack_name(pack.id)).copied();
        let foreign: Vec<&PackRef> = beyond
            .iter()
            .filter(|pack| size(pack).is_some() && !self.put.contains(&pack.id))
            .collect();
        if let Some(wrong) = foreign.iter().find(|pack| size(pack) != Some(pack.size)) {
            return Err(Error::corrupt("the pack in the vault has another size than it should")
                .with_entry(pack_name(wrong.id)));
        }
        if !foreign.is_empty() {
            let visible = self.vault.packs_visible()?;
            if let Some(loose) = foreign.iter().find(|pack| !visible.contains(&pack.id)) {
                return Err(Error::conflict("a pack is there that belongs to no snapshot")
                    .with_entry(pack_name(loose.id))
                    .with_remedy(
                        "another import runs, or was killed: what is loose, a prune removes",
                    ));
            }
        }
        Ok(beyond.iter().filter(|pack| size(pack).is_none()).map(|pack| pack.id).collect())
    }

    /// Puts a pack under its name, once its hash has fitted.
    fn put_pack(&mut self, reader: &mut Reader<'_>, entry: &Entry, pack: PackRef) -> Result<()> {
        let env = &self.control.env;
        let mut upload = self.vault.store().upload(&entry.name)?;
        let passed = reader
            .pass(entry, &mut |piece| {
                env.fault(FaultPoint::ImportPackWrite)?;
                upload.write(piece)?;
                self.control.report(Event::Bytes(piece.len() as u64));
                Ok(())
            })
            .and_then(|()| env.fault(FaultPoint::ImportPackComplete));
        if let Err(error) = passed {
            upload.abort()?;
            return Err(error);
        }
        let finished = upload.finish().and_then(Ending::wait);
        // Where somebody else was first, the pack is theirs.
        if !matches!(&finished, Err(error) if error.kind() == Kind::Conflict) {
            self.put.push(pack.id);
        }
        self.bytes_stored += finished?;
        self.vault.open_pack(pack).map(drop)
    }

    /// Looks at all that was put, then makes the snapshots visible, in their order.
    fn commit_all(&mut self) -> Result<()> {
        for taken in self.taken.iter().filter(|taken| !taken.already_there) {
            self.verify(&taken.manifest)?;
        }
        self.control.report(Event::Stage { name: "commit", bytes_total: 0 });
        for place in 0..self.taken.len() {
            self.control.cancel.check()?;
            self.commit(place)?;
        }
        Ok(())
    }

    /// All packs are there, and every unit that the snapshot names is in one of them.
    fn verify(&self, manifest: &Manifest) -> Result<()> {
        if let Some(missing) = self.vault.missing_pack(manifest)? {
            return Err(Error::corrupt("the pack, which the snapshot needs, is missing")
                .with_entry(missing)
                .with_remedy(Remedy::ExportWhole)
                .with_remedy("look for what the vault has lost: the increment builds on it"));
        }
        // Its packs are there, so that its lists can be read.
        let mut manifest = manifest.clone();
        self.vault.fill_in(&mut manifest)?;
        for entry in manifest.entries() {
            for leaf in 0..entry.leaves.len() {
                self.control.cancel.check()?;
                self.vault.load_leaf(&manifest, entry, leaf)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, place: usize) -> Result<()> {
        let Taken { manifest, already_there, .. } = &self.taken[place];
        let env = &self.control.env;
        let ours: Vec<SnapshotId> = self.taken.iter().map(|taken| taken.name.snapshot).collect();
        let prepare = || {
            env.fault(FaultPoint::ImportNodeClaim)?;
            self.vault.prepare_import(manifest, &self.actor.name, &ours)
        };
        if *already_there {
            prepare()?;
            return self.vault.record_import(manifest);
        }
        let late = env.monotonic().saturating_sub(self.start) > BACKUP_TIME_MAX;
        if late || !self.vault.intent_stands(manifest.snapshot)? {
            return Err(given_up());
        }
        self.vault.refuse_import(manifest)?;
        prepare()?;
        env.fault(FaultPoint::ImportManifest)?;
        self.taken[place].tried = true;
        let Taken { name, object, manifest, .. } = &self.taken[place];
        if !self.vault.store().put_new(&name.object(), object.clone())? {
            return Err(Error::conflict("another process put the snapshot meanwhile")
                .with_entry(name.object()));
        }
        // As a backup: a prune that took the import for dead has deleted packs of it.
        if !self.vault.intent_stands(manifest.snapshot)?
            && !self.vault.stays_without_intent(manifest, &self.actor.name)?
        {
            return Err(given_up());
        }
        // From here on the snapshot is visible: what fails now does not undo it.
        env.fault(FaultPoint::ImportNodeRecord)?;
        self.vault.record_import(manifest)?;
        env.fault(FaultPoint::ImportIntentDelete)?;
        self.vault.delete_intent(manifest.snapshot)
    }

    /// Removes what was put for snapshots that can't become visible any more, and all intents. Where
    /// somebody else has removed an intent, all packs are left to a prune.
    fn discard(&self) -> Result<()> {
        // What a directory has refused does not land late.
        let local = matches!(self.vault.location(), Location::Local(_));
        let (mut kept, mut stand) = (HashSet::new(), true);
        for taken in &self.taken {
            let (node, snapshot) = (&taken.manifest.node, taken.name.snapshot);
            if taken.tried && (!local || self.vault.is_committed(node, snapshot)?) {
                kept.extend(taken.manifest.packs.iter().map(|pack| pack.id));
            } else {
                stand &= self.vault.intent_stands(snapshot)?;
            }
        }
        for pack in self.put.iter().rev().filter(|pack| stand && !kept.contains(pack)) {
            self.vault.store().delete(&pack_name(*pack))?;
        }
        self.announced.iter().try_for_each(|snapshot| self.vault.delete_intent(*snapshot))
    }

    fn report(self) -> ImportReport {
        let imported = |taken: Taken| Imported {
            snapshot: taken.name.snapshot,
            node: taken.name.node,
            since: taken.since,
            already_there: taken.already_there,
        };
        ImportReport {
            vault: self.vault.id(),
            created: false,
            bytes_read: self.bytes_read,
            bytes_stored: self.bytes_stored,
            duration: self.control.env.monotonic() - self.start,
            snapshots: self.taken.into_iter().map(imported).collect(),
        }
    }
}
