//! An operation: one backup, check or restore test that an agent runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::ids::{NodeName, SnapshotId, Time};

/// The handle of an operation: a random UUID (version 4, RFC 9562).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(uuid::Uuid);

impl OperationId {
    pub(super) fn random(env: &Env) -> Result<OperationId> {
        Ok(OperationId(uuid::Builder::from_random_bytes(env.random()?).into_uuid()))
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for OperationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<OperationId> {
        uuid::Uuid::try_parse(text).map(OperationId).map_err(|_| {
            Error::input(format!("`{}` is not a handle of an operation", text.escape_debug()))
                .with_remedy("it is the UUID that starting the operation has returned")
        })
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Its name in documents.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            pub(super) fn parse(text: &str) -> Option<$name> {
                match text { $($text => Some($name::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// Where an operation stands.
    OperationState {
        /// It waits for its turn.
        Queued = "queued",
        /// It runs.
        Running = "running",
        /// It has done what it was to do.
        Completed = "completed",
        /// It has not; [`Operation::reason`] tells why.
        Failed = "failed",
        /// It was cancelled; nothing of it is visible.
        Cancelled = "cancelled",
    }
}

impl OperationState {
    /// Whether it will not change any more.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            OperationState::Completed | OperationState::Failed | OperationState::Cancelled
        )
    }
}

words! {
    /// What an operation does.
    Task {
        /// Backs the node up.
        Backup = "backup",
        /// Looks at the manifests and sizes of the node's snapshots.
        Check = "check",
        /// Opens every byte of the node's snapshots.
        CheckData = "check_data",
        /// Restores the newest snapshot into a scratch directory, and lets the engines check it.
        RestoreTest = "restore_test",
    }
}

words! {
    /// What has started an operation.
    Trigger {
        /// A caller.
        Manual = "manual",
        /// The agent's start.
        Start = "start",
        /// The schedule.
        Schedule = "schedule",
        /// The node, after a change that must not be lost.
        Event = "event",
        /// A failure before.
        Retry = "retry",
    }
}

/// One backup, check or restore test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Its handle.
    pub id: OperationId,
    /// The node.
    pub node: NodeName,
    /// What it does.
    pub task: Task,
    /// What has started it.
    pub trigger: Trigger,
    /// Where it stands.
    pub state: OperationState,
    /// What it is doing: a few words; empty before it runs and after it.
    pub stage: String,
    /// Bytes of the node, or of the vault, that it has passed over.
    pub bytes_done: u64,
    /// Bytes that it will pass over, as far as is known; 0 where it is not.
    pub bytes_total: u64,
    /// When it was asked for.
    pub queued_at: Time,
    /// When it began to run.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// Why it failed, or was cancelled.
    pub reason: Option<String>,
    /// The kind of the error that it failed with: [`Kind::name`].
    pub kind: Option<String>,
    /// The snapshot that it made or tested.
    pub snapshot: Option<SnapshotId>,
    /// The vault.
    pub location: String,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl Operation {
    /// How much is done, from 0 to 100; `None` where it can't be told.
    pub fn percent(&self) -> Option<u8> {
        match (self.state, self.bytes_total) {
            (OperationState::Completed, _) => Some(100),
            (_, 0) => None,
            (_, total) => {
                let percent = u128::from(self.bytes_done.min(total)) * 100 / u128::from(total);
                u8::try_from(percent).ok()
            }
        }
    }

    /// Ends it as an outcome says.
    pub(super) fn end(&mut self, outcome: Result<Done>, cancelled: bool, now: Time) {
        self.finished_at = Some(now);
        self.stage.clear();
        match outcome {
            Ok(done) => {
                self.state = OperationState::Completed;
                // Files that went while they were read count as passed over.
                self.bytes_done = self.bytes_total;
                self.snapshot = done.snapshot.or(self.snapshot);
                self.warnings = done.warnings;
            }
            Err(error) if cancelled && error.kind() == Kind::Interrupted => {
                self.state = OperationState::Cancelled;
                self.reason = Some("cancelled".to_owned());
            }
            Err(error) => {
                self.state = OperationState::Failed;
                self.kind = Some(error.kind().name().to_owned());
                self.reason = Some(error.summary());
            }
        }
    }
}

/// What an operation has brought.
#[derive(Default)]
pub(super) struct Done {
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) warnings: Vec<String>,
}
