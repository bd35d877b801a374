//! SQLite databases, captured through SQLite itself while the node writes.
//!
//! No function here opens a database, its `-wal` or its `-shm` but through a SQLite connection:
//! closing any other descriptor of them would drop the POSIX locks that the process holds, another
//! process would then delete the log, and acknowledged rows with it. What has to be known besides
//! comes from `stat` and `lgetxattr`. The same holds between two copies of SQLite in one process,
//! so a node that links one of its own is captured from another process.

use super::barrier;
use super::check::check_here;
use super::image::Image;
use super::rest::Company;
use super::source::Source;
use crate::engine::{Barrier, CaptureOptions, Checked, Depth, FoundPart, PartCapture, confined};
use crate::env::Env;
use crate::error::Result;
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// Begins a read transaction on each of `parts` in the node directory `dir`, and says whether all of
/// them show one instant: in this process, or, where root would open what another user can exchange,
/// in one with the rights of that user.
///
/// # Errors
/// Conflict where another process keeps a database locked, or where one waits for the recovery
/// that only its node may do; denied where SQLite may not read it.
pub(super) fn begin_all(
    dir: &RootedPath,
    parts: &[&FoundPart],
    options: &CaptureOptions,
    env: &Env,
) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
    for part in parts {
        if let Some(owner) = confined::is_needed(dir, &part.root)? {
            return confined::capture(dir, parts, owner, options, env);
        }
    }
    let (images, barrier) = begin_here(dir, parts, options, Company::Anybody, env)?;
    let mut captures: Vec<Box<dyn PartCapture>> = Vec::with_capacity(images.len());
    for mut image in images {
        image.describe()?;
        captures.push(Box::new(image));
    }
    Ok((captures, barrier))
}

/// The same in this process; what the file system says of the files beyond their content is left out.
pub(in crate::engine) fn begin_here(
    dir: &RootedPath,
    parts: &[&FoundPart],
    options: &CaptureOptions,
    company: Company,
    env: &Env,
) -> Result<(Vec<Image>, Barrier)> {
    let mut sources = Vec::with_capacity(parts.len());
    for part in parts {
        sources.push(Source::open(dir, part, company, env)?);
    }
    let barrier = barrier::begin(&mut sources, env)?;
    let images = sources.into_iter().map(|source| Image::new(source, options, env));
    Ok((images.collect::<Result<_>>()?, barrier))
}

/// [`check_here`], by a process without rights where others can change what the path leads to.
pub(super) fn check(dir: &RootedPath, root: &RelPath, depth: Depth, env: &Env) -> Result<Checked> {
    match confined::is_needed(dir, root)? {
        Some(owner) => confined::check(dir, root, depth, owner, env),
        None => check_here(&dir.at(root), depth),
    }
}
