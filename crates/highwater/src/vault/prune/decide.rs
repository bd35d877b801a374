//! What of a vault goes, and what stays: pure, from what was listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{PackId, SnapshotId, Time};
use crate::vault::SnapshotName;
use crate::vault::intent::{INTENT_TIME_MAX, intent_name};
use crate::vault::trash::{Purpose, TrashRecord, after};

use super::survey::{Survey, is_older, refuse};
use super::{Waiting, Why};

/// A pack in no manifest may be one that a backup writes, until it is so old.
const UNREFERENCED_TIME_MAX: Duration = Duration::from_secs(48 * 60 * 60);

/// What goes, what stays for now, and what is to be said of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Decision {
    /// By name, so that of a snapshot the lower generations go first.
    pub(super) manifests: Vec<(SnapshotName, Why)>,
    /// With their sizes.
    pub(super) packs: BTreeMap<PackId, u64>,
    pub(super) bytes_needed: u64,
    pub(super) packs_young: u64,
    pub(super) waiting: Vec<Waiting>,
    pub(super) warnings: Vec<String>,
    intents: bool,
    needed: BTreeSet<PackId>,
    /// Records in the trash that have nothing left to hide, once all else is deleted.
    pub(super) trash: Vec<String>,
}

/// Decides what goes at the time `now` of the store; no more than what is claimed, where there is a
/// claim already.
///
/// # Errors
/// Of the kind that kept a manifest that stays, or a living intent, from being opened.
pub(super) fn decide(
    survey: &Survey,
    now: Time,
    grace: Duration,
    claim: Option<&TrashRecord>,
) -> Result<Decision> {
    let intents = survey.intents.iter().any(|intent| intent.is_dead(now));
    let mut decision = Decision { intents, ..Decision::default() };
    let held = held(survey, now)?;
    let living = survey.intents.iter().filter(|intent| !intent.is_dead(now));
    for intent in living {
        // Whatever their age: a clock may have been set back.
        decision.needed.extend(&intent.packs);
        let import = intent.intent.as_ref().ok().and_then(|intent| intent.import.as_ref());
        decision.needed.extend(import.into_iter().flatten());
    }
    let mut waiting = BTreeMap::new();
    let mut given_up = BTreeSet::new();
    let names: Vec<&SnapshotName> = survey.manifests.keys().collect();
    for (at, &name) in names.iter().enumerate() {
        // One that was put late may lack packs that a prune had given up: it replaces nothing.
        let replaced = names.get(at + 1).filter(|next| next.snapshot == name.snapshot);
        let replaced = replaced.map(|&next| &survey.manifests[next]);
        let replaced = replaced.filter(|next| survey.is_whole(next)).map(|next| next.modified);
        let listed = &survey.manifests[name];
        let claimed = |why: Why| {
            let named = |claim: &TrashRecord| claim.doc.names(name.snapshot);
            why != Why::Forgotten || claim.is_none_or(named)
        };
        let why = match why(survey, name, replaced, now, grace) {
            Fate::Goes(why)
                if !held.contains(&name.snapshot)
                    && claimed(why)
                    && !(why == Why::Forgotten && survey.is_beyond_record(name)) =>
            {
                why
            }
            fate => {
                if matches!(fate, Fate::Goes(_)) && survey.is_beyond_record(name) {
                    decision.warnings.push(format!(
                        "snapshot {} stays: the record of {} is damaged, and has to tell of it",
                        name.snapshot, name.node
                    ));
                }
                let until = if let Fate::Waits(until) = fate { until } else { None };
                if survey.trash.hides(name.snapshot) {
                    let (node, snapshot) = (name.node.clone(), name.snapshot);
                    waiting.insert(snapshot, Waiting { node, snapshot, until });
                }
                let packs =
                    listed.packs.as_ref().map_err(|error| unreadable(name, until, error))?;
                decision.needed.extend(packs);
                continue;
            }
        };
        given_up.extend(listed.packs.as_ref().into_iter().flatten().copied());
        decision.manifests.push((name.clone(), why));
    }
    decision.waiting = waiting.into_values().collect();
    let claims = survey.trash.records.iter().filter(|record| record.doc.purpose == Purpose::Delete);
    given_up.extend(claims.flat_map(|record| record.doc.packs.iter().copied()));
    decision.choose_packs(survey, now, claim, &given_up);
    decision.warnings.extend(survey.trash.damaged.iter().map(|name| {
        format!("{name} can't be opened and is removed: what it has forgotten is visible again")
    }));
    let own = claim.map(|claim| claim.name.as_str());
    decision.trash = decision.emptied(survey, now, own);
    Ok(decision)
}

/// What becomes of a manifest.
enum Fate {
    Stays,
    /// It was forgotten, or replaced; until when it stays.
    Waits(Option<Time>),
    Goes(Why),
}

fn why(
    survey: &Survey,
    name: &SnapshotName,
    replaced: Option<Time>,
    now: Time,
    grace: Duration,
) -> Fate {
    if let Some(since) = survey.trash.forgotten(name.snapshot) {
        // What a prune has begun to delete is deleted.
        if is_older(since, now, grace) || survey.trash.claimed(name.snapshot) {
            return Fate::Goes(Why::Forgotten);
        }
        return Fate::Waits(Some(after(since, grace)));
    }
    let aged = |since: Time, why: Why| match is_older(since, now, grace) {
        true => Fate::Goes(why),
        false => Fate::Waits(Some(after(since, grace))),
    };
    if survey.is_fenced(name) {
        return aged(survey.manifests[name].modified, Why::Fenced);
    }
    // A later generation may be taken back, and this one is what there is then, however short the grace period.
    let grace = grace.max(INTENT_TIME_MAX);
    replaced.map_or(Fate::Stays, |since| match is_older(since, now, grace) {
        true => Fate::Goes(Why::Replaced),
        false => Fate::Waits(Some(after(since, grace))),
    })
}

/// The snapshots that backups which may be running build on, and those that they are about to record.
fn held(survey: &Survey, now: Time) -> Result<BTreeSet<SnapshotId>> {
    let mut held = BTreeSet::new();
    for intent in survey.intents.iter().filter(|intent| !intent.is_dead(now)) {
        let opened = intent.intent.as_ref().map_err(|error| {
            let dead = after(intent.modified, INTENT_TIME_MAX);
            let damage = Error::new(error.kind(), error.message().to_owned());
            let damage = damage.with_entry(intent_name(intent.snapshot));
            refuse(&damage, vec![format!("wait: from {dead} on it stands for no backup").into()])
        })?;
        held.insert(intent.snapshot);
        held.extend(opened.parent);
    }
    Ok(held)
}

fn unreadable(name: &SnapshotName, until: Option<Time>, error: &Error) -> Error {
    let id = name.snapshot;
    let remedies = match (error.kind(), until) {
        (Kind::Input, _) => vec!["use a newer version".into()],
        (_, Some(until)) => {
            vec![Remedy::from(format!("wait: it goes by itself, and a prune goes on from {until}"))]
        }
        _ => vec![Remedy::Forget(id.to_string()), "prune again once its time is over".into()],
    };
    refuse(error, remedies)
}

impl Decision {
    /// Packs that nobody needs, and that were given up or are old.
    fn choose_packs(
        &mut self,
        survey: &Survey,
        now: Time,
        claim: Option<&TrashRecord>,
        given_up: &BTreeSet<PackId>,
    ) {
        for (&id, pack) in &survey.packs {
            if self.needed.contains(&id) {
                self.bytes_needed += pack.size;
            } else if given_up.contains(&id) || is_older(pack.modified, now, UNREFERENCED_TIME_MAX)
            {
                if claim.is_none_or(|claim| claim.doc.packs.contains(&id)) {
                    self.packs.insert(id, pack.size);
                }
            } else {
                self.packs_young += 1;
            }
        }
    }

    /// Keeps generations that were to be replaced, or put behind a fence, only since the plan.
    pub(super) fn keep_unplanned(&mut self, survey: &Survey, planned: &BTreeSet<&SnapshotName>) {
        let stays =
            |name: &SnapshotName, why: Why| why != Why::Forgotten && !planned.contains(name);
        for (name, why) in &self.manifests {
            if !stays(name, *why) {
                continue;
            }
            for pack in survey.manifests[name].packs.iter().flatten() {
                self.bytes_needed += self.packs.remove(pack).unwrap_or(0);
            }
        }
        self.manifests.retain(|(name, why)| !stays(name, *why));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.packs.is_empty() && !self.intents && self.trash.is_empty()
    }

    fn emptied(&self, survey: &Survey, now: Time, own: Option<&str>) -> Vec<String> {
        let gone: BTreeSet<&SnapshotName> = self.manifests.iter().map(|(name, _)| name).collect();
        let left: BTreeSet<SnapshotId> = survey
            .manifests
            .keys()
            .filter(|name| !gone.contains(name))
            .map(|name| name.snapshot)
            .collect();
        let pack_left = |id: &PackId| {
            survey.packs.contains_key(id)
                && !self.packs.contains_key(id)
                && !self.needed.contains(id)
        };
        let over = |record: &&TrashRecord| {
            let hides = record.doc.snapshots.iter().any(|gone| left.contains(&gone.snapshot));
            match record.doc.purpose {
                Purpose::Forget => !hides,
                // Another prune may be at it; a day later none is.
                Purpose::Delete => {
                    is_older(record.modified, now, INTENT_TIME_MAX)
                        || !hides && !record.doc.packs.iter().any(pack_left)
                }
                Purpose::Clock => {
                    is_older(record.modified, now, INTENT_TIME_MAX)
                        || is_older(now, record.modified, INTENT_TIME_MAX)
                }
            }
        };
        let others = survey.trash.records.iter().filter(|record| Some(record.name.as_str()) != own);
        let records = others.filter(over).map(|record| record.name.clone());
        records.chain(survey.trash.damaged.iter().cloned()).collect()
    }
}
