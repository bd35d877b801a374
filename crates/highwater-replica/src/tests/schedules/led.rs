//! The files of the store once more, over the locks and threads that a scheduler leads: the code is the same, line
//! by line, and what has no lock is that of the store itself.

use crate::{book, class, head, keys, local, order, owner, remote, sender, write};

#[path = "../../commit.rs"]
mod commit;
#[path = "../../shared.rs"]
mod shared;
#[path = "../../store.rs"]
pub(super) mod store;
pub(super) mod sync;
