//! Who may write: two writers of one node, takeovers before and during a backup, and what a vault
//! refuses before anything is written.

use std::sync::Mutex;

use highwater::Kind;
use highwater::env::{FaultPoint, Faults};

use super::*;

fn by(bench: &Bench, actor: &str) -> Result<BackupReport> {
    bench.backup_as(actor, &BackupOptions::default(), &control())
}

#[test]
fn a_second_writer_is_fenced_until_it_takes_over() {
    let bench = Bench::new();
    bench.write("a", b"1");
    let first = by(&bench, "alice").unwrap();
    assert_eq!(kind(by(&bench, "bob")), Kind::Fenced);
    assert_eq!(bench.vault.snapshots(None).unwrap().len(), 1);

    let owner = bench.vault.take_over(&bench.name(), &bench.actor("bob"), "moved").unwrap();
    assert!(owner.ours);
    bench.write("a", b"2");
    let second = by(&bench, "bob").unwrap();
    assert_eq!(second.parent, Some(first.snapshot));
    assert_eq!(kind(by(&bench, "alice")), Kind::Fenced);
    let owner = bench.vault.owner(&bench.name(), &bench.actor("alice")).unwrap();
    assert_eq!((owner.ours, owner.claimed_by.as_str()), (false, "bob"));
    assert_eq!(owner.reason.as_deref(), Some("moved"));

    let latest = Selector { snapshot: "latest".to_owned(), ..Selector::default() };
    assert_eq!(bench.vault.resolve(&latest).unwrap().manifest.snapshot, second.snapshot);
    assert!(bench.objects("intents").is_empty());
    bench.assert_sound();
}

#[test]
fn a_node_that_was_released_goes_to_the_next_writer() {
    let bench = Bench::new();
    bench.write("a", b"1");
    by(&bench, "alice").unwrap();
    let name = bench.name();
    assert_eq!(kind(bench.vault.release(&name, &bench.actor("bob"), "mine")), Kind::Fenced);
    let released = bench.vault.release(&name, &bench.actor("alice"), "moving").unwrap();
    assert_eq!(released.writer, None);
    let report = by(&bench, "bob").unwrap();
    let owner = bench.vault.owner(&name, &bench.actor("bob")).unwrap();
    assert!(owner.ours && owner.epoch > released.epoch);
    assert_eq!(report.seq.0, 2);
    assert_eq!(kind(by(&bench, "alice")), Kind::Fenced);
}

/// Takes the node over at one step of somebody's backup.
struct TakeOverAt {
    at: FaultPoint,
    from: Mutex<Option<(Location, NodeName, Actor)>>,
}

impl Faults for TakeOverAt {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == self.at
            && let Some((location, node, actor)) = self.from.lock().unwrap().take()
        {
            Vault::open_with(&location, &key(1), &env())?.take_over(&node, &actor, "test")?;
        }
        Ok(())
    }
}

fn taken_over_at(bench: &Bench, at: FaultPoint) -> Result<BackupReport> {
    let from = (bench.vault.location().clone(), bench.name(), bench.actor("bob"));
    let faults = TakeOverAt { at, from: Mutex::new(Some(from)) };
    let control = Control::new(env().with_faults(faults));
    bench.backup_as("alice", &BackupOptions::default(), &control)
}

#[test]
fn what_a_deposed_writer_commits_nobody_sees() {
    for at in [FaultPoint::BackupIntent, FaultPoint::BackupPackComplete, FaultPoint::BackupManifest]
    {
        let bench = Bench::new();
        bench.write("a", b"1");
        let first = by(&bench, "alice").unwrap();
        bench.write("a", b"22");
        assert_eq!(kind(taken_over_at(&bench, at)), Kind::Fenced, "{}", at.name());
        // Only who is deposed in the very last step puts a manifest still, and it counts for nobody.
        let manifests = if at == FaultPoint::BackupManifest { 2 } else { 1 };
        assert_eq!(bench.objects("snapshots").len(), manifests);
        let visible = bench.vault.snapshots(None).unwrap();
        assert_eq!(visible.len(), 1, "{}", at.name());
        assert_eq!(visible[0].manifest.snapshot, first.snapshot);

        bench.write("a", b"333");
        let next = by(&bench, "bob").unwrap();
        assert_eq!(next.parent, Some(first.snapshot));
        bench.assert_restores(next.snapshot, &tree(&bench.node()));
        assert_eq!(bench.vault.snapshots(None).unwrap().len(), 2);
        bench.assert_sound();
    }
}

#[test]
fn what_was_committed_before_the_takeover_stays_and_its_writer_hears_of_it() {
    let bench = Bench::new();
    bench.write("a", b"1");
    by(&bench, "alice").unwrap();
    bench.write("a", b"22");
    let error = taken_over_at(&bench, FaultPoint::BackupNodeRecord).unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    let visible = bench.vault.snapshots(None).unwrap();
    assert_eq!(visible.len(), 2);
    let newest = visible[1].manifest.snapshot;
    bench.assert_restores(newest, &tree(&bench.node()));
    assert_eq!(by(&bench, "bob").unwrap().parent, Some(newest));
}

#[test]
fn vault_and_node_do_not_lie_in_one_another() {
    let bench = Bench::new();
    let inside = Location::Local(bench.node().join("vault"));
    let vault =
        Vault::create_with(&inside, &key(1), &CreateOptions::default(), &env()).unwrap().vault;
    let actor = bench.actor("alice");
    let run = |dir: &Path| {
        let mut options = BackupOptions::default();
        options.node = Some(bench.name());
        backup::run(&vault, dir, &actor, &options, &control())
    };
    assert_eq!(kind(run(&bench.node())), Kind::Input);
    let below = bench.node().join("vault/packs/node");
    fs::create_dir_all(&below).unwrap();
    assert_eq!(kind(run(&below)), Kind::Input);
    assert!(!bench.node().join(".highwater").exists(), "nothing was written");
    assert!(vault.snapshots(None).unwrap().is_empty());
}

#[test]
fn nothing_is_written_to_a_newer_vault() {
    let bench = Bench::new();
    bench.write("a", b"1");
    let path = bench.dir.path().join("vault/vault.json");
    let text = fs::read_to_string(&path).unwrap();
    let body = text.split_once("  \"blake3\"").unwrap().0;
    let body = body.replace("\"version\": 1,", "\"version\": 2,\n  \"later\": {},");
    let sum = blake3::hash(body.as_bytes()).to_hex();
    fs::write(&path, format!("{body}  \"blake3\": \"{sum}\"\n}}\n")).unwrap();
    let before = bench.objects("");
    let error = Vault::open_with(bench.vault.location(), &key(1), &env()).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Input, Some("vault.json")));
    assert!(error.to_string().contains("newer"), "{error}");
    assert_eq!(bench.objects(""), before);
}

/// Another directory under a name that the vault knows.
#[test]
fn two_nodes_of_one_name_do_not_share_a_vault() {
    let (bench, other) = (Bench::new(), Bench::new());
    bench.write("key", b"ours");
    other.write("key", b"theirs");
    let ours = by(&bench, "alice").unwrap();
    let run = |options: &BackupOptions| {
        backup::run(&bench.vault, &other.node(), &bench.actor("alice"), options, &control())
    };
    assert_eq!(kind(run(&BackupOptions::default())), Kind::Conflict);
    let mut named = BackupOptions::default();
    named.node = Some("other".parse().unwrap());
    let theirs = run(&named).unwrap();
    assert_eq!(kind(run(&BackupOptions::default())), Kind::Conflict, "its uid is another one");
    bench.assert_restores(ours.snapshot, &tree(&bench.node()));
    bench.assert_restores(theirs.snapshot, &tree(&other.node()));
    let latest = Selector { snapshot: "latest".to_owned(), ..Selector::default() };
    assert_eq!(kind(bench.vault.resolve(&latest)), Kind::Input, "of which node?");
    assert_eq!(bench.vault.snapshots(Some(&bench.name())).unwrap().len(), 1);
}

struct At(i64);

impl Clock for At {
    fn now(&self) -> Time {
        Time::from_nanos(self.0 * 1_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Later.monotonic()
    }

    fn pause(&self, duration: Duration) {
        Later.pause(duration);
    }
}

#[test]
fn the_newest_snapshot_is_the_last_one_whatever_the_clock_says() {
    let bench = Bench::new();
    let mut taken = Vec::new();
    // The clock stands still, and then it jumps back.
    for (round, seconds) in [2_000, 2_000, 1_000].into_iter().enumerate() {
        bench.write("a", round.to_string());
        let control = Control::new(env().with_clock(At(seconds)));
        let report = bench.backup_as("alice", &BackupOptions::default(), &control).unwrap();
        taken.push((report.snapshot, tree(&bench.node())));
    }
    let find = |before: Option<i64>| {
        let before = before.map(|seconds| At(seconds).now());
        let latest = Selector { snapshot: "latest".to_owned(), before, ..Selector::default() };
        bench.vault.resolve(&latest).map(|found| found.manifest.snapshot)
    };
    assert_eq!(find(None).unwrap(), taken[2].0);
    assert_eq!(find(Some(1_999)).unwrap(), taken[2].0);
    assert_eq!(kind(find(Some(999))), Kind::NotFound);
    for (snapshot, expected) in &taken {
        bench.assert_restores(*snapshot, expected);
    }
}
