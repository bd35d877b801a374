//! Makes the recovery kit that the library's tests keep as `kit-1.hwk`, from `kit-1.json` and the vault
//! beside it: `cargo run --package highwater-bench --bin kit-fixture -- DIR`, DIR holding copies of all three. What was
//! released is never made again: a new version of the format gets a fixture of its own.

use std::fs;
use std::path::PathBuf;

use highwater::Env;
use highwater::kit::{self, Kit};
use highwater::vault::{Location, Secret, Vault};
use highwater_bench::Outcome;

/// `.highwater/node.json` of a node that was backed up once.
const NODE: &str = "{\"uid\":\"70e3a1f0c1c24b6f8f6f7ad3c0ffee01\",\"restore\":null}\n";

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let env = Env::system();
    let secret = Secret::from_key_file(&dir.join("vault-1.key"))?;
    let location = Location::Local(std::path::absolute(dir.join("vault-1"))?);
    let vault = Vault::open_with(&location, &secret, &env)?;
    let node = dir.join("node");
    fs::create_dir_all(node.join(".highwater"))?;
    fs::write(node.join(".highwater/node.json"), NODE)?;
    let content = kit::read_content(&dir.join("kit-1.json"))?;
    let sealed = Kit::of_dir(&node, None, content, "2026-11-21T05:00:00Z".parse()?)?;
    kit::write_file(&dir.join("kit-1.hwk"), &kit::seal(&vault, &sealed)?, false, &env)?;
    fs::remove_dir_all(node)?;
    Ok(())
}
