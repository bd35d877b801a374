//! The first bytes of many files, some files at a time.
//!
//! Whoever closes a descriptor of a file gives up the POSIX locks that its process has on it, so what this process has
//! open must be known; to look through its descriptors takes longer than to look into a small file. One look before
//! some files are closed is enough for all of them, and tells as well which of the next ones are not to be opened.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};

use super::{FoundFile, Head, Opened, SQLITE_SIBLINGS, Tree, ends, is_gone, opened, read_head};
use crate::durable;
use crate::engine::metadata;
use crate::engine::process::{self, Descriptors, FileId};
use crate::error::Result;
use crate::ids::RelPath;
use crate::rooted::{Neighbours, RootedPath};

/// Reads the first bytes of files that may be databases.
pub(in crate::engine) struct Heads<'a> {
    tree: &'a Tree,
    near: Neighbours<'a>,
    /// What this process had open when it was last looked at, and how to look again.
    seen: Option<(BTreeSet<FileId>, Descriptors)>,
}

impl<'a> Heads<'a> {
    /// So many files are open at once.
    pub(in crate::engine) const FILES_MAX: usize = 32;

    /// Of files in `tree`.
    pub(in crate::engine) fn new(tree: &'a Tree) -> Heads<'a> {
        Heads { tree, near: Neighbours::new(&tree.dir), seen: None }
    }

    /// The files at `paths`, in order, with the first bytes of those that may be the main file of a database; others
    /// are looked into when they are asked.
    pub(in crate::engine) fn read(&mut self, paths: &[&'a RelPath]) -> Result<Vec<FoundFile<'a>>> {
        let mut found: Vec<_> =
            paths.iter().map(|path| (FoundFile::new(self.tree, path), None)).collect();
        if !found.iter().any(|(file, _)| is_worth_a_look(file)) {
            return Ok(found.into_iter().map(|(file, _)| file).collect());
        }
        let _looking = process::looking();
        match &self.tree.own {
            // Nobody else works there.
            Some(own) => self.look_at_each(&mut found, own, &mut Vec::new())?,
            None => {
                let (own, mut descriptors) = match self.seen.take() {
                    Some(seen) => seen,
                    None => {
                        let mut descriptors = Descriptors::of_this_process()?;
                        (descriptors.files(&[])?, descriptors)
                    }
                };
                let mut open = Vec::new();
                let looked = self.look_at_each(&mut found, &own, &mut open);
                let (own, ours) = close_all_but_ours(open, &mut descriptors)?;
                looked?;
                for index in ours {
                    found[index].1 = Some(Head::Ours);
                }
                self.seen = Some((own, descriptors));
            }
        }
        let with_head = |(file, head): (FoundFile<'a>, _)| match head {
            Some(head) => file.with_head(head),
            None => file,
        };
        Ok(found.into_iter().map(with_head).collect())
    }

    fn look_at_each(
        &mut self,
        found: &mut [(FoundFile<'a>, Option<Head>)],
        own: &BTreeSet<FileId>,
        open: &mut Vec<(usize, FileId, File)>,
    ) -> Result<()> {
        for (index, (file, head)) in found.iter_mut().enumerate() {
            if is_worth_a_look(file) {
                *head = Some(self.look(file.path, index, own, open)?);
            }
        }
        Ok(())
    }

    /// Looks into one file, and keeps it open.
    fn look(
        &mut self,
        path: &RelPath,
        index: usize,
        own: &BTreeSet<FileId>,
        open: &mut Vec<(usize, FileId, File)>,
    ) -> Result<Head> {
        let gone = Head::Bytes(Vec::new());
        let place = match self.near.at(path) {
            Ok(place) => place,
            Err(errno) if is_gone(&errno.into()) => return Ok(gone),
            // Told of the file, as if it had been looked at by its whole path.
            Err(_) => self.tree.dir.at(path),
        };
        let Some(id) = id_at(&place)? else { return Ok(gone) };
        if own.contains(&id) {
            return Ok(Head::Ours);
        }
        match opened(&place)? {
            Opened::File(file) => {
                let head = read_head(&file, &place);
                // What is open may be another file than the one that was looked at.
                let id = metadata::Stamp::of_file(&file).map_or(id, |stamp| stamp.id);
                open.push((index, id, file));
                head.map(Head::Bytes)
            }
            Opened::Gone => Ok(gone),
            Opened::Denied => Ok(Head::Denied),
        }
    }
}

/// Whether its first bytes will be asked for; SQLite's other files belong to one that was recognised most often.
fn is_worth_a_look(file: &FoundFile<'_>) -> bool {
    file.is_candidate() && !SQLITE_SIBLINGS.iter().any(|suffix| ends(file.path.name(), suffix))
}

fn id_at(place: &RootedPath) -> Result<Option<FileId>> {
    Ok(durable::stat(place)?.map(|seen| metadata::id_of(&seen)))
}

/// Closes files, but for those that this process has come to have open elsewhere: their descriptors are given up, as
/// closing them would give up its locks. What this process has open now, and which of the files are among it.
fn close_all_but_ours(
    open: Vec<(usize, FileId, File)>,
    descriptors: &mut Descriptors,
) -> Result<(BTreeSet<FileId>, Vec<usize>)> {
    let known: Vec<_> = open.iter().map(|(_, _, file)| file.as_raw_fd()).collect();
    let own = descriptors.files(&known);
    let mut ours = Vec::new();
    for (index, id, file) in open {
        // What can't be known is not closed either.
        if own.as_ref().map_or(true, |own| own.contains(&id)) {
            let _given_up = file.into_raw_fd();
            ours.push(index);
        }
    }
    own.map(|own| (own, ours))
}

#[cfg(test)]
mod tests;
