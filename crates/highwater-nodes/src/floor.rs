//! Floors: what keeps the restored copy of a signer from signing again what its original has signed.
//!
//! A copy does not know what was signed after it was made, and the highest number that anybody has recorded
//! is only a number that was reached. So an operator states where the chain is once the original has stopped,
//! and the file in which the signer keeps what it has signed is written so that its own rule refuses
//! everything up to there. Each rule is a file here; [`raise`] is what a release calls before it lets
//! anything go.

mod database;
mod heights;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use highwater::guard::{self, Basis, Floor, Latch, Raise, Released, Resting, Which};
use highwater::ids::RelPath;
use highwater::{Control, Error, Kind, Remedy, Result};

use crate::profile::Files;
use crate::{Node, own_name, recognise_paths};

pub(crate) use heights::{COMETBFT, TMKMS};
pub(crate) use slots::{DATABASE, Slots, digits};

/// The header of SQLite's logs: a rollback journal that is over begins with zeros.
const LOG_HEADER: u64 = 28;

/// How a kind of node keeps what it has signed, and how that is raised.
pub trait Signer: Send + Sync {
    /// The files in which it keeps that, of a node that was found at `at`.
    fn files(&self, at: &RelPath, files: &Files<'_>) -> Vec<RelPath>;

    /// The names of the numbers that can be stated.
    fn names(&self) -> &'static [&'static str];

    /// Those that have to be.
    fn asks(&self) -> &'static [&'static str] {
        self.names()
    }

    /// A longer file is none of its own.
    fn bytes_max(&self) -> u64;

    /// What the names of files end with that lie beside its file and complete it as long as their first bytes are
    /// not all zero.
    fn logs(&self) -> &'static [&'static str] {
        &[]
    }

    /// The numbers that backups have seen of a file, by the names that [`Signer::raise`] knows.
    fn seen(&self, file: &RelPath, marks: &BTreeMap<String, u64>) -> BTreeMap<String, u64>;

    /// The next content of a file with this content where nothing is stated: what it says, raised to what backups have
    /// seen.
    ///
    /// # Errors
    /// Corrupt where the content is none that such a node writes.
    fn raise_to_seen(&self, content: &[u8], seen: &BTreeMap<String, u64>) -> Result<Raised>;

    /// The next content of a file with this content.
    ///
    /// # Errors
    /// Quarantined where a number has to be stated and is not; input where one is stated that can't be, or
    /// that lies below what is known to have been signed; corrupt where the content is none that such a node
    /// writes.
    fn raise(
        &self,
        content: &[u8],
        stated: &Stated,
        seen: &BTreeMap<String, u64>,
    ) -> Result<Raised>;
}

/// The numbers of a floor, as somebody states them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// By name. Where a directory has several signers that know one name, the path of the file and a slash
    /// stand before it.
    pub numbers: BTreeMap<String, u64>,
    /// What they are.
    pub basis: Basis,
}

impl Stated {
    /// Whether anything is stated: where nothing is, a node without signers is released as it always was.
    fn says_something(&self) -> bool {
        !self.numbers.is_empty() || self.basis != Basis::Latest
    }
}

/// What becomes of a signer's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Its next content; `None` where it has this floor already.
    pub content: Option<Vec<u8>>,
    /// What it says now.
    pub from: BTreeMap<String, u64>,
    /// What it says then.
    pub to: BTreeMap<String, u64>,
}

/// A release, as far as signers ask for it.
#[derive(Clone)]
pub struct Release<'a> {
    /// What is released.
    pub which: &'a Which,
    /// The floor.
    pub stated: &'a Stated,
    /// Why the numbers are these.
    pub reason: &'a str,
    /// Who releases.
    pub by: &'a str,
    /// A statement that the original is gone for good.
    pub original_gone: Option<Released>,
    /// Whether the directory took the place of the original's own, which was put aside here: no other machine has
    /// it. Asked only where that matters.
    pub in_place: &'a dyn Fn() -> Result<bool>,
}

/// What was done before a release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The floors that are recorded of the signers that are released.
    pub floors: Vec<Floor>,
    /// All that makes an old copy of this directory dangerous is kept from doing so by these floors.
    pub covers: bool,
    /// What has to be done before the node is started, where no floor can be written.
    pub warnings: Vec<String>,
}

/// A signer that was found in a node directory.
struct Found {
    node: Node,
    file: RelPath,
}

impl Found {
    fn signer(&self) -> Result<&dyn Signer> {
        self.node.profile().signer().ok_or_else(|| Error::bug("a signer has no rule"))
    }

    /// Whether a release of `which` lets it sign. Where its file is not withheld, anything that is still
    /// withheld may be all that keeps it from being started.
    fn is_let_out(&self, resting: &Resting<'_>, which: &Which) -> bool {
        match (which, resting.withheld(&self.file)) {
            (Which::All, _) | (_, None) => true,
            (Which::Channel(name), Some(withheld)) => withheld.part == *name,
        }
    }

    /// Whether its release was recorded over a floor: it may have signed since.
    fn is_finished(&self, resting: &Resting<'_>) -> bool {
        let latch = resting.latch();
        let released = match resting.withheld(&self.file) {
            Some(withheld) => withheld.release.is_some(),
            None => {
                latch.release.is_some()
                    || latch.channels.values().any(|part| part.release.is_some())
            }
        };
        released
            && latch
                .floors
                .iter()
                .any(|floor| floor.file == self.file && floor.basis != Basis::Seen)
    }
}

/// Writes the floors of all signers that a release of a node directory lets go; a directory without signers is
/// left as it is, and so is one without a latch. Repeating it finishes what was interrupted.
///
/// # Errors
/// Quarantined where a floor, or a statement that the original is gone, is needed and not given; input where a
/// floor is given that no signer here has, or that can't be right.
pub fn raise(dir: &Path, release: &Release<'_>, control: &Control) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    let gone = release.original_gone.clone();
    let decide = |resting: &Resting<'_>| {
        let paths = resting.entries()?;
        let nodes = recognise_paths(&paths);
        prepared.warnings = warnings(&nodes);
        prepared.covers = nodes
            .iter()
            .filter(|node| node.profile().danger().is_some())
            .all(|node| node.profile().signer().is_some());
        let found = found(nodes, &paths);
        decide(&found, resting, release)
    };
    match guard::raise(dir, release.by, gone, decide, control)? {
        Some(latch) => prepared.floors = stated(latch.floors),
        None => prepared.floors = last(dir, release.stated)?,
    }
    prepared.covers &= !prepared.floors.is_empty();
    Ok(prepared)
}

/// Raises the signers of a restored node that is held back to what backups have seen of them: whoever takes a file from
/// where it waits, past every release, has at least that. It lets nothing go, and a release asks for a floor all the
/// same. Returns what was raised.
///
/// # Errors
/// Corrupt where the content is none that such a node writes; conflict where its last writes are in a log beside it.
pub fn raise_to_seen(dir: &Path, by: &str, control: &Control) -> Result<Vec<Floor>> {
    let decide = |resting: &Resting<'_>| {
        let paths = resting.entries()?;
        let mut raises = Vec::new();
        for one in found(recognise_paths(&paths), &paths) {
            let signer = one.signer()?;
            let Some(content) = resting.read(&one.file, signer.bytes_max())? else { continue };
            let seen = signer.seen(&one.file, &marks(resting, &one.node));
            let named = |error: Error| error.with_entry(one.file.to_string());
            let raised = signer.raise_to_seen(&content, &seen).map_err(named)?;
            if raised.content.is_none() {
                continue;
            }
            refuse_unsettled(resting, &one.file, signer.logs())?;
            raises.push(Raise {
                file: one.file.clone(),
                content: raised.content,
                from: raised.from,
                to: raised.to,
                basis: Basis::Seen,
                reason: "the highest that backups have seen".to_owned(),
            });
        }
        Ok(raises)
    };
    let latch = guard::raise(dir, by, None, decide, control)?;
    let floors = latch.map(|latch| latch.floors).unwrap_or_default();
    Ok(floors.into_iter().filter(|floor| floor.basis == Basis::Seen).collect())
}

/// The floors that somebody has stated.
fn stated(floors: Vec<Floor>) -> Vec<Floor> {
    floors.into_iter().filter(|floor| floor.basis != Basis::Seen).collect()
}

/// The floors of the last release of a directory in which nothing is quarantined any more.
fn last(dir: &Path, given: &Stated) -> Result<Vec<Floor>> {
    let floors = stated(Latch::last(dir)?.map(|latch| latch.floors).unwrap_or_default());
    if floors.is_empty() && given.says_something() {
        return Err(Error::conflict(
            "nothing here is quarantined: a floor is written for a release",
        ));
    }
    Ok(floors)
}

/// That a release needs a floor that nobody has given.
///
/// # Errors
/// Quarantined then.
pub fn refuse_without(dir: &Path, channel: Option<&str>) -> Result<()> {
    let which = &channel.map_or(Which::All, |channel| Which::Channel(channel.to_owned()));
    let look = |resting: &Resting<'_>| {
        let paths = resting.entries()?;
        let found = found(recognise_paths(&paths), &paths);
        match found.iter().find(|one| one.is_let_out(resting, which) && !one.is_finished(resting)) {
            Some(one) => Err(needed(one.signer()?.asks(), Some(&one.file))),
            None => Ok(()),
        }
    };
    guard::resting(dir, look).map(drop)
}

/// What has to be done with nodes whose signers nobody can raise here.
fn warnings(nodes: &[Node]) -> Vec<String> {
    let told = |node: &Node| {
        let words = node.profile().before_start()?;
        Some(format!("this is a {} node: {words}", node.profile().name()))
    };
    nodes.iter().filter_map(told).collect()
}

/// All signers of some nodes.
fn found(nodes: Vec<Node>, paths: &BTreeSet<RelPath>) -> Vec<Found> {
    let files = Files::new(paths);
    let mut found = Vec::new();
    for node in nodes {
        let Some(signer) = node.profile().signer() else { continue };
        for file in signer.files(node.at(), &files) {
            found.push(Found { node: node.clone(), file });
        }
    }
    found
}

fn decide(found: &[Found], resting: &Resting<'_>, release: &Release<'_>) -> Result<Vec<Raise>> {
    let let_out: Vec<&Found> =
        found.iter().filter(|one| one.is_let_out(resting, release.which)).collect();
    let numbers = shared_out(&let_out, release.stated)?;
    let mut raises = Vec::new();
    for (one, numbers) in let_out.into_iter().zip(numbers) {
        if one.is_finished(resting) {
            continue;
        }
        refuse_other_copies(resting, release)?;
        let signer = one.signer()?;
        refuse_unsettled(resting, &one.file, signer.logs())?;
        let content = resting.read(&one.file, signer.bytes_max())?.ok_or_else(|| {
            Error::not_found("the file of the signer vanished").with_entry(one.file.to_string())
        })?;
        let seen = signer.seen(&one.file, &marks(resting, &one.node));
        let stated = Stated { numbers, basis: release.stated.basis };
        let raised = signer
            .raise(&content, &stated, &seen)
            .map_err(|error| error.with_entry(one.file.to_string()))?;
        raises.push(Raise {
            file: one.file.clone(),
            content: raised.content,
            from: raised.from,
            to: raised.to,
            basis: release.stated.basis,
            reason: release.reason.to_owned(),
        });
    }
    Ok(raises)
}

/// What was captured in the middle of a write is not all in one file.
fn refuse_unsettled(resting: &Resting<'_>, file: &RelPath, logs: &[&str]) -> Result<()> {
    for suffix in logs {
        let log = RelPath::from_bytes(&[file.as_bytes(), suffix.as_bytes()].concat())?;
        let head = resting.head(&log, LOG_HEADER)?.unwrap_or_default();
        if head.iter().any(|byte| *byte != 0) {
            return Err(Error::conflict(
                "it was captured in the middle of a write: what is in the log beside it is not in it yet",
            )
            .with_entry(log.to_string())
            .with_remedy("restore another snapshot"));
        }
    }
    Ok(())
}

/// A copy beside a living original signs the same heights from now on, whatever its floor is.
fn refuse_other_copies(resting: &Resting<'_>, release: &Release<'_>) -> Result<()> {
    let latch = resting.latch();
    let stated = latch.original_gone.is_some() || release.original_gone.is_some();
    if stated || latch.cause != guard::Cause::Restore || (release.in_place)()? {
        return Ok(());
    }
    Err(Error::new(
        Kind::Quarantined,
        "this directory did not take the place of the node's own: a floor does not keep two signers of one \
         key apart that run at the same time",
    )
    .with_remedy(Remedy::OriginalGone))
}

/// What backups have seen of a node: where a directory has several, its path stands before the names.
fn marks(resting: &Resting<'_>, node: &Node) -> BTreeMap<String, u64> {
    let mut marks = BTreeMap::new();
    for (name, value) in &resting.latch().marks {
        let highest: &mut u64 = marks.entry(own_name(node, name).to_string()).or_default();
        *highest = (*highest).max(*value);
    }
    marks
}

/// Which of the numbers are for which signer, in the order of the signers.
fn shared_out(found: &[&Found], stated: &Stated) -> Result<Vec<BTreeMap<String, u64>>> {
    let mut shares = vec![BTreeMap::new(); found.len()];
    if found.is_empty() && stated.says_something() {
        return Err(Error::input("nothing that is released is a signer: it has no floor")
            .with_remedy("state no floor"));
    }
    for (stated, value) in &stated.numbers {
        let mut takers = Vec::new();
        for (index, one) in found.iter().enumerate() {
            let own = format!("{}/", one.file);
            let name = stated.strip_prefix(&own).unwrap_or(stated);
            if one.signer()?.names().contains(&name) {
                takers.push((index, name.to_owned()));
            }
        }
        match &takers[..] {
            [(index, name)] => drop(shares[*index].insert(name.clone(), *value)),
            [] => return Err(unknown(found, stated)?),
            _ => return Err(ambiguous(found, stated)),
        }
    }
    Ok(shares)
}

fn unknown(found: &[&Found], stated: &str) -> Result<Error> {
    let mut names = Vec::new();
    for one in found {
        names.extend(one.signer()?.names().iter().copied());
    }
    names.dedup();
    let known = format!("the numbers that can be stated here are {}", names.join(", "));
    Ok(Error::input(format!("no signer here has a floor `{stated}`")).with_remedy(known))
}

fn ambiguous(found: &[&Found], stated: &str) -> Error {
    let names: Vec<String> = found.iter().map(|one| format!("{}/{stated}", one.file)).collect();
    Error::input(format!("several signers here have a floor `{stated}`"))
        .with_remedy(format!("state one for each: {}", names.join(", ")))
}

/// That a signer is not let go before its floor is stated.
fn needed(names: &[&str], file: Option<&RelPath>) -> Error {
    let error = Error::new(
        Kind::Quarantined,
        "a signer is let go above a floor: what its original has signed since this copy was made, nobody has \
         recorded",
    )
    .with_remedy(Remedy::StateFloor(names.iter().map(|name| (*name).to_owned()).collect()));
    match file {
        Some(file) => error.with_entry(file.to_string()),
        None => error,
    }
}

/// That a number lies below what is known.
fn too_low(name: &str, stated: u64, known: u64) -> Error {
    Error::input(format!(
        "`{name}` is stated as {stated}, and {known} was reached: the chain is further than that"
    ))
    .with_remedy("look it up again, at a node that has caught up")
    .with_remedy(Remedy::NewChain)
}

/// That a number is stated where it has no meaning.
fn no_place(name: &str) -> Error {
    Error::input(format!("`{name}` is stated only with a floor that is accepted as it is"))
        .with_remedy(Remedy::AcceptFloor)
}
