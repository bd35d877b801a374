//! What is captured of a database that stands still: which files, how each is cut, and what is verified
//! while they are read.

use super::{Database, listed};
use crate::engine::files::{FileSet, KnownBy, Listed};
use crate::engine::metadata::Found;
use crate::engine::{FoundPart, Piece};
use crate::error::Result;
use crate::ids::RelPath;

/// The files of a database that stands still, as they are captured.
#[derive(Default)]
pub struct Still {
    pub(in crate::engine) listed: Vec<Listed>,
    pub(in crate::engine) engine_version: Option<String>,
    pub(in crate::engine) verifier: Option<Box<dyn Verify>>,
    pub(in crate::engine) settle: Option<Settle>,
}

impl Still {
    /// With the version of the engine, or of its format, that wrote the database.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Still {
        self.engine_version = Some(version.into());
        self
    }
}

/// What looks at the content of files while they are read for the first time.
pub(in crate::engine) trait Verify: Send {
    /// Hands the content of one file to `sink`.
    fn stream(
        &mut self,
        set: &FileSet,
        entry: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()>;

    /// What could not be verified.
    fn warnings(&self) -> Vec<String>;
}

/// Settles how an image of files that were taken in the middle of something is read.
pub(in crate::engine) type Settle = fn(&FoundPart, &mut [(Listed, Found)]) -> Result<()>;

/// All files of a database, each as its engine says.
pub(in crate::engine) fn of_all(database: &Database<'_>) -> Result<Still> {
    let engine = database.engine;
    let file = |path: &RelPath| {
        let known_by = match engine.is_immutable(path) {
            true => KnownBy::Engine(engine.identity(database)?),
            false if engine.is_log(path) => KnownBy::OldStamp,
            false => KnownBy::Content,
        };
        Ok(Listed {
            pinned: engine.is_info_log(path.name()),
            known_by,
            ..listed(database.dir, path, engine.units(database, path))
        })
    };
    let listed = database.entries().iter().map(file).collect::<Result<_>>()?;
    Ok(Still { listed, ..Still::default() })
}
