//! Where nobody attacks, root's work in another user's directory is what it is in one's own: everything
//! comes back, and it is the owner's.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::ground::{Above, Ground, OWNER};
use crate::node::{self, Age};
use crate::tree;

#[track_caller]
fn assert_owners(dir: &Path) {
    for path in tree::files(dir) {
        if path
            .components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with(".highwater"))
        {
            continue;
        }
        assert_eq!(path.symlink_metadata().unwrap().uid(), OWNER, "{}", path.display());
    }
}

#[test]
fn the_whole_circle_goes_on_working_in_another_users_directory() {
    for above in [Above::Roots, Above::Owners] {
        let Some(ground) = Ground::new(above) else { return };
        ground.on_node(&["inspect"], &[]).ok();
        let old = ground.scene.restored("latest");
        let new = tree::read(&ground.node()).unwrap();
        ground.on_node(&["restore", "latest"], &["--force"]).ok();
        tree::assert_equal(&tree::read(&ground.node()).unwrap(), &old, "restored");
        assert_owners(&ground.node());
        ground.on_node(&["recover"], &[]).ok();
        ground.on_node(&["rollback"], &[]).ok();
        tree::assert_equal(&tree::read(&ground.node()).unwrap(), &new, "rolled back");
        assert_owners(&ground.node());
        ground.backup().ok();
        ground.on_node(&["restore", "latest"], &["--force", "--part", node::LEDGER]).ok();
        assert_owners(&ground.node());
        let check = ["check", "--restore-test", "--read-data"];
        assert_eq!(ground.scene.run(check).ok()["ok"], true);
        let copy = ground.scene.path("copy");
        tree::copy(&ground.node(), &copy);
        assert_eq!(node::start(&copy), Ok(Age::New));
        ground.assert_untouched("the circle");
    }
}

#[test]
fn a_quarantined_node_is_released_by_root_and_its_owner_starts_it() {
    let Some(ground) = Ground::without_backup(Above::Roots) else { return };
    ground.on_node(&["backup"], &["--node", "node", "--guarded"]).ok();
    ground.on_node(&["restore", "latest"], &["--force"]).ok();
    assert_eq!(ground.on_node(&["guard", "list"], &[]).code, Some(10));
    assert_eq!(ground.on_node(&["run"], &["--timeout", "0", "--", "true"]).code, Some(10));
    ground.on_node(&["guard", "release"], &["--all", "--reason", "a test"]).ok();
    ground.on_node(&["guard", "list"], &[]).ok();
    assert_owners(&ground.node());
    ground.as_owner(
        "cat $N/node.key $N/ledger.sqlite $N/store/CURRENT >/dev/null; echo 1 >> $N/store/CURRENT",
    );
    ground.assert_untouched("a release");
}

/// By a process that has that user's rights and none of root's, as its content is.
#[test]
fn root_reads_the_marks_of_a_database_of_another_user() {
    let Some(ground) = Ground::without_backup(Above::Roots) else { return };
    let main = ground.node().join("lightningd.sqlite3");
    let database = rusqlite::Connection::open(&main).unwrap();
    let sql = "CREATE TABLE vars (name TEXT PRIMARY KEY, intval INTEGER); \
               INSERT INTO vars VALUES ('data_version', 1700); \
               CREATE TABLE channels (id INTEGER PRIMARY KEY, next_index_local, next_index_remote, \
               full_channel_id BLOB); \
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) \
               INSERT INTO channels SELECT i, i, 1, randomblob(32) FROM n;";
    database.execute_batch(sql).unwrap();
    drop(database);
    std::fs::write(ground.node().join("hsm_secret"), [7; 32]).unwrap();
    ground.give_node();
    let told = ground.backup().ok();
    assert_eq!(told["kinds"], serde_json::json!(["core-lightning"]), "{told}");
    // More rows than one message has room for.
    assert_eq!(told["channels"], serde_json::json!(25_000), "{}", told["warnings"]);
    let sum = 25_000_u64 * 25_001 / 2;
    let marks = serde_json::json!({"data_version": 1700, "local": sum, "remote": 25_000});
    assert_eq!(told["marks"], marks);
}

/// What takes the place of a table in a database that was made to hurt.
#[test]
fn a_question_that_never_ends_costs_the_marks_and_not_the_backup() {
    let Some(ground) = Ground::without_backup(Above::Roots) else { return };
    let main = ground.node().join("lightningd.sqlite3");
    let database = rusqlite::Connection::open(&main).unwrap();
    let sql = "CREATE VIEW vars AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
               SELECT 'data_version' AS name, i AS intval FROM n WHERE i < 0;";
    database.execute_batch(sql).unwrap();
    drop(database);
    std::fs::write(ground.node().join("hsm_secret"), [7; 32]).unwrap();
    ground.give_node();
    let told = ground.backup().ok();
    assert_eq!(told["marks"], serde_json::json!({}), "{told}");
    assert!(told["warnings"].to_string().contains("interrupted"), "{}", told["warnings"]);
}
