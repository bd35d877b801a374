//! The latch, `highwater-quarantine.json` in the node directory: it is there as long as anything of
//! the node is quarantined, and part of the exchange that brings the node back.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use highwater_guard::{Evidence, Ours, Release, Verdict};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Result};
use crate::ids::{GuardKind, NodeName, NodeUid, RelPath, RestoreId, SnapshotId, Time};
use crate::node::{self, OWN_DIR};
use crate::rooted::RootedPath;

/// The latch in a node directory.
pub(crate) const LATCH: &str = "highwater-quarantine.json";
/// Held while the latch is changed.
const LOCK: &str = "quarantine.lock";
/// Where withheld entry points wait, in [`OWN_DIR`].
pub(super) const WITHHELD: &str = "withheld";
/// The next latch, until it has its name.
const FRESH: &str = "quarantine.json.new";
/// The last latch that was taken away: who released what, and why.
const LAST: &str = "quarantine.last.json";
/// The version that this program writes, and the only one that it reads.
const VERSION: u32 = 1;
/// A longer one is none of ours: a channel takes some 500 bytes of it.
const BYTES_MAX: u64 = 256 << 20;
/// How long is waited for somebody who changes the latch, which takes two writes of a small file; and
/// how often is looked.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What stands in the latch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latch {
    /// The version of this document; 1.
    pub version: u32,
    /// How the node is held back.
    pub kind: GuardKind,
    /// The node's name in the vault.
    pub node: NodeName,
    /// The node; `None` where it was never backed up.
    pub uid: Option<NodeUid>,
    /// What brought the directory here.
    pub cause: Cause,
    /// The restore that did, or that was undone.
    pub restore: Option<RestoreId>,
    /// Its snapshot.
    pub snapshot: Option<SnapshotId>,
    /// When.
    pub time: Time,
    /// Why, in plain words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// That it is old, where the vault knows of a newer state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Old>,
    /// The highest marks that the vault had seen of the node.
    pub marks: BTreeMap<String, u64>,
    /// The channels, by the node's own names. Before they are listed: at most those that an earlier
    /// quarantine had condemned.
    pub channels: BTreeMap<String, Recorded>,
    /// The channels are listed: one that is not there was opened later, and is free.
    pub listed: bool,
    /// Entry points that are withheld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
    /// An operator's release of the whole node, given before its channels were listed: it counts for
    /// each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Released>,
    /// Somebody's statement that no other copy of the node runs or ever will: without a witness
    /// nothing else keeps two copies apart, and a peer's word clears none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_gone: Option<Released>,
    /// The floors that were written into the node's signers for its release, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floors: Vec<Floor>,
}

/// How many marks are named in a sentence; documents name all.
const MARKS_NAMED_MAX: usize = 8;

/// The first of many marks that lie below the highest, and how many there are besides.
pub(crate) fn few(below: &[String]) -> Vec<String> {
    let mut named: Vec<String> = below.iter().take(MARKS_NAMED_MAX).cloned().collect();
    let more = below.len() - named.len();
    if more > 0 {
        named.push(format!("{more} more marks are below the highest seen"));
    }
    named
}

/// By what a restored state is known to be old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Old {
    /// The newest snapshot of the node that the vault knows, where it is newer than the one restored.
    pub newer: Option<SnapshotId>,
    /// When the barrier of that one was, where it can still be read.
    pub newer_time: Option<Time>,
    /// When the barrier of the restored one was.
    pub time: Option<Time>,
    /// Which marks lie below the highest that the vault has seen, in plain words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks_below: Vec<String>,
}

impl Old {
    /// In plain words.
    pub fn words(&self) -> String {
        let newer = self.newer.map(|newer| {
            let age = match (self.time, self.newer_time) {
                (Some(time), Some(newer)) => {
                    format!(", {} s younger", newer.seconds_since(time))
                }
                _ => String::new(),
            };
            format!("snapshot {newer} of the same node is newer{age}")
        });
        let told: Vec<String> = newer.into_iter().chain(few(&self.marks_below)).collect();
        format!("this state is old: {}", told.join("; "))
    }
}

/// What brought a directory into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was restored from a snapshot.
    Restore,
    /// A restore was undone: it is the directory from before.
    Rollback,
    /// The witness remembers more than the directory, which another hand took back: a copied disk, a
    /// machine's snapshot, a lost write.
    Witness,
}

/// What is recorded of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// What the node remembers.
    pub ours: Option<Ours>,
    /// What others say.
    pub evidence: Option<Evidence>,
    /// The last verdict; `None` before the first.
    pub verdict: Option<Verdict>,
    /// An operator's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Released>,
    /// The release was carried out. It counts once: whatever is found later is judged anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out: bool,
    /// The node has no mark for the state that the channel is in: only the withheld database holds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmarked: bool,
    /// Releases that count no longer, for whoever asks later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Released>,
}

/// An operator's release, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// Why.
    pub reason: String,
    /// Who did it.
    pub by: String,
    /// When.
    pub time: Time,
}

/// A floor, as the latch records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// The file in which the signer keeps what it has signed, by its path in the node directory.
    pub file: RelPath,
    /// What the file said before.
    pub from: BTreeMap<String, u64>,
    /// What it says since.
    pub to: BTreeMap<String, u64>,
    /// What the numbers are.
    pub basis: Basis,
    /// Why.
    pub reason: String,
    /// Who did it.
    pub by: String,
    /// When.
    pub time: Time,
}

/// On what ground the numbers of a floor are stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// They are the chain's own, looked up once the original had stopped.
    Latest,
    /// They are what the signer has signed, on the word of who states them.
    Accepted,
    /// The chain was begun anew, and what was signed before is of another one.
    NewChain,
    /// They are the highest that backups have seen, written at the restore: a floor for the copy that waits, and none
    /// that lets it go.
    Seen,
}

/// A database's entry point in whose place a note stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// The name of its part.
    pub part: String,
    /// Where it belongs.
    pub path: RelPath,
    /// Where it waits.
    pub place: RelPath,
    /// An operator's release; the entry point is being put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Released>,
}

impl Released {
    pub(crate) fn by(release: &Release, time: Time) -> Released {
        let (reason, by) = (release.reason().to_owned(), release.by().to_owned());
        Released { reason, by, time }
    }

    /// As the guard takes it.
    pub(crate) fn as_release(&self, id: &str) -> Result<Release> {
        Release::new(self.reason.clone(), self.by.clone())
            .map_err(|error| Error::corrupt(error.to_string()).with_entry(id))
    }
}

impl Latch {
    /// Reads the latch of a node directory; `None` where nothing is quarantined.
    ///
    /// # Errors
    /// Corrupt where it can't be read, input where a newer program wrote it. Neither says that the
    /// node may start.
    pub fn read(dir: &Path) -> Result<Option<Latch>> {
        match RootedPath::open(dir) {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            dir => Latch::read_at(&dir?),
        }
    }

    /// [`Latch::read`] in a directory that is held.
    pub(crate) fn read_at(dir: &RootedPath) -> Result<Option<Latch>> {
        let bytes = match dir.join(LATCH).read(BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return Err(Error::corrupt(format!("the latch can't be read: {error}"))
                    .with_entry(LATCH)
                    .with_remedy("look who made it"));
            }
            Err(error) => return Err(Error::io("reading the latch", error).with_entry(LATCH)),
        };
        Latch::parse(&bytes).map(Some)
    }

    /// The latch that was taken away last: what was quarantined, and who released it; `None` where none
    /// was.
    ///
    /// # Errors
    /// As [`Latch::read`].
    pub fn last(dir: &Path) -> Result<Option<Latch>> {
        Latch::last_at(&RootedPath::open(dir)?)
    }

    fn last_at(dir: &RootedPath) -> Result<Option<Latch>> {
        match dir.join(OWN_DIR).join(LAST).read(BYTES_MAX) {
            Ok(bytes) => Latch::parse(&bytes).map(Some),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => {
                Err(Error::io("reading the record of a quarantine", error).with_entry(LAST))
            }
        }
    }

    /// How a node directory was held back before its latch was taken away, where one was and the
    /// record of it can be read.
    pub(crate) fn last_kind(dir: &RootedPath) -> Option<GuardKind> {
        Latch::last_at(dir).ok().flatten().map(|latch| latch.kind)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Latch> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let broken = |error: serde_json::Error| {
            Error::corrupt("the latch of a quarantined node can't be read")
                .with_entry(LATCH)
                .with_remedy(
                    "what it held back can't be told: restore the node again; remove the latch only \
                     if no other copy of the node has run since",
                )
                .with_source(error)
        };
        let head: Head = serde_json::from_slice(bytes).map_err(broken)?;
        if head.version != VERSION {
            return Err(Error::input(format!(
                "the latch has version {}, this program knows {VERSION}",
                head.version
            ))
            .with_entry(LATCH)
            .with_remedy("use the version of highwater that wrote it, or a newer one"));
        }
        let latch: Latch = serde_json::from_slice(bytes).map_err(broken)?;
        latch.withheld.iter().try_for_each(Withheld::refuse_elsewhere)?;
        Ok(latch)
    }

    /// Replaces whatever latch is there by this one, in one durable step. It belongs to the owner of the
    /// node directory, and nobody else may read it.
    pub fn write(&self, dir: &Path, env: &Env) -> Result<()> {
        self.write_at(&RootedPath::open(dir)?, env)
    }

    /// [`Latch::write`] in a directory that is held.
    pub(crate) fn write_at(&self, dir: &RootedPath, env: &Env) -> Result<()> {
        Latch::update_at(dir, env, |_| Ok(Some(self.clone()))).map(drop)
    }

    /// Takes the latch away, durable when it returns; a missing one is as good. It stays in
    /// `.highwater` as a record of who released what.
    pub fn remove(dir: &Path) -> Result<()> {
        let dir = RootedPath::open(dir)?;
        let _lock = lock(&dir, &Env::system())?;
        take_away(&dir)
    }

    /// Changes the latch: `change` gets the present one and returns the new one. A running node and a
    /// program that releases exclude each other meanwhile.
    pub fn update(
        dir: &Path,
        env: &Env,
        change: impl FnOnce(Option<Latch>) -> Result<Option<Latch>>,
    ) -> Result<Option<Latch>> {
        Latch::update_at(&RootedPath::open(dir)?, env, change)
    }

    /// [`Latch::update`] in a directory that is held.
    pub(crate) fn update_at(
        dir: &RootedPath,
        env: &Env,
        change: impl FnOnce(Option<Latch>) -> Result<Option<Latch>>,
    ) -> Result<Option<Latch>> {
        Latch::update_then(dir, env, |latch| Ok((change(latch)?, ())), |()| Ok(()))
    }

    /// [`Latch::update_at`], and what has to be done once the new latch is durable, and before anybody else
    /// may change it.
    pub(super) fn update_then<T>(
        dir: &RootedPath,
        env: &Env,
        change: impl FnOnce(Option<Latch>) -> Result<(Option<Latch>, T)>,
        then: impl FnOnce(T) -> Result<()>,
    ) -> Result<Option<Latch>> {
        let _lock = lock(dir, env)?;
        let before = Latch::read_at(dir)?;
        let (after, decided) = change(before.clone())?;
        match &after {
            Some(latch) if before.as_ref() != Some(latch) => put(latch, dir, env)?,
            Some(_) => {}
            None => take_away(dir)?,
        }
        then(decided)?;
        Ok(after)
    }

    /// A latch that holds nothing yet.
    pub(crate) fn new(kind: GuardKind, node: NodeName, cause: Cause, time: Time) -> Latch {
        Latch {
            version: VERSION,
            kind,
            node,
            uid: None,
            cause,
            restore: None,
            snapshot: None,
            time,
            reasons: Vec::new(),
            old: None,
            marks: BTreeMap::new(),
            channels: BTreeMap::new(),
            listed: false,
            withheld: Vec::new(),
            release: None,
            original_gone: None,
            floors: Vec::new(),
        }
    }

    /// Whether anything is held any more.
    pub(crate) fn holds(&self) -> bool {
        let listed = self.listed || self.kind == GuardKind::Databases;
        !listed || !self.withheld.is_empty() || self.channels.keys().any(|id| !self.lets_go(id))
    }

    /// Whether a channel is not, or no longer, held: opened later, settled, or let out by a release
    /// that was carried out.
    pub(crate) fn lets_go(&self, channel: &str) -> bool {
        let Some(recorded) = self.channels.get(channel) else { return self.listed };
        recorded.out || matches!(recorded.verdict, Some(Verdict::Closed | Verdict::Clear(_)))
    }

    /// The channels that keep withheld databases from coming back: listed, and neither released nor settled.
    pub(crate) fn keeping(&self) -> impl Iterator<Item = &str> {
        let keeps = self.listed && self.kind == GuardKind::Databases;
        let channels = self.channels.iter().filter(move |_| keeps);
        channels
            .filter(|(id, recorded)| recorded.release.is_none() && !self.lets_go(id))
            .map(|(id, _)| id.as_str())
    }

    /// Whether a peer's word clears nobody before somebody has stated that the original is gone.
    pub(crate) fn needs_statement(&self) -> bool {
        self.cause == Cause::Restore && self.original_gone.is_none()
    }

    /// An operator's release of this channel that was not carried out yet.
    pub(crate) fn to_release(&self, channel: &str) -> Option<&Released> {
        let settled = self.channels.contains_key(channel) && self.lets_go(channel);
        self.released(channel).filter(|_| !settled)
    }

    /// Whether an operator has let this channel go on.
    pub fn released(&self, channel: &str) -> Option<&Released> {
        let own = self.channels.get(channel).and_then(|recorded| recorded.release.as_ref());
        own.or(self.release.as_ref())
    }
}

impl Withheld {
    /// An entry point waits under a number in Highwater's own directory, and is none of those itself: a
    /// latch is only a file of the node's owner, and whoever carries it out may be root.
    fn refuse_elsewhere(&self) -> Result<()> {
        let own = RelPath::root().join(OWN_DIR.as_ref());
        let number = self.place.name().as_encoded_bytes();
        let waits = self.place.parent() == Some(own.join(WITHHELD.as_ref()))
            && !number.is_empty()
            && number.iter().all(u8::is_ascii_digit);
        if waits && !self.path.is_within(&own) && self.path != RelPath::root() {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "the latch says that {} waits as {}, where nothing is ever withheld",
            self.path, self.place
        ))
        .with_entry(LATCH)
        .with_remedy("somebody else wrote it: restore the node again"))
    }
}

fn put(latch: &Latch, dir: &RootedPath, env: &Env) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(latch)
        .map_err(|error| Error::bug("a latch can't be written as JSON").with_source(error))?;
    bytes.push(b'\n');
    let fresh = dir.join(OWN_DIR).join(FRESH);
    durable::write_file_for(&fresh, &bytes, dir.owner()?)?;
    env.fault(FaultPoint::GuardLatch)?;
    durable::replace(&fresh, &dir.join(LATCH))
}

fn take_away(dir: &RootedPath) -> Result<()> {
    let latch = dir.join(LATCH);
    if durable::stat(&latch)?.is_none() {
        return Ok(());
    }
    let own = dir.join(OWN_DIR);
    durable::replace(&latch, &own.join(LAST))?;
    durable::sync_dir(dir)
}

/// Waits for whoever changes the latch; they write one small file. Who holds the lock for longer may
/// be the node's owner, who wants us to wait.
fn lock(dir: &RootedPath, env: &Env) -> Result<File> {
    let own = node::make_own_dir(dir)?;
    let place = own.join(LOCK);
    let wrong = |error: std::io::Error| durable::met(&place, "lock", error).with_entry(LOCK);
    let (file, made) = place.open_lock().map_err(wrong)?;
    if made {
        dir.owner()?.take(&file).map_err(|error| wrong(error.into()))?;
    }
    let start = env.monotonic();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => {}
            Err(Errno::INTR) => return Err(Error::interrupted()),
            Err(error) => return Err(wrong(error.into())),
        }
        if env.monotonic().saturating_sub(start) > LOCK_WAIT_MAX {
            return Err(Error::conflict("another process holds the lock of the latch")
                .with_entry(LOCK)
                .with_remedy("look who has .highwater/quarantine.lock open, and end it"));
        }
        env.pause(LOCK_LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests;
