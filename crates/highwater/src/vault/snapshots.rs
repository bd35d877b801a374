//! Which snapshots there are, in which order, and which one is meant.
//!
//! A manifest's name tells epoch and sequence, so that the newest one is found by listing: never by
//! a clock. The name is bound into the seal; a manifest under another name doesn't open.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{Epoch, NodeName, Seq, SnapshotId, encode};

use super::folder::Folder;
use super::manifest::{EntryRecord, Manifest, PartRecord, VERSION_OF_LISTS};
use super::nodes::NodeRecord;
use super::pack::pack_name;
use super::seal::ObjectKind;
use super::sealed;
use super::shrink;
#[cfg(feature = "agent")]
use super::shrink::Loss;
use super::trash::{GRACE, after};
use super::{Level, Selector, SnapshotInfo, Vault};

/// So many other snapshots are named where one is damaged.
const OTHERS_NAMED: usize = 3;

/// A snapshot, as far as the name of its manifest tells: known without opening it. Names are in the order of node,
/// epoch and sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    pub(crate) node: NodeName,
    pub(crate) epoch: Epoch,
    pub(crate) seq: Seq,
    pub(crate) snapshot: SnapshotId,
    pub(crate) generation: u32,
}

/// What a snapshot is known by, whatever its id says: a keyed BLAKE3 of its manifest. A prune that
/// moves its units to other packs makes it another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ContentId(pub(crate) [u8; 32]);

impl SnapshotName {
    /// Whose it is.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Its id.
    pub fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    pub(crate) fn object(&self) -> String {
        let SnapshotName { node, epoch, seq, snapshot, generation } = self;
        Folder::Snapshots
            .object(format_args!("{node}/{:08}-{:010}-{snapshot}.{generation}", epoch.0, seq.0))
    }

    pub(crate) fn of(manifest: &Manifest) -> SnapshotName {
        SnapshotName {
            node: manifest.node.clone(),
            epoch: manifest.epoch,
            seq: manifest.seq,
            snapshot: manifest.snapshot,
            generation: manifest.generation,
        }
    }

    pub(crate) fn parse(object: &str) -> Option<SnapshotName> {
        let (node, name) = Folder::Snapshots.strip(object)?.split_once('/')?;
        let (stem, generation) = name.rsplit_once('.')?;
        let mut fields = stem.split('-');
        let parsed = SnapshotName {
            node: node.parse().ok()?,
            epoch: Epoch(fields.next()?.parse().ok()?),
            seq: Seq(fields.next()?.parse().ok()?),
            snapshot: fields.next()?.parse().ok()?,
            generation: generation.parse().ok()?,
        };
        (fields.next().is_none() && parsed.object() == object).then_some(parsed)
    }
}

impl Vault {
    /// The visible snapshots of a node or of all, each in its highest generation; by node, epoch
    /// and sequence. Neither one that a deposed writer committed behind the fence is visible, nor
    /// one that was forgotten.
    ///
    /// # Errors
    /// Those of the store; corrupt where it holds what is no manifest.
    pub fn snapshot_names(&self, node: Option<&NodeName>) -> Result<Vec<SnapshotName>> {
        // The trash first: a prune removes manifests before what hides them.
        let trash = self.trash()?;
        let mut names = self.standing_names(node)?;
        names.retain(|name| !trash.hides(name.snapshot));
        Ok(names)
    }

    /// The same with those that were forgotten, as long as a prune has not deleted them: what a node
    /// has done is not undone by forgetting it.
    pub(crate) fn standing_names(&self, node: Option<&NodeName>) -> Result<Vec<SnapshotName>> {
        let names = self.put_names(node)?;
        let mut standing: Vec<SnapshotName> = Vec::with_capacity(names.len());
        for names in names.chunk_by(|one, other| one.node == other.node) {
            let Some(first) = names.first() else { continue };
            let record = self.readable_record(&first.node)?;
            standing.extend(in_front_of_the_fence(names, record.as_ref()));
        }
        Ok(standing)
    }

    /// The same of one node, with its newest record, which is read after them and can only tell of more.
    ///
    /// # Errors
    /// As [`Vault::node_record`].
    pub(crate) fn standing_with_record(
        &self,
        node: &NodeName,
    ) -> Result<(Vec<SnapshotName>, Option<NodeRecord>)> {
        let names = self.put_names(Some(node))?;
        let record = self.node_record(node)?;
        Ok((in_front_of_the_fence(&names, record.as_ref()).collect(), record))
    }

    /// All manifests, in order.
    fn put_names(&self, node: Option<&NodeName>) -> Result<Vec<SnapshotName>> {
        let prefix =
            node.map_or(Folder::Snapshots.name().to_owned(), |node| Folder::Snapshots.object(node));
        let parsed =
            |name: String| SnapshotName::parse(&name).ok_or_else(|| sealed::foreign(&name));
        let names: Result<Vec<SnapshotName>> =
            self.store().names(&prefix)?.into_iter().map(parsed).collect();
        let mut names = names?;
        names.sort();
        Ok(names)
    }

    /// Opens a manifest.
    pub(crate) fn manifest(&self, name: &SnapshotName) -> Result<Manifest> {
        let bytes = self.store().get(&name.object())?;
        self.open_manifest(name, &bytes).map(|(manifest, _)| manifest)
    }

    /// Opens a manifest, but not the lists of its entries: for what only asks for packs, marks and names.
    pub(crate) fn outline(&self, name: &SnapshotName) -> Result<Manifest> {
        let bytes = self.store().get(&name.object())?;
        self.open_outline(name, &bytes).map(|(manifest, _)| manifest)
    }

    /// Opens the manifest in `bytes`, and tells what it is known by.
    pub(crate) fn open_manifest(
        &self,
        name: &SnapshotName,
        bytes: &[u8],
    ) -> Result<(Manifest, ContentId)> {
        let (mut manifest, content) = self.open_outline(name, bytes)?;
        self.fill_in(&mut manifest)?;
        Ok((manifest, content))
    }

    /// Reads the lists of an outline, and looks whether it can be restored as it is.
    pub(crate) fn fill_in(&self, manifest: &mut Manifest) -> Result<()> {
        let object = SnapshotName::of(manifest).object();
        self.load_lists(&object, manifest)?;
        match manifest.fault() {
            Some(fault) => {
                Err(Error::corrupt(format!("the manifest is damaged: {fault}")).with_entry(object))
            }
            None => Ok(()),
        }
    }

    /// Opens the manifest in `bytes` without the lists of its entries, whose packs may not be there yet.
    pub(crate) fn open_outline(
        &self,
        name: &SnapshotName,
        bytes: &[u8],
    ) -> Result<(Manifest, ContentId)> {
        let object = name.object();
        let text = sealed::open_text(self, ObjectKind::Manifest, &object, bytes)?;
        let manifest: Manifest = sealed::parse_up_to(VERSION_OF_LISTS, &object, &text)?;
        let named = manifest.version == manifest.version_needed()
            && manifest.snapshot == name.snapshot
            && manifest.node == name.node
            && manifest.seq == name.seq
            && manifest.epoch == name.epoch
            && manifest.generation == name.generation;
        if !named {
            return Err(Error::corrupt("the manifest is of another snapshot").with_entry(object));
        }
        match manifest.fault() {
            Some(fault) => {
                Err(Error::corrupt(format!("the manifest is damaged: {fault}")).with_entry(object))
            }
            None => Ok((manifest, self.content_id(&object, &text))),
        }
    }

    /// What the text of a manifest, under its name, is known by.
    fn content_id(&self, object: &str, text: &[u8]) -> ContentId {
        let key = self.master().derive(self.id().as_bytes(), &[b"hw1 manifest content"]);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&(object.len() as u64).to_le_bytes()).update(object.as_bytes()).update(text);
        ContentId(*hasher.finalize().as_bytes())
    }

    /// The snapshots, of one node or of all, by node and then from oldest to newest. Of parts that have many entries
    /// these are not read ([`PartRecord::is_loaded`]): [`Vault::resolve`] reads them.
    pub fn snapshots(&self, node: Option<&NodeName>) -> Result<Vec<SnapshotInfo>> {
        let mut infos = Vec::new();
        self.each_snapshot(node, |info| infos.push(info))?;
        Ok(infos)
    }

    /// Hands what [`Vault::snapshots`] returns to `take`, one after the other: a vault of many large snapshots
    /// need not be in memory at once.
    ///
    /// # Errors
    /// Corrupt where a manifest is damaged; those of the store.
    pub fn each_snapshot(
        &self,
        node: Option<&NodeName>,
        mut take: impl FnMut(SnapshotInfo),
    ) -> Result<()> {
        let names = self.snapshot_names(node)?;
        let mut records = Records::default();
        for some in names.chunks(self.opened_at_once()) {
            for (name, info) in some.iter().zip(self.infos_by(some, &mut records)) {
                take(info.map_err(|error| with_others(error, name, &names))?);
            }
        }
        Ok(())
    }

    /// So many manifests are opened at once, and in memory, where each is looked at for itself.
    pub(crate) fn opened_at_once(&self) -> usize {
        self.store().readers(1) * OPENED_BY_EACH
    }

    /// The nodes of which the vault has snapshots, forgotten or not, by name.
    ///
    /// # Errors
    /// Those of the store.
    pub fn node_names(&self) -> Result<Vec<NodeName>> {
        let mut names: Vec<NodeName> =
            self.standing_names(None)?.into_iter().map(|name| name.node).collect();
        names.dedup();
        Ok(names)
    }

    /// The only node of the vault.
    ///
    /// # Errors
    /// Not found where there is none; input where there are several, which are named.
    pub fn only_node(&self) -> Result<NodeName> {
        let names = self.node_names()?;
        match &names[..] {
            [name] => Ok(name.clone()),
            [] => Err(Error::not_found("the vault knows no node yet")),
            _ => Err(several(&names)),
        }
    }

    /// That the vault knows no such node, and which ones it knows.
    pub(super) fn no_such_node(&self, node: &NodeName) -> Error {
        let known = self.node_names().unwrap_or_default();
        let error = Error::not_found(format!("the vault knows no node {node}{}", these(&known)));
        error.with_entry(node.to_string())
    }

    /// The one snapshot that is meant.
    ///
    /// # Errors
    /// Not found where there is none; input where a prefix, or `latest` in a vault of several nodes,
    /// fits more than one.
    pub fn resolve(&self, selector: &Selector) -> Result<SnapshotInfo> {
        let names = self.snapshot_names(selector.node.as_ref())?;
        if selector.snapshot == "latest" {
            return self.resolve_latest(&names, selector);
        }
        let named = by_prefix(&names, &selector.snapshot)
            .or_else(|error| Err(self.forgotten(selector)?.unwrap_or(error)))?;
        let info = self.open_snapshot(named)?;
        if selector.before.is_some_and(|before| info.manifest.time > before) {
            return Err(Error::not_found("that snapshot is younger than the time asked for"));
        }
        if selector.require.is_some_and(|level| info.level < level) {
            return Err(too_low());
        }
        Ok(info)
    }

    fn resolve_latest(&self, names: &[SnapshotName], selector: &Selector) -> Result<SnapshotInfo> {
        let nothing = || {
            Error::not_found("there is no snapshot: nothing to restore")
                .with_remedy(Remedy::ListSnapshots)
        };
        let Some(newest) = names.last() else {
            return Err(match &selector.node {
                Some(node) if !self.node_names()?.contains(node) => self.no_such_node(node),
                _ => nothing(),
            });
        };
        if names.first().is_some_and(|first| first.node != newest.node) {
            let mut nodes: Vec<NodeName> = names.iter().map(|name| name.node.clone()).collect();
            nodes.dedup();
            return Err(several(&nodes));
        }
        self.refuse_lost(newest, names)?;
        for name in names.iter().rev() {
            let others = |error| with_others(error, name, names);
            let mut info = self.snapshot_info(name).map_err(others)?;
            let fits = selector.before.is_none_or(|before| info.manifest.time <= before)
                && info.level >= selector.require.unwrap_or(Level::Sealed);
            if fits {
                self.fill_in(&mut info.manifest).map_err(others)?;
                return Ok(info);
            }
        }
        if selector.require.is_some() {
            return Err(too_low());
        }
        let oldest = names.first().map(|name| self.snapshot_info(name)).transpose()?;
        Err(oldest.map_or_else(nothing, |oldest| {
            let Manifest { snapshot, time, .. } = oldest.manifest;
            Error::not_found(format!("no snapshot is so old: the oldest, {snapshot}, is of {time}"))
                .with_entry(snapshot.to_string())
                .with_remedy(Remedy::ListSnapshots)
        }))
    }

    /// That a snapshot is not there because it was forgotten, if that is so.
    fn forgotten(&self, selector: &Selector) -> Result<Option<Error>> {
        let standing = self.standing_names(selector.node.as_ref())?;
        let Ok(name) = by_prefix(&standing, &selector.snapshot) else { return Ok(None) };
        let trash = self.trash()?;
        let Some(since) = trash.forgotten(name.snapshot) else { return Ok(None) };
        let id = name.snapshot;
        let error = Error::not_found(format!("snapshot {id} was forgotten at {since}"));
        Ok(Some(error.with_entry(id.to_string()).with_remedy(if trash.claimed(id) {
            Remedy::from("restore another one: a prune has begun to delete it")
        } else {
            Remedy::Undelete(id.to_string(), Some(after(since, GRACE).to_string()))
        })))
    }

    /// The snapshot that the node's record knows as the newest, where its manifest is gone.
    pub(crate) fn lost_newest(&self, node: &NodeName) -> Result<Option<SnapshotId>> {
        loop {
            let Some(record) = self.node_record(node)? else { return Ok(None) };
            let lost = self.lost_newest_of(&record)?;
            // Beside a prune, the manifest goes once a new record says so.
            let same = |now: NodeRecord| now.number == record.number;
            if lost.is_none() || self.node_record(node)?.is_none_or(same) {
                return Ok(lost);
            }
        }
    }

    /// The same by a record that was read already. What was forgotten on purpose is not lost.
    pub(crate) fn lost_newest_of(&self, record: &NodeRecord) -> Result<Option<SnapshotId>> {
        let Some((newest, _)) = record.newest else { return Ok(None) };
        let there = record.pruned == Some(newest) || self.is_committed(&record.node, newest)?;
        Ok(if there { None } else { Some(newest) })
    }

    /// What the operator should know of a node in this vault: a record, or a newest snapshot, that is
    /// gone.
    pub fn node_warnings(&self, node: &NodeName) -> Result<Vec<String>> {
        let names = self.standing_names(Some(node))?;
        let record = self.node_record(node)?;
        if let Err(error) = self.refuse_set_back(node, &names, record.as_ref()) {
            return Ok(vec![error.message().to_owned()]);
        }
        let newest = record.and_then(|record| record.newest).map(|(newest, _)| newest);
        if names.iter().any(|name| Some(name.snapshot) == newest) {
            return Ok(Vec::new());
        }
        let lost = self.lost_newest(node)?;
        Ok(lost.map(|lost| lost_warning(node, lost)).into_iter().collect())
    }

    /// `latest` must be the latest: where the record of the node is damaged, gone or set back, or knows
    /// a newer snapshot than there is, older state would be restored without a word.
    fn refuse_lost(&self, newest: &SnapshotName, names: &[SnapshotName]) -> Result<()> {
        let by_id = |error: Error| {
            let ids: Vec<String> = named(names.iter().rev());
            error.with_remedy(format!("restore a snapshot by its id: {}", ids.join(", ")))
        };
        self.sound_record(&newest.node).map_err(by_id)?;
        let lost = self.lost_newest(&newest.node).map_err(by_id)?;
        let Some(lost) = lost else { return Ok(()) };
        let ids: Vec<String> = named(names.iter().rev());
        Err(Error::corrupt(lost_warning(&newest.node, lost))
            .with_entry(lost.to_string())
            .with_remedy(format!(
                "find the rest of the vault; or restore an older snapshot by its id: {}",
                ids.join(", ")
            )))
    }

    /// Commits a snapshot: with its manifest it becomes visible. Tells the size of the manifest. Entries that are
    /// in lists are not written once more.
    pub(crate) fn put_manifest(&self, manifest: &mut Manifest) -> Result<u64> {
        let object = SnapshotName::of(manifest).object();
        if let Some(fault) = manifest.fault() {
            return Err(Error::bug(format!("the manifest can't be read back: {fault}")));
        }
        let listed = |part: &mut PartRecord| match part.lists.is_empty() {
            true => Vec::new(),
            false => std::mem::take(&mut part.entries),
        };
        let away: Vec<Vec<EntryRecord>> = manifest.parts.iter_mut().map(listed).collect();
        let sealed = sealed::seal(self, ObjectKind::Manifest, &object, manifest);
        for (part, entries) in manifest.parts.iter_mut().zip(away) {
            if !part.lists.is_empty() {
                part.entries = entries;
            }
        }
        let bytes = sealed?;
        // A put whose answer was lost meets itself where it is made again; no two seals are alike.
        if self.store().put_new(&object, bytes.clone())? || self.store().get(&object)? == bytes {
            Ok(bytes.len() as u64)
        } else {
            Err(Error::bug("two snapshots with one random id").with_entry(object))
        }
    }

    /// Removes a manifest that its own backup must not have put.
    pub(crate) fn take_back(&self, manifest: &Manifest) -> Result<()> {
        self.store().delete(&SnapshotName::of(manifest).object())
    }

    /// A pack of the manifest that is not there in its full size, if there is one.
    pub(crate) fn missing_pack(&self, manifest: &Manifest) -> Result<Option<String>> {
        if manifest.packs.is_empty() {
            return Ok(None);
        }
        // On disk it costs less to look at those that it names; over a network, to have all of them listed.
        if !self.store().medium().is_remote() {
            for pack in &manifest.packs {
                let name = pack_name(pack.id);
                if self.store().size(&name)? != Some(pack.size) {
                    return Ok(Some(name));
                }
            }
            return Ok(None);
        }
        let listed = self.store().list(Some(Folder::Packs.name()))?;
        let there: HashSet<(&str, u64)> =
            listed.iter().map(|listed| (listed.name.as_str(), listed.size)).collect();
        let names = manifest.packs.iter().map(|pack| (pack_name(pack.id), pack.size));
        Ok(names
            .filter(|(name, size)| !there.contains(&(name.as_str(), *size)))
            .map(|(name, _)| name)
            .next())
    }

    /// Whether a manifest of the snapshot was put.
    pub(crate) fn is_committed(&self, node: &NodeName, snapshot: SnapshotId) -> Result<bool> {
        let names = self.store().names(&Folder::Snapshots.object(node))?;
        let mut names = names.iter().filter_map(|name| SnapshotName::parse(name));
        Ok(names.any(|name| name.snapshot == snapshot))
    }

    /// One of [`Vault::snapshot_names`], opened: for who looks for one among many, and needs not open all.
    ///
    /// # Errors
    /// Not found where it is gone by now; corrupt where its manifest is damaged.
    pub fn open_snapshot(&self, name: &SnapshotName) -> Result<SnapshotInfo> {
        let mut info = self.snapshot_info(name)?;
        self.fill_in(&mut info.manifest)?;
        Ok(info)
    }

    /// What is known of a snapshot, without lists of its entries.
    pub(crate) fn snapshot_info(&self, name: &SnapshotName) -> Result<SnapshotInfo> {
        self.info_by(name, self.readable_record(&name.node)?.as_ref())
    }

    /// The same of many, in their order: several manifests at once where each is waited for, and the record of a
    /// node once.
    pub(crate) fn snapshot_infos(&self, names: &[SnapshotName]) -> Vec<Result<SnapshotInfo>> {
        self.infos_by(names, &mut Records::default())
    }

    /// The same, with records of nodes that have been read already.
    fn infos_by(&self, names: &[SnapshotName], records: &mut Records) -> Vec<Result<SnapshotInfo>> {
        for name in names {
            if !records.contains_key(&name.node) {
                records.insert(name.node.clone(), self.readable_record(&name.node));
            }
        }
        let info = |name: &SnapshotName| match records.get(&name.node) {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(record)) => self.info_by(name, record.as_ref()),
            None => self.info_by(name, None),
        };
        let readers = self.store().readers(1);
        if readers == 1 {
            return names.iter().map(info).collect();
        }
        let share = names.len().div_ceil(readers).max(1);
        let read = |share: &[SnapshotName]| share.iter().map(&info).collect::<Vec<_>>();
        let read = &read;
        std::thread::scope(|scope| {
            let readers: Vec<_> = names
                .chunks(share)
                .map(|share| (share.len(), scope.spawn(move || read(share))))
                .collect();
            let joined = readers.into_iter().flat_map(|(length, reader)| {
                let panicked = || Err(Error::bug("a reader of manifests panicked"));
                reader.join().unwrap_or_else(|_| (0..length).map(|_| panicked()).collect())
            });
            joined.collect()
        })
    }

    /// What the vault says of the snapshots of a node beside their manifests.
    #[cfg(feature = "agent")]
    pub(crate) fn standing(&self, node: &NodeName) -> Result<Standing> {
        self.readable_record(node).map(Standing)
    }

    fn info_by(&self, name: &SnapshotName, record: Option<&NodeRecord>) -> Result<SnapshotInfo> {
        let bytes = self.store().get(&name.object())?;
        let (manifest, _) = self.open_outline(name, &bytes)?;
        let level = level(record, name.snapshot);
        let acknowledged = record.map(|record| record.acknowledged.clone()).unwrap_or_default();
        let shrunk = shrink::pending(&manifest.shrunk, &acknowledged);
        let acknowledged = shrink::by_whom(&manifest.shrunk, acknowledged);
        let manifest_bytes = bytes.len() as u64;
        Ok(SnapshotInfo { manifest, level, manifest_bytes, shrunk, acknowledged })
    }
}

/// Manifests for each of those who read them.
const OPENED_BY_EACH: usize = 4;

/// The record of each node, or why it can't be read.
type Records = BTreeMap<NodeName, Result<Option<NodeRecord>>>;

/// Of the manifests of a node, each snapshot in its highest generation, but for what a deposed writer has committed.
fn in_front_of_the_fence<'a>(
    names: &'a [SnapshotName],
    record: Option<&'a NodeRecord>,
) -> impl Iterator<Item = SnapshotName> {
    let generations = names.chunk_by(|one, other| one.snapshot == other.snapshot);
    let highest = generations.filter_map(|names| names.last());
    let hidden = move |name: &SnapshotName| record.is_some_and(|it| it.hides(name.epoch, name.seq));
    highest.filter(move |name| !hidden(name)).cloned()
}

/// What a record says of snapshots.
#[cfg(feature = "agent")]
pub(crate) struct Standing(Option<NodeRecord>);

#[cfg(feature = "agent")]
impl Standing {
    /// How far a snapshot is known to be good.
    pub(crate) fn level(&self, snapshot: SnapshotId) -> Level {
        level(self.0.as_ref(), snapshot)
    }

    /// What of the losses of a snapshot nobody has acknowledged.
    pub(crate) fn pending(&self, losses: &[Loss]) -> Vec<Loss> {
        let acknowledged = self.0.as_ref().map(|record| record.acknowledged.as_slice());
        shrink::pending(losses, acknowledged.unwrap_or_default())
    }
}

fn level(record: Option<&NodeRecord>, snapshot: SnapshotId) -> Level {
    match record {
        Some(record) if record.failed.contains(&snapshot) => Level::Failed,
        Some(record) if record.restored.contains(&snapshot) => Level::Restored,
        _ => Level::Sealed,
    }
}

/// The one snapshot whose id begins with `prefix`. Input where that is no beginning of an id, or of
/// more than one; not found where it is of none.
pub(crate) fn by_prefix<'a>(names: &'a [SnapshotName], prefix: &str) -> Result<&'a SnapshotName> {
    if prefix.len() < 4 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::input(format!("`{}` is no snapshot id", encode(prefix.as_bytes())))
            .with_remedy("give an id, four or more of its first digits, or `latest`"));
    }
    let prefix = prefix.to_ascii_lowercase();
    let mut fitting = names.iter().filter(|name| name.snapshot.to_string().starts_with(&prefix));
    let Some(first) = fitting.next() else {
        return Err(Error::not_found(format!("no snapshot {prefix} in the vault"))
            .with_entry(prefix)
            .with_remedy(Remedy::ListSnapshots));
    };
    match fitting.next() {
        None => Ok(first),
        Some(_) => Err(Error::input(format!("more than one snapshot begins with {prefix}"))
            .with_remedy("give more digits")),
    }
}

/// A damaged manifest hides its own snapshot alone: the hint names others to restore.
pub(crate) fn with_others(error: Error, damaged: &SnapshotName, names: &[SnapshotName]) -> Error {
    if error.kind() != Kind::Corrupt {
        return error;
    }
    let others = named(
        names
            .iter()
            .rev()
            .filter(|name| name.node == damaged.node && name.snapshot != damaged.snapshot),
    );
    if others.is_empty() {
        return error
            .with_remedy("no other snapshot of this node is in the vault: try another vault");
    }
    error
        .with_remedy(format!("other snapshots can be restored by their ids: {}", others.join(", ")))
}

/// The ids of the first few.
fn named<'a>(names: impl Iterator<Item = &'a SnapshotName>) -> Vec<String> {
    names.take(OTHERS_NAMED).map(|name| name.snapshot.to_string()).collect()
}

fn lost_warning(node: &NodeName, lost: SnapshotId) -> String {
    format!("the newest snapshot of {node}, {lost}, is missing from the vault")
}

/// That one of several nodes has to be named, and which there are.
fn several(nodes: &[NodeName]) -> Error {
    Error::input(format!("the vault holds several nodes{}", these(nodes)))
        .with_remedy(Remedy::NameNode(None))
}

/// So many nodes are named where one is missing.
const NAMED_MAX: usize = 20;

fn these(nodes: &[NodeName]) -> String {
    let named: Vec<&str> = nodes.iter().take(NAMED_MAX).map(NodeName::as_str).collect();
    match nodes.len().checked_sub(NAMED_MAX) {
        _ if nodes.is_empty() => String::new(),
        None | Some(0) => format!(": {}", named.join(", ")),
        Some(more) => format!(": {} and {more} more", named.join(", ")),
    }
}

fn too_low() -> Error {
    Error::not_found("no snapshot that fits has passed a restore test")
        .with_remedy(Remedy::RestoreTest)
}
