//! Makes the vault that the library's tests keep as `vault-1`, with its key file beside it:
//! `cargo run --package highwater-bench --bin vault-fixture -- DIR`. What was released is never made again: a new
//! version of the format gets a fixture of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use highwater::backup::{self, BackupOptions};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Vault};
use highwater::{Control, Env};
use highwater_bench::Outcome;

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let env = Env::system();
    let secret = Secret::create_key_file(&dir.join("vault-1.key"))?;
    let location = Location::Local(std::path::absolute(dir.join("vault-1"))?);
    let vault =
        Vault::create_with(&location, &secret, &CreateOptions::default().recovery(true), &env)?
            .vault;
    let work = dir.join("work");
    let node = work.join("node");
    first_state(&node)?;
    back_up(&vault, &work, "first", 1)?;
    second_state(&node)?;
    back_up(&vault, &work, "second", 2)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

fn first_state(node: &Path) -> Outcome<()> {
    fs::create_dir_all(node.join("keys/empty"))?;
    fs::write(node.join("keys/seed"), b"not a secret\n")?;
    fs::write(node.join(OsStr::from_bytes(b"name-\xFF-%")), b"a name that is not UTF-8")?;
    fs::write(node.join("zero"), [])?;
    symlink("keys/seed", node.join("link"))?;
    let sparse = File::create(node.join("sparse"))?;
    sparse.set_len(5 << 20)?;
    sparse.write_all_at(b"begin", 0)?;
    sparse.write_all_at(b"end", (5 << 20) - 3)?;
    let mut noise = [0; 1000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(node.join("noise"), noise)?;
    fs::write(node.join("pages.db"), pages())?;
    let sql = rusqlite::Connection::open(node.join("node.sqlite"))?;
    sql.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")?;
    for id in 0..20 {
        sql.execute("INSERT INTO t VALUES (?1, ?2)", (id, format!("{id} ").repeat(500)))?;
    }
    Ok(())
}

/// What is taken for a bbolt database; every other page is zero, so that its map is long.
fn pages() -> Vec<u8> {
    let mut bytes = vec![0; 200 * 4096];
    for page in (0..200).step_by(2) {
        bytes[page * 4096..][..4096].fill(page as u8);
    }
    bytes[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    bytes[20..24].copy_from_slice(&2_u32.to_le_bytes());
    bytes
}

fn second_state(node: &Path) -> Outcome<()> {
    fs::rename(node.join("sparse"), node.join("renamed"))?;
    fs::write(node.join("zero"), b"no more")?;
    File::options()
        .write(true)
        .open(node.join("pages.db"))?
        .write_all_at(b"changed", 101 * 4096)?;
    fs::remove_file(node.join("link"))?;
    let sql = rusqlite::Connection::open(node.join("node.sqlite"))?;
    sql.execute("INSERT INTO t VALUES (?1, ?2)", (20, "twenty"))?;
    Ok(())
}

fn back_up(vault: &Vault, work: &Path, tag: &str, height: u64) -> Outcome<()> {
    let actor = Actor { state_dir: work.join("state"), name: "fixture@nowhere".to_owned() };
    let mut options = BackupOptions::default();
    options.tags = [("fixture".to_owned(), tag.to_owned())].into();
    options.marks = [("height".to_owned(), height)].into();
    backup::run(vault, &work.join("node"), &actor, &options, &Control::new(Env::system()))?;
    Ok(())
}
