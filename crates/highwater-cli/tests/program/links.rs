//! Links, further names and mounts inside a node directory, and files that must not be written over.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use crate::node;
use crate::scene::{Mounted, Scene};

fn warnings(document: &Value) -> String {
    document["warnings"].as_array().unwrap().iter().map(Value::to_string).collect()
}

#[test]
fn a_link_that_names_its_own_node_leads_into_the_restored_one() {
    let scene = Scene::with_node();
    let node = scene.path("node");
    fs::create_dir(node.join("logs")).unwrap();
    symlink(node.join("notes/deep/a.txt"), node.join("to-a-file")).unwrap();
    symlink(node.join("logs"), node.join("to-a-directory")).unwrap();
    symlink(&node, node.join("logs/to-itself")).unwrap();
    symlink("deep/a.txt", node.join("notes/relative")).unwrap();
    scene.backup().ok();
    let target = scene.path("restored");
    let answer = scene.restore("latest", &target).ok();
    assert!(!warnings(&answer).contains("outside"), "{answer}");
    let target = target.canonicalize().unwrap();
    for (link, text) in [
        ("to-a-file", target.join("notes/deep/a.txt")),
        ("to-a-directory", target.join("logs")),
        ("logs/to-itself", target.clone()),
        ("notes/relative", "deep/a.txt".into()),
    ] {
        assert_eq!(fs::read_link(target.join(link)).unwrap(), text, "{link}");
    }
    fs::write(target.join("to-a-directory/new"), "written by the restored node").unwrap();
    assert!(!node.join("logs/new").exists(), "the old node is not written");
    // Back in its old place it is as it was.
    scene.restore("latest", &node).ok();
    let text = fs::read_link(node.join("to-a-file")).unwrap();
    assert_eq!(text, node.canonicalize().unwrap().join("notes/deep/a.txt"));
}

#[test]
fn a_link_that_leads_out_is_told_of_where_it_is_restored() {
    let scene = Scene::with_node();
    let outside = scene.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, scene.path("node/out")).unwrap();
    let include = format!("out={}", outside.display());
    let node = scene.path("node");
    let node = node.to_str().unwrap();
    scene.run(["backup", node, "--include", &include]).ok();
    let answer = scene.restore("latest", &scene.path("restored")).ok();
    let told = warnings(&answer);
    assert!(told.contains("out leads to") && told.contains(outside.to_str().unwrap()), "{told}");
}

fn one_file(first: &Path, second: &Path) -> bool {
    first.metadata().unwrap().ino() == second.metadata().unwrap().ino()
}

#[test]
fn further_names_of_a_file_stay_further_names() {
    let scene = Scene::with_node();
    let dir = scene.path("node");
    fs::hard_link(dir.join("blob.bin"), dir.join("notes/blob-again")).unwrap();
    fs::hard_link(dir.join("blob.bin"), dir.join("a-blob")).unwrap();
    let answer = scene.backup().ok();
    let again = scene.backup().ok();
    let target = scene.path("restored");
    let restored = scene.restore("latest", &target).ok();
    for name in ["notes/blob-again", "a-blob"] {
        assert!(one_file(&target.join("blob.bin"), &target.join(name)), "{name}");
    }
    assert_eq!(target.join("a-blob").metadata().unwrap().nlink(), 3);
    let content = fs::read(dir.join("blob.bin")).unwrap();
    assert!(content == fs::read(target.join("notes/blob-again")).unwrap());
    assert!(restored["bytes"].as_u64().unwrap() < 2 * content.len() as u64, "{restored}");
    assert_ne!(answer["snapshot"], again["snapshot"]);
    // One part alone, and everything else copied: still one file.
    let force = ["restore", "latest", target.to_str().unwrap(), "--force", "--part", node::STORE];
    scene.run(force).ok();
    assert!(one_file(&target.join("blob.bin"), &target.join("notes/blob-again")));
    assert_eq!(scene.run(["check", "--restore-test", "--read-data"]).ok()["ok"], true);
}

#[test]
fn a_mount_inside_the_node_is_refused_before_anything_is_written() {
    let mut scene = Scene::with_node();
    let inner = scene.path("node/notes/volume");
    fs::create_dir(&inner).unwrap();
    let Some(mounted) = Mounted::at(&inner, "1m") else { return };
    scene.move_into(&mounted);
    scene.backup().ok();
    let node = scene.path("node");
    for more in [&["--plan"][..], &[]] {
        let words = ["restore", "latest", node.to_str().unwrap(), "--force"];
        let ran = scene.run(words.iter().chain(more));
        let error = ran.failed(4, "conflict");
        assert_eq!(error["entry"], "notes/volume", "{error}");
    }
    assert!(!scene.path(".highwater-node").exists(), "nothing was begun");
}

#[test]
fn no_output_takes_the_place_of_the_secret_the_settings_or_the_vault() {
    let scene = Scene::with_node();
    scene.backup().ok();
    let key = scene.path("vault.key");
    let before = fs::read(&key).unwrap();
    symlink(&key, scene.path("link")).unwrap();
    let node = scene.path("node");
    for output in [key.clone(), scene.path("link")] {
        let words = ["export", "latest", "--force", "--output", output.to_str().unwrap()];
        scene.run(words).failed(2, "input");
        let words = [
            "kit",
            "export",
            node.to_str().unwrap(),
            "--force",
            "--output",
            output.to_str().unwrap(),
        ];
        let ran = scene.run(words);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(fs::read(&key).unwrap() == before);
    }
    scene.run(["check", "--read-data"]).ok();
}
