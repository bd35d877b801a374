//! `/metrics` as Prometheus reads it, from a server with real agents; and the alert rules that stand on
//! it. Each test needs a process of its own, as `cargo nextest` gives it: a process has one recorder.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use highwater::agent::{Agent, OperationState, Rules, Task};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Vault};
use highwater::{Env, Error};
use highwater_server::{Agents, Running, Scope, Server, ServerBuilder, Tokens};
use tokio::runtime::Runtime;

/// What stands in the contract with those who write alerts.
const NAMES: [&str; 10] = [
    "highwater_snapshot_age_seconds{node=\"alice\",level=\"sealed\"} ",
    "highwater_snapshot_age_seconds{node=\"alice\",level=\"restored\"} ",
    "highwater_snapshot_shrunk{node=\"alice\"} 0",
    "highwater_backup_duration_seconds_count 1",
    "highwater_backup_bytes_total{kind=\"read\"} ",
    "highwater_backup_bytes_total{kind=\"stored\"} ",
    "highwater_backup_failures_total{kind=\"denied\"} 2",
    "highwater_operations_running 0",
    "highwater_quarantined_channels{node=\"alice\"} 0",
    "highwater_restore_test_age_seconds{node=\"alice\"} ",
];

/// An agent of a node `name` in `dir`, that does nothing by itself.
fn agent(dir: &Path, name: &str, fails: bool) -> Agent {
    let location: Location = dir.join("vault").to_str().unwrap().parse().unwrap();
    let secret = Secret::Key([7; 32].into());
    let vault = match dir.join("vault").exists() {
        true => Vault::open_with(&location, &secret, &Env::system()).unwrap(),
        false => {
            Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system())
                .unwrap()
                .vault
        }
    };
    std::fs::create_dir(dir.join(name)).unwrap();
    std::fs::write(dir.join(name).join("state.bin"), [1; 5000]).unwrap();
    let actor = Actor { state_dir: dir.join("state"), name: "test".to_owned() };
    let rules = Rules::default().first_after(None);
    let mut builder = Agent::builder(dir.join(name), vault, actor).rules(rules);
    if fails {
        builder = builder.options_from(|| Err(Error::denied("no key")));
    }
    builder.start().unwrap()
}

fn run(agent: &Agent, task: Task) -> OperationState {
    agent.wait(agent.begin(task).unwrap().id).unwrap().state
}

fn serve(runtime: &Runtime, agents: &Agents) -> Running {
    start(runtime, Server::builder(agents.clone()))
}

fn start(runtime: &Runtime, builder: ServerBuilder) -> Running {
    runtime.block_on(builder.start()).unwrap()
}

/// The head and the text of an answer.
fn scrape(running: &Running, headers: &str) -> (String, String) {
    let address = running.address();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), text.to_owned())
}

fn promtool(args: &[&str], input: &str) -> Output {
    let mut promtool = Command::new("promtool")
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: scripts/setup installs it");
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    promtool.wait_with_output().unwrap()
}

/// Prometheus can read it, and has nothing to say about names, units, HELP and TYPE.
fn assert_clean(text: &str) {
    let output = promtool(&["check", "metrics"], text);
    assert!(output.status.success(), "{output:?}\n{text}");
    assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}\n{text}");
}

#[test]
fn metrics_are_those_of_the_contract_and_prometheus_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let agents = Agents::default();
    // The recorder has to be there before what it counts.
    let running = serve(&runtime, &agents);
    let alice = agent(dir.path(), "alice", false);
    assert_eq!(run(&alice, Task::Backup), OperationState::Completed);
    assert_eq!(run(&alice, Task::RestoreTest), OperationState::Completed);
    let bob = agent(dir.path(), "bob", true);
    for _ in 0..2 {
        assert_eq!(run(&bob, Task::Backup), OperationState::Failed);
    }
    // Its last failure is counted once its thread has ended.
    bob.stop();
    agents.add(alice);
    agents.add(bob);
    let (head, text) = scrape(&running, "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for name in NAMES {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
    }
    assert!(text.contains("highwater_backup_failures_consecutive{node=\"bob\"} 2"), "{text}");
    let families = text.lines().filter(|line| line.starts_with("# TYPE ")).collect::<Vec<_>>();
    for family in &families {
        let help = family.replacen("TYPE", "HELP", 1);
        let name = help.rsplit_once(' ').unwrap().0;
        assert!(text.lines().any(|line| line.starts_with(name)), "no help: {family}");
        assert_eq!(families.iter().filter(|other| *other == family).count(), 1, "{text}");
    }
    assert_clean(&text);
}

#[test]
fn what_is_not_known_has_no_sample() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let agents = Agents::default();
    let fresh = agent(dir.path(), "fresh", false);
    std::fs::write(fresh.dir().join("highwater-quarantine.json"), "not a latch").unwrap();
    agents.add(fresh);
    let (_, text) = scrape(&serve(&runtime, &agents), "");
    assert!(text.contains("highwater_node_info{node=\"fresh\""), "{text}");
    for unknown in [
        "highwater_snapshot_age_seconds",
        "highwater_snapshot_shrunk",
        "highwater_restore_test_age_seconds",
        "highwater_quarantined_channels",
    ] {
        assert!(!text.contains(unknown), "{unknown}: {text}");
    }
    assert_clean(&text);
}

#[test]
fn two_servers_in_one_process_share_what_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let agents = Agents::default();
    let servers = [serve(&runtime, &agents), serve(&runtime, &agents)];
    let alice = agent(dir.path(), "alice", false);
    assert_eq!(run(&alice, Task::Backup), OperationState::Completed);
    agents.add(alice);
    for running in &servers {
        let (_, text) = scrape(running, "");
        assert!(text.contains("highwater_backup_duration_seconds_count 1"), "{text}");
        assert_clean(&text);
    }
}

#[test]
fn a_node_with_a_recorder_of_its_own_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    metrics::set_global_recorder(metrics::NoopRecorder).unwrap();
    let agents = Agents::default();
    let running = serve(&runtime, &agents);
    let alice = agent(dir.path(), "alice", false);
    assert_eq!(run(&alice, Task::Backup), OperationState::Completed);
    agents.add(alice);
    let (_, text) = scrape(&running, "");
    assert!(text.contains("highwater_snapshot_age_seconds{node=\"alice\""), "{text}");
    assert!(!text.contains("highwater_backup_bytes_total"), "{text}");
    assert_clean(&text);
}

#[test]
fn metrics_need_a_token_where_there_are_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let tokens = Tokens::at(dir.path().join("tokens.toml"));
    let token = tokens.create("prometheus", Scope::Read, &Env::system()).unwrap().text;
    let running = start(&runtime, Server::builder(Agents::default()).tokens(tokens));
    assert!(scrape(&running, "").0.starts_with("HTTP/1.1 401"));
    let (head, text) = scrape(&running, &format!("Authorization: Bearer {token}\r\n"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(text.contains("highwater_operations_running 0"), "{text}");
}

#[test]
fn the_alert_rules_fire_when_they_must_and_not_otherwise() {
    for name in ["highwater", "highwater-vss"] {
        let (rules, tests) = (format!("{name}.rules.yml"), format!("{name}.rules.test.yml"));
        for args in [["check", "rules", &rules], ["test", "rules", &tests]] {
            let output = promtool(&args, "");
            assert!(output.status.success(), "{output:?}");
        }
    }
}
