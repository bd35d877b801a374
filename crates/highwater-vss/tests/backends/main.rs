//! What every backend does: the protocol's own suite, a comparison with a model, and what each must
//! stand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

extern crate vss_api as api;

#[path = "../postgres/mod.rs"]
mod cluster;
mod concurrent;
mod differential;
mod history;
mod model;
mod postgres;
mod quota;
mod suite;
mod world;
