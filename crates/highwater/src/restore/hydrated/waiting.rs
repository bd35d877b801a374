//! Where a hydrated store waits for its files, and what is known of it.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::super::kept::tidy;
use super::super::place::{candidates, locate};
use super::super::workdir::WorkDir;
use super::{HydratedState, STATE};
use crate::durable;
use crate::engine::Engines;
use crate::error::{Error, Result};
use crate::node::NodeFile;
use crate::rooted::{self, RootedPath};

const DATABASE: &str = "store.sqlite";

/// Where a hydrated store waits for its files; locked.
#[derive(Debug)]
pub struct Waiting {
    target: PathBuf,
    dir: RootedPath,
    lock: File,
}

impl Waiting {
    /// Makes the place beside `target`, or in it where nothing can be made beside it, or finds it, and locks it.
    ///
    /// # Errors
    /// Conflict where another process has it; denied where root would have to trust another user's directory.
    pub fn open(target: &Path) -> Result<Waiting> {
        let place = locate(target)?;
        let work = WorkDir::make(&place.target, &place.work, place.way())?;
        let dir = work.hydrated();
        // SQLite opens what is there by its path.
        rooted::refuse_for_root(&dir.path())?;
        durable::make_dir(&dir)?;
        durable::sync_dir(&place.work)?;
        let name = dir.join("lock");
        let wrong = |error: std::io::Error| {
            Error::io("locking a hydrated store", error).with_entry(name.to_string())
        };
        let (lock, _) = name.open_lock().map_err(wrong)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Waiting { target: place.target.path(), dir, lock }),
            Err(Errno::WOULDBLOCK) => Err(Error::conflict(format!(
                "another process hydrates a store for {}",
                place.target
            ))
            .with_remedy("wait until it has ended")),
            Err(error) => Err(wrong(error.into())),
        }
    }

    /// The node directory, absolute, links resolved.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where the database is, or is to be.
    pub fn database(&self) -> PathBuf {
        self.dir.join(DATABASE).path()
    }

    /// Keeps, durably, what is about to be brought together.
    pub fn set_state(&self, state: &HydratedState) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(state)
            .map_err(|error| Error::bug("a pair can't be written down").with_source(error))?;
        let fresh = self.dir.join("pair.json.new");
        durable::write_file(&fresh, &bytes)?;
        durable::replace(&fresh, &self.dir.join(STATE))
    }

    /// Makes the node directory, which only this user may enter; one that is there is left as it is.
    ///
    /// # Errors
    /// Conflict where something else is there.
    pub fn make_target(&self) -> Result<()> {
        durable::make_dir(&self.target)
    }

    /// Removes the place, and the work directory where nothing else is in it.
    pub fn remove(self) -> Result<()> {
        durable::remove_tree(&self.dir)?;
        drop(self.lock);
        let place = locate(&self.target)?;
        match WorkDir::open(&place.target, &place.work)? {
            Some(work) => tidy(&work),
            None => Ok(()),
        }
    }
}

/// What waits for its files beside `target`, or in it; none where nothing does.
pub fn waiting(target: &Path) -> Result<Option<HydratedState>> {
    let (_, places) = candidates(target)?;
    for (path, _) in places {
        if let Some(state) = HydratedState::read(&path.join("hydrated"))? {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

/// Whether the node directory is what came of it.
pub fn is_made(target: &Path, state: &HydratedState) -> Result<bool> {
    Ok(NodeFile::read(target)?.is_some_and(|node| node.restore == Some(state.restore)))
}

/// A node directory that is about to be made of a hydrated store alone must hold nothing.
///
/// # Errors
/// Conflict where it does.
pub fn refuse_occupied(target: &Path) -> Result<()> {
    if durable::names(target)?.is_empty() {
        return Ok(());
    }
    Err(Error::conflict("the target exists and is not empty")
        .with_entry(target.display().to_string())
        .with_remedy(
            "keys alone take the place of nothing: name a directory that is empty or missing",
        ))
}

/// Nobody may have the node directory open: asked before the store on the server is taken.
pub fn refuse_users(target: &Path) -> Result<()> {
    super::super::users::refuse_users(target, &Engines::default())
}
