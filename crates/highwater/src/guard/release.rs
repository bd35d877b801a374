//! An operator's release: recorded with its reason, then carried out.

use std::path::Path;

use super::hold;
use super::latch::{Latch, Old, Recorded, Released};
use super::list::{Held, must_be_there, rows};
use crate::control::Control;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::GuardKind;
use crate::rooted::RootedPath;

/// What is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// One channel, or the database of one part.
    Channel(String),
    /// All that is quarantined; of a node whose channels are not known yet, all that it will list.
    All,
}

/// Releases quarantined channels or databases of the node in `dir` by an operator's decision, and
/// returns the latch as it is afterwards. The decision is durable before anything is released;
/// repeating the call finishes what was interrupted. The floor of a signer is written before:
/// [`super::raise`].
///
/// # Errors
/// Input without a reason; not found where nothing in quarantine has the name; quarantined where the vault
/// knew of a newer state when this one was restored.
pub fn release(
    dir: &Path,
    which: &Which,
    reason: &str,
    by: &str,
    control: &Control,
) -> Result<Vec<Held>> {
    decide(dir, which, reason, by, false, control)
}

/// [`release`] of a state that is known to be old: whatever the node signs from it can be punished.
///
/// # Errors
/// As [`release`], but for the age of the state.
pub fn release_although_old(
    dir: &Path,
    which: &Which,
    reason: &str,
    by: &str,
    control: &Control,
) -> Result<Vec<Held>> {
    decide(dir, which, reason, by, true, control)
}

fn decide(
    dir: &Path,
    which: &Which,
    reason: &str,
    by: &str,
    although_old: bool,
    control: &Control,
) -> Result<Vec<Held>> {
    control.cancel.check()?;
    if reason.trim().is_empty() {
        return Err(Error::input("a release needs a reason")
            .with_remedy("say how it is known that no newer state is lost"));
    }
    must_be_there(dir)?;
    let dir = &RootedPath::open(dir)?;
    let released =
        Released { reason: reason.trim().to_owned(), by: by.to_owned(), time: control.env.now() };
    let mut before = Vec::new();
    let recorded = Latch::update_at(dir, &control.env, |latch| {
        let Some(mut latch) = latch else { return nothing(which) };
        if let Some(old) = latch.old.as_ref().filter(|_| !although_old) {
            return Err(refused(old));
        }
        record(&mut latch, which, &released)?;
        before = rows(&latch);
        Ok(Some(latch))
    })?;
    let Some(latch) = recorded else { return Ok(Vec::new()) };
    tracing::info!(by, although_old, held = before.len(), "released from quarantine");
    if latch.withheld.is_empty() && latch.kind == GuardKind::Channels {
        return Ok(before);
    }
    let mut stands = hold::reveal(dir, &control.env)?;
    // Of the channels nothing is told any more once the latch is gone.
    let told = |held: &Held| stands.iter().any(|stands| stands.id == held.id);
    let channels: Vec<Held> = before
        .into_iter()
        .filter(|held| latch.channels.contains_key(&held.id) && !told(held))
        .collect();
    stands.extend(channels);
    Ok(stands)
}

fn refused(old: &Old) -> Error {
    Error::new(Kind::Quarantined, old.words())
        .with_remedy("restore the newest state instead")
        .with_remedy(Remedy::GuardReleaseOld)
}

fn nothing(which: &Which) -> Result<Option<Latch>> {
    match which {
        // What was released before is released.
        Which::All => Ok(None),
        Which::Channel(name) => {
            Err(Error::not_found("nothing of this node is quarantined").with_entry(name.clone()))
        }
    }
}

/// Writes the decision to all that it is about; an older one stays as it is.
fn record(latch: &mut Latch, which: &Which, released: &Released) -> Result<()> {
    let decide = |decision: &mut Option<Released>| {
        decision.get_or_insert_with(|| released.clone());
    };
    refuse_kept(latch, which)?;
    match which {
        Which::All => {
            latch.channels.values_mut().for_each(|channel| decide(&mut channel.release));
            latch.withheld.iter_mut().for_each(|withheld| decide(&mut withheld.release));
            if !latch.listed {
                decide(&mut latch.release);
            }
        }
        Which::Channel(name) => {
            let parts = latch.withheld.iter_mut().filter(|withheld| withheld.part == *name);
            let channel =
                latch.channels.get_mut(name).map(|channel: &mut Recorded| &mut channel.release);
            let whole =
                (!latch.listed && *name == latch.node.to_string()).then_some(&mut latch.release);
            let mut found = false;
            for decision in parts.map(|withheld| &mut withheld.release).chain(channel).chain(whole)
            {
                decide(decision);
                found = true;
            }
            if !found {
                return Err(unknown(latch, name));
            }
        }
    }
    // With the last channel the databases go.
    let is_channel = match which {
        Which::All => false,
        Which::Channel(name) => latch.channels.get(name).is_some_and(|one| one.ours.is_some()),
    };
    let listed = latch.kind == GuardKind::Databases && latch.listed;
    if listed && is_channel && latch.keeping().next().is_none() {
        latch.withheld.iter_mut().for_each(|withheld| decide(&mut withheld.release));
    }
    Ok(())
}

/// A database does not come back before its channels: one that is withheld for them can't be released alone.
fn refuse_kept(latch: &Latch, which: &Which) -> Result<()> {
    let Which::Channel(name) = which else { return Ok(()) };
    let is_part = latch.withheld.iter().any(|withheld| withheld.part == *name);
    let kept: Vec<&str> = latch.keeping().filter(|id| id != name).collect();
    let (true, Some(first)) = (is_part, kept.first()) else { return Ok(()) };
    let channels = match kept.len() {
        1 => format!("the channel {first} is still held"),
        count => format!("{count} channels are still held, {first} among them"),
    };
    Err(Error::new(
        Kind::Quarantined,
        format!("{name} is not released before its channels are: {channels}"),
    )
    .with_entry(name.clone())
    .with_remedy("release each channel that is known to be current: the database comes back with the last one")
    .with_remedy(Remedy::GuardList)
    .with_remedy(Remedy::GuardReleaseAll))
}

fn unknown(latch: &Latch, name: &str) -> Error {
    let ids: Vec<String> = rows(latch).into_iter().map(|row| row.id).collect();
    let error = Error::not_found(format!("`{name}` is not in quarantine")).with_entry(name);
    if !latch.listed && latch.withheld.is_empty() {
        return error
            .with_remedy("start the node first: it has not listed its channels yet")
            .with_remedy(Remedy::GuardReleaseAll);
    }
    error.with_remedy(format!("in quarantine are: {}", ids.join(", ")))
}
