//! How the servers of Highwater are reached, whatever they serve: a [`Port`] with TLS or without, bounds for
//! each connection and a fair share of the places ([`Patience`], [`Calls`]), bearer [`Tokens`] with scopes,
//! and what a process has counted ([`figures`]).

mod connection;
pub mod figures;
mod port;
mod seats;
mod tls;
mod tokens;

pub use connection::{Calls, Patience, RunningCall, count};
pub use port::{Port, Serving};
pub use seats::network;
pub use tls::TlsFiles;
pub use tokens::{NewToken, Scope, TokenInfo, Tokens, bearer};
