//! `vss`: the server as operators run it: killed, stopped, starved of its disk, administered, backed up.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::postgres::Cluster;
use crate::wire::{Client, item, put, puts};
use crate::world::World;

/// A running server, killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Open for as long as it runs, so that it can go on telling.
    _lines: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Serves `dir` of a world to anybody.
    fn start(world: &World, dir: &str) -> Server {
        let arguments = ["vss", "serve", "--data-dir", dir];
        Server::start_with(world, &arguments)
    }

    fn start_with(world: &World, arguments: &[&str]) -> Server {
        Server::start_as(world, arguments, "none")
    }

    /// Starts it with this way of asking who clients are.
    pub(crate) fn start_as(world: &World, arguments: &[&str], auth: &str) -> Server {
        let mut command = world.command(arguments);
        command.args(["--auth", auth, "--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap().parse().unwrap();
        Server { child, _lines: lines, address }
    }

    fn client(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has, which must be well.
    pub(crate) fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

/// Writers that each raise two keys of their own together, one version at a time.
struct Load {
    acknowledged: Vec<AtomicU64>,
    over: AtomicBool,
}

impl Load {
    fn new(writers: usize) -> Load {
        Load {
            acknowledged: (0..writers).map(|_| AtomicU64::new(0)).collect(),
            over: AtomicBool::new(false),
        }
    }

    fn total(&self) -> u64 {
        self.acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// One writer, until the server is gone or all is over.
    fn write(&self, writer: usize, address: SocketAddr) {
        let Ok(mut client) = Client::connect(address) else { return };
        let mine = &self.acknowledged[writer];
        let (one, other) = (format!("one{writer}"), format!("other{writer}"));
        while !self.over.load(Ordering::SeqCst) {
            let version = i64::try_from(mine.load(Ordering::SeqCst)).unwrap();
            let value = (version + 1).to_string();
            let both = [&one, &other].map(|key| item(key, version, value.as_bytes()));
            match client.put(&puts("s", both.to_vec(), vec![])) {
                Ok(answer) if answer.status == 200 => mine.fetch_add(1, Ordering::SeqCst),
                // A put on its way when the server went.
                Ok(answer) => panic!("{:?}", answer.error()),
                Err(_) => return,
            };
        }
    }

    /// Writes until so many more are acknowledged, then does `end`, which the writers see fail or stop.
    fn run(&self, address: SocketAddr, more: u64, end: impl FnOnce()) {
        let goal = self.total() + more;
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..self.acknowledged.len())
                .map(|writer| scope.spawn(move || self.write(writer, address)))
                .collect();
            while self.total() < goal {
                assert!(writers.iter().any(|writer| !writer.is_finished()), "no writer is left");
                std::thread::yield_now();
            }
            end();
        });
    }

    /// Both keys of each writer are as the last acknowledgement says, or one write further.
    fn check(&self, client: &mut Client) {
        for (writer, count) in self.acknowledged.iter().enumerate() {
            let acknowledged = count.load(Ordering::SeqCst);
            let mut found = |key: &str| client.get("s", &format!("{key}{writer}")).unwrap();
            let (one, other) = (found("one"), found("other"));
            assert_eq!(one, other, "half a put is there");
            let (version, value) = one.unwrap_or_default();
            let version = u64::try_from(version).unwrap();
            assert!(
                version == acknowledged || version == acknowledged + 1,
                "writer {writer}: {acknowledged} acknowledged, {version} there"
            );
            if version > 0 {
                assert_eq!(value, version.to_string());
            }
            count.store(version, Ordering::SeqCst);
        }
    }
}

/// How often a server is killed; `make nightly` does it more often.
fn kills() -> u64 {
    std::env::var("HIGHWATER_KILLS").map_or(15, |kills| kills.parse().unwrap())
}

/// Kills a server under load, again and again; `settle` waits until its last put has landed or never will.
fn kill_under_load(start: &dyn Fn() -> Server, settle: &dyn Fn()) {
    let load = Load::new(8);
    for round in 0..kills() {
        settle();
        let server = start();
        load.check(&mut server.client());
        let address = server.address;
        load.run(address, 20 + round * 7 % 90, || server.kill());
    }
    settle();
    let server = start();
    load.check(&mut server.client());
    server.stop();
}

#[test]
fn no_acknowledged_write_is_lost_by_kills() {
    let world = World::new();
    kill_under_load(&|| Server::start(&world, "stores"), &|| {});
}

#[test]
fn no_acknowledged_write_is_lost_by_kills_over_postgresql() {
    let (world, cluster) = (World::new(), Cluster::shared());
    let url = cluster.database() + "?application_name=killed";
    let start = || Server::start_with(&world, &["vss", "serve", "--postgres", &url]);
    kill_under_load(&start, &|| cluster.wait_until_gone("killed"));
}

#[test]
fn clients_go_on_with_the_other_one_of_two_servers() {
    let (world, cluster) = (World::new(), Cluster::shared());
    let url = cluster.database();
    let start = |url: &str| Server::start_with(&world, &["vss", "serve", "--postgres", url]);
    let (first, second) = (start(&(url.clone() + "?application_name=killed")), start(&url));
    let load = Load::new(6);
    let (address, other) = (first.address, second.address);
    load.run(address, 100, || first.kill());
    cluster.wait_until_gone("killed");
    // Each reads what has become of the put that was on its way, and goes on.
    load.check(&mut second.client());
    load.run(other, 100, || load.over.store(true, Ordering::SeqCst));
    load.check(&mut second.client());
    let stats = world.run(&["vss", "stats", "--postgres", &url, "--json"]).code(0).json();
    assert_eq!((&stats["stores"], &stats["keys"]), (&1.into(), &12.into()), "{stats}");
    second.stop();
}

#[test]
fn a_stop_under_load_loses_nothing_and_ends_well() {
    let world = World::new();
    let load = Load::new(8);
    for _ in 0..3 {
        let server = Server::start(&world, "stores");
        let address = server.address;
        load.run(address, 100, || {
            server.stop();
        });
        let server = Server::start(&world, "stores");
        load.check(&mut server.client());
    }
}

#[test]
fn one_server_serves_a_directory() {
    let world = World::new();
    let server = Server::start(&world, "stores");
    let second =
        world.run(&["vss", "serve", "--data-dir", "stores", "--listen", "127.0.0.1:0", "--json"]);
    second.code(4).error("conflict");
    server.client().put(&put("s", "k", 0, b"v")).unwrap();
}

#[test]
fn what_can_t_be_served_is_said() {
    let world = World::new();
    for (arguments, words) in [
        (vec![], "no database was given"),
        (vec!["--data-dir", "d", "--auth", "jwt"], "need a key"),
        (vec!["--data-dir", "d", "--jwt-key", "k"], "--jwt-key is only for --auth jwt"),
        (vec!["--data-dir", "d", "--listen", "0.0.0.0:0"], "there is no TLS"),
        (
            vec!["--data-dir", "d", "--listen", "0.0.0.0:0", "--auth", "none", "--allow-http"],
            "there is no authentication",
        ),
    ] {
        let all = [vec!["vss", "serve", "--json"], arguments].concat();
        let error = world.run(&all).code(2).error("input");
        assert!(error["error"]["message"].as_str().unwrap().contains(words), "{error}");
    }
    world.run(&["vss", "stats", "--data-dir", "none", "--json"]).code(3).error("not_found");
}

/// `strace` that makes each sync of a process fail, until it is dropped.
struct NoSync(Child);

impl NoSync {
    fn on(process: u32) -> NoSync {
        let mut child = Command::new("strace")
            .args(["-f", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"])
            .args(["-o", "/dev/null", "-p", &process.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says so once it holds the process.
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        NoSync(child)
    }
}

impl Drop for NoSync {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_write_that_did_not_reach_the_disk_is_never_shown() {
    let world = World::new();
    let server = Server::start(&world, "stores");
    let mut client = server.client();
    client.put(&put("s", "before", 0, b"v")).unwrap();
    let broken = NoSync::on(server.child.id());
    assert_eq!(client.put(&put("s", "lost", 0, b"v")).unwrap().status, 500);
    assert_eq!(client.get("s", "lost").unwrap(), None);
    assert_eq!(client.list("s", "").unwrap(), [("before".to_owned(), 1)]);
    drop(broken);
    // A sync that works again proves nothing of what failed before: the server takes no more writes.
    assert_eq!(client.put(&put("s", "after", 0, b"v")).unwrap().status, 500);
    assert_eq!(client.get("s", "lost").unwrap(), None);
    assert_eq!(client.fetch("/readyz").unwrap().status, 503);
    server.kill();
    let server = Server::start(&world, "stores");
    let mut client = server.client();
    assert_eq!(client.get("s", "before").unwrap().unwrap().0, 1);
    assert_eq!(client.put(&put("s", "after", 0, b"v")).unwrap().status, 200);
    assert_eq!(client.fetch("/readyz").unwrap().status, 200);
}

#[test]
fn an_administrator_lifts_a_fence_and_brings_back_what_an_empty_node_has_overwritten() {
    let world = World::new();
    let server = Server::start(&world, "stores");
    let mut client = server.client();
    let of = ["--data-dir", "stores", "--user", "anybody", "--store", "s", "--json"];
    let run = |words: &[&str]| world.run(&[words, &of].concat());
    let strict = ["vss", "policy", "--fence", "on", "--keep-versions", "3", "--keep-days", "7"];
    // Who is not there may be mistyped.
    let missing = run(&strict).code(3).error("not_found");
    assert!(missing["error"]["hint"].as_str().unwrap().contains("--new"), "{missing}");
    run(&["vss", "history", "list"]).code(3).error("not_found");
    let policy = run(&[&strict[..], &["--new"]].concat());
    assert_eq!(policy.code(0).json()["fence"], true);
    // The running server obeys at once.
    assert_eq!(client.put(&put("s", "k", -1, b"v")).unwrap().status, 400);
    assert_eq!(run(&["vss", "policy", "--fence", "off"]).code(0).json()["fence"], false);
    for (key, value) in [("manager", "good"), ("monitor", "good"), ("gone", "soon")] {
        assert_eq!(client.put(&put("s", key, -1, value.as_bytes())).unwrap().status, 200);
    }
    let good = run(&["vss", "history", "list"]).code(0).json()["newest"].as_u64().unwrap();
    // A node that was started empty.
    for key in ["manager", "monitor"] {
        assert_eq!(client.put(&put("s", key, -1, b"empty")).unwrap().status, 200);
    }
    client.delete("s", "gone", -1).unwrap();
    client.put(&put("s", "new", -1, b"empty")).unwrap();
    let restored = run(&["vss", "history", "restore", &good.to_string()]).code(0).json();
    assert_eq!((&restored["puts"], &restored["deletes"]), (&3.into(), &1.into()), "{restored}");
    for (key, value) in [("manager", "good"), ("monitor", "good"), ("gone", "soon")] {
        let (version, found) = client.get("s", key).unwrap().unwrap();
        assert_eq!(found, value);
        // Whoever holds a version of before is refused.
        assert!(version > 1_000_000, "{version}");
        assert_eq!(client.put(&put("s", key, 1, b"stale")).unwrap().status, 409);
    }
    assert_eq!(client.get("s", "new").unwrap(), None);
    assert_eq!(run(&["vss", "policy"]).code(0).json()["generation"], 1);
    run(&["vss", "history", "restore", "100000"]).code(4).error("conflict");
    // And the restore is undone alike.
    let before = good + 4;
    run(&["vss", "history", "restore", &before.to_string()]).code(0);
    assert_eq!(client.get("s", "manager").unwrap().unwrap().1, "empty");
    assert_eq!(client.get("s", "gone").unwrap(), None);
    let stats = world
        .run(&["vss", "stats", "--data-dir", "stores", "--stores", "10", "--json"])
        .code(0)
        .json();
    assert_eq!((&stats["stores"], &stats["keys"]), (&1.into(), &3.into()), "{stats}");
    assert_eq!(stats["each"][0]["user"], "anybody");
}

#[test]
fn a_quota_is_set_shown_and_obeyed() {
    let world = World::new();
    let server = Server::start(&world, "stores");
    let run = |words: &[&str]| world.run(&[words, &["--data-dir", "stores", "--json"]].concat());
    let policy = |words: &[&str]| run(&[&["vss", "policy", "--user", "anybody"], words].concat());
    policy(&["--max-keys", "2"]).code(3).error("not_found");
    let set = policy(&["--max-keys", "2", "--max-bytes", "1000", "--new"]).code(0).json();
    assert_eq!(set["quota"], serde_json::json!({"bytes": 1000, "keys": 2, "stores": null}));
    let mut client = server.client();
    for key in ["a", "b"] {
        assert_eq!(client.put(&put("s", key, -1, b"v")).unwrap().status, 200);
    }
    let (status, code, text) = client.put(&put("s", "c", -1, b"v")).unwrap().error();
    assert_eq!((status, code), (400, 2));
    assert!(text.contains("2 keys"), "{text}");
    assert_eq!(client.put(&put("s", "a", -1, &[7; 2000])).unwrap().status, 400);
    assert_eq!(client.put(&put("s", "a", -1, b"again")).unwrap().status, 200);
    let stats = run(&["vss", "stats", "--users", "10"]).code(0).json();
    let user = &stats["users"][0];
    assert_eq!((&user["user"], &user["usage"]["keys"]), (&"anybody".into(), &2.into()), "{stats}");
    assert_eq!(user["quota"]["bytes"], 1000, "{stats}");
    let human = world.run(&["vss", "stats", "--users", "10", "--data-dir", "stores"]).code(0);
    assert!(human.stdout.contains("2 of 2 keys"), "{}", human.stdout);

    let everybody = run(&["vss", "policy", "--everybody", "--max-stores", "5"]).code(0).json();
    assert_eq!(everybody["quota"]["stores"], 5);
    let lifted = policy(&["--no-quota"]).code(0).json();
    assert_eq!(lifted["quota"], serde_json::json!({"bytes": null, "keys": null, "stores": 5}));
    // What is of a store needs its id, and nobody is asked for a quota and a store of everybody.
    policy(&["--fence", "on"]).code(2);
    run(&["vss", "policy", "--max-keys", "2"]).code(2);
}

#[test]
fn a_backup_of_the_server_s_own_directory_has_what_was_acknowledged_before() {
    let world = World::with_vault();
    let server = Server::start(&world, "stores");
    let load = Load::new(4);
    let address = server.address;
    load.run(address, 50, || load.over.store(true, Ordering::SeqCst));
    load.over.store(false, Ordering::SeqCst);
    let before = load.total();
    load.run(address, 50, || {
        world.on_vault(&["backup", "stores", "--node", "vss"]).code(0);
        load.over.store(true, Ordering::SeqCst);
    });
    server.kill();
    std::fs::remove_dir_all(world.path("stores")).unwrap();
    world.on_vault(&["restore", "latest", "stores"]).code(0);
    let server = Server::start(&world, "stores");
    let mut client = server.client();
    let versions = |client: &mut Client, key: &str| -> u64 {
        let each = client.list("s", key).unwrap();
        each.into_iter().map(|(_, version)| u64::try_from(version).unwrap()).sum()
    };
    let (one, other) = (versions(&mut client, "one"), versions(&mut client, "other"));
    assert_eq!(one, other, "the backup is of one instant");
    assert!(one >= before + 50 - 4 && one <= load.total(), "{before} {one} {}", load.total());
}

#[test]
fn the_settings_file_says_what_flags_don_t() {
    let world = World::new();
    let write = |text: &str| {
        std::fs::File::create(world.path("h.toml")).unwrap().write_all(text.as_bytes()).unwrap();
    };
    write("[vss]\ndata_dir = \"stores\"\nauth = \"none\"\nlisten = \"127.0.0.1:0\"\n");
    let server = Server::start_with(&world, &["vss", "serve", "--config", "h.toml"]);
    assert_eq!(server.client().put(&put("s", "k", 0, b"v")).unwrap().status, 200);
    server.stop();
    assert!(Path::new(&world.path("stores/vss.sqlite")).exists());
    for wrong in ["[vss]\ndata = \"stores\"\n", "[vss]\nauth = \"never\"\n"] {
        write(wrong);
        world.run(&["vss", "stats", "--config", "h.toml", "--json"]).code(2).error("input");
    }
}
