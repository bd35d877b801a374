//! The agents that a server speaks for, by the names of their nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::agent::{Agent, Operation, OperationId};
use highwater::{Error, Kind, Result};
use parking_lot::RwLock;

/// The agents of one process; clones share them.
#[derive(Clone, Default)]
pub struct Agents(Arc<Inner>);

#[derive(Default)]
struct Inner(RwLock<BTreeMap<String, Agent>>);

impl Drop for Inner {
    /// The last of an agent drops its vault, which must not be where asynchronous code runs.
    fn drop(&mut self) {
        let agents = std::mem::take(self.0.get_mut());
        std::thread::scope(|scope| drop(scope.spawn(move || drop(agents))));
    }
}

impl Agents {
    /// Adds an agent; one of the same node is replaced, and returned.
    pub fn add(&self, agent: Agent) -> Option<Agent> {
        let node = agent.node().to_string();
        self.0.0.write().insert(node, agent)
    }

    /// Takes the agent of a node out. It goes on until it is stopped or dropped.
    pub fn remove(&self, node: &str) -> Option<Agent> {
        self.0.0.write().remove(node)
    }

    /// All of them, by the names of their nodes.
    pub fn all(&self) -> Vec<Agent> {
        self.0.0.read().values().cloned().collect()
    }

    /// The agent of a node; where no node is named, the only one.
    ///
    /// # Errors
    /// Not found where no agent serves the node; input where none is named and there are several.
    pub fn find(&self, node: &str) -> Result<Agent> {
        let agents = self.0.0.read();
        let found = match (node, agents.len()) {
            ("", 1) => agents.values().next(),
            ("", 2..) => {
                let names: Vec<&str> = agents.keys().map(String::as_str).collect();
                return Err(Error::input("the call names no node")
                    .with_remedy(format!("the agent serves {}", names.join(", "))));
            }
            _ => agents.get(node),
        };
        found.cloned().ok_or_else(|| {
            Error::not_found(format!("no agent serves a node `{}`", node.escape_debug()))
        })
    }

    /// The agents of one node, or all where none is named.
    ///
    /// # Errors
    /// Not found where no agent serves the node.
    pub fn chosen(&self, node: &str) -> Result<Vec<Agent>> {
        if node.is_empty() { Ok(self.all()) } else { Ok(vec![self.find(node)?]) }
    }

    /// The agent of a node; where no node is named, the only one whose store is replicated.
    ///
    /// # Errors
    /// Not found where no agent serves the node, or none has a replica; input where none is named and
    /// several have one.
    pub(crate) fn replicated(&self, node: &str) -> Result<Agent> {
        if !node.is_empty() {
            return self.find(node);
        }
        let mut having = self.all().into_iter().filter(|agent| agent.status().replica.is_some());
        match (having.next(), having.next()) {
            (None, _) => Err(Error::not_found("no node of this agent has a replica")),
            (Some(one), None) => Ok(one),
            (Some(one), Some(other)) => {
                let (one, other) = (one.node(), other.node());
                Err(Error::input("the call names no node")
                    .with_remedy(format!("several have a replica, {one} and {other} among them")))
            }
        }
    }

    /// An operation, and the agent that has it.
    ///
    /// # Errors
    /// Input where it is not a handle; not found where no agent knows it.
    pub fn operation(&self, id: &str) -> Result<(Agent, Operation)> {
        let id: OperationId = id.parse()?;
        for agent in self.all() {
            match agent.operation(id) {
                Ok(operation) => return Ok((agent, operation)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::not_found(format!("there is no operation {id}")))
    }
}
