//! The real processes: `channel-node` over TCP, SQLite and a vault, killed, restored and rolled back.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod restored;
mod stories;
mod tap;
mod world;
