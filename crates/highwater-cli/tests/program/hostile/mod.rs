//! A node directory whose owner is hostile: root runs every command on it, among planted links,
//! journals, latches and pipes, and while a process of the owner's exchanges entries all the time.
//! Whatever the command answers, nothing outside the directory changes, and nothing of the key, the
//! vault or root's own files comes into the owner's reach.

mod ground;
mod plain;
mod planted;
mod reader;
mod rights;
mod swapped;
