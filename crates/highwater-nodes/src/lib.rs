//! The nodes that people run: how each is recognised by what lies in its directory, why an old copy of it
//! is dangerous, and which counters of it only rise.
//!
//! [`recognise`] looks at a node directory as it was found; what it returns reads marks from what a backup
//! has captured, never from the live node, so that they are those of the barrier. A node is one file here:
//! see [`Profile`]. `docs/nodes.md` has a page for each.

mod badger;
mod chains;
mod cometbft;
mod core_lightning;
mod eclair;
mod ev_node;
pub mod fiber;
pub mod floor;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod ldk;
mod lighthouse;
mod lnd;
mod profile;
mod prysm;
mod rgb_lightning_node;
#[cfg(test)]
mod tests;
mod tmkms;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use highwater::engine::{
    CapturedFiles, DiscoverOptions, EngineKind, FoundPart, Layout, MarkReader, Recognised,
    Recogniser, discover,
};
use highwater::guard::Adapter;
use highwater::ids::{GuardKind, RelPath};
use highwater::vault::{channel_mark, channel_of};
use highwater::{Error, Kind, Result};

pub use profile::{Content, Files, Marks, Profile};

/// Every kind of node that is known.
pub fn profiles() -> Vec<Arc<dyn Profile>> {
    vec![
        Arc::new(cometbft::CometBft),
        Arc::new(core_lightning::CoreLightning),
        Arc::new(eclair::Eclair),
        Arc::new(ev_node::EvNode),
        Arc::new(fiber::Fiber),
        Arc::new(ldk::LdkNode),
        Arc::new(ldk::LdkFilesystem),
        Arc::new(lighthouse::Lighthouse),
        Arc::new(lnd::Lnd),
        Arc::new(prysm::Prysm),
        Arc::new(rgb_lightning_node::RgbLightningNode),
        Arc::new(tmkms::Tmkms),
        Arc::new(chains::BITCOIND),
        Arc::new(chains::CKB),
        Arc::new(chains::RETH),
        Arc::new(chains::GETH),
        Arc::new(chains::ELECTRS),
    ]
}

/// A node that was recognised.
#[derive(Clone)]
pub struct Node {
    profile: Arc<dyn Profile>,
    /// Where it lies in the node directory: the root, or the directory of a network.
    at: RelPath,
}

impl Node {
    /// What is known of its kind.
    pub fn profile(&self) -> &dyn Profile {
        self.profile.as_ref()
    }

    /// What it fetches or builds again, by its path in the node directory.
    pub fn lean(&self) -> Vec<RelPath> {
        self.profile.lean().iter().map(|name| profile::below(&self.at, name)).collect()
    }

    /// The plain files without which it can't act, by their paths in the node directory.
    pub fn entry_points(&self) -> Vec<RelPath> {
        self.profile.entry_points().iter().map(|name| profile::below(&self.at, name)).collect()
    }

    /// What it keeps as one among its plain files, by paths in the node directory.
    pub fn stores(&self) -> Vec<RelPath> {
        self.profile.stores().iter().map(|name| profile::below(&self.at, name)).collect()
    }

    /// Files of which each change is worth a backup, by their paths in the node directory.
    pub fn watched(&self) -> Vec<RelPath> {
        self.profile.watched(&self.at)
    }

    /// Where it lies in the node directory; empty for the directory itself.
    pub fn at(&self) -> &RelPath {
        &self.at
    }
}

/// All nodes in a node directory: a directory of several networks has several.
pub fn recognise(layout: &Layout) -> Vec<Node> {
    recognise_paths(&layout.parts.iter().flat_map(|part| part.entries.iter().cloned()).collect())
}

/// The same, by all that lies in the directory.
pub fn recognise_paths(paths: &BTreeSet<RelPath>) -> Vec<Node> {
    let files = Files::new(paths);
    let mut nodes = Vec::new();
    for profile in profiles() {
        for at in profile.found_in(&files) {
            nodes.push(Node { profile: Arc::clone(&profile), at });
        }
    }
    nodes
}

/// What a node must have and what was found lacks, as sentences.
pub fn missing(nodes: &[Node], layout: &Layout) -> Vec<String> {
    let paths: BTreeSet<RelPath> =
        layout.parts.iter().flat_map(|part| part.entries.iter().cloned()).collect();
    let files = Files::new(&paths);
    let lacks = |node: &Node| {
        let must = node
            .profile
            .must()
            .iter()
            .filter(|names| !names.iter().any(|name| files.has(&node.at, name)));
        let told = |names: &&[&str]| {
            format!(
                "this looks like a {} node, and has no {}, without which it can't come back whole",
                node.profile.name(),
                names.join(" or ")
            )
        };
        must.map(told).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(lacks).collect()
}

/// Recognises nodes for a backup: those that are known are held back once they are restored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known;

impl Recogniser for Known {
    fn recognise(&self, layout: &Layout) -> Recognised {
        let nodes = recognise(layout);
        if nodes.is_empty() {
            return Recognised::default();
        }
        let mut kinds: Vec<String> =
            nodes.iter().map(|node| node.profile.name().to_owned()).collect();
        kinds.dedup();
        let dangerous: Vec<&Node> =
            nodes.iter().filter(|node| node.profile.danger().is_some()).collect();
        Recognised {
            kinds,
            guard: (!dangerous.is_empty()).then_some(GuardKind::Databases),
            entry_points: dangerous.iter().flat_map(|node| node.entry_points()).collect(),
            stores: nodes.iter().flat_map(Node::stores).collect(),
            together: dangerous.iter().map(|node| together(node, layout)).collect(),
            warnings: missing(&nodes, layout),
            marks: Some(Box::new(MarksOf { nodes })),
        }
    }

    fn refuse_release(&self, dir: &Path, channel: Option<&str>) -> Result<()> {
        floor::refuse_without(dir, channel)
    }
}

/// The parts in which the state of a node lies: its databases, and its plain files where it has entry points among
/// them. Of two instants they contradict each other.
fn together(node: &Node, layout: &Layout) -> Vec<String> {
    let points = node.entry_points();
    let is_state = |part: &&FoundPart| match part.engine {
        EngineKind::FILES => points.iter().any(|point| part.entries.contains(point)),
        _ => part.root.is_within(&node.at),
    };
    layout.parts.iter().filter(is_state).map(|part| part.name.clone()).collect()
}

/// What is known of the kind of this name.
pub fn profile(name: &str) -> Option<Arc<dyn Profile>> {
    profiles().into_iter().find(|profile| profile.name() == name)
}

/// What marks the channels of a node of one of these kinds in its own database as well, where a restore
/// withholds that; `None` where none of them has such a mark.
pub fn second_belt(kinds: &[String]) -> Option<Arc<dyn Adapter>> {
    kinds.iter().find_map(|kind| profile(kind)?.second_belt())
}

/// The kinds of the nodes in a directory, as far as it can be looked at.
pub fn kinds_in(dir: &Path) -> Vec<String> {
    let Ok(layout) = discover(dir, &DiscoverOptions::default()) else { return Vec::new() };
    Known.recognise(&layout).kinds
}

/// Reads the marks of all nodes of a directory from what was captured of them.
struct MarksOf {
    nodes: Vec<Node>,
}

impl MarkReader for MarksOf {
    fn read(&self, captured: &mut CapturedFiles<'_>) -> (Marks, Vec<Error>) {
        let (mut marks, mut errors) = (Marks::new(), Vec::new());
        let several = self.nodes.len() > 1;
        for node in &self.nodes {
            let mut found = Marks::new();
            match node.profile.marks(&mut Content::new(&node.at, captured), &mut found) {
                Ok(()) => {}
                // Of one that was not captured as a whole another warning tells.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => errors.push(error),
            }
            marks.extend(found.into_iter().map(|(name, value)| {
                match several && node.at != RelPath::root() {
                    true => (of_one(node, &name), value),
                    false => (name, value),
                }
            }));
        }
        (marks, errors)
    }
}

/// The name of a mark where there are several nodes: the same counter of two networks is two.
fn of_one(node: &Node, mark: &str) -> String {
    let at = &node.at;
    match channel_of(mark) {
        Some((channel, what)) => channel_mark(&format!("{at}/{channel}"), what),
        None => format!("{at}/{mark}"),
    }
}

/// The name that a mark has where its node is the only one.
fn own_name<'a>(node: &Node, mark: &'a str) -> Cow<'a, str> {
    let prefix = format!("{}/", node.at);
    match channel_of(mark) {
        Some((channel, what)) => match channel.strip_prefix(&prefix) {
            Some(channel) => Cow::Owned(channel_mark(channel, what)),
            None => Cow::Borrowed(mark),
        },
        None => Cow::Borrowed(mark.strip_prefix(&prefix).unwrap_or(mark)),
    }
}
