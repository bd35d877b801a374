//! What a store, its sender and those who wait for it share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;

use super::commit::{Committed, Committer};
use super::head::HeadState;
use super::local::LocalStore;
use super::sender::{Sender, Step};
use super::write::Bound;
use crate::env::Env;
use crate::error::{Error, Kind, Result};

/// Before a put is tried again; longer each time, up to the second of the two.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// After a put, the sender waits for those who waited for it: at most the time that the put took, divided by this.
const GATHER_SHARE: u32 = 8;
/// The sender never waits longer than this for them.
const GATHER_MAX: Duration = Duration::from_millis(5);

/// A put of writes that nobody waits for begins this long after the one before: fewer and larger ones leave the
/// disk to the node.
const PAUSE: Duration = Duration::from_millis(10);
/// With this many writes, a put does not wait for that.
const PAUSE_WRITES_MAX: u64 = 256;

pub(super) struct Shared {
    pub(super) local: Arc<dyn LocalStore>,
    pub(super) committer: Committer,
    pub(super) bound: Bound,
    pub(super) state: Mutex<State>,
    /// Something landed, or all has ended.
    pub(super) moved: Condvar,
    /// There is something to do for the sender, which alone waits for it.
    pub(super) work: Condvar,
    pub(super) env: Env,
}

pub(super) struct State {
    pub(super) epoch: u64,
    pub(super) head: HeadState,
    pub(super) values: u64,
    pub(super) acknowledged: u64,
    pub(super) last_error: Option<Error>,
    pub(super) fenced: Option<Error>,
    pub(super) ending: Option<End>,
    waiters: Vec<Waiter>,
    /// The sender waits for anything at all.
    idle: bool,
    /// Somebody waits until this write is on the server.
    asked: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At once.
    Stop,
    /// Once all is on the server, whose head then says so.
    Release,
}

/// Somebody who waits in no thread.
struct Waiter {
    goal: Goal,
    tell: oneshot::Sender<Result<()>>,
}

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The server has this write.
    Acknowledged(u64),
    /// No more than the bound waits.
    Room,
    /// Nothing: the end alone.
    End,
}

impl State {
    pub(super) fn of(sender: &Sender) -> State {
        let head = &sender.held.head;
        State {
            epoch: head.epoch,
            head: head.state,
            values: head.sum.count,
            acknowledged: head.seq,
            last_error: None,
            fenced: None,
            ending: None,
            waiters: Vec::new(),
            idle: false,
            asked: 0,
        }
    }

    fn landed(&mut self, sender: &Sender) {
        let head = &sender.held.head;
        (self.epoch, self.head, self.values) = (head.epoch, head.state, head.sum.count);
        self.acknowledged = head.seq;
        self.last_error = None;
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the sender, where what was committed is something for it.
    pub(super) fn wake(&self) {
        // If it looks before this, it sees what has changed; if after it, it is woken.
        let idle = self.state().idle;
        if idle || self.is_urgent() {
            self.work.notify_one();
        }
    }

    /// Whether somebody waits for the server, or much waits.
    fn is_urgent(&self) -> bool {
        self.committer.is_waited_for()
            || self.committer.waiting().0 >= PAUSE_WRITES_MAX
            || self.is_over()
    }

    /// The sender does not pause before this write is on the server.
    pub(super) fn ask(&self, seq: u64) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.asked = state.asked.max(seq);
        self.work.notify_one();
        state
    }

    fn is_over(&self) -> bool {
        let (writes, bytes) = self.committer.waiting();
        writes >= self.bound.writes || bytes >= self.bound.bytes
    }

    /// Waits until no more than the bound waits for the server.
    pub(super) fn room(&self) -> Result<()> {
        let full =
            |state: &mut State| self.is_over() && state.fenced.is_none() && state.ending.is_none();
        let state =
            self.moved.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        check_open(&state)
    }

    pub(super) fn wait_for(&self, seq: u64) -> Result<()> {
        let waits = |state: &mut State| {
            state.acknowledged < seq && state.fenced.is_none() && state.ending != Some(End::Stop)
        };
        let state =
            self.moved.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
        if state.acknowledged >= seq {
            return Ok(());
        }
        check_open(&state)
    }

    /// Whether writes are taken.
    pub(super) fn open(&self) -> Result<()> {
        check_open(&self.state())
    }

    /// Told once `goal` is reached, or never will be.
    pub(super) fn reached(&self, goal: Goal) -> oneshot::Receiver<Result<()>> {
        let (tell, told) = oneshot::channel();
        let mut state = self.state();
        state.waiters.push(Waiter { goal, tell });
        self.tell(&mut state);
        told
    }

    /// What a write waits for once it is committed here.
    pub(super) fn goal(&self, committed: &Committed) -> Goal {
        match committed.remote_first {
            true => Goal::Acknowledged(committed.seq),
            false => Goal::Room,
        }
    }

    /// Tells those whose goal is reached, and all where none will be.
    fn tell(&self, state: &mut State) {
        let over = self.is_over();
        let ended = state.fenced.is_some() || state.ending == Some(End::Stop);
        let mut waiters = std::mem::take(&mut state.waiters);
        waiters.retain_mut(|waiter| !waiter.tell.is_canceled());
        for waiter in waiters {
            let reached = match waiter.goal {
                Goal::Acknowledged(seq) => state.acknowledged >= seq,
                Goal::Room => !over,
                Goal::End => false,
            };
            let outcome = match (reached, ended) {
                (true, _) => Ok(()),
                (false, true) => check_open(state),
                (false, false) => {
                    state.waiters.push(waiter);
                    continue;
                }
            };
            // Who waited may have gone.
            let _ = waiter.tell.send(outcome);
        }
    }

    /// Asks for the end.
    pub(super) fn end(&self, end: End) {
        let mut state = self.state();
        // What has ended does not begin to end again.
        if state.ending != Some(End::Stop) {
            state.ending = Some(end);
        }
        if end == End::Stop {
            self.tell(&mut state);
        }
        drop(state);
        self.moved.notify_all();
        self.work.notify_one();
    }

    /// The sender's thread.
    pub(super) fn send(&self, mut sender: Sender) -> Result<()> {
        let ended = self.send_until_the_end(&mut sender);
        let mut state = self.state();
        match &ended {
            Err(error) if error.kind() == Kind::Fenced => state.fenced = Some(error.clone()),
            Err(error) => state.last_error = Some(error.clone()),
            Ok(()) => {}
        }
        // No write gets through any more.
        state.ending = Some(End::Stop);
        self.tell(&mut state);
        drop(state);
        self.moved.notify_all();
        ended
    }

    fn send_until_the_end(&self, sender: &mut Sender) -> Result<()> {
        let mut pause = RETRY_FIRST;
        loop {
            let (ending, seen) = (self.state().ending, self.committer.seq());
            match ending {
                Some(End::Stop) => return Ok(()),
                Some(End::Release) => sender.carried = None,
                None => {}
            }
            let begun = self.env.monotonic();
            match sender.step()? {
                Step::Landed(writes, bytes) => {
                    pause = RETRY_FIRST;
                    let told = self.landed(sender, writes, bytes);
                    let took = self.env.monotonic().saturating_sub(begun);
                    match told {
                        0 => self.pause(took),
                        told => self.gather(told, took),
                    }
                }
                Step::Idle if ending == Some(End::Release) => {
                    sender.release()?;
                    self.landed(sender, 0, 0);
                    return Ok(());
                }
                Step::Idle => {
                    let idle = |state: &mut State| {
                        state.ending.is_none() && self.committer.seq() <= sender.held.head.seq
                    };
                    let mut state = self.state();
                    state.idle = true;
                    let waited = self.work.wait_while(state, idle);
                    waited.unwrap_or_else(PoisonError::into_inner).idle = false;
                }
                Step::Held(left) => {
                    self.state().idle = true;
                    self.wait(left, |_| self.committer.seq() == seen);
                    self.state().idle = false;
                }
                Step::Uncertain(error) if ending.is_some() => return Err(error),
                Step::Uncertain(error) => {
                    self.state().last_error = Some(error);
                    self.wait(pause, |_| true);
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Waits at most for the given time, while `stays`, and while nobody asks for the end.
    fn wait(&self, wait: Duration, stays: impl Fn(&State) -> bool) {
        let waits = |state: &mut State| state.ending.is_none() && stays(state);
        let waited = self.work.wait_timeout_while(self.state(), wait, waits);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets those who were told just now write again before the next put: else two halves of them take
    /// turns, and each waits for the put of the other one, too.
    fn gather(&self, told: u64, took: Duration) {
        let all = self.committer.waiting().0 + told;
        let wait = (took / GATHER_SHARE).min(GATHER_MAX);
        self.wait(wait, |_| self.committer.waiting().0 < all);
    }

    /// Lets more come together for the next put, while nobody waits for it.
    fn pause(&self, took: Duration) {
        let calm = |state: &State| !self.is_urgent() && state.asked <= state.acknowledged;
        self.wait(PAUSE.saturating_sub(took), calm);
    }

    /// How many keys waited for it.
    fn landed(&self, sender: &Sender, writes: u64, bytes: u64) -> u64 {
        self.committer.sent(writes, bytes);
        let told = self.committer.settle(sender.held.head.seq);
        let mut state = self.state();
        state.landed(sender);
        self.tell(&mut state);
        drop(state);
        self.moved.notify_all();
        told
    }
}

/// Whether writes are still taken.
pub(super) fn check_open(state: &State) -> Result<()> {
    if let Some(why) = &state.fenced {
        return Err(why.clone().with_remedy("stop this node, which must not act any more"));
    }
    match state.ending {
        None => Ok(()),
        Some(_) => Err(match &state.last_error {
            Some(error) => error.clone().with_kind(Kind::Unavailable),
            None => Error::unavailable("the replica has ended"),
        }),
    }
}
