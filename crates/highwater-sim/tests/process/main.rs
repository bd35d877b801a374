//! The real processes: `channel-node` over TCP, SQLite and a vault, killed, restored and rolled back.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod both;
mod in_flight;
mod kit;
mod marks;
mod restored;
mod stories;
mod tap;
mod witness;
mod world;
