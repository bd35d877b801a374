//! A model of forget and prune beside backups, whose every state is looked at.
//!
//! [`Rules`] are what the protocol of the vault relies on, one by one; [`Rule`] names each. The
//! catalog lists the configurations in which all of them hold ([`catalog::HOLDS`]), for each rule
//! one in which the others fall without it ([`catalog::MISSED`]), the rules that others make up for
//! ([`catalog::SPARE`]), and where nothing is promised ([`catalog::limits`]). [`properties`] says
//! what is asked of every state, and what must come about in some, so that nothing holds for want
//! of cases.
//!
//! # What is modelled
//! - The store: packs, manifests in two generations, intents, tombstones and claims. An object is
//!   listed once it is put. Each look and each put is a step of its own, and others may do anything
//!   in between.
//! - Backups, each built on the newest visible snapshot; imports, which put packs under the ids of
//!   others; a rewriting, which puts next generations; a collector of what a killed writer has
//!   left, which may be wrong about its death; one or two prunes; forgets, one who brings back, a
//!   restore.
//! - Death, at every step: who does nothing any more is dead, for all that others know. Where
//!   somebody acts on a death that he knows of, there is a step for it. A manifest that was sent
//!   may arrive later, also once its writer has given up or has died.
//! - Time in days, of the store and of all processes at once. An intent and a claim are old after a
//!   day, what no manifest names after two, and what was begun before the day has no time left to
//!   commit or to delete. Two times of the protocol that differ by half a day are one time here:
//!   with no margin between them, the rules have to hold all the more. A grace period of no days
//!   lets everything go at once.
//! - Sleep: a day may pass between any two steps of anybody, but between a look and the deletion
//!   that it allows, and, where a configuration says so, not while a writer commits.
//! - [`properties::CLEANED`]: from every state, once all processes are dead, prunes alone remove
//!   within days all that no visible snapshot needs, and hide nothing that was promised.
//!
//! # What is not
//! Epochs and fences: one writer may follow another at any time here, as after a takeover, and what
//! a fence hides is only hidden from more readers. Records of nodes; damaged and unknown objects;
//! the first look of a prune, which only narrows what the second one decides, happens at one
//! instant; several packs of one backup; more than one rewriting; a store that forgets what was
//! put.
//!
//! # What the model has found
//! - **A late manifest is built on.** A backup sends its manifest, hears nothing and gives up. A
//!   prune claims a pack of it and lists manifests; the manifest arrives; the next backup finds it
//!   visible and whole, builds on it and commits; the prune deletes. It has to look for claims, and
//!   once it knows the manifest, not before: [`Rule::ClaimedIsNotBuiltOn`].
//! - **A manifest that is taken back was built on.** The intent of who builds on it names a parent
//!   that is gone, and so keeps nothing: [`Rule::ParentAfterCommit`]. The generation counts, too:
//!   that of a rewriting is taken back above one that stands.
//! - **A claim is not done while its prune may be at it.** Another prune that finds nothing left to
//!   delete by it removes it; who asks for it then, late, takes its packs for safe, or an import
//!   puts one of them again: [`Rule::DoneClaimsStay`].
//! - **Leftovers may be those of a snapshot that was committed, built on, forgotten and deleted**
//!   between two looks of the collector: [`Rule::CollectorSparesOthers`].
//! - **A collector sleeps like a prune**: [`Rule::CollectorClaimMustStand`].
//! - **What an import has put is found by others**, also by who finds its intent gone, and looks
//!   whether its packs are there: [`Rule::ImportLeavesItsPacks`].
//! - **A generation is taken back while the one below it is deleted**, where the grace period is
//!   shorter than the time for taking back: [`Rule::ReplacedWaits`].
//!
//! # What is not promised
//! Each of these has a test that shows the fall ([`catalog::limits`]).
//! - A prune that is stopped for a day between its look at its claim and its deletion deletes what
//!   an import has put again.
//! - A writer that sleeps for a day or more while it commits leaves a snapshot that lacks packs,
//!   until it wakes and takes it back. Of a rewriting, the generation below is whole, and stays.
//! - A rewriting that sleeps so, or that is killed and whose manifest comes late, brings back a
//!   snapshot that was forgotten and deleted meanwhile.

pub mod catalog;
mod collector;
mod decide;
pub mod properties;
mod pruner;
mod rules;
mod search;
mod setup;
mod state;
mod steps;
mod undo;
mod writer;

pub use collector::{Collecting, Collector};
pub use decide::{Decision, Judged, View};
pub use pruner::{Pruner, Pruning};
pub use rules::{RULES, Rule, Rules};
pub use search::{Found, refute, search};
pub use setup::{Kind, Setup};
pub use state::{Claim, Intent, Restore, Set, State, Store};
pub use steps::{Step, Vault};
pub use undo::{Undo, Undoing};
pub use writer::{Writer, Writing};

#[cfg(test)]
mod tests;
