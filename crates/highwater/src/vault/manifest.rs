//! What a snapshot is: the domain form of a manifest.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::{
    Epoch, GuardKind, NodeName, NodeUid, PackId, RelPath, RestoreId, Seq, SnapshotId, Time,
};
use crate::records::{
    Barrier, Consistency, EngineKind, EntryType, Identity, Metadata, ReplicaPoint, Units,
};

use super::loss::Loss;
use super::runs::LEAF_BYTES;

/// The version of a manifest whose entries are in lists.
pub(crate) const VERSION_OF_LISTS: u32 = 2;

/// Pages are of a power of two within these bounds, so that a leaf holds a whole number of them.
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 4096..=65536;

/// A snapshot's sealed description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this document: 2 where a part has lists, else 1.
    pub version: u32,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Rises when prune rewrites the packs of a snapshot; 0 at first.
    pub generation: u32,
    /// The node's name in this vault.
    pub node: NodeName,
    /// The node itself.
    pub uid: NodeUid,
    /// Its place among the snapshots of the node.
    pub seq: Seq,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The snapshot that its unchanged units come from.
    pub parent: Option<SnapshotId>,
    /// When the barrier was, by the node's clock.
    pub time: Time,
    /// What kind of instant the databases share.
    pub barrier: Barrier,
    /// A restore without proof that it is current withholds the databases' entry points.
    pub guarded: bool,
    /// How a restored node is held back, where its backups ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardKind>,
    /// The version of Highwater that wrote it.
    pub program: String,
    /// Which restore had made the node directory, where one had.
    pub restore: Option<RestoreId>,
    /// The node's own schema version, where it told one.
    pub schema: Option<u64>,
    /// The kinds of the node, where they were known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Names of parts that can't be restored apart from each other, set by set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together: Vec<Vec<String>>,
    /// The node's marks at the barrier.
    pub marks: BTreeMap<String, Mark>,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
    /// The packs that the units are in; files name them by their place in this list.
    pub packs: Vec<PackRef>,
    /// The node directory's own metadata.
    pub root: Metadata,
    /// Where the node directory stood, percent-encoded, where links in it name that place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The parts, databases first.
    pub parts: Vec<PartRecord>,
    /// Bytes that were read from the node for this snapshot.
    pub bytes_read: u64,
    /// Bytes that were stored for this snapshot, manifest excepted.
    pub bytes_stored: u64,
    /// What it lacks that an earlier snapshot of the node has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shrunk: Vec<Loss>,
}

/// A named counter at the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Its value.
    pub value: u64,
    /// Told on the command line, not captured at the barrier.
    pub claimed: bool,
}

/// A pack that a snapshot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackRef {
    /// Its id.
    pub id: PackId,
    /// The object's size in bytes.
    pub size: u64,
}

/// The packs of a manifest in the making, each numbered when it is first named.
#[derive(Default)]
pub(crate) struct PackTable {
    numbers: HashMap<PackId, u32>,
    pub(crate) packs: Vec<PackRef>,
}

impl PackTable {
    /// Goes on from these.
    pub(crate) fn of(packs: Vec<PackRef>) -> PackTable {
        let numbers = packs.iter().zip(0..).map(|(pack, number)| (pack.id, number)).collect();
        PackTable { numbers, packs }
    }

    /// The place of a pack; `size_of` is asked where it is new.
    pub(crate) fn number(
        &mut self,
        id: PackId,
        size_of: impl Fn(PackId) -> Result<u64>,
    ) -> Result<u32> {
        if let Some(&number) = self.numbers.get(&id) {
            return Ok(number);
        }
        self.packs.push(PackRef { id, size: size_of(id)? });
        let number = self.packs.len() as u32 - 1;
        self.numbers.insert(id, number);
        Ok(number)
    }
}

/// What a part of a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartSummary {
    /// Its name: the path of its database inside the node directory, or `files`.
    pub name: String,
    /// What keeps its data.
    pub engine: EngineKind,
    /// How many files it has.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl PartSummary {
    /// Of this part.
    pub fn of(part: &PartRecord) -> PartSummary {
        PartSummary {
            name: part.name.clone(),
            engine: part.engine,
            files: part.files(),
            bytes: part.bytes(),
        }
    }
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// The path inside the node directory, percent-encoded; `files` for the plain files.
    pub name: String,
    /// What keeps its data.
    pub engine: EngineKind,
    /// The database's directory or main file; the root for plain files.
    pub root: RelPath,
    /// The engine's version, where it could be told.
    pub engine_version: Option<String>,
    /// How it was made consistent.
    pub consistency: Consistency,
    /// Where the replicated store in it stood at the barrier, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaPoint>,
    /// The files without which nobody opens its database, where its engine is not built in: those of one
    /// that is are known by its name. Of plain files those without which a node of a known kind can't act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entry_points: Vec<RelPath>,
    /// Its entries, sorted by path. In the document it is empty where `lists` is not.
    pub entries: Vec<EntryRecord>,
    /// Where the entries are, in their order, where there are many of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<ListRef>,
}

/// A list of some of a part's entries, in a pack: a unit of its own, which the next snapshot names again where
/// nothing in it has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRef {
    /// What the unit is known by; hex.
    pub content: String,
    /// How many entries it has.
    pub entries: u32,
    /// How many of them are regular files.
    pub files: u32,
    /// Bytes of these files.
    pub bytes: u64,
    /// The pack, as a place in [`Manifest::packs`].
    pub pack: u32,
    /// The unit in that pack.
    pub unit: u32,
}

impl PartRecord {
    /// Whether its entries are here, and not only where lists of them are.
    pub fn is_loaded(&self) -> bool {
        self.lists.is_empty() || !self.entries.is_empty()
    }

    /// Regular files.
    pub fn files(&self) -> u64 {
        if !self.is_loaded() {
            return self.lists.iter().map(|list| u64::from(list.files)).sum();
        }
        self.entries.iter().filter(|entry| entry.kind == EntryType::File).count() as u64
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        if !self.is_loaded() {
            return self.lists.iter().fold(0, |bytes, list| bytes.saturating_add(list.bytes));
        }
        self.entries.iter().fold(0, |bytes, entry| bytes.saturating_add(entry.size))
    }

    /// An entry point that is named, and that is no file of the part.
    fn lost_entry_point(&self) -> Option<&RelPath> {
        let is_file = |point: &RelPath| {
            let entry = self.entries.binary_search_by(|entry| entry.path.cmp(point)).ok();
            entry.is_some_and(|entry| self.entries[entry].kind == EntryType::File)
        };
        self.entry_points.iter().find(|point| !is_file(point))
    }

    /// What is wrong with a further name of a file that the part does not have.
    fn lost_name(&self, entry: &EntryRecord) -> Option<&'static str> {
        let EntryType::Hardlink { to } = &entry.kind else { return None };
        let first = self.entries.binary_search_by(|other| other.path.cmp(to)).ok();
        let file = first.is_some_and(|first| self.entries[first].kind == EntryType::File);
        (!file).then_some("it is a further name of a file that is not there")
    }
}

/// An entry of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRecord {
    /// Where it stands in the node directory.
    pub path: RelPath,
    /// Its type.
    pub kind: EntryType,
    /// What the file system says of it.
    pub meta: Metadata,
    /// Bytes of content.
    pub size: u64,
    /// Holes: offset and length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(u64, u64)>,
    /// How its content is cut.
    pub units: Units,
    /// By what it is known to be unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Where its content is; empty where it has none. A leaf for each GiB of content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<Leaf>,
}

/// Where one GiB of a file's content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// BLAKE3 over the ids of its units, in order.
    pub content: ContentHash,
    /// The packs that its runs name, as places in [`Manifest::packs`].
    pub packs: Vec<u32>,
    /// Its runs.
    pub runs: Runs,
}

/// By what the content of a leaf is known; hex where it is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(#[serde(with = "hex::serde")] [u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> ContentHash {
        ContentHash(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The runs of a leaf: here, or in a pack where they are long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Runs {
    /// The encoded runs, base64.
    Inline(String),
    /// A unit of its own: place in the leaf's pack list, and unit.
    Stored {
        /// The place in [`Leaf::packs`].
        pack: u32,
        /// The unit in that pack.
        unit: u32,
    },
}

/// Before the name of a channel's mark.
const CHANNEL: &str = "channel.";

/// The name of a mark that belongs to one channel, or to one key of a signer: `what` has no dot.
pub fn channel_mark(channel: &str, what: &str) -> String {
    format!("{CHANNEL}{channel}.{what}")
}

/// The channel, or the key, and its counter that a mark of this name is of; `None` of one of the whole node.
pub fn channel_of(mark: &str) -> Option<(&str, &str)> {
    mark.strip_prefix(CHANNEL)?.rsplit_once('.')
}

/// The marks of each channel, or of each key, by their counters.
pub fn channels(marks: &BTreeMap<String, Mark>) -> BTreeMap<&str, BTreeMap<&str, u64>> {
    let mut channels: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (name, mark) in marks {
        if let Some((channel, what)) = channel_of(name) {
            channels.entry(channel).or_default().insert(what, mark.value);
        }
    }
    channels
}

/// The marks of the whole node, and over all channels the sum of each counter: to be shown, not to be compared,
/// since it falls when a channel is gone.
pub fn totals(marks: &BTreeMap<String, Mark>) -> BTreeMap<&str, u64> {
    let whole = marks.iter().filter(|(name, _)| channel_of(name).is_none());
    let mut totals: BTreeMap<&str, u64> =
        whole.map(|(name, mark)| (name.as_str(), mark.value)).collect();
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, value) in channels(marks).into_values().flatten() {
        let sum = sums.entry(what).or_default();
        *sum = sum.saturating_add(value);
    }
    for (what, sum) in sums {
        totals.entry(what).or_insert(sum);
    }
    totals
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes_total(&self) -> u64 {
        self.parts.iter().fold(0, |bytes, part| bytes.saturating_add(part.bytes()))
    }

    /// How a node is held back that is restored from this snapshot, where its backups ask for it.
    pub fn guard_kind(&self) -> Option<GuardKind> {
        self.guard.or(self.guarded.then_some(GuardKind::Databases))
    }

    /// Every entry, part by part.
    pub fn entries(&self) -> impl Iterator<Item = &EntryRecord> {
        self.parts.iter().flat_map(|part| &part.entries)
    }

    /// What keeps this manifest from being restored as it is, in plain words; of entries that are only in lists
    /// nothing is known.
    pub(crate) fn fault(&self) -> Option<String> {
        let own = |entry: &EntryRecord| entry.fault();
        if let Some(fault) = self.fault_of_lists() {
            return Some(fault);
        }
        self.parts.iter().filter(|part| part.is_loaded()).find_map(|part| {
            if let Some(point) = part.lost_entry_point() {
                return Some(format!("{}: its entry point {point} is no file of it", part.name));
            }
            let fault = |entry: &EntryRecord| own(entry).or_else(|| part.lost_name(entry));
            part.entries
                .iter()
                .find_map(|entry| fault(entry).map(|what| format!("{}: {what}", entry.path)))
        })
    }
}

impl Manifest {
    /// The version that the document has, by what is in it.
    pub(crate) fn version_needed(&self) -> u32 {
        if self.parts.iter().any(|part| !part.lists.is_empty()) { VERSION_OF_LISTS } else { 1 }
    }

    fn fault_of_lists(&self) -> Option<String> {
        if self.version != self.version_needed() {
            return Some("its version is not that of what is in it".to_owned());
        }
        let wrong = |part: &&PartRecord| {
            let told = part.lists.iter().map(|list| u64::from(list.entries)).sum::<u64>();
            !part.lists.is_empty() && part.is_loaded() && told != part.entries.len() as u64
        };
        let part = self.parts.iter().find(wrong)?;
        Some(format!("{}: its lists have another number of entries", part.name))
    }
}

impl EntryRecord {
    /// Whether another record is of the same type and content, by the ids of its units: nothing is read. How it is
    /// stored does not count, nor what the file system says of it.
    pub fn same_content(&self, other: &EntryRecord) -> bool {
        let same = |(one, other): (&Leaf, &Leaf)| one.content == other.content;
        self.kind == other.kind
            && self.size == other.size
            && self.holes == other.holes
            && self.leaves.len() == other.leaves.len()
            && self.leaves.iter().zip(&other.leaves).all(same)
    }

    fn fault(&self) -> Option<&'static str> {
        if let Units::Pages { bytes } = self.units
            && !(PAGE_BYTES.contains(&bytes) && bytes.is_power_of_two())
        {
            return Some("its pages have an impossible size");
        }
        let stored = if self.kind == EntryType::File { self.size } else { 0 };
        if self.leaves.len() as u64 != stored.div_ceil(LEAF_BYTES) {
            return Some("its maps don't cover its size");
        }
        None
    }
}
