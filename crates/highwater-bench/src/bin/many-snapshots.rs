//! Adds snapshots of small nodes to the vault that the environment names, as the program would make them one after
//! the other: `many-snapshots DIR NODES SNAPSHOTS`. Nodes are made in DIR, `n0` and so on; each has as many snapshots
//! as are asked for when it ends, those of earlier calls counted.

use std::fs;
use std::path::PathBuf;

use highwater::{Actor, Backup, NodeName, Secret, Vault};
use highwater_bench::{Outcome, number};

/// Of the file that no backup finds changed.
const FILE_BYTES: usize = 100_000;

fn main() -> Outcome<()> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).ok_or(name.to_owned());
    let (vault, key) = (variable("HIGHWATER_VAULT")?, variable("HIGHWATER_KEY_FILE")?);
    let location = highwater::Location::Local(std::path::absolute(vault)?);
    let vault = Vault::open(&location, &Secret::from_key_file(&key)?)?;
    let actor = Actor::new(variable("XDG_STATE_HOME")?.join("highwater"), "bench@nowhere");
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let (nodes, snapshots) = (number(2, 1)?, number(3, 1)?);
    for node in 0..nodes {
        let name: NodeName = format!("n{node}").parse()?;
        let at = dir.join(name.as_str());
        if !at.exists() {
            fs::create_dir_all(&at)?;
            let mut bytes = vec![0; FILE_BYTES];
            fastrand::Rng::with_seed(node).fill(&mut bytes);
            fs::write(at.join("file"), bytes)?;
        }
        let counter = at.join("counter");
        let made: u64 = fs::read_to_string(&counter).map_or(Ok(0), |text| text.parse())?;
        for snapshot in made..snapshots {
            fs::write(&counter, (snapshot + 1).to_string())?;
            Backup::of(&at).node(name.clone()).run(&vault, &actor)?;
        }
    }
    Ok(())
}
