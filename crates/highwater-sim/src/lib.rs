//! A reference payment-channel node under Highwater's guard, its models and its simulation.
//!
//! The core ([`node`], [`channel`], [`ledger`]) does no input or output: it turns an input into a
//! step, and [`driver`] carries the step out in the one safe order. The processes of `channel-node`
//! and the simulation drive the same core.

pub mod adapter;
pub mod channel;
pub mod commitment;
pub mod driver;
pub mod gate;
pub mod ids;
pub mod keys;
pub mod ledger;
pub mod node;
pub mod process;
pub mod store;
pub mod wire;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
