//! A node of many databases, and a process that may open few files; a vault of many snapshots, and memory.

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

/// Files of the node whose snapshots are looked at; with some more, its snapshots would share lists of them.
const FILES: u32 = 4000;
/// Peak memory with many snapshots beside that with few: a command that keeps the manifests has three times as much.
const GROWTH_MAX: f64 = 1.3;

/// KiB that the program takes at most.
fn peak_kib(world: &World, arguments: &[&str]) -> f64 {
    let program = world.command(arguments);
    let code = "import resource, subprocess, sys; \
                subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); \
                print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let mut python = Command::new("python3");
    python.args(["-c", code]).arg(program.get_program()).args(program.get_args());
    python.current_dir(program.get_current_dir().unwrap());
    python.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    answered(python.output().unwrap()).code(0).stdout.trim().parse().unwrap()
}

#[test]
fn the_memory_of_a_command_does_not_grow_with_the_snapshots() {
    let world = World::with_vault();
    for number in 0..FILES {
        let dir = world.path(&format!("node/{:02}", number % 50));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{number}.json")), format!("{{\"peer\": {number}}}"))
            .unwrap();
    }
    let commands: [&[&str]; 6] = [
        &["check"],
        &["check", "--read-data"],
        &["snapshots"],
        &["status"],
        &["forget", "--keep-last", "2", "--dry-run"],
        &["prune", "--dry-run"],
    ];
    let peaks = || {
        let vault = ["--vault", "vault", "--key-file", "key", "--json"];
        commands.map(|command| peak_kib(&world, &[command, &vault].concat()))
    };
    let mut few = None;
    for number in 0..24 {
        let changed = world.path(&format!("node/{number:02}/{number}.json"));
        std::fs::write(changed, format!("changed {number}")).unwrap();
        world.on_vault(&["backup", "node"]).code(0);
        if number == 2 {
            few = Some(peaks());
        }
    }
    for ((command, many), few) in commands.iter().zip(peaks()).zip(few.unwrap()) {
        let grown = format!("{command:?}: {few} KiB with 3 snapshots, {many} with 24");
        assert!(many < few * GROWTH_MAX, "{grown}");
    }
}
