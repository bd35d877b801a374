//! The node that the demo generates.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use highwater::{Env, Error, Result};

use super::rows::value;

/// The RocksDB, inside the node directory.
pub(super) const STORE: &str = "store";
/// The SQLite.
pub(super) const LEDGER: &str = "ledger.sqlite";
/// The key file, mode 0400.
pub(super) const KEY: &str = "node.key";
/// Its mode.
pub(super) const KEY_MODE: u32 = 0o400;
/// The configuration.
pub(super) const CONFIG: &str = "config.toml";
/// Its content.
pub(super) const CONFIG_TEXT: &str = "alias = \"demo\"\nlisten = \"127.0.0.1:9735\"\n";
/// A link to the configuration.
pub(super) const LINK: &str = "current.toml";
/// The files of the RocksDB: made by RocksDB itself (`cargo run --package highwater-bench --bin demo-store`), and
/// kept, so that a demo needs none of its library.
const STORE_FILES: [(&str, &[u8]); 6] = [
    ("CURRENT", include_bytes!("store/CURRENT")),
    ("IDENTITY", include_bytes!("store/IDENTITY")),
    ("MANIFEST-000005", include_bytes!("store/MANIFEST-000005")),
    ("OPTIONS-000007", include_bytes!("store/OPTIONS-000007")),
    ("000008.log", include_bytes!("store/000008.log")),
    ("000009.sst", include_bytes!("store/000009.sst")),
];
/// How old the tables are made.
const TABLE_AGE: Duration = Duration::from_secs(3600);

/// Makes the node in `dir`; its RocksDB is closed, with rows that are in the log alone.
pub(super) fn make(dir: &Path, env: &Env) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(dir).map_err(|error| Error::io("node", error))?;
    make_store(&dir.join(STORE))?;
    age_tables(&dir.join(STORE), env)?;
    let write = |name: &str, mode: u32, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(dir.join(name));
        file.and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
            .map_err(|error| Error::io(name, error))
    };
    write(KEY, KEY_MODE, &key_bytes())?;
    write(CONFIG, 0o600, CONFIG_TEXT.as_bytes())?;
    std::os::unix::fs::symlink(CONFIG, dir.join(LINK)).map_err(|error| Error::io(LINK, error))
}

/// The content of the key file.
pub(super) fn key_bytes() -> Vec<u8> {
    value(KEY, 0)
}

fn make_store(dir: &Path) -> Result<()> {
    let failed = |error| Error::io(STORE, error);
    std::fs::create_dir(dir).map_err(failed)?;
    // What a database that was opened once has, and who opens it next locks.
    let files = STORE_FILES.into_iter().chain([("LOCK", &b""[..])]);
    files
        .into_iter()
        .try_for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).map_err(failed))
}

/// Gives the tables the age that those of a running node have: a file that was written a moment ago
/// is read again by the next backup, since its times can't tell it from its successor.
fn age_tables(store: &Path, env: &Env) -> Result<()> {
    let failed = |error| Error::io(STORE, error);
    let now = Duration::from_nanos(u64::try_from(env.now().as_nanos()).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH + now.saturating_sub(TABLE_AGE);
    for entry in std::fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let table = std::fs::File::options().write(true).open(path).map_err(failed)?;
            table.set_modified(time).map_err(failed)?;
        }
    }
    Ok(())
}
