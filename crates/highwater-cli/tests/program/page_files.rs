//! A restore test that can fail: page files that were cut or overwritten are found, and what nobody looked
//! at is not called restored.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::freeze::engines::python_with_lmdb;
use crate::scene::Scene;

const WRITER: &str = "import lmdb, sys
store = lmdb.open(sys.argv[1], map_size=1 << 26)
for round in range(20):
    with store.begin(write=True) as write:
        for row in range(500): write.put(b'%d-%d' % (round, row), b'v' * 300)
store.close()";

fn lmdb(dir: &Path) -> bool {
    let Some(python) = python_with_lmdb() else { return false };
    Command::new(python).args(["-c", WRITER]).arg(dir).status().unwrap().success()
}

fn scene() -> Scene {
    let scene = Scene::new();
    fs::create_dir(scene.path("node")).unwrap();
    scene
}

fn level(scene: &Scene) -> Value {
    let listed = scene.run(["snapshots"]).ok();
    listed.as_array().unwrap().last().unwrap()["level"].clone()
}

fn test(scene: &Scene) -> crate::scene::Ran {
    let scratch = scene.path("scratch");
    fs::create_dir_all(&scratch).unwrap();
    scene.run(["check", "latest", "--restore-test", "--scratch", scratch.to_str().unwrap()])
}

#[test]
fn an_lmdb_cut_to_half_does_not_pass_the_restore_test() {
    let scene = scene();
    if !lmdb(&scene.path("node/lmdb")) {
        return;
    }
    scene.backup().ok();
    assert_eq!(test(&scene).ok()["ok"], true);
    assert_eq!(level(&scene), "restored");
    let data = fs::File::options().write(true).open(scene.path("node/lmdb/data.mdb")).unwrap();
    let half = data.metadata().unwrap().len() / 2 / 4096 * 4096;
    data.set_len(half).unwrap();
    drop(data);
    scene.backup().ok();
    let ran = test(&scene);
    assert_eq!((ran.code, &ran.json["ok"]), (Some(5), &Value::Bool(false)), "{ran:?}");
    assert!(ran.json.to_string().contains("lmdb/data.mdb"), "{ran:?}");
    assert_eq!(level(&scene), "failed");
    // Who has no other snapshot gets what there is, and is told.
    let newest = scene.snapshots().pop().unwrap();
    let restored = scene.restore(&newest, &scene.path("restored")).ok();
    assert!(restored["warnings"].to_string().contains("lmdb/data.mdb was damaged"), "{restored}");
}

#[test]
fn an_lmdb_whose_first_pages_are_overwritten_does_not_become_plain_files() {
    let scene = scene();
    if !lmdb(&scene.path("node/lmdb")) {
        return;
    }
    let path = scene.path("node/lmdb/data.mdb");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..8192].fill(0);
    fs::write(&path, bytes).unwrap();
    let error = scene.backup().failed(5, "corrupt");
    assert_eq!(error["entry"], "lmdb/data.mdb", "{error}");
}

#[test]
fn what_no_check_is_known_for_is_named_and_is_not_called_restored() {
    let scene = scene();
    let dir = scene.path("node/level");
    fs::create_dir(&dir).unwrap();
    for (name, content) in
        [("CURRENT", "MANIFEST-000001\n"), ("MANIFEST-000001", "m"), ("LOCK", "")]
    {
        fs::write(dir.join(name), content).unwrap();
    }
    scene.backup().ok();
    let ran = test(&scene).ok();
    assert_eq!(ran["unchecked"], serde_json::json!(["level"]), "{ran}");
    assert_eq!(level(&scene), "sealed");
}
