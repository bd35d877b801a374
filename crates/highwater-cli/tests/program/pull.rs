//! Archives that come from a server: what `import` and `restore --from` take, or no file.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;

use highwater::Env;
use highwater::agent::{Agent, Rules};
use highwater::backup::BackupOptions;
use highwater::env::FaultPoint;
use highwater::vault::Actor;
use highwater_server::{Agents, Running, Scope, Server, Tokens};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::guard::release_all;
use crate::node::{self, Age};
use crate::scene::{Mounted, Ran, Scene, Strike, finish};
use crate::tree;

/// A server of a scene's node, in this process.
struct Served {
    runtime: Runtime,
    running: Option<Running>,
    address: SocketAddr,
    agent: Agent,
}

impl Served {
    fn start(scene: &Scene, tokens: Option<Tokens>) -> Served {
        let runtime = Runtime::new().unwrap();
        let actor = Actor { state_dir: scene.path("state"), name: "agent".to_owned() };
        fs::create_dir_all(scene.path("data")).unwrap();
        let mut options = BackupOptions::default();
        options.marks = [("height".to_owned(), 7)].into();
        let agent = Agent::builder(scene.path("node"), scene.open_vault(), actor)
            .data_dir(scene.path("data"))
            .rules(Rules::default().first_after(None))
            .options(options)
            .start()
            .unwrap();
        let agents = Agents::default();
        agents.add(agent.clone());
        let mut server = Server::builder(agents);
        if let Some(tokens) = tokens {
            server = server.tokens(tokens);
        }
        let running = runtime.block_on(server.start()).unwrap();
        let address = running.address();
        Served { runtime, running: Some(running), address, agent }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.agent.stop();
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown()).unwrap();
        }
    }
}

fn start(scene: &Scene, address: SocketAddr, words: &[&str]) -> Child {
    let url = format!("http://{address}");
    let mut command = scene.command(["pull", "--from", &url].iter().chain(words));
    fs::create_dir_all(scene.path("out")).unwrap();
    command.env_remove("HIGHWATER_VAULT").current_dir(scene.path("out")).spawn().unwrap()
}

fn pull(scene: &Scene, address: SocketAddr, words: &[&str]) -> Ran {
    finish(start(scene, address, words))
}

fn restore_from(scene: &Scene, target: &Path, archives: &[&str]) -> Ran {
    let words = ["restore".as_ref(), target.as_os_str(), "--from".as_ref()];
    let words = words.into_iter().chain(archives.iter().map(std::ffi::OsStr::new));
    let mut command = scene.command(words);
    finish(command.env_remove("HIGHWATER_VAULT").current_dir(scene.path("out")).spawn().unwrap())
}

#[test]
fn what_is_pulled_restores_and_imports_and_so_does_its_increment() {
    let scene = Scene::with_node();
    let served = Served::start(&scene, None);
    let whole = pull(&scene, served.address, &["--target-height", "7"]).ok();
    let file = whole["output"].as_str().unwrap().to_owned();
    assert!(file.starts_with("node-2") && file.ends_with("Z.hwa"), "{whole}");
    let found = fs::metadata(scene.path("out").join(&file)).unwrap();
    assert_eq!(
        (found.permissions().mode() & 0o7777, found.len()),
        (0o600, whole["bytes"].as_u64().unwrap())
    );
    assert_eq!((&whole["since"], &whole["resumed"]), (&serde_json::Value::Null, &0.into()));
    assert_eq!(whole["marks"]["height"], 7);
    let first = whole["snapshot"].as_str().unwrap().to_owned();
    node::go_on(&scene.path("node"));
    let more = ["--since", &first, "--output", "more.hwa"];
    let more = pull(&scene, served.address, &more).ok();
    assert_eq!(more["since"], first.as_str());
    drop(served);

    fs::rename(scene.path("vault"), scene.path("lost")).unwrap();
    // An archive does not tell whether its marks are the highest: the node waits for a release.
    assert_ne!(restore_from(&scene, &scene.path("a"), &[&file]).ok()["quarantined"], 0);
    assert!(node::start(&scene.path("a")).is_err());
    release_all(&scene, &scene.path("a"));
    assert_eq!(node::start(&scene.path("a")), Ok(Age::Old));
    restore_from(&scene, &scene.path("b"), &[&file, "more.hwa"]).ok();
    release_all(&scene, &scene.path("b"));
    assert_eq!(node::start(&scene.path("b")), Ok(Age::New));
    restore_from(&scene, &scene.path("c"), &["more.hwa"]).failed(4, "conflict");
    restore_from(&scene, &scene.path("c"), &["more.hwa", &file]).failed(4, "conflict");
    assert!(!scene.path("c").exists());
    let mut command = scene.command(["import", &file, "more.hwa"]);
    command.env("HIGHWATER_VAULT", scene.path("copy")).current_dir(scene.path("out"));
    let imported = finish(command.env("HIGHWATER_STATE_DIR", scene.path("s")).spawn().unwrap());
    assert_eq!(imported.ok()["imported"], 2);
}

#[test]
fn each_failure_has_its_exit_code_and_leaves_nothing() {
    let scene = Scene::with_node();
    let served = Served::start(&scene, None);
    let at = served.address;
    pull(&scene, at, &["--snapshot", "latest"]).failed(3, "not_found");
    pull(&scene, at, &["--target-height", "8"]).failed(9, "stale");
    pull(&scene, at, &["--since", "0000"]).failed(3, "not_found");
    pull(&scene, at, &["--node", "other"]).failed(3, "not_found");
    pull(&scene, at, &["--timeout", "0"]).failed(8, "unavailable");
    pull(&scene, at, &["--output", "-"]).failed(2, "input");
    pull(&scene, at, &["--output", "away/a.hwa", "--snapshot", "latest"]).failed(3, "not_found");
    pull(&scene, at, &["--token-file", "missing"]).failed(3, "not_found");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    pull(&scene, nobody, &[]).failed(8, "unavailable");
    let other = SocketAddr::from(([192, 0, 2, 1], 9753));
    pull(&scene, other, &[]).failed(2, "input");
    assert_eq!(tree::names(&scene.path("out")), [""; 0]);
    fs::write(scene.path("out/a.hwa"), "mine").unwrap();
    pull(&scene, nobody, &["--output", "a.hwa"]).failed(4, "conflict");
    pull(&scene, at, &["--output", "a.hwa", "--force"]).ok();
    assert_eq!(tree::names(&scene.path("out")), ["a.hwa"]);
}

#[test]
fn a_token_opens_what_its_scope_allows() {
    let scene = Scene::with_node();
    let snapshot = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
    let tokens = Tokens::at(scene.path("tokens.toml"));
    let token = tokens.create("puller", Scope::Read, &Env::system()).unwrap();
    let served = Served::start(&scene, Some(tokens));
    let file = scene.path("token");
    fs::write(&file, format!("{}\n", token.text)).unwrap();
    let file_name = file.to_str().unwrap();
    let with = |words: &[&str]| {
        pull(&scene, served.address, &[&["--token-file", file_name], words].concat())
    };
    with(&["--snapshot", &snapshot]).failed(7, "denied");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    pull(&scene, served.address, &["--snapshot", &snapshot]).failed(7, "denied");
    with(&[]).failed(7, "denied");
    assert_eq!(tree::names(&scene.path("out")), [""; 0]);
    assert_eq!(with(&["--snapshot", &snapshot]).ok()["snapshot"], snapshot.as_str());
}

#[test]
fn a_pull_onto_a_full_disk_leaves_nothing() {
    let mut scene = Scene::with_node();
    let served = Served::start(&scene, None);
    fs::create_dir(scene.path("small")).unwrap();
    let Some(mounted) = Mounted::at(&scene.path("small"), "64k") else { return };
    scene.move_into(&mounted);
    let seen = scene.seen("small");
    let output = scene.path("small/a.hwa");
    let error = pull(&scene, served.address, &["--output", output.to_str().unwrap()]);
    let error = error.failed(8, "unavailable");
    assert!(error["message"].as_str().unwrap().contains("No space left"), "{error}");
    assert_eq!(tree::names(&seen), [""; 0]);
}

/// A server that takes the connection and is silent.
#[test]
fn a_signal_ends_a_pull_that_waits_and_leaves_nothing() {
    let scene = Scene::with_node();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let pulling = start(&scene, silent.local_addr().unwrap(), &["--output", "a.hwa"]);
    let _connection = silent.accept().unwrap();
    kill_process(Pid::from_child(&pulling), Signal::INT).unwrap();
    finish(pulling).failed(130, "interrupted");
    assert_eq!(tree::names(&scene.path("out")), [""; 0]);
}

#[test]
fn a_pull_that_is_killed_leaves_no_archive_and_the_next_one_tidies_up() {
    let scene = Scene::with_node();
    let served = Served::start(&scene, None);
    for point in [FaultPoint::ExportWrite, FaultPoint::ExportSync, FaultPoint::ExportRename] {
        let url = format!("http://{}", served.address);
        fs::create_dir_all(scene.path("out")).unwrap();
        let output = scene.path("out/a.hwa");
        let words = ["pull", "--from", &url, "--force", "--output", output.to_str().unwrap()];
        let ran = scene.run_with_fault(Strike::kill(point, 1), words);
        assert!(ran.killed(), "{point:?}: {ran:?}");
        assert!(!output.exists(), "{point:?}");
        assert_eq!(tree::names(&scene.path("out")).len(), 1, "what the dead has left");
        scene.run(words).ok();
        assert_eq!(tree::names(&scene.path("out")), ["a.hwa"], "{point:?}");
        fs::remove_file(output).unwrap();
    }
}
