//! The table of engines: those that are built in, and those that an embedder adds.

use std::fmt;
use std::sync::Arc;

use super::engines::{Engine, Extent, database_files};
use super::standard;
use super::{EngineKind, FoundPart, Opens};
use crate::durable;
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// All engines by which a node directory is looked at: those that are built in, and those that an embedder
/// adds. The added ones are asked first.
#[derive(Clone, Default)]
pub struct Engines {
    added: Vec<Arc<dyn Engine>>,
}

impl Engines {
    /// Adds an engine.
    ///
    /// # Errors
    /// Input where an engine of this name is there already, or it is the name of plain files.
    pub fn with(mut self, engine: Arc<dyn Engine>) -> Result<Engines> {
        let kind = engine.kind();
        if kind == EngineKind::FILES || self.get(kind).is_some() {
            return Err(Error::input(format!("there is an engine called {kind} already"))
                .with_entry(kind.to_string()));
        }
        self.added.push(engine);
        Ok(self)
    }

    /// The engine of this name.
    pub fn get(&self, kind: EngineKind) -> Option<&Arc<dyn Engine>> {
        self.all().find(|engine| engine.kind() == kind)
    }

    /// Every engine, in the order in which they are asked.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Engine>> {
        self.added.iter().chain(standard::built_in())
    }

    /// The entry points of a part, without which nobody can open its database; `None` if its engine is
    /// unknown.
    pub fn entry_points<'a>(
        &self,
        kind: EngineKind,
        root: &'a RelPath,
        entries: impl Iterator<Item = &'a RelPath>,
    ) -> Option<Vec<RelPath>> {
        let opens = match kind {
            EngineKind::FILES => Opens::Nothing,
            kind => self.get(kind)?.opens(),
        };
        Some(opens.entry_points(root, entries))
    }

    /// The engine of a part that these engines found.
    pub(super) fn of(&self, part: &FoundPart) -> Result<&Arc<dyn Engine>> {
        self.get(part.engine).ok_or_else(|| {
            Error::input(format!("{}: no engine called {} is known here", part.name, part.engine))
                .with_entry(part.name.clone())
                .with_remedy("hand in the engines by which the node directory was looked at")
        })
    }

    /// What there is to check of the database at `root`, as it lies there.
    pub(super) fn restored(&self, dir: &RootedPath, kind: EngineKind, root: &RelPath) -> FoundPart {
        let name = root.to_string();
        let name = if name.is_empty() { ".".to_owned() } else { name };
        let entries = Vec::new();
        let mut part =
            FoundPart { name, engine: kind, root: root.clone(), entries, files: 0, bytes: 0 };
        let Some(engine) = self.get(kind) else { return part };
        let is_there =
            |path: &RelPath| durable::stat(&dir.at(path)).is_ok_and(|found| found.is_some());
        part.entries = match engine.extent() {
            Extent::Files => {
                let above = root.parent().unwrap_or_else(RelPath::root);
                let beside = engine.beside(root.name()).into_iter().map(|name| above.join(&name));
                let mut entries: Vec<RelPath> = beside.filter(is_there).collect();
                entries.push(root.clone());
                entries.sort();
                entries
            }
            // What can't be listed is found missing by the check.
            _ => database_files(dir, root, engine.as_ref()).unwrap_or_default(),
        };
        part
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(|engine| engine.kind())).finish()
    }
}
