//! An engine that is not built in: what is captured by it is checked by it, and held back also by a program
//! that doesn't know it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater::Kind;
use highwater::backup::BackupOptions;
use highwater::engine::{Checked, Engine as _, EngineKind, Engines};
use highwater::guard::GuardKind;
use highwater::restore::{self, Outcome, RestoreOptions, RollbackOptions};
use highwater::vault::Selector;

use super::{Bench, control};

#[path = "../../examples/own-engine/log.rs"]
mod log;

use log::{Log, LogEngine};

const RECORDS: &str = "payments/records.log";

fn engines() -> Engines {
    Engines::default().with(Arc::new(LogEngine)).unwrap()
}

/// A guarded node with such a log and a plain file, backed up.
fn backed_up() -> (Bench, Selector) {
    let bench = Bench::new();
    bench.write("key", b"secret");
    Log::open(&bench.node().join("payments")).and_then(|mut log| log.append(b"first")).unwrap();
    let mut options = BackupOptions::default();
    options.guard = Some(GuardKind::Databases);
    options.discover.engines = engines();
    let report = bench.backup_with(&options);
    assert_eq!(report.parts[0].engine, LogEngine.kind());
    let snapshot = report.snapshot.to_string();
    (bench, Selector { snapshot, ..Selector::default() })
}

fn restore_over(bench: &Bench, target: &Path, selector: &Selector, engines: Engines) {
    let mut options = RestoreOptions::default();
    options.selector = selector.clone();
    options.force = true;
    options.engines = engines;
    let plan = restore::plan(&bench.vault, target, &options).unwrap();
    restore::run(&bench.vault, &plan, &options, &control()).unwrap();
}

#[cfg(feature = "agent")]
#[test]
fn the_engine_of_the_example_passes_the_suite_and_is_backed_up_while_it_appends() {
    let told = super::examples::run("own-engine", &[]);
    for line in ["conformance, offline: passed", "conformance, live: passed", "restored: "] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn its_database_is_withheld_also_by_a_program_that_does_not_know_it() {
    let (bench, selector) = backed_up();
    for engines in [Engines::default(), engines()] {
        let target = tempfile::tempdir().unwrap();
        let target = target.path().join("node");
        restore_over(&bench, &target, &selector, engines);
        assert!(target.join(RECORDS).is_dir(), "its entry point is not withheld");
        assert_eq!(fs::read(target.join("key")).unwrap(), b"secret");
    }
}

#[test]
fn a_rollback_withholds_its_database_too() {
    let (bench, selector) = backed_up();
    let node = bench.node();
    restore_over(&bench, &node, &selector, engines());
    highwater::guard::release_although_old(
        &node,
        &highwater::guard::Which::All,
        "a test",
        "a test",
        &control(),
    )
    .unwrap();
    assert!(node.join(RECORDS).is_file());
    let options = RollbackOptions::default().engines(engines());
    assert_eq!(restore::rollback_by(&node, &options, &control()).unwrap(), Outcome::Old);
    assert!(node.join(RECORDS).is_dir(), "the older node could open its log");
    assert!(node.join("key").is_file());
}

#[test]
fn its_check_is_its_own_and_unknown_to_others() {
    let (bench, selector) = backed_up();
    let test = |engines: &Engines| {
        restore::test(&bench.vault, &selector, bench.dir.path(), engines, &control()).unwrap()
    };
    let Checked { warnings, unchecked } = test(&Engines::default());
    assert_eq!((warnings.len(), unchecked), (1, vec!["payments".to_owned()]));
    assert_eq!(test(&engines()).unchecked, Vec::<String>::new());

    // What is damaged is found by it alone.
    let target = bench.dir.path().join("damaged");
    restore_over(&bench, &target, &selector, engines());
    let withheld = target.join(".highwater/withheld/0");
    let mut bytes = fs::read(&withheld).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let copy = bench.dir.path().join("copy/payments");
    fs::create_dir_all(&copy).unwrap();
    fs::write(copy.join("records.log"), bytes).unwrap();
    let check = |engines: &Engines| {
        let root = highwater::ids::RelPath::from_bytes(b"payments").unwrap();
        let (dir, depth) = (copy.parent().unwrap(), highwater::engine::Depth::Full);
        highwater::engine::check(dir, LogEngine.kind(), &root, depth, engines)
    };
    assert_eq!(check(&engines()).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(check(&Engines::default()).unwrap().unchecked, ["payments"]);
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let again = engines().with(Arc::new(LogEngine)).unwrap_err();
    assert_eq!((again.kind(), again.entry()), (Kind::Input, Some("toy-log")));
    assert!(engines().get(EngineKind::SQLITE).is_some());
}
