//! A RocksDB that another process writes is captured without stopping it: what was acknowledged before is in
//! the snapshot, and the node's directory is as the node leaves it.

use std::process::{Command, Stdio};
use std::time::Duration;

use highwater::Env;
use serde_json::Value;

use crate::freeze::child::Writer;
use crate::freeze::engines::rows_of;
use crate::scene::{Scene, skip};
use crate::strangers::is_there;
use crate::tree;

/// Rows before the first capture.
const ROWS: u64 = 400;

fn scene() -> Scene {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("node")).unwrap();
    scene
}

#[track_caller]
fn assert_live(document: &Value) {
    assert_eq!(document["barrier"], "live", "{document}");
    assert_eq!(document["parts"][0]["engine"], "rocksdb", "{document}");
}

/// The whole circle, again and again, while three column families are written.
#[test]
fn a_rocksdb_that_writes_is_captured_and_restored() {
    let scene = scene();
    let mut writer = Writer::start("rocksdb", &scene.path("node"));
    let mut before = writer.at_least(ROWS);
    for round in 0..5 {
        let document = scene.backup().ok();
        assert_live(&document);
        let tested = scene.run(["check", "latest", "--restore-test"]).ok();
        assert_eq!(tested["ok"], true, "{tested}");
        let target = scene.path(&format!("restored-{round}"));
        scene.restore("latest", &target).ok();
        let rows = rows_of(&target);
        assert!(rows > before, "{before} was acknowledged, {rows} rows are there");
        before = writer.more();
    }
}

/// As from a container beside the node's: no process of the node can be seen, and nothing can be written.
#[test]
fn the_right_to_read_is_enough() {
    let mut scene = scene();
    let mut writer = Writer::start("rocksdb", &scene.path("node"));
    // The first backup of a node gives it an identity, which is written.
    scene.backup().ok();
    let node = scene.path("node");
    let script = format!(
        "mount --bind '{0}' '{0}' && mount -o remount,ro,bind '{0}' && exec \"$@\"",
        node.display()
    );
    let launcher =
        ["unshare", "--pid", "--fork", "--mount-proc", "--mount", "sh", "-c", &script, "sh"];
    let try_out = format!("! touch '{}'", node.join("touched").display());
    let works = Command::new("unshare").args(&launcher[1..]).args(["sh", "-c", &try_out]).status();
    if !works.is_ok_and(|status| status.success()) {
        skip("no mount namespace can be made here");
        return;
    }
    let before = writer.at_least(ROWS);
    scene.launch_by(&launcher);
    assert_live(&scene.backup().ok());
    scene.launch_by(&["env"]);
    let target = scene.path("restored");
    scene.restore("latest", &target).ok();
    assert!(rows_of(&target) > before);
}

#[test]
fn a_benchmark_of_rocksdb_is_captured_in_full_flight() {
    if !is_there("db_bench") {
        return;
    }
    let scene = scene();
    let store = scene.path("node/store");
    let mut bench = Command::new("db_bench")
        .args(["--benchmarks=fillrandom", "--num=100000000", "--value_size=400"])
        .args(["--write_buffer_size=4000000", "--threads=2"])
        .arg(format!("--db={}", store.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let env = Env::system();
    let tables = || tree::names(&store).iter().filter(|name| name.ends_with(".sst")).count();
    while !store.exists() || tables() < 3 {
        assert_eq!(bench.try_wait().unwrap(), None, "the benchmark has ended");
        env.pause(Duration::from_millis(5));
    }
    for round in 0..3 {
        assert_live(&scene.backup().ok());
        let target = scene.path(&format!("restored-{round}"));
        scene.restore("latest", &target).ok();
        let db = format!("--db={}", target.join("store").display());
        let checked = Command::new("ldb").args([&db, "checkconsistency"]).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(bench.try_wait().unwrap(), None, "the benchmark has ended");
    }
    bench.kill().unwrap();
    bench.wait().unwrap();
}
