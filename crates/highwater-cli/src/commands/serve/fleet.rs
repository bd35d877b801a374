//! The agents of a configuration, and what a reload makes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater::agent::VaultSource;
use highwater::vault::{Actor, Vault};
use highwater::{Env, Error, Kind, Result};
use highwater_server::Agents;
use serde_json::json;

use super::story::{self, Story};
use super::watch::NodeWatch;
use super::{node, replica};
use crate::cli::{KeyArgs, VaultArgs};
use crate::context::Context;
use crate::settings::{NodeSettings, Settings};

/// The agents of the nodes that the settings name.
pub(super) struct Fleet {
    pub(super) agents: Agents,
    nodes: BTreeMap<String, NodeSettings>,
    stories: BTreeMap<String, Story>,
    watches: BTreeMap<String, NodeWatch>,
    json: bool,
    env: Env,
    vault: VaultSource,
    actor: Actor,
    data_dir: PathBuf,
}

impl Fleet {
    /// Starts them all. A store that can't be reached keeps none of them from starting.
    pub(super) fn start(context: &Context, args: &VaultArgs) -> Result<Fleet> {
        let settings = &context.settings;
        let vault = vault_source(context, args)?;
        if let Err(error) = vault.get()
            && error.kind() != Kind::Unavailable
        {
            return Err(error);
        }
        let mut fleet = Fleet {
            agents: Agents::default(),
            nodes: BTreeMap::new(),
            stories: BTreeMap::new(),
            watches: BTreeMap::new(),
            json: context.json,
            env: context.env().clone(),
            vault,
            actor: context.actor()?,
            data_dir: data_dir(settings)?,
        };
        let wanted = settings.agent().nodes.clone();
        refuse_keys_inside(settings, &args.key, &wanted)?;
        fleet.apply(wanted)?;
        Ok(fleet)
    }

    /// Makes the agents those of `settings`: nodes come, go, or go on under other rules.
    ///
    /// # Errors
    /// Input where something has changed that only a start reads; nothing has changed then.
    pub(super) fn reload(
        &mut self,
        old: &Settings,
        new: &Settings,
        key: &KeyArgs,
    ) -> Result<String> {
        refuse_other(old, new, key)?;
        let wanted = new.agent().nodes.clone();
        refuse_keys_inside(new, key, &wanted)?;
        replica::check(&wanted, &self.env)?;
        self.apply(wanted)
    }

    fn apply(&mut self, wanted: Vec<NodeSettings>) -> Result<String> {
        let names: Vec<&str> = wanted.iter().map(|node| node.name.as_str()).collect();
        let gone: Vec<String> =
            self.nodes.keys().filter(|name| !names.contains(&name.as_str())).cloned().collect();
        let (mut started, mut changed) = (0, 0);
        for name in &gone {
            self.end(name);
        }
        for node in wanted {
            let name = node.name.to_string();
            match self.nodes.get(&name) {
                Some(old) if *old == node => continue,
                Some(old) if node.differs_by_rules_alone(old) => {
                    let agent = self.agents.find(&name)?;
                    agent.set_rules(node.rules()?, node.retention.clone())?;
                    changed += 1;
                }
                found => {
                    if found.is_some() {
                        self.end(&name);
                    }
                    if !node.dir.is_dir() {
                        self.tell_missing(&node);
                    }
                    let (vault, actor) = (self.vault.clone(), self.actor.clone());
                    let agent = node::start(&node, vault, actor, &self.data_dir, &self.env)?;
                    self.stories.insert(name.clone(), Story::begin(agent.clone(), self.json)?);
                    self.agents.add(agent);
                    self.watches.insert(name.clone(), NodeWatch::of(&node));
                    started += 1;
                }
            }
            self.nodes.insert(name, node);
        }
        Ok(format!("{started} started, {changed} changed, {} stopped", gone.len()))
    }

    /// One directory that is missing, a disk that is not mounted yet, keeps no other node from being backed up.
    fn tell_missing(&self, node: &NodeSettings) {
        let (name, dir) = (&node.name, node.dir.display());
        story::tell(
            self.json,
            &json!({"event": "missing", "node": name, "dir": dir.to_string()}),
            &format!("{name}: {dir} does not exist: backups fail until it does"),
        );
    }

    fn end(&mut self, name: &str) {
        self.nodes.remove(name);
        self.watches.remove(name);
        if let Some(agent) = self.agents.remove(name) {
            agent.stop();
        }
        if let Some(story) = self.stories.remove(name) {
            story.end();
        }
    }

    /// Looks at files of which each change is worth a backup, and tells the agent of a node whose moved.
    pub(super) fn look(&mut self) {
        for (name, watch) in &mut self.watches {
            if watch.moved()
                && let Ok(agent) = self.agents.find(name)
            {
                agent.changed();
            }
        }
    }

    /// Cancels what runs, and waits for it.
    pub(super) fn stop(&mut self) {
        // None waits for the one before.
        std::thread::scope(|scope| {
            for agent in self.agents.all() {
                scope.spawn(move || agent.stop());
            }
        });
        for (_, story) in std::mem::take(&mut self.stories) {
            story.end();
        }
    }
}

fn vault_source(context: &Context, args: &VaultArgs) -> Result<VaultSource> {
    let location = context.settings.location(args.vault.as_deref())?;
    let key = context.settings.key(&args.key)?;
    key.refuse_inside_vault(&location)?;
    // What is wrong with the key is found at the start.
    key.load()?;
    let env = context.env().clone();
    let name = location.to_string();
    Ok(VaultSource::new(name, move || Vault::open_with(&location, &key.load()?, &env)))
}

fn refuse_keys_inside(settings: &Settings, key: &KeyArgs, nodes: &[NodeSettings]) -> Result<()> {
    let key = settings.key(key)?;
    nodes.iter().try_for_each(|node| key.refuse_inside_node(&node.dir))
}

/// Where the agents remember what they did.
pub(super) fn data_dir(settings: &Settings) -> Result<PathBuf> {
    match &settings.agent().data_dir {
        Some(dir) => Ok(dir.clone()),
        None => Ok(settings.state_dir()?.join("agent")),
    }
}

/// What is read by a start alone.
fn refuse_other(old: &Settings, new: &Settings, key: &KeyArgs) -> Result<()> {
    let (was, is) = (old.agent(), new.agent());
    let same_vault = old.location(None).ok().map(|location| location.to_string())
        == new.location(None).ok().map(|location| location.to_string())
        && old.key(key).ok() == new.key(key).ok();
    let changed = [
        ("listen", was.listen != is.listen),
        ("tls", was.tls != is.tls),
        ("tokens_file", was.tokens_file != is.tokens_file),
        ("audit_file", was.audit_file != is.audit_file),
        ("data_dir", was.data_dir != is.data_dir),
        ("vault", !same_vault),
    ];
    match changed.iter().find(|(_, changed)| *changed) {
        None => Ok(()),
        Some((name, _)) => Err(Error::input(format!("`{name}` is read only at the start"))
            .with_entry(new.file().unwrap_or(Path::new("")).display().to_string())
            .with_remedy("restart the agent; until then it keeps its present settings")),
    }
}
