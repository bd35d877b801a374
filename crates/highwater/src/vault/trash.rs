//! Trash: which snapshots were forgotten, and which of them a prune is deleting.
//!
//! A tombstone hides a snapshot and can be taken back; a claim says that a prune has begun to
//! delete, and can't. Both are sealed, so that nobody without the key hides a snapshot. Ages are
//! those of the objects, by the store's clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{NodeName, PackId, SnapshotId, Time, TrashId};

use super::seal::ObjectKind;
use super::sealed;
use super::{Folder, Vault};

/// For so long a forgotten snapshot can be brought back, and a restore that had begun goes on.
pub const GRACE: Duration = Duration::from_secs(48 * 60 * 60);
/// The folder is listed again so often where records vanish while they are read.
const LISTINGS_MAX: usize = 8;

/// What a record in the trash is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    /// A tombstone: its snapshots are hidden.
    Forget,
    /// A claim: a prune deletes its snapshots and packs.
    Delete,
    /// Only tells what time it is by the store's clock.
    Clock,
}

/// A record in the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrashDoc {
    pub(crate) version: u32,
    pub(crate) id: TrashId,
    pub(crate) purpose: Purpose,
    /// Who put it, as it named itself.
    pub(crate) by: String,
    pub(crate) snapshots: Vec<Forgotten>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) packs: Vec<PackId>,
}

/// A snapshot that was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forgotten {
    pub(crate) node: NodeName,
    pub(crate) snapshot: SnapshotId,
}

/// A record as it stands in the vault.
#[derive(Clone, Debug)]
pub(crate) struct TrashRecord {
    pub(crate) name: String,
    /// When it was put, by the store's clock.
    pub(crate) modified: Time,
    pub(crate) doc: Arc<TrashDoc>,
}

/// All records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trash {
    pub(crate) records: Vec<TrashRecord>,
    /// Records that can't be opened. They hide nothing: what they have forgotten is back, which is
    /// the safe side.
    pub(crate) damaged: Vec<String>,
    /// Records of a newer program, or with a flipped version. Who only reads goes on without them;
    /// who writes must not.
    pub(crate) unknown: Vec<String>,
}

/// Records that were opened lately; they never change under their name.
#[derive(Default)]
pub(crate) struct TrashCache(Mutex<HashMap<String, Arc<TrashDoc>>>);

impl Trash {
    fn of(&self, purpose: Purpose, snapshot: SnapshotId) -> impl Iterator<Item = &TrashRecord> {
        self.records
            .iter()
            .filter(move |record| record.doc.purpose == purpose && record.doc.names(snapshot))
    }

    /// Whether a snapshot is not to be seen.
    pub(crate) fn hides(&self, snapshot: SnapshotId) -> bool {
        self.records.iter().any(|record| record.doc.names(snapshot))
    }

    /// Input where a newer program wrote a record: what it hides, or deletes, is not known.
    pub(crate) fn refuse_unknown(&self) -> Result<()> {
        let Some(name) = self.unknown.first() else { return Ok(()) };
        Err(Error::input("a record in the trash was made by a newer highwater")
            .with_entry(name)
            .with_remedy("use the version of highwater that wrote it, or a newer one"))
    }

    /// Corrupt where a record can't be opened: it may be the claim of a prune that is at work.
    pub(crate) fn refuse_damaged(&self) -> Result<()> {
        let Some(name) = self.damaged.first() else { return Ok(()) };
        Err(Error::corrupt("a record in the trash is damaged: a prune may be deleting by it")
            .with_entry(name)
            .with_remedy(Remedy::Prune)
            .with_remedy("try again then"))
    }

    /// When a snapshot was forgotten, by the store's clock.
    pub(crate) fn forgotten(&self, snapshot: SnapshotId) -> Option<Time> {
        self.of(Purpose::Forget, snapshot).map(|record| record.modified).min()
    }

    /// The tombstones of a snapshot.
    pub(crate) fn tombstones(&self, snapshot: SnapshotId) -> Vec<TrashRecord> {
        self.of(Purpose::Forget, snapshot).cloned().collect()
    }

    /// Whether somebody is deleting a pack.
    pub(crate) fn claims(&self, pack: PackId) -> bool {
        self.records
            .iter()
            .any(|record| record.doc.purpose == Purpose::Delete && record.doc.packs.contains(&pack))
    }

    /// Whether a prune has begun to delete a snapshot.
    pub(crate) fn claimed(&self, snapshot: SnapshotId) -> bool {
        self.of(Purpose::Delete, snapshot).next().is_some()
    }
}

impl TrashDoc {
    pub(crate) fn names(&self, snapshot: SnapshotId) -> bool {
        self.snapshots.iter().any(|gone| gone.snapshot == snapshot)
    }

    pub(crate) fn new(
        vault: &Vault,
        purpose: Purpose,
        by: &str,
        snapshots: Vec<Forgotten>,
        packs: Vec<PackId>,
    ) -> Result<TrashDoc> {
        let id = TrashId::random(vault.env())?;
        Ok(TrashDoc { version: 1, id, purpose, by: by.to_owned(), snapshots, packs })
    }
}

fn trash_name(id: TrashId) -> String {
    Folder::Trash.object(id)
}

impl Vault {
    /// What is in the trash.
    pub(crate) fn trash(&self) -> Result<Trash> {
        for _ in 0..LISTINGS_MAX {
            if let Some(trash) = self.trash_listed()? {
                return Ok(trash);
            }
        }
        Err(Error::conflict("the trash of the vault keeps changing").with_remedy("try again"))
    }

    /// The trash as one listing shows it; `None` where a record was gone before it was read: what
    /// took its place may be missing from that listing.
    fn trash_listed(&self) -> Result<Option<Trash>> {
        let mut trash = Trash::default();
        let listed = self.store().list(Some(Folder::Trash.name()))?;
        for listed in &listed {
            match self.open_trash(&listed.name) {
                Ok(doc) => trash.records.push(TrashRecord {
                    name: listed.name.clone(),
                    modified: listed.modified,
                    doc,
                }),
                Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                Err(error) if error.kind() == Kind::Corrupt => {
                    trash.damaged.push(listed.name.clone());
                }
                Err(error) if error.kind() == Kind::Input => {
                    trash.unknown.push(listed.name.clone())
                }
                Err(error) => return Err(error),
            }
        }
        let mut cached = self.trash_cache().0.lock();
        cached.retain(|name, _| listed.iter().any(|listed| listed.name == *name));
        Ok(Some(trash))
    }

    pub(crate) fn open_trash(&self, name: &str) -> Result<Arc<TrashDoc>> {
        let cache = &self.trash_cache().0;
        if let Some(doc) = cache.lock().get(name) {
            return Ok(Arc::clone(doc));
        }
        let doc: TrashDoc = sealed::open(self, ObjectKind::Trash, name, &self.store().get(name)?)?;
        if doc.version != 1 || trash_name(doc.id) != name {
            return Err(sealed::foreign(name));
        }
        let doc = Arc::new(doc);
        cache.lock().insert(name.to_owned(), Arc::clone(&doc));
        Ok(doc)
    }

    /// Puts a record, and reads when the store says that it was.
    pub(crate) fn put_trash(&self, doc: &TrashDoc) -> Result<TrashRecord> {
        let name = self.put_trash_unseen(doc)?;
        let modified = self.trash_put_at(&name)?;
        Ok(TrashRecord { name, modified, doc: Arc::new(doc.clone()) })
    }

    /// Puts a record; tells its name.
    pub(crate) fn put_trash_unseen(&self, doc: &TrashDoc) -> Result<String> {
        let name = trash_name(doc.id);
        let object = sealed::seal(self, ObjectKind::Trash, &name, doc)?;
        if !self.store().put_new(&name, object)? {
            return Err(Error::bug("two trash records with one random id").with_entry(name));
        }
        Ok(name)
    }

    /// When a record was put that must be there, by the store's clock.
    pub(crate) fn trash_put_at(&self, name: &str) -> Result<Time> {
        let listed = self.store().list(Some(Folder::Trash.name()))?;
        match listed.into_iter().find(|listed| listed.name == name) {
            Some(found) => Ok(found.modified),
            None => Err(Error::unavailable("the store does not list what was just put")
                .with_entry(name)
                .with_remedy("a prune needs a store that lists each object once it is put")),
        }
    }

    /// What time it is by the store's clock: that of a small object, which is put and deleted.
    pub(crate) fn store_time(&self, by: &str) -> Result<Time> {
        let clock = TrashDoc::new(self, Purpose::Clock, by, Vec::new(), Vec::new())?;
        let record = self.put_trash(&clock)?;
        self.store().delete(&record.name)?;
        Ok(record.modified)
    }
}

/// A time and a duration after it.
pub(crate) fn after(time: Time, duration: Duration) -> Time {
    let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    Time::from_nanos(time.as_nanos().saturating_add(nanos))
}
