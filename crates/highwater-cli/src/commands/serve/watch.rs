//! Files of known nodes of which each change is worth a backup, such as lnd's static backup: looked at by the clock,
//! so that it is the same on every file system.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use highwater::engine::{self, DiscoverOptions};

use crate::settings::NodeSettings;

/// How often the files are looked at, and after how many looks it is found out anew which they are.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOKS: u32 = 300;

/// What is watched of one node.
pub(super) struct NodeWatch {
    dir: PathBuf,
    exclude: Vec<String>,
    looks: u32,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// By what a file is known to be unchanged: size, time of change in nanoseconds, inode.
type Stamp = (u64, i128, u64);

impl NodeWatch {
    /// Of a node of the settings.
    pub(super) fn of(settings: &NodeSettings) -> NodeWatch {
        let (dir, exclude) = (settings.dir.clone(), settings.exclude.clone());
        NodeWatch { dir, exclude, looks: 0, files: Vec::new() }
    }

    /// Whether one of the files is another one than at the look before.
    pub(super) fn moved(&mut self) -> bool {
        if self.looks == 0 {
            self.find();
        }
        self.looks = (self.looks + 1) % LOOKS;
        let mut moved = false;
        for (path, before) in &mut self.files {
            let now = stamp(path);
            moved |= now.is_some() && now != *before;
            *before = now;
        }
        moved
    }

    /// What is not known yet is seen for the first time, and has not moved. A directory that can't be looked at has
    /// nothing to watch: its backup says why.
    fn find(&mut self) {
        let mut options = DiscoverOptions::default();
        options.exclude = self.exclude.clone();
        let Ok(layout) = engine::discover(&self.dir, &options) else { return };
        let nodes = highwater_nodes::recognise(&layout);
        let watched = nodes.iter().flat_map(|node| node.watched());
        for path in watched.map(|path| layout.dir.join(path.as_path())) {
            if !self.files.iter().any(|(known, _)| *known == path) {
                let now = stamp(&path);
                self.files.push((path, now));
            }
        }
    }
}

fn stamp(path: &PathBuf) -> Option<Stamp> {
    let found = std::fs::symlink_metadata(path).ok()?;
    let time = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    Some((found.size(), time, found.ino()))
}
