//! ev-node, a sequencer: `config/signer.json` beside the Badger database in which it keeps its blocks.
//!
//! The database is `<db_path>/<name>`, `data/evm-single` for one; the height of its last whole block is the value of
//! `/0/t` in it (`pkg/store/keys.go`, `pkg/store/kv.go` and `pkg/store/store.go` of ev-node 1.0 to 1.2).

use std::io;
use std::os::unix::fs::FileExt as _;

use highwater::ids::RelPath;
use highwater::{Error, Result};

use crate::badger;
use crate::profile::{Content, Files, Marks, Profile};

/// How the manifest of a Badger database begins.
const MAGIC: &[u8] = b"Bdgr";

pub(crate) struct EvNode;

impl Profile for EvNode {
    fn name(&self) -> &'static str {
        "ev-node"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with("config/signer.json")
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a sequencer that has forgotten what it signed signs other blocks for the same heights",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[&["data"]]
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["config/signer.json"]
    }

    /// The height of its last whole block. The one after may be signed already.
    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        for manifest in content.all().iter().filter(|path| path.name() == "MANIFEST") {
            let Some(dir) = manifest.parent() else { continue };
            if !content.head(manifest, MAGIC.len() as u64)?.starts_with(MAGIC) {
                continue;
            }
            let named = |error| refused(error).with_entry(dir.to_string());
            if let Some(height) = badger::height(&Database::of(content, &dir)?).map_err(named)? {
                let mark = marks.entry("height".to_owned()).or_insert(height);
                *mark = height.max(*mark);
            }
        }
        Ok(())
    }
}

/// The captured files of a database.
struct Database {
    files: Vec<(String, std::fs::File, u64)>,
}

impl Database {
    fn of(content: &mut Content<'_, '_>, dir: &RelPath) -> Result<Database> {
        let mut files = Vec::new();
        for path in content.all() {
            // Its names are plain; what has another one is not its own.
            let name = path.name().to_str().filter(|_| path.parent().as_ref() == Some(dir));
            if let Some(name) = name {
                let (file, size) = content.open(&path)?;
                files.push((name.to_owned(), file, size));
            }
        }
        Ok(Database { files })
    }
}

impl badger::Files for Database {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.files.iter().map(|(name, _, size)| (name.clone(), *size)).collect())
    }

    fn read_at(&self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let found = self.files.iter().find(|(name, ..)| name == file);
        let (_, file, _) = found.ok_or(io::ErrorKind::NotFound)?;
        file.read_exact_at(buffer, offset)
    }
}

fn refused(error: badger::Error) -> Error {
    use badger::Error::{
        Damaged, Encrypted, Expires, Foreign, Height, List, Missing, Pointer, Read, TooLarge,
        Unknown, Version,
    };
    let text = error.to_string();
    match error {
        List(error) | Read { error, .. } => Error::io(text, error),
        Missing(_) | Damaged { .. } | Height(_) => Error::corrupt(text),
        Unknown { .. }
        | Version(_)
        | Foreign(_)
        | Encrypted(_)
        | TooLarge { .. }
        | Pointer(_)
        | Expires(_) => Error::input(text),
    }
}
