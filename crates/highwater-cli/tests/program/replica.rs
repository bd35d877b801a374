//! `replica`: from a node that writes to a machine that has nothing but the words.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_replica::local::{LocalStore as _, Space, SqliteStore};
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore};

use crate::vss::Server;
use crate::world::{Answered, World};

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
const OTHER_WORDS: &str = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";
const STORE: &str = "highwater";

/// A world with a server of stores, and words.
struct Scene {
    world: World,
    server: Server,
    auth: &'static str,
}

impl Scene {
    fn new(auth: &'static str) -> Scene {
        let world = World::new();
        world.write_secret("words", WORDS);
        world.write_secret("other-words", OTHER_WORDS);
        let server = Server::start_as(&world, &["vss", "serve", "--data-dir", "stores"], auth);
        Scene { world, server, auth }
    }

    /// The same with another server, begun once `between` is done.
    fn restart(self, between: impl FnOnce(&World)) -> Scene {
        let Scene { world, server, auth } = self;
        server.stop();
        between(&world);
        let server = Server::start_as(&world, &["vss", "serve", "--data-dir", "stores"], auth);
        Scene { world, server, auth }
    }

    fn url(&self) -> String {
        format!("http://{}/vss", self.server.address)
    }

    /// A node's store, opened as a node does.
    fn node(&self, file: &str) -> highwater::Result<ReplicatedStore> {
        let keys = ReplicaKeys::from_mnemonic(WORDS, STORE)?;
        let auth = match self.auth {
            "none" => VssAuth::None,
            _ => VssAuth::Signature(keys.signing_key()),
        };
        let remote = VssRemote::builder(self.url(), STORE).auth(auth).build()?;
        let local = SqliteStore::open(self.world.path(file))?;
        let permissions = Permissions { allow_empty: true, ..Permissions::default() };
        ReplicatedStore::builder(Arc::new(local), Arc::new(remote), keys)
            .owner("the node")
            .permissions(permissions)
            .open()
            .map(|(store, _)| store)
    }

    fn run(&self, words: &str, arguments: &[&str]) -> Answered {
        let url = self.url();
        let common = ["--server", &url, "--auth", self.auth, "--mnemonic-file", words, "--json"];
        self.world.run(&[&["replica"], arguments, &common].concat())
    }

    fn values(&self, file: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let store = SqliteStore::open(self.world.path(file)).unwrap();
        store.scan(Space::Data, b"", None, usize::MAX).unwrap().into_iter().collect()
    }
}

#[test]
fn a_machine_with_nothing_but_the_words_has_the_store_again() {
    let scene = Scene::new("signature");
    let node = scene.node("node.sqlite").unwrap();
    for number in 0..300u32 {
        node.write(format!("k{number}"), number.to_le_bytes()).unwrap();
    }
    node.stop().unwrap();
    let status = scene.run("words", &["status", "--local", "node.sqlite"]).code(0).json();
    assert_eq!(status["server"]["owner"], "the node", "{status}");
    // An owner that has not given it up may be alive.
    let error = scene.run("words", &["restore", "new.sqlite"]).code(6).error("fenced");
    assert!(error["error"]["message"].as_str().unwrap().contains("the node"), "{error}");
    assert!(!scene.world.path("new.sqlite").exists());
    let flushed = scene.run("words", &["flush", "--local", "node.sqlite"]).code(0).json();
    assert_eq!(flushed["values"], 300, "{flushed}");
    let status = scene.run("words", &["status", "--local", "node.sqlite"]).code(0).json();
    assert_eq!(
        (
            &status["server"]["state"],
            &status["local"]["pending_writes"],
            &status["backup_required"]
        ),
        (&"released".into(), &0.into(), &false.into()),
        "{status}"
    );
    let restored = scene.run("words", &["restore", "new.sqlite"]).code(0).json();
    assert_eq!(restored["values"], 300, "{restored}");
    assert_eq!(scene.values("new.sqlite"), scene.values("node.sqlite"));
    scene.run("words", &["restore", "new.sqlite"]).code(4).error("conflict");
    // The restored database goes on, and the old one does not.
    let new = scene.node("new.sqlite").unwrap();
    new.write("k0", "goes on").unwrap();
    new.stop().unwrap();
    assert_eq!(scene.node("node.sqlite").err().unwrap().kind(), highwater::Kind::Fenced);
    scene.run("words", &["flush", "--local", "node.sqlite"]).code(6).error("fenced");
}

#[test]
fn a_takeover_says_why_and_deposes() {
    let scene = Scene::new("signature");
    let node = scene.node("node.sqlite").unwrap();
    node.write("k", "v").unwrap();
    node.flush(std::time::Duration::from_secs(60)).unwrap();
    let take = ["owner", "take-over", "new.sqlite", "--reason", "the disk died"];
    assert_eq!(scene.run("words", &take).code(0).json()["values"], 1);
    node.write("k", "w").unwrap();
    let fenced = node.flush(std::time::Duration::from_secs(60)).unwrap_err();
    assert_eq!(fenced.kind(), highwater::Kind::Fenced);
    assert!(fenced.to_string().contains("the disk died"), "{fenced}");
    let shown = scene.run("words", &["owner", "show"]).code(0).json();
    assert_eq!((&shown["epoch"], &shown["reason"]), (&2.into(), &"the disk died".into()));
    let released = ["owner", "release", "--local", "new.sqlite"];
    scene.run("words", &released).code(0);
    assert_eq!(scene.run("words", &["owner", "show"]).code(0).json()["state"], "released");
}

#[test]
fn wrong_words_and_an_empty_server_are_told_apart_and_leave_nothing() {
    let scene = Scene::new("none");
    scene.run("words", &["restore", "new.sqlite"]).code(3).error("not_found");
    scene.run("words", &["owner", "show"]).code(3).error("not_found");
    let node = scene.node("node.sqlite").unwrap();
    node.write("k", "v").unwrap();
    node.release().unwrap();
    for command in [vec!["restore", "new.sqlite"], vec!["owner", "show"], vec!["status"]] {
        scene.run("other-words", &command).code(7).error("denied");
    }
    scene.run("other-words", &["flush", "--local", "node.sqlite"]).code(7).error("denied");
    scene.run("words", &["flush", "--local", "none.sqlite"]).code(3).error("not_found");
    let left: Vec<_> = std::fs::read_dir(scene.world.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("new.sqlite"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(scene.run("words", &["restore", "new.sqlite"]).code(0).json()["values"], 1);
}

#[test]
fn a_server_that_was_set_back_is_written_over_only_when_that_is_said() {
    let mut scene = Scene::new("signature");
    let copy = |world: &World, from: &str, to: &str| {
        let done = std::process::Command::new("cp")
            .args(["-r", "--"])
            .args([world.path(from), world.path(to)])
            .status();
        assert!(done.unwrap().success());
    };
    let node = scene.node("node.sqlite").unwrap();
    for number in 0..50u32 {
        node.write(format!("k{number}"), "old").unwrap();
    }
    node.flush(std::time::Duration::from_secs(60)).unwrap();
    node.stop().unwrap();
    scene = scene.restart(|world| copy(world, "stores", "old"));
    let node = scene.node("node.sqlite").unwrap();
    node.write("k1", "new").unwrap();
    node.remove("k2").unwrap();
    node.flush(std::time::Duration::from_secs(60)).unwrap();
    node.stop().unwrap();
    scene = scene.restart(|world| {
        std::fs::remove_dir_all(world.path("stores")).unwrap();
        copy(world, "old", "stores");
    });
    assert_eq!(scene.node("node.sqlite").err().unwrap().kind(), highwater::Kind::Corrupt);
    let refused = scene.run("words", &["flush", "--local", "node.sqlite"]).code(5);
    let refused = refused.error("corrupt");
    let hint = refused["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("--accept-older-server"), "{refused}");
    let accepted = ["flush", "--local", "node.sqlite", "--accept-older-server"];
    assert_eq!(scene.run("words", &accepted).code(0).json()["values"], 49);
    scene.run("words", &["restore", "new.sqlite"]).code(0);
    let values = scene.values("new.sqlite");
    assert_eq!(values, scene.values("node.sqlite"));
    assert_eq!((values.len(), values[b"k1".as_slice()].as_slice()), (49, b"new".as_slice()));
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    let world = World::new();
    world.write_secret("words", WORDS);
    let arguments = ["replica", "status", "--server", "http://192.0.2.1/vss"];
    let error = world.run(&[&arguments[..], &["--mnemonic-file", "words", "--json"]].concat());
    error.code(2).error("input");
}
