use std::cell::RefCell;
use std::sync::Arc;

use highwater_guard::{Basis, FundingSpent, Report, Witness as Remembered};

use super::*;
use crate::guard::{HeldState, MemoryWitness, Which, list, release, standing};
use crate::ids::Time;

/// A channel that is nothing but its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers(Ours);

impl Channel for Numbers {
    type Claims = ();

    fn ours(&self) -> Ours {
        self.0
    }

    fn claims(&self) -> &() {
        &()
    }
}

fn at(number: u64) -> Ours {
    Ours { signed: Some(number), revoked: number, received: number, closing: false, epoch: 0 }
}

fn agreeing(number: u64) -> Report {
    Report { revocations_held: number, signatures_taken: number }
}

fn name() -> NodeName {
    "node".parse().unwrap()
}

struct Scene {
    dir: tempfile::TempDir,
    control: Control,
    witness: MemoryWitness,
    unmarked: RefCell<Vec<String>>,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            dir: tempfile::tempdir().unwrap(),
            control: Control::new(Env::system()),
            witness: MemoryWitness::new(),
            unmarked: RefCell::default(),
        }
    }

    /// As a restore leaves the directory of a node that embeds the library.
    fn restored(marks: &[(&str, u64)]) -> Scene {
        let scene = Scene::new();
        let mut latch = Latch::new(GuardKind::Channels, name(), Cause::Restore, Time::default());
        latch.marks = marks.iter().map(|(name, mark)| ((*name).to_owned(), *mark)).collect();
        latch.write(scene.dir.path(), &scene.control.env).unwrap();
        scene
    }

    fn state_that_the_original_is_gone(&self) {
        let gone = Released { reason: "burnt".into(), by: "eve".into(), time: Time::default() };
        Latch::update(self.dir.path(), &self.control.env, |latch| {
            Ok(latch.map(|latch| Latch { original_gone: Some(gone), ..latch }))
        })
        .unwrap();
    }

    fn peer(&self) -> Guard {
        Guard::open(self.dir.path(), name(), Policy::Peer, None, &self.control).unwrap()
    }

    fn witnessed(&self) -> Guard {
        let store = Arc::new(self.witness.clone());
        let witness = Witness::take_over(store, name(), "test".into(), &self.control.env).unwrap();
        Guard::open(self.dir.path(), name(), Policy::Witness, Some(witness), &self.control).unwrap()
    }

    fn admit(&self, guard: &Guard, channels: &[(&str, Ours)]) -> Admitted<Numbers> {
        let arrival = |(id, ours): &(&str, Ours)| Arrival {
            id: (*id).to_owned(),
            channel: Numbers(*ours),
            stale: false,
        };
        guard.admit(channels.iter().map(arrival).collect(), |id| self.unmark(id)).unwrap()
    }

    fn unmark(&self, id: &str) -> Result<()> {
        self.unmarked.borrow_mut().push(id.to_owned());
        Ok(())
    }

    fn latched(&self) -> bool {
        standing(self.dir.path()).unwrap().is_some()
    }
}

fn ids<C>(channels: &[(String, C)]) -> Vec<&str> {
    channels.iter().map(|(id, _)| id.as_str()).collect()
}

fn only(admitted: Admitted<Numbers>) -> Quarantined<Numbers> {
    let mut held = admitted.held;
    assert_eq!(held.len(), 1);
    held.remove(0).1
}

#[test]
fn without_latch_and_witness_a_node_starts_as_ever() {
    let scene = Scene::new();
    let admitted = scene.admit(&scene.peer(), &[("a", at(3))]);
    assert_eq!((ids(&admitted.free), admitted.held.len()), (vec!["a"], 0));
    assert!(!scene.latched());
}

#[test]
fn a_stale_mark_holds_a_channel_also_without_a_latch() {
    let scene = Scene::new();
    let arrival = Arrival { id: "a".to_owned(), channel: Numbers(at(3)), stale: true };
    let guard = scene.peer();
    let mut held = only(guard.admit(vec![arrival], |_| Ok(())).unwrap());
    held.hear(agreeing(3));
    let opened = guard.settle("a", held, || scene.unmark("a")).unwrap();
    assert!(matches!(opened, Opened::Clear(_, Basis::Peer)));
    assert_eq!(*scene.unmarked.borrow(), ["a"]);
}

#[test]
fn channels_are_judged_one_by_one_and_the_latch_goes_with_the_last() {
    let scene = Scene::restored(&[]);
    scene.state_that_the_original_is_gone();
    let guard = scene.peer();
    let admitted = scene.admit(&guard, &[("a", at(3)), ("b", at(5))]);
    assert_eq!((admitted.free.len(), ids(&admitted.held)), (0, vec!["a", "b"]));
    let [(_, mut a), (_, mut b)] = <[_; 2]>::try_from(admitted.held).unwrap();
    a.hear(agreeing(3));
    assert!(matches!(guard.settle("a", a, || Ok(())).unwrap(), Opened::Clear(..)));
    b.hear(agreeing(6));
    let Opened::Held(b) = guard.settle("b", b, || Ok(())).unwrap() else { panic!("b got out") };
    assert_eq!(b.verdict(), Verdict::Blocked(Reason::RevocationLost));

    // The next start finds what was decided, and a liar's second word does not help.
    let guard = scene.peer();
    let admitted = scene.admit(&guard, &[("a", at(4)), ("b", at(5)), ("new", at(0))]);
    assert_eq!((ids(&admitted.free), ids(&admitted.held)), (vec!["a", "new"], vec!["b"]));
    let mut b = only(Admitted { free: Vec::new(), ..admitted });
    assert_eq!(b.hear(agreeing(5)), Verdict::Blocked(Reason::RevocationLost));
    assert_eq!(b.see(FundingSpent::Confirmed), Verdict::Closed);
    assert!(matches!(guard.settle("b", b, || Ok(())).unwrap(), Opened::Closed(_)));
    assert!(!scene.latched());
}

#[test]
fn a_peers_word_clears_nobody_before_the_original_is_stated_to_be_gone() {
    let scene = Scene::restored(&[]);
    let guard = scene.peer();
    let mut held = only(scene.admit(&guard, &[("a", at(3))]));
    held.hear(agreeing(3));
    let opened = guard.settle("a", held, || scene.unmark("a")).unwrap();
    assert!(matches!(opened, Opened::Held(_)), "cleared without the statement");
    assert!(scene.unmarked.borrow().is_empty());
    assert!(list(scene.dir.path()).unwrap()[0].reason.contains("original"));
    scene.state_that_the_original_is_gone();
    let guard = scene.peer();
    let mut held = only(scene.admit(&guard, &[("a", at(3))]));
    held.hear(agreeing(3));
    let opened = guard.settle("a", held, || scene.unmark("a")).unwrap();
    assert!(matches!(opened, Opened::Clear(..)));
    assert!(!scene.latched());
}

#[test]
fn the_marks_of_a_newer_backup_condemn() {
    let scene = Scene::restored(&[("channel.a.revoked", 4), ("channel.b.revoked", 5)]);
    let admitted = scene.admit(&scene.peer(), &[("a", at(3)), ("b", at(5))]);
    let verdicts: Vec<Verdict> = admitted.held.iter().map(|(_, held)| held.verdict()).collect();
    let expected = [Verdict::Blocked(Reason::BackupAhead), Verdict::Wait(Reason::NothingHeard)];
    assert_eq!(verdicts, expected);
}

#[test]
fn the_witness_is_asked_at_every_start_and_clears_what_is_current() {
    let scene = Scene::new();
    let guard = scene.witnessed();
    let moved = Ours { epoch: guard.epoch(), ..at(3) };
    guard.leave(&[Move { channel: "a".into(), ours: moved }], &[]).unwrap();
    let later = scene.witnessed();
    let admitted = scene.admit(&later, &[("a", moved)]);
    assert_eq!((ids(&admitted.free), admitted.held.len()), (vec!["a"], 0));
    assert_eq!(*scene.unmarked.borrow(), ["a"]);
    assert!(!scene.latched());
    // The earlier start is a copy now: its next message does not leave.
    let next = Move { channel: "a".into(), ours: Ours { epoch: guard.epoch(), ..at(4) } };
    assert_eq!(guard.leave(&[next], &[]).unwrap_err().kind(), Kind::Fenced);
}

#[test]
fn a_disk_taken_back_by_another_hand_gets_a_latch() {
    let scene = Scene::new();
    let guard = scene.witnessed();
    let moved = |number| Ours { epoch: guard.epoch(), ..at(number) };
    let to = |id: &str, number| Move { channel: id.to_owned(), ours: moved(number) };
    guard.leave(&[to("a", 4), to("b", 7), to("gone", 1)], &[("keys".into(), 9)]).unwrap();

    let later = scene.witnessed();
    let admitted = scene.admit(&later, &[("a", moved(3)), ("b", moved(7))]);
    assert_eq!((ids(&admitted.free), ids(&admitted.held)), (vec!["b"], vec!["a"]));
    assert_eq!(admitted.lacking, ["gone"]);
    assert_eq!(admitted.held[0].1.verdict(), Verdict::Blocked(Reason::WitnessAhead));
    let rows = list(scene.dir.path()).unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.state)).collect();
    let expected =
        [("a", HeldState::Blocked), ("b", HeldState::Clear), ("gone", HeldState::Blocked)];
    assert_eq!(rows, expected);
    assert_eq!(later.next_key("keys", 2), 10);
    assert_eq!(
        later.may_open(&admitted.lacking, &[("keys", 2)]).unwrap_err().kind(),
        Kind::Quarantined
    );
    assert!(later.may_open(&admitted.lacking, &[("keys", 10)]).is_ok());
}

#[test]
fn an_operators_release_is_recorded_and_outlives_the_start() {
    let scene = Scene::new();
    let guard = scene.witnessed();
    let moved = |number| Ours { epoch: guard.epoch(), ..at(number) };
    guard.leave(&[Move { channel: "a".into(), ours: moved(4) }], &[]).unwrap();

    let later = scene.witnessed();
    let held = only(scene.admit(&later, &[("a", moved(3))]));
    assert!(later.released("a").unwrap().is_none());
    let which = Which::Channel("a".into());
    release(scene.dir.path(), &which, "the peer agrees", "eve", &scene.control).unwrap();
    let found = later.released("a").unwrap().unwrap();
    assert_eq!((found.reason(), found.by()), ("the peer agrees", "eve"));
    let channel = later.release("a", held, &found, || scene.unmark("a")).unwrap();
    let mine = Ours { epoch: later.epoch(), ..at(4) };
    later.leave(&[Move { channel: "a".into(), ours: mine }], &[]).unwrap();
    assert_eq!(channel.0, moved(3));

    let last = scene.witnessed();
    assert_eq!(ids(&scene.admit(&last, &[("a", mine)]).free), ["a"]);
    let remembered: Remembered = last.witness.as_ref().unwrap().of("a").unwrap();
    assert_eq!((remembered.signed, remembered.continuous), (4, true));
}

#[test]
fn no_start_moves_under_an_epoch_that_the_node_has_seen_before() {
    let scene = Scene::new();
    scene.witnessed();
    let guard = scene.witnessed();
    let mine = Ours { epoch: guard.epoch(), ..at(6) };
    guard.leave(&[Move { channel: "a".into(), ours: mine }], &[]).unwrap();
    // The witness is lost, and made anew by the next start. A copy that moved the channel under the
    // same epoch would be taken for this node.
    scene.witness.forget_above(0);
    for epoch in [1, 2] {
        let guard = scene.witnessed();
        assert_eq!(guard.epoch(), epoch);
        let arrival = Arrival { id: "a".to_owned(), channel: Numbers(mine), stale: false };
        let refused = guard.admit(vec![arrival], |id| scene.unmark(id));
        assert_eq!(refused.err().unwrap().kind(), Kind::Corrupt);
    }
    assert_eq!(ids(&scene.admit(&scene.witnessed(), &[("a", mine)]).held), ["a"]);
}

#[test]
fn a_crash_before_the_mark_is_removed_holds_the_channel_again() {
    let scene = Scene::restored(&[]);
    scene.state_that_the_original_is_gone();
    let guard = scene.peer();
    let mut held = only(scene.admit(&guard, &[("a", at(3))]));
    held.hear(agreeing(3));
    let failed = guard.settle("a", held, || Err(Error::unavailable("crash")));
    assert!(failed.is_err());
    assert_eq!(ids(&scene.admit(&scene.peer(), &[("a", at(3))]).held), ["a"]);
}

#[test]
fn the_policy_witness_needs_one() {
    let scene = Scene::new();
    let opened = Guard::open(scene.dir.path(), name(), Policy::Witness, None, &scene.control);
    assert_eq!(opened.err().unwrap().kind(), Kind::Input);
}

#[test]
fn a_release_counts_once_also_where_the_disk_is_taken_back_to_it() {
    let scene = Scene::new();
    let guard = scene.witnessed();
    let moved = |epoch, number| Ours { epoch, ..at(number) };
    let to = |id: &str, ours| Move { channel: id.to_owned(), ours };
    let first = guard.epoch();
    guard.leave(&[to("a", moved(first, 4)), to("b", moved(first, 4))], &[]).unwrap();

    // Both are condemned, and one is released; the other keeps the latch.
    let old = [("a", moved(first, 3)), ("b", moved(first, 3))];
    assert_eq!(scene.admit(&scene.witnessed(), &old).held.len(), 2);
    let which = Which::Channel("a".into());
    release(scene.dir.path(), &which, "the peer agrees", "eve", &scene.control).unwrap();
    let just_released = std::fs::read(scene.dir.path().join("highwater-quarantine.json")).unwrap();
    let later = scene.witnessed();
    assert_eq!(ids(&scene.admit(&later, &old).free), ["a"]);
    let mine = moved(later.epoch(), 6);
    later.leave(&[to("a", mine)], &[]).unwrap();

    // The next start lets it go by the witness's word, which still is its own.
    let current = [("a", mine), old[1]];
    assert_eq!(ids(&scene.admit(&scene.witnessed(), &current).free), ["a"]);
    // The disk as it was after the release, and as it was right before: neither is current.
    let stale = [("a", moved(later.epoch(), 3)), old[1]];
    assert_eq!(ids(&scene.admit(&scene.witnessed(), &stale).held), ["a", "b"]);
    std::fs::write(scene.dir.path().join("highwater-quarantine.json"), just_released).unwrap();
    assert_eq!(ids(&scene.admit(&scene.witnessed(), &old).held), ["a", "b"]);
}

#[test]
fn a_release_of_the_whole_node_is_one_of_the_channels_that_it_was_about() {
    let scene = Scene::restored(&[]);
    release(scene.dir.path(), &Which::All, "it is a test node", "eve", &scene.control).unwrap();
    let admitted = scene.admit(&scene.peer(), &[("a", at(3)), ("b", at(5))]);
    assert_eq!((ids(&admitted.free), admitted.held.len()), (vec!["a", "b"], 0));
    assert_eq!(*scene.unmarked.borrow(), ["a", "b"]);
    assert!(!scene.latched());
}

#[test]
fn what_moved_under_a_witness_is_held_where_none_is_asked_any_more() {
    let scene = Scene::new();
    let moved = Ours { epoch: 3, ..at(4) };
    let guard = scene.peer();
    let mut held = only(scene.admit(&guard, &[("a", moved)]));
    assert_eq!(held.verdict(), Verdict::Wait(Reason::NothingHeard));
    held.hear(agreeing(4));
    assert!(matches!(guard.settle("a", held, || Ok(())).unwrap(), Opened::Clear(..)));
}

#[test]
fn a_stored_move_reaches_the_witness_before_its_channel_comes_out() {
    let scene = Scene::new();
    let guard = scene.witnessed();
    let moved = |epoch, closing| Ours { epoch, closing, ..at(4) };
    let first = moved(guard.epoch(), false);
    guard.leave(&[Move { channel: "a".into(), ours: first }], &[]).unwrap();
    // A publication was stored, and the process ended before the witness had it.
    let later = scene.witnessed();
    let admitted = scene.admit(&later, &[("a", moved(guard.epoch(), true))]);
    assert_eq!(ids(&admitted.free), ["a"]);
    let last = scene.witnessed();
    let remembered = last.witness.as_ref().unwrap().of("a").unwrap();
    assert_eq!((remembered.closing, remembered.epoch), (true, later.epoch()));
    // A copy that does not remember it is condemned.
    let held = only(scene.admit(&last, &[("a", first)]));
    assert_eq!(held.verdict(), Verdict::Blocked(Reason::WitnessAhead));
}

#[test]
fn a_release_of_the_whole_node_is_not_about_channels_that_it_lacks() {
    let scene = Scene::restored(&[]);
    let guard = scene.witnessed();
    let moved = Ours { epoch: guard.epoch(), ..at(4) };
    let to = |id: &str| Move { channel: id.to_owned(), ours: moved };
    guard.leave(&[to("a"), to("gone")], &[("keys".into(), 9)]).unwrap();
    release(scene.dir.path(), &Which::All, "it is a test node", "eve", &scene.control).unwrap();
    let later = scene.witnessed();
    let admitted = scene.admit(&later, &[("a", moved)]);
    assert_eq!((ids(&admitted.free), &*admitted.lacking), (vec!["a"], &["gone".to_owned()][..]));
    assert!(later.may_open(&admitted.lacking, &[("keys", 2)]).is_err());
    // By its own name it is.
    let which = Which::Channel("gone".into());
    release(scene.dir.path(), &which, "its peer has closed it", "eve", &scene.control).unwrap();
    let let_out = Ours { epoch: later.epoch(), ..moved };
    assert!(scene.admit(&scene.witnessed(), &[("a", let_out)]).lacking.is_empty());
    assert!(!scene.latched());
}

#[test]
fn a_channel_that_was_closed_meanwhile_keeps_no_latch() {
    let scene = Scene::restored(&[]);
    scene.state_that_the_original_is_gone();
    assert_eq!(scene.admit(&scene.peer(), &[("a", at(3))]).held.len(), 1);
    let next = scene.peer();
    next.retire("a").unwrap();
    assert!(scene.admit(&next, &[]).held.is_empty());
    assert!(!scene.latched());
}
