//! Backs up a node directory into a new vault, and restores it to another place.

use highwater::{Actor, Backup, Restore, Result, Secret, Vault};

fn main() -> Result<()> {
    let mut paths = std::env::args().skip(1);
    let mut next = || paths.next().expect("usage: backup-restore NODE VAULT COPY STATE");
    let (node, vault, copy, state) = (next(), next(), next(), next());

    let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
    let vault = Vault::create(&vault.parse()?, &secret)?;
    let backup = Backup::of(node).run(&vault, &Actor::new(state, "operator@node-1"))?;
    println!("snapshot {} has {} bytes", backup.snapshot, backup.bytes_total);

    let restored = Restore::snapshot(backup.snapshot.to_string(), copy).run(&vault)?;
    println!("{} bytes are in {}", restored.bytes, restored.target.display());
    Ok(())
}
