//! The Versioned Storage Service: what nodes keep on a server, each value with a version, each put one
//! transaction. Wire-compatible with the published clients; the protocol is in `docs/vss.md`.
//!
//! A request goes `http` (bytes, who) ─ [`Service`] (rules of the protocol, a plan) ─ [`Backend`]
//! (SQLite or PostgreSQL), which is handed nothing that the rules forbid.

mod auth;
mod backend;
mod extensions;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod limits;
mod observe;
mod plan;
mod postgres;
mod quota;
mod server;
mod service;
mod share;
mod sqlite;
mod wire;

pub use auth::Auth;
pub use backend::{
    Backend, Change, Commit, Digest, Found, Keep, Page, Place, Policy, Refusal, Restored, Sizes,
    Stats, StoreName, StoreStats,
};
pub use limits::Limits;
pub use observe::Event;
pub use plan::{Effect, Expect, Heads, Plan, PutFault, Then, tag};
pub use postgres::Postgres;
pub use quota::{Quota, Usage, UserStats};
pub use server::{Running, VssBuilder, VssServer};
pub use service::Service;
pub use sqlite::Sqlite;
