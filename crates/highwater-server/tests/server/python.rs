//! A client in another language, generated from the definition as strangers would.

use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_server::Scope;
use tokio::task::block_in_place;

use crate::world::{Serving, World};

/// The python with grpcio-tools that `scripts/setup` installs.
fn python() -> PathBuf {
    let servers = std::env::var_os("STORE_SERVERS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let servers =
        servers.unwrap_or_else(|| cache.unwrap_or_else(home).join("highwater/store-servers"));
    let python = servers.join("python-grpc/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup", python.display());
    python
}

fn run(command: &mut Command) -> String {
    let done = block_in_place(|| command.output()).unwrap();
    let (said, told) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{told}");
    said.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_generated_for_python_calls_backs_up_and_streams() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let world = World::new();
    let generated = world.path("generated");
    std::fs::create_dir(&generated).unwrap();
    run(Command::new(python())
        .args(["-m", "grpc_tools.protoc", "--proto_path"])
        .arg(root.join("proto"))
        .arg("--python_out")
        .arg(&generated)
        .arg("--grpc_python_out")
        .arg(&generated)
        .arg("highwater/v1/highwater.proto"));
    let (tokens, [_, backup, _]) = world.tokens();
    assert_eq!(tokens.list().unwrap()[1].scope, Scope::Backup);
    let serving = Serving::of(world.server().tokens(tokens)).await;
    let archive = world.path("python.hwa");
    let snapshot = run(Command::new(python())
        .arg(root.join("tests/python/client.py"))
        .arg(serving.address().to_string())
        .arg(backup)
        .arg(&archive)
        .env("PYTHONPATH", &generated));
    // What it has received is the archive of that snapshot, whole.
    let agent = world.agents.find("node").unwrap();
    let snapshots = block_in_place(|| agent.vault().get().unwrap().snapshots(None)).unwrap();
    assert_eq!(snapshots[0].manifest.snapshot.to_string(), snapshot);
    assert!(std::fs::metadata(archive).unwrap().len() > 0);
}
