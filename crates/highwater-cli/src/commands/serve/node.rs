//! From a `[[node]]` of the settings to an agent of a node that can't be changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::agent::{Agent, VaultSource};
use highwater::backup::BackupOptions;
use highwater::engine::freeze::Freeze;
use highwater::engine::{self, DiscoverOptions, EngineKind, InUse};
use highwater::guard::GuardKind;
use highwater::vault::Actor;
use highwater::{Env, Error, Kind, Result};
use highwater_nodes::Known;

use super::replica;
use crate::settings::{CaptureMode, NodeSettings};
use crate::supervisor;

/// Starts the agent of a node; it remembers what it did below `data_dir`. Where the node directory is not there its
/// backups fail until it is.
pub(super) fn start(
    settings: &NodeSettings,
    vault: VaultSource,
    actor: Actor,
    data_dir: &Path,
    env: &Env,
) -> Result<Agent> {
    let capture = Capture::of(settings);
    let watch =
        settings.replica.as_ref().map(|replica| replica::watch(replica, env)).transpose()?;
    let agent = Agent::builder(&settings.dir, vault, actor)
        .node(settings.name.clone())
        .data_dir(data_dir.join(settings.name.as_str()))
        .rules(settings.rules()?)
        .retention(settings.retention.clone())
        .options_from(move || capture.options())
        .priority(settings.priority)
        .env(env.clone());
    match watch {
        Some(watch) => agent.replica(watch),
        None => agent,
    }
    .start()
}

/// What is asked anew before each backup: whether the node runs, and as which process.
struct Capture {
    settings: NodeSettings,
}

impl Capture {
    fn of(settings: &NodeSettings) -> Capture {
        Capture { settings: settings.clone() }
    }

    fn options(&self) -> Result<BackupOptions> {
        let settings = &self.settings;
        let mut options = BackupOptions::default();
        options.node = Some(settings.name.clone());
        options.discover.exclude = settings.exclude.clone();
        if let Some(pid) = self.to_freeze(&options.discover)? {
            let mut freeze = Freeze::of(pid);
            freeze.pause_max = settings.max_pause;
            freeze.supervisor = Some(supervisor::command()?);
            options.capture.freeze = Some(freeze);
        }
        options.capture.allow_no_barrier = settings.no_barrier;
        options.capture.offline = settings.capture == CaptureMode::Offline;
        options.effort = settings.effort;
        options.guard = settings.guarded.then_some(GuardKind::Databases);
        options.recogniser = Some(Arc::new(Known));
        if let Some(reason) = &settings.unguarded {
            options.unguarded = true;
            options.tags.insert("unguarded".to_owned(), reason.clone());
        }
        Ok(options)
    }

    /// The process that is to be stopped; all others that write in the directory are stopped with it.
    fn to_freeze(&self, discover: &DiscoverOptions) -> Result<Option<u32>> {
        if self.settings.capture == CaptureMode::Offline {
            return Ok(None);
        }
        let layout = engine::discover(&self.settings.dir, discover)?;
        let users = engine::users(&layout.dir, layout.engines())?;
        let databases = || layout.parts.iter().filter(|part| part.engine != EngineKind::FILES);
        // One RocksDB can be captured while it writes; beside others it has no instant with them.
        let alone = databases().count() == 1;
        let live = |kind: EngineKind| {
            layout.engines().get(kind).is_some_and(|engine| match engine.in_use() {
                InUse::Refused => false,
                InUse::Alone => alone,
                InUse::Together => true,
            })
        };
        let freezes = self.settings.capture == CaptureMode::Freeze;
        let stopped: Vec<_> = databases().filter(|part| freezes || !live(part.engine)).collect();
        let user = users
            .iter()
            .find(|user| {
                user.pid != 0 && stopped.iter().any(|part| user.file.is_within(&part.root))
            })
            .map(|user| user.pid);
        match (&self.settings.pid_file, user) {
            (Some(file), Some(_)) => read_pid(file).map(Some),
            (Some(file), None) if self.settings.capture == CaptureMode::Freeze => running(file),
            (_, user) => Ok(user),
        }
    }
}

/// The process of a node that has no file open at this moment, where it runs.
fn running(file: &Path) -> Result<Option<u32>> {
    match read_pid(file) {
        Ok(pid) => Ok(PathBuf::from(format!("/proc/{pid}")).exists().then_some(pid)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_pid(file: &Path) -> Result<u32> {
    let entry = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::io("the node's pid file", error).with_entry(&entry))?;
    text.trim().parse().map_err(|_| {
        Error::input("the node's pid file holds no process id")
            .with_entry(&entry)
            .with_remedy("it holds one number, and may end with a newline")
    })
}
