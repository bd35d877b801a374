//! A database of somebody weaker, read by a process that has no more rights than that one.
//!
//! SQLite takes paths, and opens several files by each. Where root works in a directory whose owner can
//! exchange what a path leads to, it is not root who opens them: a program that the caller names, this
//! one again by default, runs [`serve`] with the directory as its root directory and the rights of the
//! directory's owner. It is handed nothing but that directory and one socket, so it holds neither key
//! nor vault; what a hostile database makes of SQLite, it makes of that process.
//!
//! What comes back is believed as far as the content of the owner's own database goes, and no further:
//! names, owners and modes are what this process sees.

mod child;
mod parent;
mod wire;

pub use child::serve;
pub(super) use parent::{capture, check, is_needed};
