//! Nodes that go back in time, again and again: after each restore nothing of the node starts, and each channel or
//! counter that lies below what the vault has seen is named, with how much is missing.
//!
//! A node here writes its state in its own form and knows it by heart; what is expected is reckoned from that alone.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]
#![allow(clippy::print_stdout, reason = "the counts of a search are for who reads its output")]

#[path = "../bbolt/mod.rs"]
mod bbolt;
mod ev_node;
mod lnd;
mod writers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use highwater::backup::{self, BackupOptions};
use highwater::env::Faults;
use highwater::guard::{self, Which};
use highwater::restore::{self, Outcome, RestoreOptions, RestorePlan, RollbackOptions};
use highwater::vault::{Actor, CreateOptions, Secret, Selector, Vault};
use highwater::{Control, Env, Error, Result};
use highwater_nodes::Known;

use writers::{Marks, Writer};

/// So many rollbacks of each kind, where nothing else is asked for.
const ROLLBACKS: usize = 60;
/// Snapshots that a rollback may go back to.
const HISTORY: usize = 24;

/// What was done, for whoever reads the test's output.
#[derive(Debug, Default)]
struct Counts {
    rollbacks: usize,
    one_step: usize,
    clones: usize,
    power_cuts: usize,
    undone: usize,
    marks_named: usize,
    lacking: usize,
}

struct Ground {
    scratch: tempfile::TempDir,
    env: Env,
    /// At which fault point, counted from now, the power is cut; 0: at none.
    cut: Arc<AtomicU64>,
}

struct Cut(Arc<AtomicU64>);

impl Faults for Cut {
    fn reached(&self, _point: highwater::env::FaultPoint) -> Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        match left {
            0 => Ok(()),
            left => {
                self.0.store(left - 1, Ordering::Relaxed);
                if left == 1 { Err(Error::interrupted()) } else { Ok(()) }
            }
        }
    }
}

impl Ground {
    fn new() -> Ground {
        let scratch = tempfile::tempdir().unwrap();
        let cut = Arc::new(AtomicU64::new(0));
        let env = Env::system().with_faults(Cut(Arc::clone(&cut)));
        let ground = Ground { scratch, env, cut };
        let secret = Secret::create_key_file(&ground.scratch.path().join("key")).unwrap();
        Vault::create_with(&ground.location(), &secret, &CreateOptions::default(), &ground.env)
            .unwrap();
        ground
    }

    fn location(&self) -> highwater::vault::Location {
        self.scratch.path().join("vault").display().to_string().parse().unwrap()
    }

    fn vault(&self) -> Vault {
        let secret = Secret::from_key_file(&self.scratch.path().join("key")).unwrap();
        Vault::open_with(&self.location(), &secret, &self.env).unwrap()
    }

    fn dir(&self) -> PathBuf {
        self.scratch.path().join("node")
    }

    fn control(&self) -> Control {
        Control::new(self.env.clone())
    }

    /// Backs the node up; tells the snapshot, its marks, and what was warned of.
    fn back_up(&self) -> (String, Marks, Vec<String>) {
        let actor =
            Actor { state_dir: self.scratch.path().join("state"), name: "node@host".into() };
        let mut options = BackupOptions::default();
        options.recogniser = Some(Arc::new(Known));
        let report =
            backup::run(&self.vault(), &self.dir(), &actor, &options, &self.control()).unwrap();
        let marks = report.marks.iter().map(|(name, mark)| (name.clone(), mark.value)).collect();
        (report.snapshot.to_string(), marks, report.warnings)
    }
}

/// What is said of marks that lie below the highest.
fn below(of: &Marks, highest: &Marks, newest: bool) -> Vec<String> {
    let named = |name: &String| match name.strip_prefix("channel.") {
        Some(rest) => {
            let (id, what) = rest.rsplit_once('.').unwrap();
            format!("channel {id}: `{what}`")
        }
        None => format!("mark `{name}`"),
    };
    let mut said = Vec::new();
    for (name, high) in highest {
        match of.get(name) {
            Some(value) if value < high => {
                let lost = high - value;
                said.push(format!("{} is {lost} below the highest seen, {high}", named(name)));
            }
            None if !newest => said.push(format!(
                "{} is not in this snapshot; the highest seen is {high}",
                named(name)
            )),
            _ => {}
        }
    }
    said
}

/// Nothing by which the node could act stands where it looks: whatever it opens is a directory with a note.
fn assert_does_not_start(dir: &Path, points: &[&str]) {
    for point in points {
        let path = dir.join(point);
        assert!(path.is_dir(), "{} can be opened", path.display());
        assert!(fs::read(&path).is_err());
        let note = path.join("withheld-by-highwater");
        assert!(note.is_file(), "{} is not there", note.display());
    }
}

fn rollbacks_of(writer: &mut dyn Writer, seed: u64) {
    let wanted =
        std::env::var("HIGHWATER_ROLLBACKS").ok().map_or(ROLLBACKS, |n| n.parse().unwrap());
    let ground = Ground::new();
    let mut dice = Rng::with_seed(seed);
    let mut counts = Counts::default();
    let mut highest = Marks::new();
    let mut history: Vec<(String, Marks, Vec<u8>)> = Vec::new();
    fs::create_dir_all(ground.dir()).unwrap();
    writer.begin(&ground.dir());
    while counts.rollbacks < wanted {
        for _ in 0..=dice.u64(..3) {
            for _ in 0..=dice.u64(..4) {
                writer.step(&ground.dir(), &mut dice);
            }
            let (snapshot, marks, told) = ground.back_up();
            assert_eq!(marks, writer.marks(), "{told:?}");
            for (name, value) in &marks {
                let high = highest.entry(name.clone()).or_default();
                *high = (*high).max(*value);
            }
            history.push((snapshot, marks, writer.save()));
            if history.len() > HISTORY {
                history.remove(0);
            }
        }
        roll_back(&ground, writer, &mut dice, &history, &highest, &mut counts);
    }
    println!("{}, seed {seed}: {counts:?}", writer.kind());
}

/// One step back or many, a clone, the power cut on the way, the way back undone; the node goes on from it.
fn roll_back(
    ground: &Ground,
    writer: &mut dyn Writer,
    dice: &mut Rng,
    history: &[(String, Marks, Vec<u8>)],
    highest: &Marks,
    counts: &mut Counts,
) {
    let last = history.len() - 1;
    let back = if dice.u64(..3) == 0 { 1 } else { dice.usize(..history.len()) };
    let (snapshot, marks, saved) = &history[last.saturating_sub(back)];
    let newest = back == 0 || last == 0;
    counts.rollbacks += 1;
    counts.one_step += usize::from(back == 1 && last > 0);
    let clone = dice.u64(..4) == 0;
    let target = if clone { ground.scratch.path().join("clone") } else { ground.dir() };
    let vault = ground.vault();
    let selector = Selector { snapshot: snapshot.clone(), ..Selector::default() };
    let mut options = RestoreOptions::default();
    options.selector = selector;
    options.force = true;
    let plan = restore::plan(&vault, &target, &options).unwrap();
    options.second_belt = highwater_nodes::second_belt(&plan.kinds);
    let expected = below(marks, highest, newest);
    assert_eq!(plan.marks_below, expected, "of {snapshot}, {back} back");
    counts.marks_named += expected.len();
    counts.lacking += expected.iter().filter(|said| said.contains("is not in")).count();
    if !restored(ground, dice, &plan, &options, counts) {
        // It is the old one, whole.
        if !clone {
            writer.check(&ground.dir());
        }
        return;
    }
    assert_does_not_start(&target, writer.entry_points());
    writer.check_marked(&target, saved);
    let standing = guard::standing(&target).unwrap().unwrap();
    assert!(standing.quarantined() > 0);
    let latch = guard::Latch::read(&target).unwrap().unwrap();
    assert_eq!(latch.old.map(|old| old.marks_below).unwrap_or_default(), expected);
    if clone {
        // A copy by other means is held back as well.
        counts.clones += 1;
        let copy = ground.scratch.path().join("copy");
        let copied = std::process::Command::new("cp").arg("-a").arg(&target).arg(&copy).status();
        assert!(copied.unwrap().success());
        assert_does_not_start(&copy, writer.entry_points());
        remove(&copy);
        remove(&target);
        return;
    }
    if dice.u64(..4) == 0 {
        // Who undoes it gets the newer one back, which nothing has run on since.
        counts.undone += 1;
        let options = RollbackOptions::default().recogniser(Some(Arc::new(Known)));
        restore::rollback_by(&target, &options, &ground.control()).unwrap();
        writer.check(&target);
        return;
    }
    let release = guard::release(&target, &Which::All, "a test", "me", &ground.control());
    assert_eq!(release.is_err(), !newest || !expected.is_empty());
    guard::release_although_old(&target, &Which::All, "a test", "me", &ground.control()).unwrap();
    writer.load(saved);
    writer.check(&target);
}

/// Carries a plan out, and cuts the power on the way now and then; whether the new directory stands in the end.
fn restored(
    ground: &Ground,
    dice: &mut Rng,
    plan: &RestorePlan,
    options: &RestoreOptions,
    counts: &mut Counts,
) -> bool {
    if dice.u64(..3) == 0 {
        ground.cut.store(1 + dice.u64(..25), Ordering::Relaxed);
    }
    let done = restore::run(&ground.vault(), plan, options, &ground.control());
    let cut = ground.cut.swap(0, Ordering::Relaxed) == 0 && done.is_err();
    if !cut {
        done.unwrap();
        return true;
    }
    counts.power_cuts += 1;
    let outcome = restore::recover(&plan.target, &ground.control());
    !matches!(outcome, Ok(Outcome::Old | Outcome::Nothing) | Err(_))
}

/// Removes a directory with placeholders in it, which nobody may read.
fn remove(dir: &Path) {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let metadata = fs::symlink_metadata(&dir).unwrap();
        if metadata.is_dir() {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
            open.extend(fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn core_lightning() {
    rollbacks_of(&mut writers::CoreLightning::default(), 1);
}

#[test]
fn ldk_node() {
    rollbacks_of(&mut writers::Ldk::node(), 2);
}

#[test]
fn ldk_filesystem() {
    rollbacks_of(&mut writers::Ldk::files(), 3);
}

#[test]
fn rgb_lightning_node() {
    rollbacks_of(&mut writers::Ldk::rgb(), 4);
}

#[test]
fn lnd() {
    rollbacks_of(&mut writers::Lnd::default(), 5);
}

#[test]
fn lnd_on_bbolt() {
    rollbacks_of(&mut lnd::OnBbolt::new(), 10);
}

#[test]
fn fiber() {
    rollbacks_of(&mut writers::Fiber::default(), 8);
}

#[test]
fn cometbft() {
    rollbacks_of(&mut writers::CometBft::default(), 6);
}

#[test]
fn ev_node() {
    let mut node = ev_node::EvNode::new();
    rollbacks_of(&mut node, 11);
    node.check_course();
}

#[test]
fn tmkms() {
    rollbacks_of(&mut writers::Tmkms::default(), 9);
}

#[test]
fn lighthouse() {
    rollbacks_of(&mut writers::Lighthouse::default(), 7);
}

/// Marks by their names, of the whole node and of channels.
#[test]
fn what_is_expected_is_reckoned_right() {
    let highest = BTreeMap::from([("channel.a.local".to_owned(), 5), ("height".to_owned(), 7)]);
    let marks = BTreeMap::from([("height".to_owned(), 6)]);
    let said = [
        "channel a: `local` is not in this snapshot; the highest seen is 5",
        "mark `height` is 1 below the highest seen, 7",
    ];
    assert_eq!(below(&marks, &highest, false), said);
    assert_eq!(below(&marks, &highest, true), said[1..]);
}
