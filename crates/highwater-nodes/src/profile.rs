//! The shape of what is known of a kind of node.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use highwater::backup::Wanted;
use highwater::ids::RelPath;
use highwater::{Error, Result};

/// A kind of node. One file each; every part but the marks has to be written.
pub trait Profile: Send + Sync {
    /// Its name, as `inspect` shows it: lower-case letters and hyphens.
    fn name(&self) -> &'static str;

    /// Where in a node directory such nodes lie: the root, or the directory of a network.
    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath>;

    /// What makes an old copy of it dangerous, in one sentence without a full stop; `None` where nothing does:
    /// then it is known for what it can leave out.
    fn danger(&self) -> Option<&'static str>;

    /// What must be there, by paths below where it was found: of each list one.
    fn must(&self) -> &'static [&'static [&'static str]];

    /// What it fetches or builds again, by paths below where it was found.
    fn lean(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether its marks need the content of a captured file, and how much of it.
    fn wants(&self, at: &RelPath, path: &RelPath) -> Option<Wanted> {
        let _ = (at, path);
        None
    }

    /// Its marks: named counters that only rise, from the captured content of what it wants.
    ///
    /// # Errors
    /// Corrupt where the content is none that such a node writes.
    fn marks(&self, content: &Content<'_>) -> Result<BTreeMap<String, u64>> {
        let _ = content;
        Ok(BTreeMap::new())
    }
}

/// The files and directories of a node directory, by their paths.
pub struct Files<'a> {
    paths: &'a BTreeSet<RelPath>,
}

impl<'a> Files<'a> {
    /// Of these paths.
    pub fn new(paths: &'a BTreeSet<RelPath>) -> Files<'a> {
        Files { paths }
    }

    /// Whether something stands at `name`, names with slashes between them, below `at`.
    pub fn has(&self, at: &RelPath, name: &str) -> bool {
        self.paths.contains(&below(at, name))
    }

    /// Every directory below which something stands at `name`: what is above the whole of it.
    pub fn with(&self, name: &str) -> Vec<RelPath> {
        let depth = name.split('/').count();
        let above = |path: &RelPath| {
            let mut above = Some(path.clone());
            for _ in 0..depth {
                above = above?.parent();
            }
            above.filter(|above| below(above, name) == *path)
        };
        self.paths.iter().filter_map(above).collect()
    }

    /// Everything right in the directory `name` below `at`.
    pub fn inside(&self, at: &RelPath, name: &str) -> impl Iterator<Item = &'a RelPath> {
        let dir = below(at, name);
        self.paths.iter().filter(move |path| path.parent().as_ref() == Some(&dir))
    }
}

/// The path of `name`, names with slashes between them, below `at`.
pub(crate) fn below(at: &RelPath, name: &str) -> RelPath {
    name.split('/').fold(at.clone(), |path, name| path.join(OsStr::new(name)))
}

/// The captured content of what a node's marks are read from.
pub struct Content<'a> {
    at: &'a RelPath,
    files: &'a BTreeMap<RelPath, Vec<u8>>,
}

impl<'a> Content<'a> {
    pub(crate) fn new(at: &'a RelPath, files: &'a BTreeMap<RelPath, Vec<u8>>) -> Content<'a> {
        Content { at, files }
    }

    /// The content of the file `name` below where the node was found.
    ///
    /// # Errors
    /// Not found where it was not captured, or was too large to be read for its marks.
    pub fn file(&self, name: &str) -> Result<&'a [u8]> {
        let path = below(self.at, name);
        match self.files.get(&path) {
            Some(content) => Ok(content),
            None => {
                Err(Error::not_found("it was not captured, or is too large to be read for marks")
                    .with_entry(path.to_string()))
            }
        }
    }

    /// Every file right in the directory `name` below where the node was found, by its name.
    pub fn inside(&self, name: &str) -> impl Iterator<Item = (&'a OsStr, &'a [u8])> {
        let dir = below(self.at, name);
        let files = self.files.iter().filter(move |(path, _)| path.parent().as_ref() == Some(&dir));
        files.map(|(path, content)| (path.name(), content.as_slice()))
    }
}
