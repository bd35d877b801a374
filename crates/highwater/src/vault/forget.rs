//! Forgetting snapshots: a plan that prints, tombstones that hide, and the way back.
//!
//! A tombstone destroys nothing. What it hides can be brought back until a prune that comes after
//! the grace period has begun to delete it. See [`crate::vault::prune`] for why that is safe beside
//! backups and other prunes.
//!
//! ```
//! # use highwater::{Actor, Backup, Secret, Vault};
//! # let scratch = tempfile::tempdir().unwrap();
//! # std::env::set_current_dir(scratch.path()).unwrap();
//! # std::fs::create_dir("node").unwrap();
//! # std::fs::write("node/state", "seven channels").unwrap();
//! # let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
//! # let vault = Vault::create(&"vault".parse()?, &secret)?;
//! # let actor = Actor::new("state", "operator@node-1");
//! # let backup = Backup::of("node").run(&vault, &actor)?;
//! use highwater::vault::forget::{self, ForgetOptions};
//! use highwater::vault::retention::Retention;
//!
//! let retention = Retention { last: 7, ..Retention::default() };
//! let options = ForgetOptions::default().retention(retention);
//! let plan = forget::plan(&vault, &options)?;
//! assert_eq!(plan.nodes[0].keep.len(), 1);
//! let forgot = forget::run(&vault, &actor, &plan, &vault.control())?;
//! # Ok::<(), highwater::Error>(())
//! ```

use std::collections::BTreeMap;

use serde::Serialize;

use crate::control::Control;
use crate::env::FaultPoint;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{NodeName, SnapshotId, Time};

use super::manifest::PackRef;
use super::pack::pack_name;
use super::retention::{Candidate, Reason, Retention};
use super::snapshots::by_prefix;
use super::trash::{Forgotten, GRACE, Purpose, TrashDoc, after};
use super::{Actor, Level, SnapshotInfo, SnapshotName, Vault};

/// What is to be forgotten.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ForgetOptions {
    /// One node alone; each of them by itself where `None`.
    pub node: Option<NodeName>,
    /// The policy; empty where `snapshots` are named.
    pub retention: Retention,
    /// Ids or unique prefixes; empty where there is a policy.
    pub snapshots: Vec<String>,
}

setters! {
    ForgetOptions {
        node: Option<NodeName>,
        retention: Retention,
        snapshots: Vec<String>,
    }
}

/// What would be forgotten: data that prints.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ForgetPlan {
    /// The nodes, by name.
    pub nodes: Vec<NodePlan>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// What would become of the snapshots of a node.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NodePlan {
    /// The node.
    pub node: NodeName,
    /// What stays, newest first.
    pub keep: Vec<Keep>,
    /// What goes, newest first.
    pub forget: Vec<Goes>,
}

/// A snapshot that stays.
#[derive(Clone, Debug, Serialize)]
pub struct Keep {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When its barrier was; `None` where its manifest can't be opened.
    pub time: Option<Time>,
    /// Why; empty where snapshots were named and it was not.
    pub reasons: Vec<Reason>,
}

/// A snapshot that goes.
#[derive(Clone, Debug, Serialize)]
pub struct Goes {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When its barrier was; `None` where its manifest can't be opened.
    pub time: Option<Time>,
}

/// What was forgotten.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Forgot {
    /// The snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// Until then at least they can be brought back, by the store's clock; `None` where there are
    /// none.
    pub until: Option<Time>,
}

/// Decides what would be forgotten; nothing is written.
///
/// # Errors
/// Input where neither a policy nor snapshots are given, or both; not found where a snapshot or the
/// node is none of the vault.
pub fn plan(vault: &Vault, options: &ForgetOptions) -> Result<ForgetPlan> {
    if !options.snapshots.is_empty() && !options.retention.is_empty() {
        return Err(Error::input("both a policy and snapshots were given")
            .with_remedy("forget by one of them, then by the other"));
    }
    let names = vault.snapshot_names(options.node.as_ref())?;
    if let (true, Some(node)) = (names.is_empty(), &options.node) {
        return Err(Error::not_found(format!("the vault holds no snapshot of node `{node}`")));
    }
    if options.snapshots.is_empty() {
        by_policy(vault, options, &names)
    } else {
        by_name(vault, options, &names)
    }
}

/// Forgets what a plan says. The snapshots are hidden from then on; nothing is deleted.
pub fn run(vault: &Vault, actor: &Actor, plan: &ForgetPlan, control: &Control) -> Result<Forgot> {
    let _lock = actor.lock_vault(vault.id())?;
    vault.collect_temporary()?;
    let gone: Vec<Forgotten> = plan
        .nodes
        .iter()
        .flat_map(|node| node.forget.iter().map(|goes| (&node.node, goes.snapshot)))
        .map(|(node, snapshot)| Forgotten { node: node.clone(), snapshot })
        .collect();
    vault.trash()?.refuse_unknown()?;
    let mut first = None;
    for one in &gone {
        control.cancel.check()?;
        control.env.fault(FaultPoint::ForgetTombstone)?;
        let name = vault.put_trash_unseen(&tombstone(vault, actor, one.clone())?)?;
        first = first.or(Some(name));
    }
    let put = first.map(|first| vault.trash_put_at(&first)).transpose()?;
    let until = put.map(|put| after(put, GRACE));
    tracing::info!(snapshots = gone.len(), "forgotten");
    Ok(Forgot { snapshots: gone.into_iter().map(|gone| gone.snapshot).collect(), until })
}

/// A tombstone is of one snapshot, so that bringing it back is deleting one object: two at once, of
/// two snapshots, have nothing to do with one another.
fn tombstone(vault: &Vault, actor: &Actor, one: Forgotten) -> Result<TrashDoc> {
    TrashDoc::new(vault, Purpose::Forget, &actor.name, vec![one], Vec::new())
}

/// Brings a forgotten snapshot back, by its id or a unique prefix of it.
///
/// # Errors
/// Not found where no such snapshot was forgotten; conflict where a prune has begun to delete it.
pub fn undo(vault: &Vault, actor: &Actor, snapshot: &str, control: &Control) -> Result<SnapshotId> {
    let _lock = actor.lock_vault(vault.id())?;
    vault.collect_temporary()?;
    let mut standing = vault.standing_names(None)?;
    let trash = vault.trash()?;
    trash.refuse_unknown()?;
    trash.refuse_damaged()?;
    standing.retain(|name| trash.forgotten(name.snapshot).is_some());
    let found = by_prefix(&standing, snapshot).map_err(|error| match error.kind() {
        Kind::NotFound => Error::not_found(format!("no snapshot {snapshot} was forgotten"))
            .with_entry(snapshot)
            .with_remedy("a prune may have deleted it"),
        _ => error,
    })?;
    let (node, snapshot) = (found.node.clone(), found.snapshot);
    if trash.claimed(snapshot) {
        return Err(too_late(snapshot));
    }
    for record in trash.tombstones(snapshot) {
        // The others that it may name stay hidden at every instant: their tombstones stand before it
        // goes.
        for other in record.doc.snapshots.iter().filter(|gone| gone.snapshot != snapshot) {
            vault.put_trash_unseen(&tombstone(vault, actor, other.clone())?)?;
        }
        control.env.fault(FaultPoint::ForgetUndo)?;
        vault.store().delete(&record.name)?;
    }
    // A prune puts its claim and then looks for the tombstone; this removed the tombstone and then
    // looks for a claim. So one of the two sees the other.
    let now = vault.trash()?;
    if now.claimed(snapshot) {
        let again = Forgotten { node, snapshot };
        vault.put_trash_unseen(&tombstone(vault, actor, again)?)?;
        return Err(too_late(snapshot));
    }
    if now.hides(snapshot) {
        return Err(Error::conflict("the snapshot was forgotten again meanwhile")
            .with_entry(snapshot.to_string())
            .with_remedy("undo it again, unless somebody wants it forgotten"));
    }
    // A prune that began and ended meanwhile has left no claim, and no manifest.
    if !vault.standing_names(None)?.iter().any(|name| name.snapshot == snapshot) {
        return Err(too_late(snapshot));
    }
    Ok(snapshot)
}

fn too_late(snapshot: SnapshotId) -> Error {
    Error::conflict("a prune has begun to delete that snapshot")
        .with_entry(snapshot.to_string())
        .with_remedy(Remedy::ListSnapshots)
}

/// The snapshots of each node; the bare id of one that can't be judged, which stays.
type Judged = BTreeMap<NodeName, Vec<Result<SnapshotInfo, SnapshotId>>>;

fn by_node(vault: &Vault, names: &[SnapshotName], warnings: &mut Vec<String>) -> Result<Judged> {
    let mut nodes: Judged = BTreeMap::new();
    let packs = vault.packs_present()?;
    let there = |pack: &PackRef| packs.get(&pack_name(pack.id)) == Some(&pack.size);
    // In small portions, without packs and entries: those of all snapshots may be more than fits into memory.
    let infos = names
        .chunks(vault.opened_at_once())
        .flat_map(|some| some.iter().zip(vault.snapshot_infos(some)));
    for (name, info) in infos {
        let info = match info {
            Ok(info) if info.manifest.packs.iter().all(there) => Ok(info),
            // It must not pass for the newest good one, for which others go.
            Ok(info) if vault.missing_pack(&info.manifest)?.is_some() => {
                warnings.push(format!(
                    "snapshot {} of {} lacks a pack and stays: forget it by its id",
                    name.snapshot, name.node
                ));
                Err(name.snapshot)
            }
            Ok(info) => Ok(info),
            Err(error) if error.kind() == Kind::Corrupt => {
                warnings.push(format!(
                    "snapshot {} of {} can't be opened and stays: forget it by its id",
                    name.snapshot, name.node
                ));
                Err(name.snapshot)
            }
            Err(error) => return Err(error),
        };
        let info = info.map(|mut info| {
            info.manifest.packs = Vec::new();
            info.manifest.parts = Vec::new();
            info
        });
        nodes.entry(name.node.clone()).or_default().push(info);
    }
    Ok(nodes)
}

fn by_policy(vault: &Vault, options: &ForgetOptions, names: &[SnapshotName]) -> Result<ForgetPlan> {
    let mut warnings = Vec::new();
    let nodes = by_node(vault, names, &mut warnings)?;
    let now = vault.env().now();
    let mut planned = Vec::new();
    for (node, infos) in nodes {
        // A level that is not known might make a failed snapshot pass for a good one.
        if let Err(error) = vault.sound_record(&node) {
            match error.kind() {
                Kind::Corrupt => warnings.push(format!(
                    "the record of {node} is damaged: nothing of it is forgotten by a policy"
                )),
                _ => return Err(error),
            }
            continue;
        }
        let readable: Vec<&SnapshotInfo> = infos.iter().flatten().collect();
        let kept = options.retention.apply(&candidates(&readable, &mut warnings), now)?;
        let always = |(_, reasons): &(SnapshotId, Vec<Reason>)| {
            let always = [Reason::Newest, Reason::Latest, Reason::Restored, Reason::Unacknowledged];
            reasons.iter().all(|reason| always.contains(reason))
        };
        if options.retention.within.is_some()
            && !kept.forget.is_empty()
            && kept.keep.iter().all(always)
        {
            warnings.push(format!(
                "the policy keeps nothing of {node} but what always stays: is a clock wrong?"
            ));
        }
        let time = |snapshot: &SnapshotId| {
            let info = readable.iter().find(|info| info.manifest.snapshot == *snapshot);
            info.map(|info| info.manifest.time)
        };
        let unreadable = infos.iter().filter_map(|info| info.as_ref().err());
        let unreadable =
            unreadable.map(|&snapshot| Keep { snapshot, time: None, reasons: Vec::new() });
        let keep = kept.keep.into_iter().map(|(snapshot, reasons)| Keep {
            snapshot,
            time: time(&snapshot),
            reasons,
        });
        let forget = kept.forget.into_iter();
        planned.push(NodePlan {
            node,
            keep: keep.chain(unreadable).collect(),
            forget: forget.map(|snapshot| Goes { snapshot, time: time(&snapshot) }).collect(),
        });
    }
    if planned.is_empty() {
        // An empty vault is no reason to accept a policy that says nothing.
        options.retention.apply(&[], now)?;
    }
    Ok(ForgetPlan { nodes: planned, warnings })
}

/// What the policy looks at. The last snapshot before a loss stays for as long as the newest one has
/// the loss; where that has failed a restore test, those down to the newest that has not count as well.
fn candidates(infos: &[&SnapshotInfo], warnings: &mut Vec<String>) -> Vec<Candidate> {
    let good = infos.iter().rposition(|info| info.level > Level::Failed).unwrap_or(0);
    let newest = &infos[good.min(infos.len())..];
    warnings.extend(newest.iter().filter_map(|info| info.shrunk_warning()));
    let candidate = |info: &&SnapshotInfo| {
        let before_loss = newest.iter().any(|newer| newer.lacks_what(info.manifest.snapshot));
        Candidate { before_loss, ..Candidate::of(info) }
    };
    infos.iter().map(candidate).collect()
}

/// The snapshots that were named, also such as can't be opened.
fn by_name(vault: &Vault, options: &ForgetOptions, names: &[SnapshotName]) -> Result<ForgetPlan> {
    let mut chosen = Vec::new();
    for text in &options.snapshots {
        let name = by_prefix(names, text)?;
        if !chosen.contains(&name.snapshot) {
            chosen.push(name.snapshot);
        }
    }
    let mut warnings = Vec::new();
    let mut nodes: BTreeMap<NodeName, NodePlan> = BTreeMap::new();
    let mut staying: BTreeMap<NodeName, SnapshotInfo> = BTreeMap::new();
    // Newest first, and not all of them in memory.
    let infos = names.rchunks(vault.opened_at_once()).flat_map(|names| {
        let infos = vault.snapshot_infos(names);
        names.iter().zip(infos).rev()
    });
    for (name, info) in infos {
        let node = nodes.entry(name.node.clone()).or_insert_with(|| NodePlan {
            node: name.node.clone(),
            keep: Vec::new(),
            forget: Vec::new(),
        });
        let info = match info {
            Ok(info) => Some(info),
            Err(error) if error.kind() == Kind::Corrupt => None,
            Err(error) => return Err(error),
        };
        let (snapshot, time) = (name.snapshot, info.as_ref().map(|info| info.manifest.time));
        if !chosen.contains(&snapshot) {
            if let Some(info) = info {
                staying.entry(name.node.clone()).or_insert(info);
            }
            node.keep.push(Keep { snapshot, time, reasons: Vec::new() });
            continue;
        }
        let good = info.is_some_and(|info| info.level > Level::Failed);
        if let Some(newest) = staying.get(&name.node).filter(|newest| newest.lacks_what(snapshot)) {
            warnings.push(format!(
                "{snapshot} is the last snapshot with what {} lacks",
                newest.manifest.snapshot
            ));
        }
        if node.keep.is_empty() && good {
            warnings.push(format!("{snapshot} is the newest snapshot of {}", name.node));
        }
        node.forget.push(Goes { snapshot, time });
    }
    nodes.retain(|_, node| !node.forget.is_empty());
    for node in nodes.values().filter(|node| node.keep.is_empty()) {
        warnings.push(format!("no snapshot of {} is left", node.node));
    }
    Ok(ForgetPlan { nodes: nodes.into_values().collect(), warnings })
}
