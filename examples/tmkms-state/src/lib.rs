//! Nothing but tests: see `tests/floor.rs`.
