//! Where a restore works: beside the node directory, or inside it where that is a mount point.

use std::ffi::OsString;
use std::path::Path;

use rustix::fs::Access;
use rustix::io::Errno;

use super::Exchange;
use super::journal::Way;
use crate::durable;
use crate::error::{Error, Result};
use crate::guard::points::{self, LOST_AND_FOUND};
use crate::ids::{RelPath, encode};
use crate::rooted::RootedPath;

/// Highwater's own directory inside a node directory.
pub(super) const OWN: &str = ".highwater";
/// The work directory inside [`OWN`], where the node directory is a mount point.
pub(super) const INSIDE: &str = "restore";
/// Where a node directory is, and how it would be exchanged.
#[derive(Clone, Debug)]
pub(super) struct TargetPlace {
    /// The node directory, by a hold of the directory above it.
    pub(super) target: RootedPath,
    /// How it is exchanged.
    pub(super) exchange: Exchange,
    /// The work directory; it need not exist.
    pub(super) work: RootedPath,
    /// Where the restored files are staged.
    pub(super) staging: RootedPath,
    /// Where what the target holds is kept; `None` where it holds nothing.
    pub(super) keep: Option<RootedPath>,
}

impl TargetPlace {
    pub(super) fn way(&self) -> Way {
        match self.exchange {
            Exchange::Create | Exchange::Whole => Way::Whole,
            Exchange::Entries => Way::Entries,
        }
    }
}

/// Finds out where `target` is and how it would be exchanged. Changes nothing.
pub(super) fn locate(target: &Path) -> Result<TargetPlace> {
    let target = resolve(target)?;
    let parent = target.above();
    let beside = beside(&target);
    let missing = |place: &RootedPath| Error::not_found(format!("{place} does not exist"));
    let above = durable::stat(&parent)?.ok_or_else(|| missing(&parent))?;
    let writable = match parent.access(Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => true,
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => false,
        Err(error) => return Err(Error::io(format!("can't look at {parent}"), error)),
    };
    let Some(found) = durable::stat(&target)? else {
        if !writable {
            return Err(Error::denied(format!("can't make anything in {parent}"))
                .with_remedy("make the node directory first, and let this user write in it"));
        }
        return Ok(place(target, Exchange::Create, beside, false));
    };
    if !durable::is_dir(&found) {
        return Err(Error::input(format!("{target} is not a directory")));
    }
    crate::node::refuse_link(&target)?;
    let inside = durable::is_mount(&found, &above)
        || durable::device(&found) != durable::device(&above)
        || !writable;
    if inside {
        let holds = !exchanged_names(&target)?.is_empty();
        let work = target.join(OWN).join(INSIDE);
        return Ok(place(target, Exchange::Entries, work, holds));
    }
    let holds = !durable::names(&target)?.is_empty();
    let exchange = if holds { Exchange::Whole } else { Exchange::Create };
    Ok(place(target, exchange, beside, holds))
}

fn place(target: RootedPath, exchange: Exchange, work: RootedPath, holds: bool) -> TargetPlace {
    let (staging, kept) = (work.join("staging"), work.join("kept"));
    TargetPlace { target, exchange, work, staging, keep: holds.then_some(kept) }
}

/// The node directory without links, by a hold of its parent. It need not exist, its parent must.
fn resolve(target: &Path) -> Result<RootedPath> {
    // A link to the node directory is followed; where there is nothing, its parent is all there is.
    let place = RootedPath::of(target)
        .map_err(|error| error.with_remedy("the directory above the node directory must exist"))?;
    if place.name().is_empty() {
        return Err(Error::input("the root of the file system can't be a node directory"));
    }
    let plain = match durable::stat(&place)? {
        None => true,
        Some(found) => durable::is_dir(&found) || durable::is_file(&found),
    };
    // `..` at the end is a name as well, and no node directory's.
    if plain && place.name() != ".." {
        return Ok(place);
    }
    let found = RootedPath::open(target)
        .map_err(|error| match error.kind() {
            crate::Kind::NotFound => {
                error.with_remedy("a link must lead to a directory that exists")
            }
            _ => error,
        })?
        .path();
    RootedPath::of(&found)
}

fn beside(target: &RootedPath) -> RootedPath {
    let mut name = OsString::from(".highwater-");
    name.push(target.name());
    target.above().join(name)
}

/// Not found where there is no node directory, and no work directory beside it from which one could
/// come back.
pub(super) fn refuse_missing(target: &Path) -> Result<()> {
    let target = resolve(target)?;
    if durable::stat(&target)?.is_some() || durable::stat(&beside(&target))?.is_some() {
        return Ok(());
    }
    Err(Error::not_found(format!("there is no node directory {target}"))
        .with_entry(encode(target.path().as_os_str().as_encoded_bytes()))
        .with_remedy("nor has a restore of it left anything beside it: is the path right, and the disk mounted?"))
}

/// The work directories in which a journal about `target` may stand, with the way of each: a volume
/// may have been mounted, or a permission taken away, since.
pub(super) fn candidates(target: &Path) -> Result<(RootedPath, [(RootedPath, Way); 2])> {
    let target = resolve(target)?;
    let ways = ways(&target);
    Ok((target, ways))
}

pub(super) fn ways(target: &RootedPath) -> [(RootedPath, Way); 2] {
    let inside = target.join(OWN).join(INSIDE);
    [(beside(target), Way::Whole), (inside, Way::Entries)]
}

/// What is exchanged of a directory: all names in it, and those in its `.highwater` but for the
/// work directory.
pub(super) fn exchanged_names(root: &RootedPath) -> Result<Vec<RelPath>> {
    let mut found = Vec::new();
    for name in durable::names(root)? {
        let path = RelPath::root().join(&name);
        if name == OWN {
            let own = durable::names(&root.join(OWN))?;
            found.extend(own.iter().filter(|name| *name != INSIDE).map(|name| path.join(name)));
        } else if name != LOST_AND_FOUND {
            found.push(path);
        }
    }
    Ok(found)
}

/// A mount point inside the node directory would move with it. Said before anything is written.
pub(super) fn refuse_mounts(side: &RootedPath) -> Result<()> {
    points::walk(side, &mut |path, found, parent| {
        if !durable::is_mount(found, parent) {
            return Ok(());
        }
        Err(Error::conflict(format!("{} is a mount point", side.at(path)))
            .with_entry(path.to_string())
            .with_remedy("unmount what is mounted inside the node directory first"))
    })
}
