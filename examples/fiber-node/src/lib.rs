//! A Fiber node as far as its store goes: channels in every state, in the values, keys and databases that the
//! node itself writes, by the crates that it is made of.

pub mod sample;
pub mod store;

use std::error::Error;

/// What a step gives, or why it could not.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
