//! A node that has nothing left but its recovery kit: its peer closes, and it gets its money.
//!
//! Shown: B21.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use highwater::Env;
use highwater::kit::{self, Kit};
use highwater::vault::{Location, Secret, Vault};

use super::world::{LOOKS_MAX, PROGRAM, World, text};

const ALICE: usize = 0;

#[test]
fn a_kit_alone_brings_the_money_of_every_channel_home() {
    let mut world = World::new("peer");
    let (first, second) = (world.open(), world.open());
    world.pay(ALICE, &first, 1_000);
    world.pay(1, &second, 30_000);
    let home = world.home_of(ALICE);
    let content = (0..LOOKS_MAX).find_map(|_| {
        Env::system().pause(Duration::from_millis(20));
        kit::read_beside(&home).ok().filter(|content| content.channels.len() == 2)
    });
    let content = content.expect("the running node names both channels");

    // The kit is sealed and put away; then node and vault are lost.
    let env = Env::system();
    let secret = Secret::from_key_file(&world.path("vault.key")).unwrap();
    let vault = Vault::open_with(&Location::Local(world.path("vault")), &secret, &env).unwrap();
    let sealed = kit::seal(&vault, &Kit::of_dir(&home, None, content, env.now()).unwrap()).unwrap();
    let file = world.path("alice.hwk");
    kit::write_file(&file, &sealed, false, &env).unwrap();
    world.kill(ALICE);
    std::fs::remove_dir_all(&home).unwrap();
    std::fs::remove_dir_all(world.path("vault")).unwrap();

    let ledger = world.ledger();
    let key = world.path("vault.key");
    let mut recovery = Command::new(PROGRAM)
        .args(["recover", "--kit", text(&file), "--key-file", text(&key), "--ledger", &ledger])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = (0..LOOKS_MAX).find_map(|_| {
        world.advance(1);
        env.pause(Duration::from_millis(20));
        recovery.try_wait().unwrap()
    });
    assert!(ended.expect("it ends once all is paid").success());
    let mut said = String::new();
    recovery.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["channels"].as_u64(), said["paid"].as_u64()), (Some(2), Some(129_000)));
    for (id, ours) in [(&first, 49_000), (&second, 80_000)] {
        assert_eq!(world.paid(id), (ours, 100_000 - ours));
        assert_eq!(world.view(id)["punished"], false);
    }
}
