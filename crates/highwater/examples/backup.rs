//! Backs up a node directory twice, lists and checks what the vault has, and restores a copy: `cargo run
//! --example backup`. All of it happens in a temporary directory.
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::fs;

use highwater::vault::{CheckOptions, check};
use highwater::{Actor, Backup, Restore, Secret, Vault};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (node, key) = (dir.path().join("node"), dir.path().join("vault.key"));
    fs::create_dir(&node)?;
    fs::write(node.join("channels"), "one")?;

    // A real vault lies on another machine, and so does a copy of its key: nothing else opens it.
    let location = dir.path().join("vault").display().to_string().parse()?;
    Vault::create(&location, &Secret::create_key_file(&key)?)?;
    let vault = Vault::open(&location, &Secret::from_key_file(&key)?)?;

    let actor = Actor::new(dir.path().join("state"), "operator@node-1");
    for channels in ["one", "one, two"] {
        fs::write(node.join("channels"), channels)?;
        let report = Backup::of(&node).run(&vault, &actor)?;
        println!("backed up: {} as number {}", report.snapshot, report.seq.0);
    }
    for info in vault.snapshots(None)? {
        println!("listed: {} of {}", info.manifest.snapshot, info.manifest.node);
    }

    let options = CheckOptions::default().read_data(true);
    let report = check(&vault, &options, &vault.control())?;
    for fault in &report.errors {
        println!("damaged: {}: {}", fault.entry, fault.problem);
    }
    println!("checked: {} snapshots, sound: {}", report.snapshots, report.ok);

    let restore = Restore::latest("node".parse()?).to(dir.path().join("copy"));
    let restored = restore.run(&vault)?;
    println!("restored: channels {}", fs::read_to_string(restored.target.join("channels"))?);
    Ok(())
}
