//! The floor of a signer: what a restored copy must not sign again, written into the file in which the
//! signer keeps what it has signed, where that file waits for its release.
//!
//! Which file that is, and what is written, its kind of node knows. The latch records a floor before the file
//! has it, and a release is recorded after: whoever finds a recorded release finds the floor beneath it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::latch::{Basis, Floor, Latch, Released, Withheld};
use super::points;
use crate::control::Control;
use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Result};
use crate::ids::{RelPath, Time};
use crate::node::OWN_DIR;
use crate::rooted::{RootedPath, is_only_ours, is_root};

/// How every SQLite database begins.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";
/// What the next content of a file is called until it has the file's name.
const FRESH: &str = ".highwater-floor";

/// The next content of a signer's file.
#[derive(Clone, Debug)]
pub struct Raise {
    /// The file, by its path in the node directory.
    pub file: RelPath,
    /// Its content; `None` where it has this floor already.
    pub content: Option<Vec<u8>>,
    /// What it says now.
    pub from: BTreeMap<String, u64>,
    /// What it says then.
    pub to: BTreeMap<String, u64>,
    /// What the numbers are.
    pub basis: Basis,
    /// Why.
    pub reason: String,
}

/// A node directory in quarantine, as it will be once all is released: withheld files are read from the
/// place where they wait.
pub struct Resting<'a> {
    dir: &'a RootedPath,
    latch: &'a Latch,
}

impl Resting<'_> {
    /// What holds it.
    pub fn latch(&self) -> &Latch {
        self.latch
    }

    /// What keeps a file withheld; `None` where the file stands at its place.
    pub fn withheld(&self, path: &RelPath) -> Option<&Withheld> {
        self.latch.withheld.iter().find(|withheld| path.is_within(&withheld.path))
    }

    /// Every file and directory, by the path to which it belongs; Highwater's own are not among them.
    ///
    /// # Errors
    /// As the file system says.
    pub fn entries(&self) -> Result<BTreeSet<RelPath>> {
        let mut found = BTreeSet::new();
        below(self.dir, &RelPath::root(), &mut found)?;
        for withheld in &self.latch.withheld {
            let place = self.dir.at(&withheld.place);
            match durable::stat(&place)? {
                Some(stat) if durable::is_dir(&stat) => {
                    if points::is_placeholder(&place)? {
                        continue;
                    }
                    let held =
                        place.enter().map_err(|error| durable::met(&place, "open", error))?;
                    below(&held, &withheld.path, &mut found)?;
                }
                Some(_) => {}
                None => continue,
            }
            found.insert(withheld.path.clone());
        }
        Ok(found)
    }

    /// Reads a file of at most `most` bytes; `None` if there is none.
    ///
    /// # Errors
    /// Corrupt where it is longer, or no file; denied where root would read a database that another user can
    /// change: it is parsed by code that is not safe from what it reads.
    pub fn read(&self, path: &RelPath, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let place = self.place(path)?;
        let content = match place.read(bytes_max) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput
                ) =>
            {
                return Err(Error::corrupt(format!("it can't be read: {error}"))
                    .with_entry(path.to_string())
                    .with_remedy("look who made it, or restore the node again"));
            }
            Err(error) => return Err(durable::met(&place, "read", error)),
        };
        if content.starts_with(SQLITE_MAGIC) {
            self.refuse_anothers(&place, path)?;
        }
        Ok(Some(content))
    }

    /// The first `bytes` of a file, of a shorter one all; `None` where nothing is.
    ///
    /// # Errors
    /// As the file system says.
    pub fn head(&self, path: &RelPath, bytes: u64) -> Result<Option<Vec<u8>>> {
        let place = self.place(path)?;
        let mut head = Vec::new();
        let read = place.open_file().and_then(|file| file.take(bytes).read_to_end(&mut head));
        match read {
            Ok(_) => Ok(Some(head)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(durable::met(&place, "read", error)),
        }
    }

    fn refuse_anothers(&self, place: &RootedPath, path: &RelPath) -> Result<()> {
        if !is_root() || (!self.dir.owner()?.is_foreign() && is_only_ours(&place.path())?) {
            return Ok(());
        }
        Err(Error::denied("root opens no database that another user can change")
            .with_entry(path.to_string())
            .with_remedy("release the node as the user to whom its directory belongs"))
    }

    /// Where a file is now: where it waits, or where it belongs.
    fn place(&self, path: &RelPath) -> Result<RootedPath> {
        for withheld in self.latch.withheld.iter().filter(|one| path.is_within(&one.path)) {
            let rest = &path.as_bytes()[withheld.path.as_bytes().len()..];
            let rest = RelPath::from_bytes(rest.strip_prefix(b"/").unwrap_or(rest))?;
            let place = self.dir.at(&withheld.place).at(&rest);
            // A directory there is what stands in the place of a file that is back.
            if durable::stat(&place)?.is_some_and(|found| !durable::is_dir(&found)) {
                return Ok(place);
            }
        }
        Ok(self.dir.at(path))
    }
}

/// Adds what is in a directory, with the path of the directory before it.
fn below(dir: &RootedPath, at: &RelPath, found: &mut BTreeSet<RelPath>) -> Result<()> {
    let own = RelPath::root().join(OWN_DIR.as_ref());
    let mut placeholders = BTreeSet::new();
    let mut here = BTreeSet::new();
    points::walk(dir, &mut |path, _, _| {
        if !path.is_within(&own) {
            if points::is_note(path)
                && let Some(placeholder) = path.parent()
            {
                placeholders.insert(placeholder);
            }
            here.insert(path.clone());
        }
        Ok(())
    })?;
    for path in here {
        let mut above = Some(path.clone());
        while above.as_ref().is_some_and(|above| !placeholders.contains(above)) {
            above = above.and_then(|above| above.parent());
        }
        if above.is_some() {
            continue;
        }
        let bytes = [at.as_bytes(), path.as_bytes()];
        found.insert(match at == &RelPath::root() {
            true => path,
            false => RelPath::from_bytes(&bytes.join(&b'/'))?,
        });
    }
    Ok(())
}

/// Looks at a node directory in quarantine; `None` where it has no latch.
///
/// # Errors
/// As `look` says, or as [`Latch::read`].
pub fn resting<T>(dir: &Path, look: impl FnOnce(&Resting<'_>) -> Result<T>) -> Result<Option<T>> {
    let dir = &match RootedPath::open(dir) {
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        dir => dir?,
    };
    let Some(latch) = Latch::read_at(dir)? else { return Ok(None) };
    look(&Resting { dir, latch: &latch }).map(Some)
}

/// Writes what `decide` returns into the files of a node's signers, each in one step and durable, where they
/// wait or stand; each keeps its owner and its mode. Nobody releases meanwhile. The floors, and a statement
/// that the original is gone for good, are recorded in the latch before; repeating it finishes what was
/// interrupted. Returns the latch as it is then; `None`, and nothing is asked, where there is none.
///
/// # Errors
/// As `decide` says; nothing is written then.
pub fn raise(
    dir: &Path,
    by: &str,
    original_gone: Option<Released>,
    decide: impl FnOnce(&Resting<'_>) -> Result<Vec<Raise>>,
    control: &Control,
) -> Result<Option<Latch>> {
    control.cancel.check()?;
    super::list::must_be_there(dir)?;
    let dir = &RootedPath::open(dir)?;
    let env = &control.env;
    let change = |latch: Option<Latch>| {
        let Some(mut latch) = latch else { return Ok((None, Vec::new())) };
        let resting = Resting { dir, latch: &latch };
        let raises = decide(&resting)?;
        let places = raises
            .iter()
            .map(|raise| resting.place(&raise.file))
            .collect::<Result<Vec<RootedPath>>>()?;
        for raise in &raises {
            record(&mut latch.floors, raise, by, env.now());
        }
        latch.original_gone = latch.original_gone.or(original_gone);
        Ok((Some(latch), raises.into_iter().zip(places).collect()))
    };
    Latch::update_then(dir, env, change, |raises: Vec<(Raise, RootedPath)>| {
        for (raise, place) in raises {
            if let Some(content) = &raise.content {
                env.fault(FaultPoint::GuardFloor)?;
                rewrite(&place, content, env)?;
            }
        }
        env.fault(FaultPoint::GuardFloor)
    })
}

/// Adds a floor to those that are recorded. One that is there already was interrupted before the file had it,
/// or is repeated: it keeps its time and what the file said first.
fn record(floors: &mut Vec<Floor>, raise: &Raise, by: &str, time: Time) {
    let last = floors.iter().rev().find(|floor| floor.file == raise.file);
    if last.is_some_and(|last| last.to == raise.to) {
        return;
    }
    floors.push(Floor {
        file: raise.file.clone(),
        from: raise.from.clone(),
        to: raise.to.clone(),
        basis: raise.basis,
        reason: raise.reason.clone(),
        by: by.to_owned(),
        time,
    });
}

/// Puts a file with this content in the place of one that is there.
fn rewrite(place: &RootedPath, content: &[u8], env: &Env) -> Result<()> {
    let wrong = |error: std::io::Error| durable::met(place, "write", error);
    let before = durable::stat(place)?.filter(durable::is_file).ok_or_else(|| {
        Error::conflict("it was moved away meanwhile")
            .with_entry(place.path().display().to_string())
    })?;
    let fresh = place.with_suffix(FRESH);
    durable::remove_file(&fresh)?;
    let mut file = fresh.create_new().map_err(wrong)?;
    let owner = place.owner()?;
    owner.take(&file).map_err(|error| wrong(error.into()))?;
    file.write_all(content).map_err(wrong)?;
    let mode = rustix::fs::Mode::from_raw_mode(u32::from(before.stx_mode & 0o7777));
    rustix::fs::fchmod(&file, mode).map_err(|error| wrong(error.into()))?;
    file.sync_all().map_err(wrong)?;
    if fresh.owner()? != owner {
        durable::remove_file(&fresh)?;
        return Err(Error::denied(format!("{place} belongs to another user"))
            .with_remedy("release the node as the user to whom its directory belongs"));
    }
    env.fault(FaultPoint::GuardFloor)?;
    durable::replace(&fresh, place)
}

#[cfg(test)]
mod tests;
