//! A node of many databases, and a process that may open few files.

use std::process::Command;

use rusqlite::Connection;

use crate::world::{World, answered};

/// Databases of the node: two files of each are open at once.
const DATABASES: u32 = 150;

#[test]
fn many_databases_are_captured_under_a_low_limit_of_open_files_or_the_limit_is_named() {
    let world = World::with_vault();
    std::fs::create_dir(world.path("node")).unwrap();
    for number in 0..DATABASES {
        let database = Connection::open(world.path(&format!("node/{number}.db"))).unwrap();
        database.pragma_update(None, "journal_mode", "wal").unwrap();
        database.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    }
    let program =
        world.command(&["backup", "node", "--json", "--vault", "vault", "--key-file", "key"]);
    let limited = |limit: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"]);
        shell.arg(program.get_program()).args(program.get_args());
        shell.current_dir(program.get_current_dir().unwrap());
        let variables = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        shell.envs(variables);
        answered(shell.output().unwrap())
    };
    // The program raises its own limit as far as it may.
    let made = limited("-Sn 100").code(0).json();
    assert_eq!(made["parts"].as_array().unwrap().len(), DATABASES as usize + 1);
    // Further it can't: whoever runs it is told which limit that is.
    let refused = limited("-n 100").code(8).error("unavailable");
    assert!(
        refused["error"]["hint"].as_str().unwrap().contains("limit of open files"),
        "{refused}"
    );
    assert_eq!(world.on_vault(&["snapshots"]).code(0).json().as_array().unwrap().len(), 1);
}
