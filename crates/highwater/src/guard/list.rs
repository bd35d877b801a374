//! What of a node is held back, and waiting until nothing is.

use std::path::Path;
use std::time::Duration;

use highwater_guard::{Basis, Reason, Verdict};
use serde::Serialize;

use super::latch::{Cause, Latch, Old, Recorded};
use crate::control::Control;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{GuardKind, NodeName, SnapshotId, Time};
use crate::rooted::RootedPath;

/// How often a waiting program looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A channel, or a database, in quarantine: for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The channel's name; of a database the name of its part; of a node whose channels are not
    /// known yet, its own.
    pub id: String,
    /// Where it stands.
    pub state: HeldState,
    /// Why, in plain words.
    pub reason: String,
}

/// Where a quarantined channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// No verdict yet.
    Waiting,
    /// Condemned: a way out is the peer's close, or a release.
    Blocked,
    /// A database whose entry point is withheld.
    Withheld,
    /// Clear by a verdict.
    Clear,
    /// The chain has decided.
    Closed,
    /// Released by an operator.
    Released,
}

impl HeldState {
    /// Whether it is still held back.
    pub fn holds(self) -> bool {
        matches!(self, HeldState::Waiting | HeldState::Blocked | HeldState::Withheld)
    }
}

/// How a node directory stands that has a latch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The node.
    pub node: NodeName,
    /// How it is held back.
    pub kind: GuardKind,
    /// What brought the directory here.
    pub cause: Cause,
    /// The snapshot, where one was restored.
    pub snapshot: Option<SnapshotId>,
    /// Since when.
    pub since: Time,
    /// What is quarantined, or was.
    pub held: Vec<Held>,
}

impl Standing {
    /// How many channels or databases are still held back.
    pub fn quarantined(&self) -> u64 {
        self.held.iter().filter(|held| held.state.holds()).count() as u64
    }

    /// What keeps the node from being started. A channel does so only where the node has no guard
    /// that could judge it once it runs.
    pub fn in_the_way(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| match self.kind {
            GuardKind::Channels => held.state == HeldState::Withheld,
            GuardKind::Databases => held.state.holds(),
        })
    }
}

/// How the node in `dir` stands; `None` where it has no latch, or is not there.
pub fn standing(dir: &Path) -> Result<Option<Standing>> {
    Latch::read(dir).map(told)
}

/// [`standing`] in a directory that is held.
pub(crate) fn standing_at(dir: &RootedPath) -> Result<Option<Standing>> {
    Latch::read_at(dir).map(told)
}

fn told(latch: Option<Latch>) -> Option<Standing> {
    latch.map(|latch| Standing {
        held: rows(&latch),
        node: latch.node,
        kind: latch.kind,
        cause: latch.cause,
        snapshot: latch.snapshot,
        since: latch.time,
    })
}

/// The channels and databases of the node in `dir` that are quarantined, and those of the same
/// quarantine that are no longer; none where there is no latch.
pub fn list(dir: &Path) -> Result<Vec<Held>> {
    must_be_there(dir)?;
    Ok(Latch::read(dir)?.map_or_else(Vec::new, |latch| rows(&latch)))
}

/// Where there is no directory, nothing says that a node may start.
pub(super) fn must_be_there(dir: &Path) -> Result<()> {
    match RootedPath::open(dir) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Input) => {
            Err(Error::not_found(format!("there is no directory {}", dir.display())))
        }
        Err(error) => Err(error),
    }
}

/// Waits until nothing in `dir` is quarantined or withheld.
///
/// # Errors
/// Quarantined where `timeout` passes before; interrupted where the caller cancels.
pub fn wait(dir: &Path, timeout: Option<Duration>, control: &Control) -> Result<()> {
    wait_while(timeout, control, || {
        Ok(list(dir)?.into_iter().filter(|held| held.state.holds()).collect())
    })
}

/// Waits until nothing in `dir` keeps the node from being started: [`Standing::in_the_way`].
///
/// # Errors
/// As [`wait`].
pub fn wait_to_start(dir: &Path, timeout: Option<Duration>, control: &Control) -> Result<()> {
    wait_while(timeout, control, || {
        must_be_there(dir)?;
        let standing = standing(dir)?;
        Ok(standing.iter().flat_map(Standing::in_the_way).cloned().collect())
    })
}

fn wait_while(
    timeout: Option<Duration>,
    control: &Control,
    held: impl Fn() -> Result<Vec<Held>>,
) -> Result<()> {
    let start = control.env.monotonic();
    loop {
        control.cancel.check()?;
        let held = held()?;
        let Some(first) = held.first() else { return Ok(()) };
        let waited = control.env.monotonic().saturating_sub(start);
        let left = timeout.map(|timeout| timeout.saturating_sub(waited));
        if left == Some(Duration::ZERO) {
            let more = match held.len() {
                1 => String::new(),
                count => format!(", and {} more are held back", count - 1),
            };
            return Err(Error::new(
                Kind::Quarantined,
                format!("{}: {}{more}", first.id, first.reason),
            )
            .with_entry(first.id.clone())
            .with_remedy(Remedy::GuardList)
            .with_remedy(Remedy::GuardRelease));
        }
        control.env.pause(left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY)));
    }
}

/// What a latch holds, as rows.
pub(super) fn rows(latch: &Latch) -> Vec<Held> {
    let mut rows: Vec<Held> = Vec::new();
    for withheld in &latch.withheld {
        if rows.last().is_some_and(|row| row.id == withheld.part) {
            continue;
        }
        let reason = match &withheld.release {
            None => match latch.keeping().count() {
                0 => since(latch),
                1 => format!("{}; it comes back with its channel", since(latch)),
                count => format!("{}; it comes back with its {count} channels", since(latch)),
            },
            Some(release) => format!("its release by {} is not finished: repeat it", release.by),
        };
        rows.push(Held { id: withheld.part.clone(), state: HeldState::Withheld, reason });
    }
    rows.extend(latch.channels.iter().map(|(id, recorded)| channel(latch, id, recorded)));
    let unknown = !latch.listed && latch.withheld.is_empty();
    if unknown {
        let (state, reason) = match &latch.release {
            Some(release) => (HeldState::Released, release.reason.clone()),
            None => (HeldState::Waiting, since(latch)),
        };
        rows.push(Held { id: latch.node.to_string(), state, reason });
    }
    rows
}

fn channel(latch: &Latch, id: &str, recorded: &Recorded) -> Held {
    let (state, reason) = match (latch.released(id), recorded.verdict) {
        (_, Some(Verdict::Closed)) => {
            (HeldState::Closed, "its funding output is spent, confirmed".to_owned())
        }
        (Some(release), _) => (HeldState::Released, release.reason.clone()),
        (None, None) => {
            let mark = match (latch.kind, recorded.unmarked) {
                (GuardKind::Channels, _) => "",
                (GuardKind::Databases, false) => {
                    "; marked stale in the node's own database as well"
                }
                (GuardKind::Databases, true) => {
                    "; the node has no mark for the state that it is in"
                }
            };
            (HeldState::Waiting, format!("{}{mark}", since(latch)))
        }
        (None, Some(Verdict::Clear(Basis::Witness))) => {
            (HeldState::Clear, "the witness remembers no more than the node".to_owned())
        }
        (None, Some(Verdict::Clear(Basis::Peer))) => {
            (HeldState::Clear, "the peer says that nothing is missing".to_owned())
        }
        (None, Some(Verdict::Blocked(reason))) => (HeldState::Blocked, words(reason).to_owned()),
        (None, Some(Verdict::Wait(Reason::WitnessNeeded))) if latch.needs_statement() => {
            let unsaid = "the peer says that nothing is missing; nobody has stated that the original \
                          node is gone for good";
            (HeldState::Waiting, unsaid.to_owned())
        }
        (None, Some(Verdict::Wait(reason))) => (HeldState::Waiting, words(reason).to_owned()),
    };
    Held { id: id.to_owned(), state, reason }
}

fn since(latch: &Latch) -> String {
    let what = match latch.cause {
        Cause::Restore => "restored",
        Cause::Rollback => "brought back by a rollback",
        Cause::Witness => "taken back in time by another hand",
    };
    let snapshot = latch.snapshot.map(|snapshot| format!(" from snapshot {snapshot}"));
    let snapshot = snapshot.unwrap_or_default();
    let known = latch.old.as_ref().map_or_else(|| "not known to be current".to_owned(), Old::words);
    let mut reason = format!("{what}{snapshot}; {known}");
    // What makes it old stands among the reasons too.
    for more in latch.reasons.iter().filter(|more| !known.contains(more.as_str())) {
        reason.push_str("; ");
        reason.push_str(more);
    }
    reason
}

/// Why a channel is not clear, in plain words.
pub fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::RevocationLost => "the peer has a revocation that the node does not remember",
        Reason::SignatureLost => "the peer has a signature that the node does not remember",
        Reason::WitnessAhead => "the witness remembers more than the node",
        Reason::MovedElsewhere => "another copy of the node has moved the channel since",
        Reason::BackupAhead => "a backup remembers more than the node",
        Reason::ChannelLacking => "the witness knows the channel, the node does not",
        Reason::NumbersImpossible => "the node's own numbers of the channel can't be",
        Reason::PeerForgot => "the peer remembers less than it has told before",
        Reason::WitnessForgot => "the witness remembers less than it must",
        Reason::WitnessNeeded => "only a witness that is the node's could clear it",
        Reason::SignaturesUnknown => "the node can't tell how many commitments it has signed",
        Reason::SpendUnconfirmed => "the funding output is being spent, perhaps by the node itself",
        Reason::NothingHeard => "nothing was heard yet of the peer or a witness",
    }
}
