//! What the owner puts into the directory beforehand: each test plants one kind of thing again before
//! every command.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::ground::{Above, COMMANDS, Ground, give};

/// Runs every command with `plant` done anew before each, and looks after root's files after each.
/// Whatever it answers is an answer: it has not ended by a bug or a signal.
fn attack(above: Above, plant: impl Fn(&Ground)) {
    let Some(ground) = Ground::new(above) else { return };
    for (before, after) in COMMANDS {
        plant(&ground);
        let ran = ground.on_node(before, after);
        let what = format!("{before:?}, {:?}: {}", ran.code, ran.json);
        let answered = ran.code.is_some_and(|code| code != 1 && code < 128);
        assert!(answered && ran.signal.is_none(), "{what}");
        ground.assert_untouched(&what);
    }
}

fn scripted(above: Above, script: &str) {
    attack(above, |ground| ground.as_owner(&format!("{script}\ntrue")));
}

/// Clears the way to `.highwater`: what root made there is moved, since it can't be removed.
const OWN: &str = "rm -rf $N/.highwater 2>/dev/null; \
    [ -e $N/.highwater -o -L $N/.highwater ] && mv -T $N/.highwater $N/moved-$$; mkdir $N/.highwater;";

#[test]
fn highwaters_own_directory_is_a_link() {
    let script = format!("{OWN} rmdir $N/.highwater; ln -s $R $N/.highwater");
    scripted(Above::Roots, &script);
    scripted(Above::Owners, &script);
}

#[test]
fn all_names_in_highwaters_own_directory_are_links() {
    let script = format!(
        "{OWN} cd $N/.highwater; for name in quarantine.lock quarantine.json.new \
         quarantine.last.json state.json lock; do ln -s $R/passwd $name; done; \
         ln -s $R/etc/cron.d restore; ln -s $R/etc withheld; ln -s $R/etc replica"
    );
    scripted(Above::Roots, &script);
}

#[test]
fn all_names_in_highwaters_own_directory_lead_to_what_is_not_there_yet() {
    let script = format!(
        "{OWN} cd $N/.highwater; for name in quarantine.lock quarantine.json.new \
         quarantine.last.json restore withheld; do ln -s $R/etc/cron.d/$name $name; done"
    );
    scripted(Above::Roots, &script);
}

#[test]
fn the_latch_is_a_link() {
    scripted(
        Above::Roots,
        "rm -f $N/highwater-quarantine.json; ln -s $R/shadow $N/highwater-quarantine.json",
    );
    scripted(
        Above::Owners,
        "rm -f $N/highwater-quarantine.json; ln -s $R/etc/cron.d/new $N/highwater-quarantine.json",
    );
}

#[test]
fn pipes_stand_where_files_are_expected() {
    let script = format!(
        "{OWN} mkdir $N/.highwater/restore; \
         for name in highwater-quarantine.json .highwater/quarantine.lock \
         .highwater/quarantine.json.new .highwater/quarantine.last.json .highwater/restore/lock \
         .highwater/restore/journal.json store/CURRENT store/LOCK store/IDENTITY ledger.sqlite-wal \
         ledger.sqlite-journal node.key; do rm -rf $N/$name; mkfifo $N/$name; done 2>/dev/null"
    );
    scripted(Above::Roots, &script);
    scripted(Above::Owners, "rm -f $N/ledger.sqlite; mkfifo $N/ledger.sqlite");
}

#[test]
fn the_nodes_own_files_are_links_to_roots() {
    let script = "cd $N; for name in node.key ledger.sqlite ledger.sqlite-wal ledger.sqlite-shm \
                  ledger.sqlite-journal store/CURRENT store/LOCK store/LOG store/IDENTITY; do \
                  rm -rf $name; ln -s $R/passwd $name; done 2>/dev/null";
    scripted(Above::Roots, script);
    let secret = script.replace("$R/passwd", "$R/shadow");
    scripted(Above::Roots, &secret);
    scripted(
        Above::Owners,
        "cd $N; rm -rf ledger.sqlite notes; ln -s $R/ledger.sqlite ledger.sqlite; ln -s $R/etc notes",
    );
}

#[test]
fn files_that_root_will_write_lead_to_what_is_not_there_yet() {
    scripted(
        Above::Roots,
        "cd $N; for name in ledger.sqlite-wal ledger.sqlite-shm ledger.sqlite-journal store/LOCK \
         store/LOG; do rm -rf $name; ln -s $R/etc/cron.d/made $name; done 2>/dev/null",
    );
}

#[test]
fn databases_are_links_to_directories_of_roots() {
    scripted(Above::Roots, "cd $N; rm -rf store store-old; ln -s $R store");
}

#[test]
fn hard_links_of_roots_files_are_among_the_nodes() {
    attack(Above::Roots, |ground| {
        for name in ["shadow", "passwd", "ledger.sqlite"] {
            let (from, to) = (ground.roots().join(name), ground.node().join(name));
            let _ = fs::remove_file(&to);
            let _ = fs::hard_link(from, to);
        }
    });
    attack(Above::Owners, |ground| {
        if fs::create_dir(ground.node().join(".highwater")).is_ok() {
            give(&ground.node().join(".highwater"));
        }
        for (name, place) in [
            ("passwd", ".highwater/quarantine.lock"),
            ("passwd", ".highwater/quarantine.json.new"),
            ("shadow", "highwater-quarantine.json"),
            ("ledger.sqlite", "ledger.sqlite"),
        ] {
            let to = ground.node().join(place);
            let _ = fs::remove_file(&to);
            let _ = fs::hard_link(ground.roots().join(name), to);
        }
    });
}

#[test]
fn scratch_directories_are_links() {
    let script = "cd $N; for kind in checkpoint freeze sqlite; do for dir in . store; do \
                  ln -s $R/etc $dir/.highwater-$kind-0123456789abcdef; \
                  ln -s $R $dir/.highwater-$kind-00000000000000$$ ; done; done 2>/dev/null";
    scripted(Above::Roots, script);
}

#[test]
fn the_work_directory_beside_is_a_link() {
    let script = "cd $(dirname $N); rm -rf .highwater-node 2>/dev/null; [ -e .highwater-node ] && \
                  mv .highwater-node away-$$; ln -s $R .highwater-node";
    scripted(Above::Owners, script);
    scripted(
        Above::Owners,
        &script.replace(
            "ln -s $R",
            "mkdir .highwater-node; ln -s $R/etc/cron.d/new .highwater-node/lock; ln -s $R/etc",
        ),
    );
}

/// How a journal names what it means.
fn inode(path: &Path) -> Value {
    let found = path.symlink_metadata().unwrap();
    let born = found
        .created()
        .ok()
        .map(|at| at.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64);
    json!({"number": found.ino(), "born_ns": born})
}

/// A work directory of the owner's at `work`, with a journal that is to make root exchange a file of
/// root's for one of the owner's, by a link `a` in the node directory.
fn plant_journal(ground: &Ground, work: &Path, way: &str, operation: &str, phase: &str) {
    let node = ground.node();
    let _ = fs::remove_dir_all(work);
    fs::create_dir_all(work.join("staging/.highwater")).unwrap();
    fs::create_dir_all(work.join("kept/.highwater")).unwrap();
    fs::create_dir_all(work.join("withheld")).unwrap();
    let link = node.join("a");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(ground.roots(), &link).unwrap();
    for side in ["staging", "kept"] {
        let _ = std::os::unix::fs::symlink(ground.roots(), work.join(side).join("a"));
        fs::write(work.join(side).join("evil"), "root::0:0\n").unwrap();
    }
    fs::write(work.join("withheld/0"), "root::0:0\n").unwrap();
    let incoming = work.join(if operation == "restore" { "staging" } else { "kept" });
    let journal = json!({
        "format": 1, "operation": operation, "phase": phase, "way": way, "incoming": "new",
        "restore": "0123456789abcdef0123456789abcdef",
        "snapshot": "0123456789abcdef0123456789abcdef",
        "time": "2026-01-01T00:00:00.000000000Z",
        "staged": inode(&incoming), "replaced": inode(&node),
        "withheld": [{
            "side": "outgoing", "path": "a/passwd",
            "inode": inode(&ground.roots().join("passwd")),
            "placeholder": inode(&work.join("withheld/0")),
        }],
        "entries": [{"path": "a/etc", "inode": inode(&incoming.join("evil"))}],
    });
    for name in ["journal.json", "kept.json"] {
        fs::write(work.join(name), journal.to_string()).unwrap();
    }
    fs::write(work.join("lock"), "").unwrap();
    give(work);
    if way == "entries" {
        give(&node.join(".highwater"));
    }
    give(&link);
}

#[test]
fn journals_are_planted_inside() {
    for operation in ["restore", "rollback"] {
        for phase in ["withhold", "entries", "reveal", "keep"] {
            let Some(ground) = Ground::new(Above::Roots) else { return };
            let work = ground.node().join(".highwater/restore");
            for before in [&["recover"][..], &["rollback"], &["restore", "latest", "--force"]] {
                plant_journal(&ground, &work, "entries", operation, phase);
                let ran = ground.on_node(before, &[]);
                let what = format!("{operation} {phase}: {before:?}: {}", ran.json);
                assert_ne!(ran.code, Some(1), "{what}");
                ground.assert_untouched(&what);
            }
        }
    }
}

#[test]
fn journals_are_planted_beside() {
    for operation in ["restore", "rollback"] {
        for phase in ["staging", "exchange", "keep"] {
            let Some(ground) = Ground::new(Above::Owners) else { return };
            let work = ground.node().with_file_name(".highwater-node");
            for before in [&["recover"][..], &["rollback"], &["restore", "latest", "--force"]] {
                plant_journal(&ground, &work, "whole", operation, phase);
                let ran = ground.on_node(before, &[]);
                let what = format!("{operation} {phase}: {before:?}: {}", ran.json);
                assert_ne!(ran.code, Some(1), "{what}");
                ground.assert_untouched(&what);
            }
        }
    }
}

#[test]
fn no_journal_of_the_owners_is_carried_out() {
    let Some(ground) = Ground::new(Above::Roots) else { return };
    let work = ground.node().join(".highwater/restore");
    plant_journal(&ground, &work, "entries", "restore", "withhold");
    let error = ground.on_node(&["recover"], &[]).failed(7, "denied");
    assert!(error["entry"].as_str().unwrap().ends_with(".highwater/restore"), "{error}");
}

/// A latch that lets a file of the owner's, which waits at `place`, go to `path`.
fn latch(path: &str, place: &str) -> Value {
    json!({
        "version": 1, "kind": "databases", "node": "node", "uid": null, "cause": "restore",
        "restore": null, "snapshot": null, "time": "2026-01-01T00:00:00.000000000Z",
        "reasons": [], "marks": {}, "channels": {}, "listed": true,
        "withheld": [{"part": "store", "path": path, "place": place,
            "release": {"reason": "mine", "by": "me", "time": "2026-01-01T00:00:00.000000000Z"}}],
    })
}

#[test]
fn a_forged_latch_moves_nothing() {
    let Some(ground) = Ground::new(Above::Roots) else { return };
    let node = ground.node();
    ground.as_owner("ln -s $R/etc/cron.d $N/a; ln -s $R $N/b; echo '* * * * * root evil' > $N/job");
    ground.as_owner("mkdir -p $N/.highwater/withheld; cp $N/job $N/.highwater/withheld/0");
    ground.as_owner("mkdir $N/c; ln -s $R $N/.highwater/withheld/l");
    for (path, place, code) in [
        ("a/job", "job", 5),
        ("a/job", ".highwater/withheld/0", 4),
        ("taken", "b/shadow", 5),
        ("taken", ".highwater/withheld/l/shadow", 5),
        ("taken", ".highwater/withheld/x", 5),
        (".highwater/restore", ".highwater/withheld/0", 5),
    ] {
        let text = latch(path, place).to_string();
        fs::write(node.join("highwater-quarantine.json"), text).unwrap();
        give(&node.join("highwater-quarantine.json"));
        let ran = ground.on_node(&["guard", "release"], &["--all", "--reason", "a test"]);
        let what = format!("{path} from {place}: {}", ran.json);
        ground.assert_untouched(&what);
        // A link on the way is met where it lies: what kind of refusal that is depends on the kernel.
        assert!(ran.code == Some(code) || path.starts_with("a/") && ran.code > Some(1), "{what}");
    }
}

#[test]
fn forged_latches_move_nothing_whatever_the_command() {
    attack(Above::Owners, |ground| {
        let _ = fs::create_dir_all(ground.node().join(".highwater/withheld"));
        let _ =
            std::os::unix::fs::symlink(ground.roots().join("etc/cron.d"), ground.node().join("a"));
        fs::write(ground.node().join("job"), "evil").unwrap();
        let place = ground.node().join("highwater-quarantine.json");
        fs::write(place, latch("a/job", "job").to_string()).unwrap();
        ground.give_node();
    });
}
