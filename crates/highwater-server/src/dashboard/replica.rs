//! How the replicas stand: a row for each, and what an operator should know of it.

use highwater::Error;
use highwater::agent::{ReplicaStanding, ReplicaState, Status};

use super::format::{self, Moment};
use super::standing::{Add, Tone};

/// A store that is so far behind, without an error, is worth a word.
const LAG_SECONDS_WARN: u64 = 60;

/// A replica in a table.
pub(super) struct ReplicaRow {
    pub(super) node: String,
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) waits: String,
    pub(super) lag: String,
    /// The last write that the server has, of the last one here.
    pub(super) writes: String,
    pub(super) epoch: String,
    pub(super) seen: Option<Moment>,
    pub(super) error: Option<String>,
}

impl ReplicaRow {
    /// The row of a node that has a replica.
    pub(super) fn of(status: &Status) -> Option<ReplicaRow> {
        let replica = status.replica.as_ref()?;
        let (tone, word) = judged(replica);
        let number = |known: Option<u64>| known.map_or("unknown".to_owned(), |n| n.to_string());
        Some(ReplicaRow {
            node: status.node.to_string(),
            class: tone.class(),
            word,
            waits: match (replica.pending_writes, replica.pending_bytes) {
                (Some(0), _) => "nothing".to_owned(),
                (Some(writes), Some(bytes)) => {
                    let writes = format::count(writes, "write", "writes");
                    format!("{writes}, {}", format::bytes(bytes))
                }
                _ => "unknown".to_owned(),
            },
            lag: replica.lag.map_or("unknown".to_owned(), |lag| match lag.as_secs() {
                0 => format!("{} ms", lag.as_millis()),
                seconds => format::age(seconds),
            }),
            writes: format!("{} of {}", number(replica.acknowledged), number(replica.written)),
            epoch: number(replica.epoch),
            seen: replica.seen.map(|seen| Moment::new(seen, status.now)),
            error: replica.last_error.as_ref().map(Error::summary),
        })
    }
}

/// How a replica stands, in one word or two.
fn judged(replica: &ReplicaStanding) -> (Tone, &'static str) {
    if replica.fenced == Some(true) {
        return (Tone::Bad, "fenced");
    }
    match replica.state {
        Some(ReplicaState::Lost) => (Tone::Bad, "lost"),
        Some(ReplicaState::Absent) => (Tone::Warn, "absent"),
        _ if replica.last_error.is_some() => (Tone::Warn, "failing"),
        Some(ReplicaState::Filling) => (Tone::Warn, "filling"),
        Some(ReplicaState::Open | ReplicaState::Released) => (Tone::Good, "whole"),
        None => (Tone::Warn, "not known yet"),
    }
}

/// What is to be known of a node's replica.
pub(super) fn findings(status: &Status, add: Add<'_>) {
    let Some(replica) = &status.replica else { return };
    let why = |what: &str| match &replica.last_error {
        Some(error) => format!("{what}: {}", error.summary()),
        None => what.to_owned(),
    };
    if replica.fenced == Some(true) {
        let error = replica.last_error.as_ref().map(Error::summary);
        let error = error.unwrap_or_else(|| "Another owner writes to the server".to_owned());
        let text = format!("{error}; the node must stop acting");
        return add(Tone::Bad, "Fenced", text, None);
    }
    match replica.state {
        Some(ReplicaState::Lost) => {
            let text = why("The server has lost what it had of the node's store");
            add(Tone::Bad, "Replica lost", text, None);
        }
        Some(ReplicaState::Absent) => {
            let text = "The server has nothing of the node's store yet".to_owned();
            add(Tone::Warn, "No replica", text, None);
        }
        _ if replica.last_error.is_some() => {
            add(Tone::Warn, "Replica fails", why("The node's store is not replicated"), None);
        }
        Some(ReplicaState::Filling) => {
            let text = "The server is being filled: it has no whole copy of the node's store yet";
            add(Tone::Warn, "Replica not whole", text.to_owned(), None);
        }
        _ => {
            let seconds = replica.lag.map_or(0, |lag| lag.as_secs());
            if seconds >= LAG_SECONDS_WARN {
                let text = format!("The oldest write that waits is {} old", format::age(seconds));
                add(Tone::Warn, "Replica behind", text, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn well() -> ReplicaStanding {
        ReplicaStanding {
            backup_exists: Some(true),
            backup_required: Some(false),
            pending_writes: Some(0),
            pending_bytes: Some(0),
            lag: Some(Duration::ZERO),
            state: Some(ReplicaState::Open),
            fenced: Some(false),
            ..ReplicaStanding::default()
        }
    }

    #[test]
    fn what_is_worst_is_said_and_absence_is_never_taken_for_health() {
        let error = || Some(Error::unavailable("no network"));
        let cases = [
            (well(), (Tone::Good, "whole")),
            (ReplicaStanding::default(), (Tone::Warn, "not known yet")),
            (ReplicaStanding { last_error: error(), ..well() }, (Tone::Warn, "failing")),
            (
                ReplicaStanding { fenced: Some(true), last_error: error(), ..well() },
                (Tone::Bad, "fenced"),
            ),
            (ReplicaStanding { state: Some(ReplicaState::Lost), ..well() }, (Tone::Bad, "lost")),
            (
                ReplicaStanding { state: Some(ReplicaState::Filling), ..well() },
                (Tone::Warn, "filling"),
            ),
        ];
        for (replica, expected) in cases {
            assert_eq!(judged(&replica), expected, "{replica:?}");
        }
    }
}
