//! A configuration: who is there, and what may happen.

use super::state::Set;

/// What a writer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is none.
    Nobody,
    /// It builds on the newest visible snapshot.
    Backup,
    /// It brings a snapshot with the packs of the first one and one more, by their ids.
    Import,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What it is called.
    pub name: &'static str,
    /// Who writes the second and the third snapshot.
    pub writers: [Kind; 2],
    /// There is a rewriting, of the pack of the first snapshot.
    pub rewriting: bool,
    /// So many prunes: up to two.
    pub prunes: usize,
    /// Leftovers are collected.
    pub collector: bool,
    /// Snapshots that may be forgotten.
    pub forgets: Set,
    /// What was forgotten may be brought back.
    pub undoes: bool,
    /// A snapshot is restored.
    pub restores: bool,
    /// The grace period in days.
    pub grace: u8,
    /// So many days pass at most.
    pub days: u8,
    /// Whoever works on the vault may be killed. Where not, one that does nothing any more is the same to all
    /// others, but for who collects what it has left.
    pub kills: bool,
    /// Writers may give up by themselves, before they try to put their manifest.
    pub gives_up: bool,
    /// The answer to the put of a manifest may be lost, and the manifest come later.
    pub loses_answers: bool,
    /// A writer may sleep for days between its last look at its intent before the manifest is put, and
    /// the one after it.
    pub sleeps_at_commit: bool,
    /// A deletion may come days after the look that allows it.
    pub deletes_late: bool,
    /// The onlooker asks for whole snapshots also where a writer may sleep.
    pub strict: bool,
}

impl Setup {
    /// Nobody but one prune; all that may happen happens, but for what nothing is promised about.
    pub const fn new(name: &'static str) -> Setup {
        Setup {
            name,
            writers: [Kind::Nobody; 2],
            rewriting: false,
            prunes: 1,
            collector: false,
            forgets: 0b001,
            undoes: false,
            restores: false,
            grace: 0,
            days: 2,
            kills: false,
            gives_up: false,
            loses_answers: false,
            sleeps_at_commit: true,
            deletes_late: false,
            strict: false,
        }
    }
}
