//! A reference payment-channel node under Highwater's guard, its models and its simulation.
//!
//! The core ([`node`], [`channel`], [`ledger`]) does no input or output: it turns an input into a
//! step, and [`driver`] carries the step out in the one safe order. The processes of `channel-node`
//! and the simulation drive the same core.
//!
//! To put another node under the guard, look at these few places:
//!
//! | what | where |
//! |---|---|
//! | a channel tells its numbers, and what it may claim while it is held | `impl highwater_guard::Channel` in [`channel`] |
//! | at the start all channels pass the guard before one of them speaks | [`driver::Driver::start`] |
//! | durable, then in the witness, then it leaves | [`driver::Driver::handle`] |
//! | the epoch of this start is stored with each move | [`channel::Channel::stamp`], [`store::Record::Unmark`] |
//! | a held channel listens, and nothing else | `Slot` in [`node`]: only a live one can be made to speak |
//! | the mark in the node's own database | [`adapter`] |
//! | a backup of the running node, with its marks | `process/vault.rs` |

pub mod adapter;
pub mod channel;
pub mod commitment;
pub mod driver;
pub mod gate;
pub mod ids;
pub mod keys;
pub mod kit;
pub mod ledger;
pub mod model;
pub mod node;
pub mod process;
pub mod prune;
pub mod store;
pub mod wire;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
