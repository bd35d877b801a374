//! The nodes that are backed up: RocksDB databases that `db_bench` makes, a SQLite of channel updates,
//! and how a little of each is changed. Made once and kept: making them takes longer than a run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// What a node's database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// RocksDB, its tables compressed with LZ4.
    Lz4,
    /// RocksDB, uncompressed.
    Raw,
    /// SQLite in WAL mode.
    Sqlite,
}

impl Kind {
    pub(super) fn is_rocksdb(self) -> bool {
        self != Kind::Sqlite
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Lz4 => "lz4",
            Kind::Raw => "raw",
            Kind::Sqlite => "sqlite",
        }
    }

    pub(super) fn describe(self) -> &'static str {
        match self {
            Kind::Lz4 => "RocksDB, LZ4",
            Kind::Raw => "RocksDB, uncompressed",
            Kind::Sqlite => "SQLite",
        }
    }

    /// Bytes on disk of each write of `db_bench`: a third of its random keys come twice.
    fn bytes_per_write(self) -> u64 {
        match self {
            Kind::Lz4 => 175,
            Kind::Raw => 326,
            Kind::Sqlite => 640,
        }
    }

    fn compression(self) -> &'static str {
        if self == Kind::Lz4 { "lz4" } else { "none" }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Kind> {
        let found = [Kind::Lz4, Kind::Raw, Kind::Sqlite].into_iter().find(|k| k.name() == text);
        found.with_context(|| format!("`{text}` is none of lz4, raw, sqlite"))
    }
}

/// A node directory with one database.
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) dir: PathBuf,
}

impl Node {
    /// Makes a node of about `size_mb`, unless it was made before.
    pub(super) fn make(dir: &Path, kind: Kind, size_mb: u64) -> Result<Node> {
        let dir = dir.join(format!("{kind}-{size_mb}"));
        let node = Node { kind, dir };
        let done = node.dir.with_extension("made");
        if !done.exists() {
            if node.dir.exists() {
                std::fs::remove_dir_all(&node.dir)?;
            }
            std::fs::create_dir_all(&node.dir)?;
            let writes = size_mb * 1_000_000 / kind.bytes_per_write();
            if kind.is_rocksdb() {
                node.db_bench("fillrandom,compact", writes, writes, 1)?;
            } else {
                node.fill_sqlite(writes)?;
            }
            std::fs::write(&done, b"")?;
        }
        // Files that were written a moment ago would be read again: their times prove nothing yet.
        run(&mut Command::new("sync"))?;
        Ok(node)
    }

    /// The database itself.
    pub(super) fn database(&self) -> PathBuf {
        if self.kind.is_rocksdb() { self.dir.clone() } else { self.dir.join("node.sqlite") }
    }

    /// Reads all of it, so that it lies in memory where there is enough of that.
    pub(super) fn warm(&self) -> Result<()> {
        let all = "find \"$0\" -type f -print0 | xargs --null cat -- > /dev/null";
        run(Command::new("bash").args(["-euo", "pipefail", "-c", all]).arg(&self.dir))
    }

    /// A copy to be changed.
    pub(super) fn copy(&self, dir: PathBuf) -> Result<Node> {
        run(Command::new("cp").args(["-r", "--preserve=all"]).arg(&self.dir).arg(&dir))?;
        Ok(Node { kind: self.kind, dir })
    }

    /// Changes about a hundredth: so many pages at random places, or so many new rows.
    pub(super) fn change(&self, size_mb: u64) -> Result<()> {
        let writes = size_mb * 1_000_000 / self.kind.bytes_per_write() / 100;
        if self.kind.is_rocksdb() {
            return self.db_bench("overwrite,flush", writes * 100, writes.max(1), 2);
        }
        let rows = size_mb * 1_000_000 / 4096 / 100;
        self.sqlite(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             UPDATE updates SET state = 'closed' WHERE id IN
               (SELECT abs(random()) % (SELECT max(id) FROM updates) + 1
                  FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows})
                        SELECT i FROM n));
             PRAGMA wal_checkpoint(TRUNCATE);"
        ))
    }

    /// Runs `db_bench` with so many keys, and writes so many of them.
    fn db_bench(&self, benchmarks: &str, keys: u64, writes: u64, seed: u64) -> Result<()> {
        let mut command = Command::new("db_bench");
        command
            .arg(format!("--benchmarks={benchmarks}"))
            .arg(format!("--db={}", self.dir.display()))
            .arg(format!("--num={keys}"))
            .arg(format!("--writes={writes}"))
            .arg(format!("--seed={seed}"))
            .arg(format!("--use_existing_db={}", u8::from(seed > 1)))
            .arg(format!("--compression_type={}", self.kind.compression()))
            .args(["--value_size=500", "--disable_wal=1", "--max_background_jobs=2"]);
        run(&mut command)
    }

    fn fill_sqlite(&self, rows: u64) -> Result<()> {
        self.sqlite(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE updates
               (id INTEGER PRIMARY KEY, channel TEXT, state TEXT, note TEXT, payload BLOB);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows})
             INSERT INTO updates
               SELECT i, lower(hex(randomblob(16))), 'open',
                      'commitment_signed balance_msat=' || abs(random() % 100000000)
                        || ' htlcs=' || (i % 7) || ' fee_rate=253',
                      randomblob(120) || lower(hex(randomblob(140)))
               FROM n;
             PRAGMA wal_checkpoint(TRUNCATE);"
        ))
    }

    fn sqlite(&self, statements: &str) -> Result<()> {
        run(Command::new("sqlite3").arg(self.database()).arg(statements))
    }
}

/// Runs a command that must succeed, its output dropped.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
