//! A database that Highwater knows nothing of is taught to it, passes the suite that every engine passes,
//! and is backed up while a node appends to it, tested and restored.
//!
//! ```sh
//! cargo run --release --example own-engine --features conformance
//! ```
//!
//! The engine is in `own-engine/log.rs`.
#![allow(clippy::print_stdout, reason = "an example tells what it does")]
#![allow(clippy::disallowed_methods, reason = "its threads end with the processes that they read")]

use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use highwater::backup::{self, BackupOptions};
use highwater::engine::conformance::{self, Fixture};
use highwater::engine::{Engine as _, EngineKind, Engines};
use highwater::restore::{self, RestoreOptions};
use highwater::vault::{Actor, CreateOptions, Secret, Selector, Vault};
use highwater::{Control, Env};

#[path = "own-engine/log.rs"]
mod log;

use log::{Log, LogEngine, records};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    if let [_, role, dir] = std::env::args().collect::<Vec<_>>().as_slice() {
        return append(Path::new(dir), role == "append");
    }
    let scratch = tempfile::tempdir()?;
    for (name, held) in [("offline", false), ("live", true)] {
        let dir = scratch.path().join(name);
        std::fs::create_dir(&dir)?;
        conformance::run(&Logs { held, node: RefCell::default() }, &dir);
        println!("conformance, {name}: passed");
    }
    circle(scratch.path())
}

/// Backs up a node that appends to its log all the while, tests the snapshot, and restores it.
fn circle(scratch: &Path) -> Outcome<()> {
    let (node, target) = (scratch.join("node"), scratch.join("restored"));
    let engines = Engines::default().with(Arc::new(LogEngine))?;
    let appending = Appending::start(&node.join("payments"), "append")?;
    let before = appending.acknowledged.load(Ordering::SeqCst);

    let env = Env::system();
    let control = Control::new(env.clone());
    let secret = Secret::create_key_file(&scratch.join("key"))?;
    let location = scratch.join("vault").display().to_string().parse()?;
    let vault = Vault::create_with(&location, &secret, &CreateOptions::default(), &env)?.vault;
    let actor = Actor { state_dir: scratch.join("state"), name: "node@host".into() };
    let mut options = BackupOptions::default();
    options.discover.engines = engines.clone();
    let report = backup::run(&vault, &node, &actor, &options, &control)?;
    drop(appending);

    let latest = Selector { snapshot: "latest".into(), ..Selector::default() };
    restore::test(&vault, &latest, scratch, &engines, &control)?;
    let mut options = RestoreOptions::default();
    options.selector = latest;
    options.engines = engines;
    let plan = restore::plan(&vault, &target, &options)?;
    restore::run(&vault, &plan, &options, &control)?;

    let (restored, _) = records(&File::open(target.join("payments/records.log"))?)?;
    for (number, record) in restored.iter().enumerate() {
        assert_eq!(
            *record,
            number.to_string().into_bytes(),
            "the log is no prefix of what was appended"
        );
    }
    assert!(restored.len() as u64 > before, "a record that was acknowledged is not there");
    for part in report.parts {
        println!(
            "backed up: {} ({}), {} files, {} bytes",
            part.name, part.engine, part.files, part.bytes
        );
    }
    println!("restored: {} records, {before} were acknowledged before", restored.len());
    Ok(())
}

/// What runs in the other process: appends numbers until its input ends, or only has the log open.
fn append(dir: &Path, appends: bool) -> Outcome<()> {
    let mut log = Log::open(dir)?;
    let mut out = std::io::stdout().lock();
    for number in (0_u64..).take_while(|number| *number == 0 || appends) {
        if appends {
            log.append(number.to_string().as_bytes())?;
        }
        // Whoever reads is gone: that is the end.
        if writeln!(out, "{number}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Another process that has a log open; dropped, it is killed.
struct Appending {
    child: Child,
    acknowledged: Arc<AtomicU64>,
}

impl Appending {
    /// Returns once it has the log open.
    fn start(dir: &Path, role: &str) -> Outcome<Appending> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("it is piped")?).lines();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (told, first) = mpsc::channel();
        let last = Arc::clone(&acknowledged);
        std::thread::spawn(move || {
            for number in lines.map_while(Result::ok).filter_map(|line| line.parse().ok()) {
                last.store(number, Ordering::SeqCst);
                // Only the first one is waited for.
                let _ = told.send(number);
            }
        });
        first.recv()?;
        Ok(Appending { child, acknowledged })
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the suite needs of a node with such a log, which another process has open or not.
struct Logs {
    held: bool,
    node: RefCell<Option<Appending>>,
}

impl Logs {
    fn add(&self, dir: &Path, record: &[u8]) {
        self.node.take();
        let dir = dir.join("payments");
        Log::open(&dir).and_then(|mut log| log.append(record)).expect("nobody has it open");
        if self.held {
            let node = Appending::start(&dir, "hold").expect("this program starts again");
            self.node.replace(Some(node));
        }
    }
}

impl Fixture for Logs {
    fn engine(&self) -> EngineKind {
        LogEngine.kind()
    }

    fn engines(&self) -> Engines {
        Engines::default().with(Arc::new(LogEngine)).expect("its name is free")
    }

    fn create(&self, dir: &Path) {
        self.add(dir, b"first");
    }

    fn change(&self, dir: &Path) {
        self.add(dir, b"second");
    }

    fn hold(&self, _: &Path) -> Option<Box<dyn Any>> {
        None
    }

    fn exclusive(&self) -> bool {
        !self.held
    }

    fn verify(&self, dir: &Path, changed: bool) {
        let file = File::open(dir.join("payments/records.log")).expect("it was restored");
        let (found, _) = records(&file).expect("it can be read");
        let expected: &[&[u8]] = if changed { &[b"first", b"second"] } else { &[b"first"] };
        assert_eq!(found, expected);
    }
}
