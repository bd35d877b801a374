//! What keeps a restored node from acting on state that may be old.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use highwater::Kind;
use highwater::guard::{self, Which};

use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::progress::{Call, Cancel};
use crate::same::same;
use crate::vault::time;

same! {
    /// How a node that was restored, or rolled back, is kept from acting on state that may be old.
    pub enum GuardKind = highwater::ids::GuardKind {
        /// It embeds the library: each of its channels waits for a verdict.
        Channels,
        /// Nobody can change it: the entry points of its databases are withheld.
        Databases,
    }
}

impl From<GuardKind> for highwater::ids::GuardKind {
    fn from(guard: GuardKind) -> highwater::ids::GuardKind {
        match guard {
            GuardKind::Channels => highwater::ids::GuardKind::Channels,
            GuardKind::Databases => highwater::ids::GuardKind::Databases,
        }
    }
}

same! {
    /// Where a quarantined channel or database stands.
    pub enum HeldState = highwater::guard::HeldState {
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
}

same! {
    /// What brought a directory into quarantine.
    pub enum StandingCause = highwater::guard::Cause {
        /// It was restored from a snapshot.
        Restore,
        /// A restore was undone: it is the directory from before.
        Rollback,
        /// The witness remembers more than the directory.
        Witness,
    }
}

/// A channel or database in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Held {
    /// The name of the channel, of the part, or of the node where its channels are not known yet.
    pub id: String,
    /// Where it stands.
    pub state: HeldState,
    /// Whether it is still held back.
    pub holds: bool,
    /// Why, in plain words.
    pub reason: String,
}

impl From<guard::Held> for Held {
    fn from(held: guard::Held) -> Held {
        let (state, holds) = (held.state.into(), held.state.holds());
        Held { id: held.id, state, holds, reason: held.reason }
    }
}

/// How a directory stands that was held back.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Standing {
    /// The name of the node.
    pub node: String,
    /// How it is held back.
    pub guard: GuardKind,
    /// What brought the directory here.
    pub cause: StandingCause,
    /// The snapshot, where one was restored.
    pub snapshot: Option<String>,
    /// Since when.
    pub since: SystemTime,
    /// How many channels or databases are still held back.
    pub quarantined: u64,
    /// What is in quarantine, or was.
    pub held: Vec<Held>,
}

/// The quarantine of a node directory.
#[derive(Debug, uniffi::Object)]
pub struct Guard {
    dir: PathBuf,
}

#[uniffi::export]
impl Guard {
    /// That of this directory.
    #[uniffi::constructor]
    pub fn new(directory: String) -> Arc<Guard> {
        Arc::new(Guard { dir: directory.into() })
    }

    /// What is in quarantine, and what was in the same quarantine and is no longer; nothing where the directory is
    /// not held back.
    ///
    /// # Errors
    /// Not found where there is no such directory.
    pub fn list(&self) -> Result<Vec<Held>> {
        Ok(guard::list(&self.dir)?.into_iter().map(Held::from).collect())
    }

    /// How the directory stands; none where it is not held back.
    ///
    /// # Errors
    /// Not found where there is no such directory.
    pub fn show(&self) -> Result<Option<Standing>> {
        guard::list(&self.dir)?;
        Ok(guard::standing(&self.dir)?.map(|standing| Standing {
            node: standing.node.to_string(),
            guard: standing.kind.into(),
            cause: standing.cause.into(),
            snapshot: standing.snapshot.map(|snapshot| snapshot.to_string()),
            since: time(standing.since),
            quarantined: standing.quarantined(),
            held: standing.held.into_iter().map(Held::from).collect(),
        }))
    }

    /// Releases a channel, or the database of a part, or all, by an operator's decision, which is recorded; returns
    /// what is in quarantine afterwards. Repeating the call finishes what was interrupted. `although_old` says that
    /// the state may be released although the vault knows of a newer one.
    ///
    /// # Errors
    /// Input without a reason; not found where nothing in quarantine has the name; quarantined where the vault knew of
    /// a newer state when this one was restored, or a signer needs a floor, which the program states.
    #[uniffi::method(default(which = None, although_old = false, actor = None))]
    pub fn release(
        &self,
        reason: String,
        which: Option<String>,
        although_old: bool,
        actor: Option<Actor>,
    ) -> Result<Vec<Held>> {
        let by = Actor::or_standard(actor)?.name;
        highwater_nodes::floor::refuse_without(&self.dir, which.as_deref())
            .map_err(by_the_program)?;
        let which = which.map_or(Which::All, Which::Channel);
        let release = match although_old {
            true => guard::release_although_old,
            false => guard::release,
        };
        let held = Call::new(None, None)
            .run(|control| release(&self.dir, &which, &reason, &by, control))?;
        Ok(held.into_iter().map(Held::from).collect())
    }

    /// Waits until nothing keeps the node from being started.
    ///
    /// # Errors
    /// Quarantined where `timeout` passes before; interrupted where it was cancelled.
    #[uniffi::method(default(timeout = None, cancel = None))]
    pub fn wait_to_start(
        &self,
        timeout: Option<Duration>,
        cancel: Option<Arc<Cancel>>,
    ) -> Result<()> {
        Call::new(None, cancel.as_ref())
            .run(|control| guard::wait_to_start(&self.dir, timeout, control))
    }
}

/// The floor of a signer is stated to the program alone.
fn by_the_program(error: highwater::Error) -> Error {
    match error.kind() {
        Kind::Quarantined => error
            .instead([highwater::Remedy::from(
                "release it by the program, which takes the floor: `highwater guard release`",
            )])
            .into(),
        _ => error.into(),
    }
}
