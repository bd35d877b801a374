//! The tools, and the commands by which each does the same: a full backup, one of what has not
//! changed, a check of every byte, a restore. All are run as their documentation shows, on their
//! default settings but for progress and prompts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result};

use super::data::{Kind, Node, run};

/// A tool that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tool {
    Highwater,
    /// `cp -r` and a sync of the file system.
    Copy,
    Restic,
    Rustic,
    Borg,
    /// RocksDB's own backup engine, by its program.
    Ldb,
    /// SQLite's own backup, by its shell, and a sync.
    SqliteBackup,
}

/// What a tool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Full,
    Unchanged,
    Check,
    Restore,
    Export,
    Pull,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Full => "full backup",
            What::Unchanged => "unchanged",
            What::Check => "check of every byte",
            What::Restore => "restore",
            What::Export => "export",
            What::Pull => "pull",
        })
    }
}

/// One command.
pub(super) struct Step {
    pub(super) what: What,
    pub(super) command: String,
}

impl Tool {
    pub(super) const ALL: [Tool; 7] = [
        Tool::Highwater,
        Tool::Copy,
        Tool::Restic,
        Tool::Rustic,
        Tool::Borg,
        Tool::Ldb,
        Tool::SqliteBackup,
    ];

    fn name(self) -> &'static str {
        match self {
            Tool::Highwater => "highwater",
            Tool::Copy => "cp",
            Tool::Restic => "restic",
            Tool::Rustic => "rustic",
            Tool::Borg => "borg",
            Tool::Ldb => "ldb",
            Tool::SqliteBackup => "sqlite3",
        }
    }

    /// How it stands in a table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Tool::Copy => "`cp -r` + `sync`",
            Tool::Ldb => "`ldb backup`",
            Tool::SqliteBackup => "`sqlite3 .backup`",
            _ => self.name(),
        }
    }

    /// Its version, in one line; `None` where it is not there.
    pub(super) fn version(self, program: &Path) -> Option<String> {
        let (command, argument) = match self {
            Tool::Highwater => (program.as_os_str().to_owned(), "--version"),
            Tool::Restic => ("restic".into(), "version"),
            Tool::Ldb => ("ldb".into(), "--version"),
            _ => (self.name().into(), "--version"),
        };
        let output = Command::new(command).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().next().unwrap_or("?").to_owned())
    }

    pub(super) fn is_there(self) -> bool {
        self == Tool::Highwater || self.version(Path::new("")).is_some()
    }

    pub(super) fn fits(self, kind: Kind) -> bool {
        match self {
            Tool::Ldb => kind.is_rocksdb(),
            Tool::SqliteBackup => kind == Kind::Sqlite,
            _ => true,
        }
    }

    /// What it does with a node, in order. What has to be there before is made here, unmeasured.
    pub(super) fn steps(self, node: &Node, place: &Place) -> Result<Vec<Step>> {
        match self {
            Tool::Highwater => highwater(node, place),
            Tool::Copy => Ok(copy(node, place)),
            Tool::Restic => {
                repository(node, place, "restic --quiet --repo {}", "restore latest --target")
            }
            Tool::Rustic => repository(
                node,
                place,
                "rustic --no-progress --log-level error --repository {}",
                "restore latest",
            ),
            Tool::Borg => borg(node, place),
            Tool::Ldb => Ok(ldb(node, place)),
            Tool::SqliteBackup => Ok(sqlite_backup(node, place)),
        }
    }
}

fn step(what: What, command: String) -> Step {
    Step { what, command }
}

fn highwater(node: &Node, place: &Place) -> Result<Vec<Step>> {
    place.init_vault(&place.dir.join("vault"))?;
    let (source, out) = (quoted(&node.dir), quoted(&place.dir));
    let program = quoted(&place.program);
    let backup = format!("{program} backup {source} --node node --json");
    Ok(vec![
        step(What::Full, backup.clone()),
        step(What::Unchanged, backup),
        step(What::Check, format!("{program} check --read-data --json")),
        step(What::Restore, format!("{program} restore latest {out}/back --json")),
    ])
}

fn copy(node: &Node, place: &Place) -> Vec<Step> {
    let (source, out) = (quoted(&node.dir), quoted(&place.dir));
    vec![
        step(What::Full, format!("cp -r {source} {out}/copy; sync -f {out}")),
        step(What::Restore, format!("cp -r {out}/copy {out}/back; sync -f {out}")),
    ]
}

/// restic, and what speaks its language. `command` has a place for the repository.
fn repository(node: &Node, place: &Place, command: &str, restore: &str) -> Result<Vec<Step>> {
    let (source, out) = (quoted(&node.dir), quoted(&place.dir));
    let command = command.replace("{}", &format!("{out}/repository"));
    place.prepare(&format!("{command} init"))?;
    Ok(vec![
        step(What::Full, format!("{command} backup {source}; sync -f {out}")),
        step(What::Unchanged, format!("{command} backup {source}; sync -f {out}")),
        step(What::Check, format!("{command} check --read-data")),
        step(What::Restore, format!("{command} {restore} {out}/back; sync -f {out}")),
    ])
}

fn borg(node: &Node, place: &Place) -> Result<Vec<Step>> {
    let (source, out) = (quoted(&node.dir), quoted(&place.dir));
    place.prepare(&format!("borg init --encryption repokey-blake2 {out}/repository"))?;
    let create = |name| format!("borg create {out}/repository::{name} {source}; sync -f {out}");
    let back = format!(
        "mkdir {out}/back; cd {out}/back; borg extract {out}/repository::first; sync -f {out}"
    );
    Ok(vec![
        step(What::Full, create("first")),
        step(What::Unchanged, create("second")),
        step(What::Check, format!("borg check --verify-data {out}/repository")),
        step(What::Restore, back),
    ])
}

fn ldb(node: &Node, place: &Place) -> Vec<Step> {
    let (source, out) = (quoted(&node.dir), quoted(&place.dir));
    let backup = format!("ldb backup --db={source} --backup_dir={out}/backup; sync -f {out}");
    let back = format!("ldb restore --db={out}/back --backup_dir={out}/backup; sync -f {out}");
    vec![step(What::Full, backup.clone()), step(What::Unchanged, backup), step(What::Restore, back)]
}

fn sqlite_backup(node: &Node, place: &Place) -> Vec<Step> {
    let (database, out) = (quoted(&node.database()), quoted(&place.dir));
    let backup = format!("sqlite3 {database} '.backup {out}/backup'; sync -f {out}");
    let back = format!("sqlite3 {out}/back '.restore {out}/backup'; sync -f {out}");
    vec![step(What::Full, backup), step(What::Restore, back)]
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tool {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Tool> {
        let found = Tool::ALL.into_iter().find(|tool| tool.name() == text);
        found.with_context(|| format!("no tool `{text}` is known"))
    }
}

/// Where one tool works: its repository, its restored files, its caches.
pub(super) struct Place {
    dir: PathBuf,
    program: PathBuf,
}

impl Place {
    pub(super) fn make(dir: &Path, program: &Path) -> Result<Place> {
        let place = Place { dir: dir.to_owned(), program: program.to_owned() };
        place.remove()?;
        std::fs::create_dir_all(dir)?;
        Ok(place)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Removes it; the next tool begins when the disk has taken note of that.
    pub(super) fn remove(&self) -> Result<()> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
            run(&mut Command::new("sync"))?;
        }
        Ok(())
    }

    /// Makes a vault that the environment's key opens.
    pub(super) fn init_vault(&self, vault: &Path) -> Result<()> {
        run(Command::new(&self.program)
            .args(["init", "--no-recovery-slot", "--json"])
            .arg(vault)
            .envs(self.environment()))
    }

    /// Runs a shell command that is not measured.
    pub(super) fn prepare(&self, command: &str) -> Result<()> {
        run(Command::new("bash").args(["-c", command]).envs(self.environment()))
    }

    /// What every command is told by its environment: secrets, and where caches and state lie.
    pub(super) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let at = |name| self.dir.join(name);
        vec![
            ("HIGHWATER_VAULT", at("vault")),
            ("HIGHWATER_KEY_FILE", at("key")),
            ("XDG_STATE_HOME", at("state")),
            ("XDG_CACHE_HOME", at("cache")),
            ("RESTIC_PASSWORD", "bench".into()),
            ("RUSTIC_PASSWORD", "bench".into()),
            ("BORG_PASSPHRASE", "bench".into()),
            ("BORG_BASE_DIR", at("borg")),
        ]
    }

    /// Megabytes of what the tool has stored.
    pub(super) fn stored_mb(&self) -> Result<f64> {
        let stores = ["vault", "repository", "backup", "copy"];
        let sizes = stores.iter().map(|name| bytes_below(&self.dir.join(name)));
        let bytes: u64 = sizes.sum::<Result<u64>>()?;
        Ok(bytes as f64 / 1e6)
    }
}

/// Bytes of the files at or below a path.
pub(super) fn bytes_below(path: &Path) -> Result<u64> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(0) };
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        bytes += bytes_below(&entry?.path())?;
    }
    Ok(bytes)
}

/// A path as a word of the shell.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
