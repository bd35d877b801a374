//! What can be called, for both interfaces alike: who may, what it does. Each call blocks its thread.

use std::time::Duration;

use highwater::agent::{Agent, Operation, ReplicaStanding, Snapshot, Status, Task};
use highwater::guard::{Held, Which};
use highwater::ids::NodeName;
use highwater::vault::Selector;
use highwater::{Error, Result};

use crate::fault::CallFault;
use crate::state::{Identity, ServerState};
use highwater_gate::Scope;

/// How many operations are listed if the caller does not say.
const OPERATIONS: u32 = 100;
/// No more are listed, whatever the caller says.
const OPERATIONS_MAX: u32 = 1000;
/// A caller waits for a flush no longer; what waits is sent all the same.
const FLUSH_WAIT: Duration = Duration::from_secs(10);

/// One call: who makes it, and by which name.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a ServerState,
    pub(crate) identity: &'a Identity,
    pub(crate) method: &'a str,
}

impl Call<'_> {
    fn read(&self) -> Result<(), CallFault> {
        let caller = self.state.allow(self.identity, Scope::Read, self.method, "")?;
        tracing::debug!(method = self.method, caller = ?caller.label, "read");
        Ok(())
    }

    /// Does what changes something, and records it where it fails although it was allowed.
    fn act<T>(
        &self,
        scope: Scope,
        about: &str,
        act: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T, CallFault> {
        let caller = self.state.allow(self.identity, scope, self.method, about)?;
        tracing::info!(method = self.method, caller = ?caller.label, ?about, "called");
        act(&caller.label).map_err(|error| {
            let fault = CallFault::Error(error);
            match self.state.record(self.identity, self.method, about, fault.kind()) {
                Ok(()) => fault,
                Err(unwritten) => unwritten,
            }
        })
    }

    /// Begins a task of a node.
    pub(crate) fn begin(&self, node: &str, task: Task) -> Result<Operation, CallFault> {
        self.act(Scope::Backup, node, |_| self.state.agents.find(node)?.begin(task))
    }

    /// Begins a check of what a node has in the vault: its manifests, every byte, or a restore test.
    pub(crate) fn check(
        &self,
        node: &str,
        read_data: bool,
        restore_test: bool,
    ) -> Result<Operation, CallFault> {
        let task = match (restore_test, read_data) {
            (true, true) => {
                return Err(Error::input("a check either reads all data or restores").into());
            }
            (true, false) => Task::RestoreTest,
            (false, true) => Task::CheckData,
            (false, false) => Task::Check,
        };
        self.begin(node, task)
    }

    /// Asks an operation to stop.
    pub(crate) fn cancel(&self, id: &str) -> Result<Operation, CallFault> {
        self.act(Scope::Backup, id, |_| {
            let (agent, operation) = self.state.agents.operation(id)?;
            agent.cancel(operation.id)
        })
    }

    /// An operation, and the agent that has it.
    pub(crate) fn operation(&self, id: &str) -> Result<(Agent, Operation), CallFault> {
        self.read()?;
        Ok(self.state.agents.operation(id)?)
    }

    /// The newest operations of a node, or of all, newest first. 0: the usual number.
    pub(crate) fn operations(&self, node: &str, max: u32) -> Result<Vec<Operation>, CallFault> {
        self.read()?;
        let max = if max == 0 { OPERATIONS } else { max.min(OPERATIONS_MAX) };
        let mut operations = Vec::new();
        for agent in self.state.agents.chosen(node)? {
            operations.extend(agent.operations(max)?);
        }
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.queued_at));
        operations.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(operations)
    }

    /// The snapshots of a node, or of all, oldest first, as the vault has them now.
    pub(crate) fn snapshots(&self, node: &str) -> Result<Vec<Snapshot>, CallFault> {
        self.read()?;
        let mut snapshots = Vec::new();
        for agent in self.state.agents.chosen(node)? {
            let vault = agent.vault().get()?;
            vault
                .each_snapshot(Some(agent.node()), |info| snapshots.push(Snapshot::from(&info)))?;
        }
        Ok(snapshots)
    }

    /// One snapshot of a node: an id, a unique prefix of one, or `latest`.
    pub(crate) fn snapshot(&self, node: &str, name: &str) -> Result<Snapshot, CallFault> {
        self.read()?;
        let agent = self.state.agents.find(node)?;
        let selector = selector(agent.node(), name)?;
        Ok(Snapshot::from(&agent.vault().get()?.resolve(&selector)?))
    }

    /// How a node stands, or each of them.
    pub(crate) fn status(&self, node: &str) -> Result<Vec<Status>, CallFault> {
        self.read()?;
        Ok(self.state.agents.chosen(node)?.iter().map(Agent::status).collect())
    }

    /// How the replica of a node stands.
    pub(crate) fn replica(&self, node: &str) -> Result<(NodeName, ReplicaStanding), CallFault> {
        self.read()?;
        let status = self.state.agents.replicated(node)?.status();
        let replica = status.replica.ok_or_else(|| {
            Error::not_found("the node has no replica").with_entry(status.node.to_string())
        })?;
        Ok((status.node, replica))
    }

    /// Returns once the server has all that a node's store held before, and how the replica stands then.
    pub(crate) fn flush(&self, node: &str) -> Result<(NodeName, ReplicaStanding), CallFault> {
        let Ok(_place) = self.state.flushes.try_acquire() else {
            return Err(CallFault::Limit("flushes"));
        };
        self.act(Scope::Backup, node, |_| {
            let agent = self.state.agents.replicated(node)?;
            Ok((agent.node().clone(), agent.flush_replica(FLUSH_WAIT)?))
        })
    }

    /// What of a node, or of all, is quarantined or was.
    pub(crate) fn channels(&self, node: &str) -> Result<Vec<(NodeName, Held)>, CallFault> {
        self.read()?;
        let mut channels = Vec::new();
        for agent in self.state.agents.chosen(node)? {
            channels.extend(named(&agent, agent.quarantine()?));
        }
        Ok(channels)
    }

    /// Releases one channel or database from quarantine, by the caller's decision.
    pub(crate) fn release(
        &self,
        node: &str,
        channel: &str,
        reason: &str,
    ) -> Result<Vec<(NodeName, Held)>, CallFault> {
        self.act(Scope::Admin, channel, |caller| {
            if channel.is_empty() {
                return Err(Error::input("the call names no channel"));
            }
            let agent = self.state.agents.find(node)?;
            let which = Which::Channel(channel.to_owned());
            let held = agent.release(&which, reason, caller)?;
            Ok(named(&agent, held))
        })
    }
}

/// What a caller means by a snapshot of a node.
///
/// # Errors
/// Input where it names none, or can't be the name of one.
pub(crate) fn selector(node: &NodeName, name: &str) -> Result<Selector> {
    let fits = name == "latest"
        || !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !fits {
        let message = format!("`{}` is not the name of a snapshot", name.escape_debug());
        return Err(
            Error::input(message).with_remedy("use an id, a unique prefix of one, or `latest`")
        );
    }
    let node = Some(node.clone());
    Ok(Selector { snapshot: name.to_owned(), node, ..Selector::default() })
}

fn named(agent: &Agent, held: Vec<Held>) -> Vec<(NodeName, Held)> {
    held.into_iter().map(|held| (agent.node().clone(), held)).collect()
}
