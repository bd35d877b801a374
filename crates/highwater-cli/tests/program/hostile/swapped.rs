//! While root works, a process of the owner's exchanges entries for links to root's files, and back.

use std::process::Command;

use super::ground::{Above, Busy, COMMANDS, Ground};
use crate::freeze::child::Writer;

/// How often all commands run over one ground.
const ROUNDS: u32 = 3;

/// Exchanges each pair of names, over and over, in one step (`RENAME_EXCHANGE` is 2; 316 is `renameat2`
/// on this kind of machine, libc knows it elsewhere).
const EXCHANGE: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pairs = [pair.split('=') for pair in sys.argv[1:]]
print(1, flush=True)
while True:
    for one, other in pairs:
        libc.renameat2(-100, one.encode(), -100, other.encode(), 2)
"#;

fn exchange(ground: &Ground, pairs: &[(&str, &str)]) -> Busy {
    let words: Vec<String> = pairs.iter().map(|(one, other)| format!("'{one}={other}'")).collect();
    let mut command = ground.shell(&format!("exec /usr/bin/python3 -c \"$E\" {}", words.join(" ")));
    command.env("E", EXCHANGE);
    Busy::start(command)
}

/// Runs every command while the pairs are exchanged; `lure` makes the other ones.
fn swapped(above: Above, lure: &str, pairs: &[(&str, &str)]) {
    let Some(ground) = Ground::new(above) else { return };
    ground.as_owner(&format!("{lure}\ntrue"));
    let busy = exchange(&ground, pairs);
    for _ in 0..ROUNDS {
        for (before, after) in COMMANDS {
            let ran = ground.on_node(before, after);
            let what = format!("{before:?}, {:?}: {}", ran.code, ran.json);
            let answered = ran.code.is_some_and(|code| code != 1 && code < 128);
            assert!(answered && ran.signal.is_none(), "{what}");
            ground.assert_untouched(&what);
        }
        ground.as_owner(&format!("{lure}\ntrue"));
    }
    drop(busy);
    ground.assert_untouched("afterwards");
}

#[test]
fn files_and_databases_are_exchanged_for_links() {
    swapped(
        Above::Roots,
        "cd $N; ln -s $R/shadow key-link; ln -s $R/ledger.sqlite ledger-link; ln -s $R store-link; \
         ln -s $R/passwd current-link; ln -s $R/etc notes-link",
        &[
            ("node/node.key", "node/key-link"),
            ("node/ledger.sqlite", "node/ledger-link"),
            ("node/store/CURRENT", "node/current-link"),
            ("node/store", "node/store-link"),
            ("node/notes", "node/notes-link"),
        ],
    );
}

#[test]
fn highwaters_own_directories_are_exchanged_for_links() {
    swapped(
        Above::Roots,
        "mkdir -p $N/.highwater/restore $N/.highwater/withheld; ln -s $R $N/own-link; \
         ln -s $R/etc/cron.d $N/.highwater/cron; ln -s $R/etc/cron.d $N/.highwater/cron2",
        &[
            ("node/.highwater", "node/own-link"),
            ("node/.highwater/restore", "node/.highwater/cron"),
            ("node/.highwater/withheld", "node/.highwater/cron2"),
        ],
    );
}

#[test]
fn the_node_directory_and_the_one_beside_it_are_exchanged_for_links() {
    swapped(
        Above::Owners,
        "ln -s $R node-link; ln -s $R/etc work-link; mkdir .highwater-node",
        &[("node", "node-link"), (".highwater-node", "work-link")],
    );
}

#[test]
fn a_node_that_is_frozen_while_its_files_are_exchanged_costs_root_nothing() {
    let Some(ground) = Ground::new(Above::Roots) else { return };
    ground.as_owner(
        "cd $N; ln -s $R/shadow key-link; ln -s $R/ledger.sqlite ledger-link; ln -s $R store-link; \
         mkdir .highwater; ln -s $R/etc own-link",
    );
    let pairs = [
        ("node/node.key", "node/key-link"),
        ("node/ledger.sqlite", "node/ledger-link"),
        ("node/store", "node/store-link"),
        ("node/.highwater", "node/own-link"),
    ];
    let _busy = exchange(&ground, &pairs);
    // What is frozen is a process of the owner's that is not the one that exchanges.
    let mut held: Command = ground
        .shell("exec 3<$N/blob.bin; i=0; while :; do i=$((i + 1)); echo $i; sleep 0.05; done");
    held.stdin(std::process::Stdio::null());
    let said = ground.scene.path("said");
    let writer = Writer::of(held, said);
    for _ in 0..12 {
        let ran = ground.on_node(&["backup", "--freeze", &writer.pid()], &["--node", "node"]);
        let what = format!("{:?}: {}", ran.code, ran.json);
        assert!(ran.code.is_some_and(|code| code != 1 && code < 128), "{what}");
        ground.assert_untouched(&what);
    }
}
