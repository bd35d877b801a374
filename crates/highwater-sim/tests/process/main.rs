//! The real processes: `channel-node` over TCP, SQLite and a vault, killed, restored and rolled back.

mod stories;
mod world;
