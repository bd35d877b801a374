//! Snapshots that shrank: what one lacks that an earlier one has, and who has acknowledged it.
//!
//! A disk that is not mounted, a database that was deleted: a backup captures what is there, and the
//! result is whole as far as anybody can tell by looking at it alone. So each snapshot is compared with
//! the one before, and its manifest names what it lacks. The next one takes over what it still lacks,
//! so that the last snapshot before the loss stays known, until all is there again or an operator has
//! acknowledged the loss in the record of the node.

use serde::Serialize;

use crate::error::{Error, Remedy, Result};
use crate::ids::{NodeName, RelPath, SnapshotId};
use crate::records::{EngineKind, EntryType, Units};

pub use super::loss::{Acknowledged, Loss, Shrunk};
use super::manifest::{Manifest, PartRecord};
use super::nodes::NodeRecord;
use super::{Actor, Selector, SnapshotInfo, Vault};

/// So many acknowledgements of a node are remembered.
const ACKNOWLEDGED_MAX: usize = 64;
/// What a sentence about a loss says that nobody has acknowledged.
pub const UNACKNOWLEDGED: &str = "until it is acknowledged that this is right";
/// A sentence names so many losses; documents name all.
const NAMED_MAX: usize = 12;
/// The part of the plain files; no database is called that.
const PLAIN_FILES: &str = "files";
/// What has this share of its bytes, or less, has shrunk.
const SHARE: u64 = 2;

/// What [`Vault::acknowledge`] did.
#[derive(Clone, Debug, Serialize)]
pub struct Acknowledgement {
    /// The node.
    pub node: NodeName,
    /// What is recorded now.
    #[serde(flatten)]
    pub acknowledged: Acknowledged,
    /// It was recorded already, by this or an earlier call, and nothing was written.
    pub already: bool,
}

/// What the next snapshot of a node is compared with.
pub(crate) struct Earlier {
    snapshot: SnapshotId,
    bytes: u64,
    parts: Vec<EarlierPart>,
    /// What it lacks itself, and nobody has acknowledged.
    pending: Vec<Loss>,
}

struct EarlierPart {
    name: String,
    bytes: u64,
    /// It has nothing that could be lost but its name.
    empty: bool,
}

impl Earlier {
    pub(crate) fn of(manifest: &Manifest, record: &NodeRecord) -> Earlier {
        let part = |part: &PartRecord| EarlierPart {
            name: part.name.clone(),
            bytes: part.bytes(),
            empty: part.is_hollow(),
        };
        Earlier {
            snapshot: manifest.snapshot,
            bytes: manifest.bytes_total(),
            parts: manifest.parts.iter().map(part).collect(),
            pending: pending(&manifest.shrunk, &record.acknowledged),
        }
    }

    /// What a newer snapshot lacks. `excluded` tells of a lost part whether the caller has left it out
    /// on purpose.
    pub(crate) fn losses(&self, newer: &Manifest, excluded: impl Fn(&str) -> bool) -> Vec<Loss> {
        let still = |old: &Loss| match &old.part {
            Some(name) => part_loss(name, old.bytes_before, false, old.before, newer),
            None => whole_loss(old.bytes_before, old.before, newer),
        };
        let mut losses: Vec<Loss> = self.pending.iter().filter_map(still).collect();
        let parts = self
            .parts
            .iter()
            .filter_map(|part| part_loss(&part.name, part.bytes, part.empty, self.snapshot, newer));
        for loss in parts.chain(whole_loss(self.bytes, self.snapshot, newer)) {
            // What was lost before is measured by the last snapshot that had all of it.
            if !losses.iter().any(|known| known.part == loss.part) {
                losses.push(loss);
            }
        }
        for loss in &mut losses {
            let name = loss.part.as_deref().filter(|_| loss.how == Shrunk::Missing);
            loss.excluded = name.is_some_and(&excluded);
        }
        losses
    }
}

impl PartRecord {
    /// The files without one of which nobody can open the part's database; of plain files those without which
    /// a node of a known kind can't act.
    pub(crate) fn entry_points(&self) -> Vec<RelPath> {
        let entries = self.entries.iter().map(|entry| &entry.path);
        let known = self.engine.opens().map(|opens| opens.entry_points(&self.root, entries));
        known.into_iter().flatten().chain(self.entry_points.iter().cloned()).collect()
    }

    fn entry_point(&self) -> Option<RelPath> {
        let plain = self.engine == EngineKind::FILES;
        self.entry_points().into_iter().next().filter(|_| !plain)
    }

    /// A database whose entry point has no bytes, or plain files of which there are none.
    fn is_hollow(&self) -> bool {
        let Some(point) = self.entry_point() else { return self.files() == 0 };
        self.entries.iter().any(|entry| entry.path == point && entry.size == 0)
    }

    /// A database in one file that keeps its size, or grows. The files of the others come and go: a log
    /// that was written into tables is no loss.
    fn is_page_file(&self) -> bool {
        let Some(point) = self.entry_point() else { return false };
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.path == point && matches!(entry.units, Units::Pages { .. }))
    }
}

fn part_loss(
    name: &str,
    bytes_before: u64,
    was_hollow: bool,
    before: SnapshotId,
    newer: &Manifest,
) -> Option<Loss> {
    let loss = |how, bytes| {
        let part = Some(name.to_owned());
        Some(Loss { part, how, bytes_before, bytes, before, excluded: false })
    };
    let Some(part) = newer.parts.iter().find(|part| part.name == name) else {
        let emptied = newer.entries().any(|entry| {
            entry.kind == EntryType::File && entry.size == 0 && entry.path.to_string() == name
        });
        return loss(if emptied { Shrunk::Empty } else { Shrunk::Missing }, 0);
    };
    let bytes = part.bytes();
    match part.engine {
        _ if part.is_hollow() && was_hollow => None,
        EngineKind::FILES if part.is_hollow() => loss(Shrunk::Missing, bytes),
        _ if part.is_hollow() => loss(Shrunk::Empty, bytes),
        _ if part.is_page_file() && is_less(bytes, bytes_before) => loss(Shrunk::Smaller, bytes),
        _ => None,
    }
}

fn whole_loss(bytes_before: u64, before: SnapshotId, newer: &Manifest) -> Option<Loss> {
    let (bytes, how) = (newer.bytes_total(), Shrunk::Smaller);
    is_less(bytes, bytes_before).then_some(Loss {
        part: None,
        how,
        bytes_before,
        bytes,
        before,
        excluded: false,
    })
}

fn is_less(bytes: u64, before: u64) -> bool {
    before > 0 && bytes <= before / SHARE
}

/// What of the losses of a snapshot nobody has acknowledged.
pub(super) fn pending(losses: &[Loss], acknowledged: &[Acknowledged]) -> Vec<Loss> {
    let known = || acknowledged.iter().flat_map(|one| &one.losses);
    losses.iter().filter(|loss| !known().any(|known| covers(known, loss))).cloned().collect()
}

/// Whether who has acknowledged the one loss has the other one acknowledged as well: the same, and not
/// by far the greater one.
fn covers(known: &Loss, loss: &Loss) -> bool {
    known.part == loss.part && known.before == loss.before && !is_less(loss.bytes, known.bytes)
}

/// The newest acknowledgement of any of the losses.
pub(super) fn by_whom(losses: &[Loss], acknowledged: Vec<Acknowledged>) -> Option<Acknowledged> {
    acknowledged
        .into_iter()
        .rev()
        .find(|one| losses.iter().any(|loss| one.losses.iter().any(|known| covers(known, loss))))
}

impl Loss {
    fn text(&self) -> String {
        let Loss { bytes_before, bytes, .. } = self;
        let purpose = if self.excluded { ", left out by a glob" } else { "" };
        match (&self.part, self.how) {
            (None, _) => format!("all in all {bytes} bytes are left of {bytes_before}"),
            (Some(part), Shrunk::Missing) if part == PLAIN_FILES => {
                format!("all plain files are missing ({bytes_before} bytes before)")
            }
            (Some(part), Shrunk::Missing) => {
                format!("`{part}` is missing ({bytes_before} bytes before{purpose})")
            }
            (Some(part), Shrunk::Empty) => {
                format!("`{part}` is empty ({bytes_before} bytes before)")
            }
            (Some(part), Shrunk::Smaller) => {
                format!("`{part}` has {bytes} bytes of {bytes_before}")
            }
        }
    }
}

/// What a snapshot lacks, as one sentence; `None` where it lacks nothing.
pub fn sentence(node: &NodeName, snapshot: SnapshotId, losses: &[Loss]) -> Option<String> {
    let last = losses.last()?;
    let mut before: Vec<String> = Vec::new();
    for id in losses.iter().map(|loss| loss.before.to_string()) {
        if !before.contains(&id) {
            before.push(id);
        }
    }
    let before = before.join(", ");
    let mut texts: Vec<String> = losses.iter().map(Loss::text).collect();
    if let Some(more) = texts.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        texts.truncate(NAMED_MAX - 1);
        texts.push(format!("{more} more"));
        // What is left of the whole says most.
        texts.extend(last.part.is_none().then(|| last.text()));
    }
    Some(format!(
        "snapshot {snapshot} of {node} lacks what {before} has: {}; {UNACKNOWLEDGED}, no policy \
         forgets {before}",
        texts.join(", ")
    ))
}

impl SnapshotInfo {
    /// What it lacks that an earlier one has, and nobody has acknowledged, as one sentence.
    pub fn shrunk_warning(&self) -> Option<String> {
        sentence(&self.manifest.node, self.manifest.snapshot, &self.shrunk)
    }

    /// Whether another one is the last snapshot before what it lacks.
    pub(super) fn lacks_what(&self, other: SnapshotId) -> bool {
        self.shrunk.iter().any(|loss| loss.before == other)
    }
}

impl Vault {
    /// Records that what a snapshot lacks is missing on purpose: nobody warns of it any more, and no
    /// policy keeps the snapshot before for its sake.
    ///
    /// # Errors
    /// Not found where there is no such snapshot; input where it lacks nothing, or no reason is given.
    pub fn acknowledge(
        &self,
        selector: &Selector,
        reason: &str,
        actor: &Actor,
    ) -> Result<Acknowledgement> {
        let reason = reason.trim();
        if reason.is_empty() {
            return Err(Error::input("no reason was given")
                .with_remedy("say why what the snapshot lacks may be missing"));
        }
        self.refuse_read_only()?;
        let SnapshotInfo { manifest, shrunk, acknowledged, .. } = self.resolve(selector)?;
        let Manifest { node, snapshot, shrunk: losses, .. } = manifest;
        if losses.is_empty() {
            return Err(Error::input("that snapshot lacks nothing that the one before it has")
                .with_entry(snapshot.to_string())
                .with_remedy("name the snapshot that a warning names")
                .with_remedy(Remedy::ListSnapshots));
        }
        if let (true, Some(acknowledged)) = (shrunk.is_empty(), acknowledged) {
            return Ok(Acknowledgement { node, acknowledged, already: true });
        }
        let (reason, by, time) = (reason.to_owned(), actor.name.clone(), self.env().now());
        let acknowledged = Acknowledged { snapshot, reason, by, time, losses };
        self.update_node(&node, |record| {
            record.acknowledged.push(acknowledged.clone());
            let surplus = record.acknowledged.len().saturating_sub(ACKNOWLEDGED_MAX);
            record.acknowledged.drain(..surplus);
            Ok(())
        })?;
        Ok(Acknowledgement { node, acknowledged, already: false })
    }
}

#[cfg(test)]
mod tests;
