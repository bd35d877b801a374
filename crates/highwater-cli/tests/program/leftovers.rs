//! What can't be removed: an immutable file among what an earlier restore kept.

use std::process::Command;

use crate::world::World;

/// Takes the flags away in the end, or nobody could remove the directory.
struct Flags(std::path::PathBuf);

impl Flags {
    /// Makes a file immutable; whether that can be done here.
    fn set(&self, name: &str) -> bool {
        let set = Command::new("chattr").arg("+i").arg(self.0.join(name)).output();
        set.is_ok_and(|set| set.status.success())
    }
}

impl Drop for Flags {
    fn drop(&mut self) {
        let _ = Command::new("chattr").args(["-R", "-i"]).arg(&self.0).output();
    }
}

/// What an earlier restore kept, and what can't be removed, keeps no node from being restored or started.
#[test]
fn what_cannot_be_removed_blocks_neither_a_restore_nor_a_recovery() {
    let world = World::with_vault();
    std::fs::create_dir(world.path("node")).unwrap();
    std::fs::write(world.path("node/key"), "secret").unwrap();
    world.on_vault(&["backup", "node"]).code(0);
    let flags = Flags(world.path("."));
    let mut told = false;
    for round in 0..7 {
        if !flags.set("node/key") {
            assert!(round == 0, "a restored file can't be made immutable");
            // The file system, or this user, has no such flag.
            return;
        }
        let restored = world.on_vault(&["restore", "latest", "node", "--force"]).code(0).json();
        told |= restored["warnings"].to_string().contains("can't be removed, and is of no use");
        assert_eq!(std::fs::read_to_string(world.path("node/key")).unwrap(), "secret", "{round}");
        world.run(&["recover", "node", "--json"]).code(0);
    }
    assert!(told, "nobody was told");
    // What is listed comes back whole.
    let listed = world.run(&["rollback", "node", "--list", "--json"]).code(0).json();
    let count = listed["kept"].as_array().or(listed.as_array()).unwrap().len();
    world.run(&["rollback", "node", "--to", &count.to_string(), "--json"]).code(0);
    assert_eq!(std::fs::read_to_string(world.path("node/key")).unwrap(), "secret");
}
