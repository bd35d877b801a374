//! The check of a restored RocksDB: its files against its MANIFEST, then read-only through RocksDB
//! itself, where this build has it.

use super::missing;
use super::version::{self, Version};
use crate::engine::{Checked, Depth};
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// Checks the database at `db`; `name` is what messages call it.
pub(in crate::engine) fn check(db: &RootedPath, name: &str, depth: Depth) -> Result<Checked> {
    let version = version::read(db).map_err(|error| {
        Error::new(error.kind(), format!("{name}: {error}")).with_entry(name).with_source(error)
    })?;
    if let Some(file) = missing(db, &version)? {
        return Err(Error::corrupt(format!("{name} lacks {file}, which its MANIFEST names"))
            .with_entry(format!("{name}/{file}")));
    }
    sizes(db, name, &version)?;
    opened(db, name, &version, depth)
}

/// A table is as long as the MANIFEST says.
fn sizes(db: &RootedPath, name: &str, version: &Version) -> Result<()> {
    for (number, table) in version.tables() {
        let (file, size) = super::table_size(db, number)?;
        if size != table.size {
            return Err(Error::corrupt(format!(
                "{name}/{file} has {size} bytes, the MANIFEST says {}",
                table.size
            ))
            .with_entry(format!("{name}/{file}")));
        }
    }
    Ok(())
}

#[cfg(feature = "rocksdb")]
use super::open::check as opened;

#[cfg(not(feature = "rocksdb"))]
fn opened(_: &RootedPath, name: &str, _: &Version, _: Depth) -> Result<Checked> {
    Ok(Checked {
        warnings: vec![format!(
            "{name}: this build opens no RocksDB; its files were compared with its MANIFEST"
        )],
        unchecked: vec![name.to_owned()],
    })
}
