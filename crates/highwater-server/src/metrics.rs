//! `/metrics`: what the library has counted, and how the nodes stand at the moment of the question, as
//! text for Prometheus.
//!
//! What is not known has no sample, never a zero: an alert has to see that it is missing.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use highwater::agent::{OperationState, ReplicaStanding, ReplicaState, Status};
use highwater::ids::Time;
use highwater::vault::Level;
use highwater_gate::figures;

use crate::fault::CallFault;
use crate::state::ServerState;

/// The metrics that are reckoned when they are asked for; the names are stable.
const FAMILIES: [Family; 17] = [
    Family {
        name: "highwater_node_info",
        help: "A node that this agent serves, and the version of the agent; always 1.",
    },
    Family {
        name: "highwater_snapshot_age_seconds",
        help: "Age of the newest snapshot of a node that is of this level or a better one.",
    },
    Family {
        name: "highwater_snapshot_shrunk",
        help: "Whether the newest snapshot of a node lacks what an earlier one has, unacknowledged.",
    },
    Family {
        name: "highwater_snapshot_mark",
        help: "A mark of the newest snapshot of a node: a counter that only rises; over all channels their sum.",
    },
    Family {
        name: "highwater_snapshot_channels",
        help: "Channels, or keys, of the newest snapshot of a node that have marks of their own.",
    },
    Family {
        name: "highwater_backup_failures_consecutive",
        help: "Backups of a node that have failed since the last one that succeeded.",
    },
    Family {
        name: "highwater_operations_running",
        help: "Backups, checks and restore tests that run.",
    },
    Family {
        name: "highwater_quarantined_channels",
        help: "Channels and databases of a node that are held back after a restore.",
    },
    Family {
        name: "highwater_restore_test_age_seconds",
        help: "Time since a restore test of a node has last succeeded.",
    },
    Family { name: "highwater_replica_info", help: "A node whose store is replicated; always 1." },
    Family {
        name: "highwater_replica_pending_writes",
        help: "Writes of a replicated store that are durable locally and not on the server.",
    },
    Family {
        name: "highwater_replica_pending_bytes",
        help: "Bytes of the keys and values of those writes.",
    },
    Family {
        name: "highwater_replica_lag_seconds",
        help: "Age of the oldest of those writes; 0 where none waits.",
    },
    Family {
        name: "highwater_replica_backup_exists",
        help: "Whether the server has one whole instant of a replicated store.",
    },
    Family {
        name: "highwater_replica_fenced",
        help: "Whether another owner writes to the server of a replicated store.",
    },
    Family {
        name: "highwater_replica_lost",
        help: "Whether the server has nothing of a replicated store, or less than it has acknowledged.",
    },
    Family {
        name: "highwater_replica_failing",
        help: "Whether writes of a replicated store fail, or their state is unknown.",
    },
];

struct Family {
    name: &'static str,
    help: &'static str,
}

pub(crate) fn router(state: Arc<ServerState>) -> Router {
    let mut stopping = state.stopping.subscribe();
    let upkeep = figures::upkeep();
    tokio::spawn(async move {
        tokio::select! {
            () = upkeep => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    });
    Router::new().route("/metrics", get(scrape)).with_state(state)
}

async fn scrape(Shared(state): Shared<Arc<ServerState>>) -> Response {
    let text = state.run(|state| {
        let agents = state.agents.all();
        let statuses: Vec<Status> = agents.iter().map(|agent| agent.status()).collect();
        let mut text = counted(&figures::counted());
        reckoned(&statuses, &mut text);
        Ok::<_, CallFault>(text)
    });
    match text.await {
        Ok(text) => figures::answer(text),
        Err(fault) => fault.into_response(),
    }
}

/// The text of the recorder without what is reckoned: no family stands in the answer twice.
fn counted(text: &str) -> String {
    let reckoned = |line: &str| {
        let line = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        let name = line.split([' ', '{']).next().unwrap_or_default();
        FAMILIES.iter().any(|family| family.name == name)
    };
    text.lines().filter(|line| !reckoned(line)).fold(String::new(), |mut kept, line| {
        kept.push_str(line);
        kept.push('\n');
        kept
    })
}

/// How the nodes stand.
fn reckoned(statuses: &[Status], text: &mut String) {
    for family in &FAMILIES {
        let mut samples = String::new();
        for status in statuses {
            samples_of(family.name, status, &mut samples);
        }
        if family.name == "highwater_operations_running" {
            let active = statuses.iter().flat_map(|status| &status.active);
            let running =
                active.filter(|operation| operation.state == OperationState::Running).count();
            samples = format!("{} {running}\n", family.name);
        }
        if !samples.is_empty() {
            let Family { name, help } = family;
            // Writing to a string can't fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{samples}\n");
        }
    }
}

/// The samples of one node in one family; none where the value is not known.
fn samples_of(name: &str, status: &Status, samples: &mut String) {
    let node = escaped(status.node.as_str());
    let mut sample = |labels: &str, value: u64| {
        let _ = writeln!(samples, "{name}{{node=\"{node}\"{labels}}} {value}");
    };
    match name {
        "highwater_node_info" => sample(&format!(",version=\"{}\"", crate::VERSION), 1),
        "highwater_snapshot_age_seconds" => {
            for (level, label) in [(Level::Sealed, "sealed"), (Level::Restored, "restored")] {
                if let Some(age) = status.age_seconds(level) {
                    sample(&format!(",level=\"{label}\""), age);
                }
            }
        }
        "highwater_snapshot_shrunk" => {
            if status.newest(Level::Sealed).is_some() {
                sample("", u64::from(status.shrunk().is_some()));
            }
        }
        "highwater_snapshot_mark" => {
            for (mark, value) in status.newest(Level::Sealed).iter().flat_map(|it| &it.marks) {
                sample(&format!(",mark=\"{}\"", escaped(mark)), *value);
            }
        }
        "highwater_snapshot_channels" => {
            if let Some(newest) = status.newest(Level::Sealed).filter(|it| it.channels > 0) {
                sample("", newest.channels);
            }
        }
        "highwater_backup_failures_consecutive" => sample("", u64::from(status.failures)),
        "highwater_quarantined_channels" => {
            if let Some(number) = status.quarantined {
                sample("", number);
            }
        }
        "highwater_restore_test_age_seconds" => {
            let known = |tested: &Time| !tested.is_ahead_of(status.now);
            if let Some(tested) = status.restore_tested.filter(known) {
                sample("", status.now.seconds_since(tested));
            }
        }
        _ => {
            if let Some(value) = status.replica.as_ref().and_then(|one| replica_value(name, one)) {
                let _ = writeln!(samples, "{name}{{node=\"{node}\"}} {value}");
            }
        }
    }
}

/// The value of a replica in one family; none where it is not known.
fn replica_value(name: &str, replica: &ReplicaStanding) -> Option<f64> {
    let flag = |known: Option<bool>| known.map(|is| f64::from(u8::from(is)));
    match name {
        "highwater_replica_info" => Some(1.0),
        "highwater_replica_pending_writes" => replica.pending_writes.map(|writes| writes as f64),
        "highwater_replica_pending_bytes" => replica.pending_bytes.map(|bytes| bytes as f64),
        "highwater_replica_lag_seconds" => replica.lag.map(|lag| lag.as_secs_f64()),
        "highwater_replica_backup_exists" => flag(replica.backup_exists),
        "highwater_replica_fenced" => flag(replica.fenced),
        "highwater_replica_lost" => flag(replica.state.map(|state| state == ReplicaState::Lost)),
        "highwater_replica_failing" => flag(Some(replica.last_error.is_some())),
        _ => None,
    }
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reckoned_is_not_taken_from_the_recorder() {
        let text = "# HELP highwater_operations_running x\n# TYPE highwater_operations_running gauge\n\
                    highwater_operations_running 3\n\n# TYPE a_total counter\na_total{kind=\"x\"} 1\n";
        assert_eq!(counted(text), "\n# TYPE a_total counter\na_total{kind=\"x\"} 1\n");
    }

    #[test]
    fn a_label_can_hold_anything() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
