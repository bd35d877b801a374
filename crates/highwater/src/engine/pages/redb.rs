//! The file of a redb database, of file format 2 and 3 (redb: `docs/design.md`;
//! `src/tree_store/page_store/header.rs` for the header and for the choice of the commit slot, `base.rs`
//! and `layout.rs` for where a page is, `src/tree_store/btree_base.rs` for pages and what their checksums
//! cover, `table_tree_base.rs` and `multimap_btree.rs` for tables, `savepoint.rs` for savepoints).
//!
//! redb itself verifies no checksum where it opens a file that was closed, and has no check that does
//! not write.

use std::fs::File;

use crate::engine::pages::source::Source;
use crate::engine::pages::{Depth, PageFault, Result, Seen, damaged};

mod header;
#[cfg(test)]
mod tests;
mod walk;

use header::{Header, Slot};

/// Checks the file of a redb database.
///
/// Where the file was closed, its primary commit slot counts, and each page that it leads to. Where it
/// was not, redb goes back to the other slot if the primary one is not whole, and so does the check.
///
/// # Errors
/// Damaged, also where the file is longer than its regions: redb opens no such file. Unknown where it is
/// of file format 1, which only redb 1 and 2 read, or of a later one.
pub(in crate::engine) fn check(file: &File, depth: Depth) -> Result<Seen> {
    let source = Source::new(file)?;
    let header = Header::read(&source)?;
    let mut seen = Seen { pages: header.layout.pages(), ..Seen::default() };
    let (first, other) = header.slots()?;
    if depth == Depth::Open {
        seen.unlooked.push("Only the header and the size of the file were looked at.".into());
        return Ok(seen);
    }
    let slot = match (walk::all(&source, &header, first, &mut seen), other) {
        (Ok(()), _) => first,
        (Err(PageFault::Damaged(what)), Some(other)) => {
            seen.unlooked.push(format!(
                "Transaction {} is not whole, and redb will go back to transaction {}: {what}",
                first.transaction, other.transaction
            ));
            walk::all(&source, &header, other, &mut seen)?;
            other
        }
        (Err(fault), _) => return Err(fault),
    };
    told(&header, slot, &mut seen);
    Ok(seen)
}

/// What was not looked at.
fn told(header: &Header, slot: &Slot, seen: &mut Seen) {
    let lines = &mut seen.unlooked;
    lines.push("The list of free pages was not compared with the pages in use.".into());
    if header.recovery {
        lines.push(
            "The database was not closed: redb repairs it when it is opened to be written.".into(),
        );
    }
    if slot.version < header::VERSION_MAX {
        lines.push(
            "The states of the regions were not checked, nor what savepoints keep of them.".into(),
        );
    }
}

/// For what is not as the format has it.
fn wrong<T>(what: &str) -> Result<T> {
    damaged(format!("The header is damaged: {what}."))
}
