//! The real processes: `channel-node` over TCP, SQLite and a vault, killed, restored and rolled back.

mod both;
mod in_flight;
mod marks;
mod restored;
mod stories;
mod tap;
mod witness;
mod world;
