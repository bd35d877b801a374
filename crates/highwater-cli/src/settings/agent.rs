//! What `highwater.toml` says of the agent: where it listens, and which nodes it keeps.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::agent::{Cadence, Priority, Rules};
use highwater::ids::NodeName;
use highwater::vault::Effort;
use highwater::vault::retention::Retention;
use highwater::{Error, Result};
use serde::{Deserialize, Deserializer};

use super::replica::{ReplicaSettings, ReplicaTable};
use crate::cli::Compression;
use crate::values;

/// Where the agent listens if nothing is said.
const LISTEN: &str = "127.0.0.1:9753";
/// If no age is set, a snapshot older than this many intervals is stale.
const STALE_INTERVALS: u32 = 2;
/// If no interval is set either, a snapshot older than this is stale.
const STALE_AFTER: Duration = Duration::from_secs(26 * 60 * 60);

/// The tables of the file that are the agent's, as they are written.
pub(super) struct Tables {
    pub(super) listen: Option<String>,
    pub(super) tokens_file: Option<PathBuf>,
    pub(super) audit_file: Option<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) tls: Option<TlsTable>,
    pub(super) node: Vec<NodeTable>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    cert: PathBuf,
    key: PathBuf,
}

impl TlsTable {
    /// Certificate chain and key; relative paths start at `base`.
    pub(super) fn files(self, base: &Path) -> (PathBuf, PathBuf) {
        (base.join(self.cert), base.join(self.key))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeTable {
    name: Option<NodeName>,
    dir: PathBuf,
    #[serde(default)]
    capture: CaptureMode,
    pid_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "duration")]
    interval: Option<Duration>,
    cron: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    restore_test: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    max_age: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    max_pause: Option<Duration>,
    #[serde(default)]
    guarded: bool,
    unguarded: Option<String>,
    #[serde(default)]
    no_barrier: bool,
    #[serde(default)]
    priority: PriorityName,
    effort: Option<Compression>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    retention: RetentionTable,
    replica: Option<ReplicaTable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionTable {
    #[serde(default)]
    last: u32,
    #[serde(default)]
    hourly: u32,
    #[serde(default)]
    daily: u32,
    #[serde(default)]
    weekly: u32,
    #[serde(default)]
    monthly: u32,
    #[serde(default, deserialize_with = "duration")]
    within: Option<Duration>,
}

pub(super) fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = values::duration(&text).map_err(serde::de::Error::custom)?;
    if duration.is_zero() {
        return Err(serde::de::Error::custom(format!(
            "`{text}` is no time: it must be above zero"
        )));
    }
    Ok(Some(duration))
}

/// How a node is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CaptureMode {
    /// SQLite, and a RocksDB that is the node's only database, live; other databases frozen while somebody has them open, else under their lock.
    #[default]
    Auto,
    /// The node is stopped for a moment whenever it runs.
    Freeze,
    /// Only what nobody has open; SQLite live.
    Offline,
}

/// Who goes first: the node, or its backups too.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PriorityName {
    /// What backs up takes what others leave.
    #[default]
    Low,
    /// It takes its part as everything else.
    Normal,
}

/// What the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AgentSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) tokens_file: Option<PathBuf>,
    pub(crate) audit_file: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
    /// Certificate chain and key, as PEM files.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) nodes: Vec<NodeSettings>,
}

impl Default for AgentSettings {
    fn default() -> AgentSettings {
        AgentSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 9753)),
            tokens_file: None,
            audit_file: None,
            data_dir: None,
            tls: None,
            nodes: Vec::new(),
        }
    }
}

/// One `[[node]]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeSettings {
    pub(crate) name: NodeName,
    pub(crate) dir: PathBuf,
    pub(crate) capture: CaptureMode,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) interval: Option<Duration>,
    pub(crate) cron: Option<String>,
    pub(crate) restore_test: Option<Duration>,
    pub(crate) max_age: Duration,
    pub(crate) max_pause: Option<Duration>,
    pub(crate) guarded: bool,
    pub(crate) unguarded: Option<String>,
    pub(crate) no_barrier: bool,
    pub(crate) priority: Priority,
    pub(crate) effort: Effort,
    pub(crate) exclude: Vec<String>,
    pub(crate) retention: Retention,
    pub(crate) replica: Option<ReplicaSettings>,
}

impl NodeSettings {
    /// When the agent acts by itself.
    pub(crate) fn rules(&self) -> Result<Rules> {
        let backup = match (&self.cron, self.interval) {
            (Some(cron), _) => Some(Cadence::cron(cron)?),
            (None, interval) => interval.map(Cadence::Every),
        };
        let (restore_test, age_max) = (self.restore_test, self.max_age);
        Ok(Rules::default().backup(backup).restore_test(restore_test).age_max(age_max))
    }

    /// Whether an agent under the other settings can go on under these with other rules alone.
    pub(crate) fn differs_by_rules_alone(&self, other: &NodeSettings) -> bool {
        let same = NodeSettings {
            interval: self.interval,
            cron: self.cron.clone(),
            restore_test: self.restore_test,
            retention: self.retention.clone(),
            max_age: self.max_age,
            ..other.clone()
        };
        same == *self
    }
}

impl Tables {
    /// The settings; relative paths start at `base`.
    pub(super) fn resolve(self, base: &Path) -> Result<AgentSettings> {
        let listen = self.listen.as_deref().unwrap_or(LISTEN);
        let listen = listen.parse().map_err(|_| {
            Error::input(format!("`{}` is not an address to listen on", listen.escape_debug()))
                .with_remedy("write address and port: 127.0.0.1:9753, or [::1]:9753")
        })?;
        let mut nodes: Vec<NodeSettings> = Vec::new();
        for table in self.node {
            let node = table.resolve(base)?;
            if nodes.iter().any(|other| other.name == node.name || other.dir == node.dir) {
                return Err(Error::input(format!(
                    "the node `{}` or its directory appears twice",
                    node.name
                ))
                .with_entry(node.name.to_string()));
            }
            nodes.push(node);
        }
        Ok(AgentSettings {
            listen,
            tokens_file: self.tokens_file.map(|file| base.join(file)),
            audit_file: self.audit_file.map(|file| base.join(file)),
            data_dir: self.data_dir.map(|dir| base.join(dir)),
            tls: self.tls.map(|tls| tls.files(base)),
            nodes,
        })
    }
}

impl NodeTable {
    fn resolve(self, base: &Path) -> Result<NodeSettings> {
        let dir = base.join(&self.dir);
        let name = match self.name {
            Some(name) => name,
            None => dir.file_name().unwrap_or_default().to_string_lossy().parse().map_err(
                |error: Error| {
                    error
                        .with_remedy("give the node a `name`")
                        .with_entry(dir.display().to_string())
                },
            )?,
        };
        let wrong = |what: &str| Err(Error::input(what).with_entry(name.to_string()));
        if self.interval.is_some() && self.cron.is_some() {
            return wrong("a node has an `interval` or a `cron`, not both");
        }
        if self.capture == CaptureMode::Offline
            && (self.pid_file.is_some() || self.max_pause.is_some())
        {
            return wrong(
                "`pid_file` and `max_pause` are for a freeze, but `capture` is `offline`",
            );
        }
        let retention = Retention {
            last: self.retention.last,
            hourly: self.retention.hourly,
            daily: self.retention.daily,
            weekly: self.retention.weekly,
            monthly: self.retention.monthly,
            within: self.retention.within,
            ..Retention::default()
        };
        let stale = self.interval.map_or(STALE_AFTER, |interval| interval * STALE_INTERVALS);
        let named = |error: Error| error.with_entry(name.to_string());
        let replica = self.replica.map(|table| table.resolve(base, &dir)).transpose();
        let node = NodeSettings {
            replica: replica.map_err(named)?,
            dir,
            capture: self.capture,
            pid_file: self.pid_file.map(|file| base.join(file)),
            interval: self.interval,
            cron: self.cron,
            restore_test: self.restore_test,
            max_age: self.max_age.unwrap_or(stale),
            max_pause: self.max_pause,
            guarded: self.guarded,
            unguarded: self.unguarded,
            no_barrier: self.no_barrier,
            priority: match self.priority {
                PriorityName::Low => Priority::Low,
                PriorityName::Normal => Priority::Normal,
            },
            effort: self.effort.map(Effort::from).unwrap_or_default(),
            exclude: self.exclude,
            retention,
            name,
        };
        // A schedule that is none is found before anything starts.
        node.rules().map_err(|error| error.with_entry(node.name.to_string()))?;
        Ok(node)
    }
}
