//! What the agents do, told a line at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::Result;
use highwater::agent::{Agent, Operation, OperationId, OperationState};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::{exit, format, output};

/// Operations that are looked at: no more of one node begin and end between two looks.
const OPERATIONS_MAX: u32 = 16;

/// Tells what happens: a document a line to standard output, or a line for people to standard error.
pub(in crate::commands) fn tell(json: bool, document: &Value, text: &str) {
    if json {
        // Whoever read has gone: that ends no agent.
        let _ = output::tell(&document.to_string());
    } else {
        output::note(text);
    }
}

/// Tells the operations of an agent, as they begin and end.
pub(super) struct Story {
    teller: Arc<Teller>,
    task: AbortHandle,
}

struct Teller {
    /// None once the story has ended: another agent of the node may begin then, whatever look is late.
    agent: Mutex<Option<Agent>>,
    json: bool,
    told: Mutex<BTreeMap<OperationId, OperationState>>,
}

impl Story {
    /// Begins with what is new from now on.
    pub(super) fn begin(agent: Agent, json: bool) -> Result<Story> {
        let mut changes = agent.changes();
        let told = agent.operations(OPERATIONS_MAX)?;
        let old = told.iter().filter(|operation| operation.state.is_final());
        let told = Mutex::new(old.map(|operation| (operation.id, operation.state)).collect());
        let teller = Arc::new(Teller { agent: Mutex::new(Some(agent)), json, told });
        let task = tokio::spawn({
            let teller = Arc::clone(&teller);
            async move {
                loop {
                    let looking = Arc::clone(&teller);
                    // A panic of a look is told by its thread; the next one goes on.
                    let _ = tokio::task::spawn_blocking(move || looking.look()).await;
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Story { teller, task: task.abort_handle() })
    }

    /// Ends, with the last operations of an agent that was stopped.
    pub(super) fn end(self) {
        self.task.abort();
        self.teller.look();
        self.teller.agent.lock().take();
    }
}

impl Teller {
    fn look(&self) {
        let agent = self.agent.lock();
        let Some(agent) = &*agent else { return };
        let mut told = self.told.lock();
        let operations = match agent.operations(OPERATIONS_MAX) {
            Ok(operations) => operations,
            Err(error) => {
                let mut document = exit::document(&error);
                document["event"] = "history".into();
                return tell(self.json, &document, &exit::lines(&error));
            }
        };
        for operation in operations.iter().rev() {
            let news = told.insert(operation.id, operation.state) != Some(operation.state);
            // People are told once it begins.
            if news && (self.json || operation.state != OperationState::Queued) {
                tell(self.json, &document(operation), &line(operation));
            }
        }
        told.retain(|id, _| operations.iter().any(|operation| operation.id == *id));
    }
}

fn document(operation: &Operation) -> Value {
    let mut document = json!(operation);
    document["event"] = "operation".into();
    document
}

fn line(operation: &Operation) -> String {
    let task = operation.task.name().replace('_', " ");
    let mut line = format!("{}: {task} {}", operation.node, operation.state.name());
    if let Some(snapshot) = operation.snapshot {
        line.push_str(&format!(", snapshot {snapshot}"));
    }
    if let (OperationState::Completed, true) = (operation.state, operation.bytes_total > 0) {
        line.push_str(&format!(", {}", format::bytes(operation.bytes_total)));
    }
    if let Some(reason) = &operation.reason {
        line.push_str(&format!(": {reason}"));
    }
    for warning in &operation.warnings {
        line.push_str(&format!("\n{}: warning: {warning}", operation.node));
    }
    line
}
