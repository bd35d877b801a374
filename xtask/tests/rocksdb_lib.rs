//! `scripts/rocksdb-lib` with a stub in the place of cargo, so that nothing is compiled for it.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Tells that it has begun to build, waits until it is let go, and leaves two empty libraries.
const CARGO: &str = r#"#!/usr/bin/env bash
set -euo pipefail
cd "$STUB"
case $1 in
build)
  while [ "$1" != --target-dir ]; do shift; done
  echo build >>builds
  echo begun >begun
  cat go >/dev/null
  mkdir -p "$2/out"
  ar rc "$2/out/librocksdb.a"
  ar rc "$2/out/libsnappy.a"
  ;;
metadata)
  mkdir -p rust-librocksdb-sys-0/rocksdb/include
  echo "{\"manifest_path\":\"$STUB/rust-librocksdb-sys-0/Cargo.toml\"}"
  ;;
esac
"#;

fn start(stub: &Path) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/rocksdb-lib");
    let path = std::env::var("PATH").unwrap();
    Command::new(script)
        .env("STUB", stub)
        .env("PATH", format!("{}:{path}", stub.join("bin").display()))
        .env("ROCKSDB_LIB_CACHE", stub.join("cache"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn two_at_once_build_one_library() {
    let dir = tempfile::tempdir().unwrap();
    let stub = dir.path();
    fs::create_dir(stub.join("bin")).unwrap();
    fs::write(stub.join("bin/cargo"), CARGO).unwrap();
    fs::set_permissions(stub.join("bin/cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let fifos = [stub.join("begun"), stub.join("go")];
    assert!(Command::new("mkfifo").args(&fifos).status().unwrap().success());

    let mut first = start(stub);
    assert!(first_line(&mut first).contains("building"));
    assert_eq!(fs::read_to_string(&fifos[0]).unwrap(), "begun\n");
    let mut second = start(stub);
    assert!(first_line(&mut second).contains("waiting for another build"));
    fs::write(&fifos[1], "go\n").unwrap();

    for mut child in [first, second] {
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert!(child.wait().unwrap().success());
        let library = printed.lines().find_map(|line| line.strip_prefix("ROCKSDB_LIB_DIR="));
        assert!(Path::new(library.unwrap()).join("librocksdb.a").exists());
    }
    assert_eq!(fs::read_to_string(stub.join("builds")).unwrap(), "build\n");
}
