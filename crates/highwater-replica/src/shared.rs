//! What a store, its sender and those who wait for it share: one state under one lock.
//!
//! # Locks
//!
//! A store has one lock, [`Shared::state`], and each wait gives it up. No thread takes another lock under it:
//! the node's store, the server, the clock and the wakers of futures, which have locks of their own, are
//! called once it is given up. So there is no order to keep but this: `state` first and alone, or none.
//! `tests/schedules` holds store and server to it.
//!
//! What goes on outside of the lock is kept apart by two things that stand under it. `busy`, in [`Line`],
//! belongs to the one thread that writes to the node's store for all that wait in line; who comes meanwhile
//! waits for the next turn. The [`Sender`] belongs to the one thread that sends.
//!
//! | who waits | on | until | notified by |
//! |---|---|---|---|
//! | a thread that commits | its [`Slot`] | it has its outcome, or nobody writes | who has written: all that it wrote for, and who comes next |
//! | the thread that leads for futures | `submitted` | a future is in line and nobody writes, or all ends | a submission, who has written, the end |
//! | the sender | `work` | there is something to send, or all ends | who has written, a flush, the end |
//! | a thread that waits for the server | `moved` | its write is there, there is room, or all ends | the sender, the end |
//!
//! Who makes a change that somebody waits for notifies once it is made: whoever looked before it waits by
//! then, and whoever looks later sees it.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use highwater::env::Env;
use highwater::{Error, Kind, Result};

use super::book::Book;
use super::class::Classes;
use super::commit::{Asked, By, Committed, Line, Outcome, Slot};
use super::head::HeadState;
use super::sender::{Sender, Step};
use super::sync::{Condvar, Guard, JoinHandle, Lock};
use super::write::{Bound, Write};

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
    pub(super) book: Book,
    classes: Classes,
    bound: Bound,
    env: Env,
    /// All that changes. The documentation of this file says what may be done under it.
    state: Lock<State>,
    /// Something landed, or all has ended.
    moved: Condvar,
    /// There is something to do for the sender, which alone waits for it.
    work: Condvar,
    /// Something was submitted that nobody waits for in a thread, or all has ended.
    submitted: Condvar,
}

pub(super) struct State {
    pub(super) line: Line,
    pub(super) epoch: u64,
    pub(super) head: HeadState,
    pub(super) values: u64,
    pub(super) acknowledged: u64,
    pub(super) last_error: Option<Error>,
    pub(super) fenced: Option<Error>,
    /// Nothing is taken any more where it is set.
    ending: Option<End>,
    threads: Option<Threads>,
    waiters: Vec<Waiter>,
    /// The sender waits for anything at all.
    idle: bool,
    /// Somebody waits until this write is on the server.
    asked: u64,
}

/// What sends, and what commits for those who wait in no thread.
pub(super) type Threads = (JoinHandle<Result<()>>, JoinHandle<()>);

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

/// Those who wait in no thread and are told once the lock is given up.
#[must_use]
struct Told(Vec<(oneshot::Sender<Result<()>>, Result<()>)>);

impl Told {
    fn tell(self) {
        // Who waited may have gone.
        self.0.into_iter().for_each(|(tell, outcome)| drop(tell.send(outcome)));
    }
}

impl State {
    fn landed(&mut self, sender: &Sender) {
        let head = &sender.held.head;
        (self.epoch, self.head, self.values) = (head.epoch, head.state, head.sum.count);
        self.acknowledged = head.seq;
        self.last_error = None;
    }

    /// Whether writes are still taken.
    fn check_open(&self) -> Result<()> {
        if let Some(why) = &self.fenced {
            return Err(why.clone().with_remedy("stop this node, which must not act any more"));
        }
        match self.ending {
            None => Ok(()),
            Some(_) => Err(match &self.last_error {
                Some(error) => error.clone().with_kind(Kind::Unavailable),
                None => Error::unavailable("the replica has ended"),
            }),
        }
    }

    /// Nothing reaches the server any more.
    fn is_ended(&self) -> bool {
        self.fenced.is_some() || self.ending == Some(End::Stop)
    }

    /// Nobody writes here, and nobody is about to.
    fn is_still(&self) -> bool {
        self.line.is_empty() && !self.line.is_busy()
    }
}

/// Opening, and the end.
impl Shared {
    /// What waits is counted in the node's store.
    ///
    /// # Errors
    /// What the local store says.
    pub(super) fn new(
        book: Book,
        classes: Classes,
        bound: Bound,
        env: Env,
        sender: &Sender,
    ) -> Result<Shared> {
        let (last, writes, bytes) = book.waiting()?;
        let head = &sender.held.head;
        let state = State {
            // Numbers of writes that were undone are given again: none of them is anywhere.
            line: Line::new(last.max(head.seq), (writes, bytes)),
            epoch: head.epoch,
            head: head.state,
            values: head.sum.count,
            acknowledged: head.seq,
            last_error: None,
            fenced: None,
            ending: None,
            threads: None,
            waiters: Vec::new(),
            idle: false,
            asked: 0,
        };
        let (moved, work, submitted) = Default::default();
        Ok(Shared { book, classes, bound, env, state: Lock::new(state), moved, work, submitted })
    }

    pub(super) fn state(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// Asks for the end, and hands out the threads that end then: to whoever asks first.
    pub(super) fn end(&self, end: End) -> Option<Threads> {
        let mut state = self.state.lock();
        let threads = state.threads.take()?;
        self.set_ending(state, end);
        Some(threads)
    }

    pub(super) fn set_threads(&self, threads: Threads) {
        self.state.lock().threads = Some(threads);
    }

    /// Ends what has no threads to wait for.
    pub(super) fn abandon(&self) {
        self.set_ending(self.state.lock(), End::Stop);
    }

    fn set_ending(&self, mut state: Guard<'_, State>, end: End) {
        // What has ended does not begin to end again.
        if state.ending != Some(End::Stop) {
            state.ending = Some(end);
        }
        let told = self.told(&mut state);
        drop(state);
        self.moved.notify_all();
        self.work.notify_one();
        self.submitted.notify_one();
        told.tell();
    }
}

/// Commits here.
impl Shared {
    /// Commits writes as one transaction, perhaps together with those of others: durable here when it
    /// returns. Waits before that until no more than the bound waits for the server.
    pub(super) fn commit(&self, writes: Vec<Write>, lazy: bool) -> Outcome {
        let slot = Arc::<Slot>::default();
        let asked = Asked::new(writes, lazy, By::Thread(Arc::clone(&slot)), &self.classes);
        let full = |state: &mut State| self.is_over(state) && state.check_open().is_ok();
        let mut state = self.state.wait_while(self.state.lock(), &self.moved, full);
        state.check_open()?;
        state.line.push(asked);
        loop {
            if let Some(outcome) = slot.outcome() {
                return outcome.clone();
            }
            if state.line.is_busy() {
                let waits = |state: &mut State| state.line.is_busy() && slot.outcome().is_none();
                state = self.state.wait_while(state, &slot.moved, waits);
                continue;
            }
            self.write_for_all(state);
            state = self.state.lock();
        }
    }

    /// The same, whose place among all writes is fixed when this returns; the outcome follows, where
    /// [`Shared::lead`] runs. The bound is not waited for.
    pub(super) fn submit(
        &self,
        writes: Vec<Write>,
        lazy: bool,
    ) -> Result<oneshot::Receiver<Outcome>> {
        let (tell, told) = oneshot::channel();
        let asked = Asked::new(writes, lazy, By::Future(tell), &self.classes);
        let mut state = self.state.lock();
        state.check_open()?;
        state.line.push(asked);
        let busy = state.line.is_busy();
        drop(state);
        // Who is busy looks at the line afterwards.
        if !busy {
            self.submitted.notify_one();
        }
        Ok(told)
    }

    /// The thread that commits what was submitted, until all ends.
    pub(super) fn lead(&self) {
        let idle = |state: &mut State| {
            state.line.is_busy() || (state.line.is_empty() && state.ending.is_none())
        };
        loop {
            let state = self.state.wait_while(self.state.lock(), &self.submitted, idle);
            if state.line.is_empty() {
                return;
            }
            self.write_for_all(state);
        }
    }

    /// Writes all that is in line; nobody else does meanwhile.
    fn write_for_all(&self, mut state: Guard<'_, State>) {
        let mut batch = state.line.take(&self.classes);
        drop(state);
        let mut ops = batch.ops(&self.classes, &self.env);
        let written = self.book.follow(&mut ops).and_then(|()| self.book.local.write(&ops));
        let mut state = self.state.lock();
        let done = state.line.done(batch, &written);
        // One of those who came meanwhile writes for all of them.
        let (slot, submitted) = match state.line.next() {
            Some(By::Thread(slot)) => (Some(Arc::clone(slot)), false),
            Some(By::Future(_)) => (None, true),
            None => (None, state.ending.is_some()),
        };
        let work = state.idle || self.is_urgent(&state);
        drop(state);
        done.tell();
        slot.iter().for_each(|slot| slot.moved.notify_one());
        if submitted {
            self.submitted.notify_one();
        }
        if work {
            self.work.notify_one();
        }
    }
}

/// Waiting for the server.
impl Shared {
    fn is_over(&self, state: &State) -> bool {
        let (writes, bytes) = state.line.pending();
        writes >= self.bound.writes || bytes >= self.bound.bytes
    }

    /// Whether somebody waits for the server, or much waits.
    fn is_urgent(&self, state: &State) -> bool {
        state.line.is_waited_for()
            || state.line.pending().0 >= PAUSE_WRITES_MAX
            || self.is_over(state)
    }

    /// Waits until the server has this write.
    pub(super) fn wait_for(&self, seq: u64) -> Result<()> {
        let waits = |state: &mut State| state.acknowledged < seq && !state.is_ended();
        let state = self.state.wait_while(self.state.lock(), &self.moved, waits);
        if state.acknowledged >= seq { Ok(()) } else { state.check_open() }
    }

    /// Waits until the server has all that was written before.
    pub(super) fn flush(&self, wait: Duration) -> Result<()> {
        let mut state = self.state.lock();
        let goal = state.line.written();
        // The sender does not pause before that is on the server.
        state.asked = state.asked.max(goal);
        self.work.notify_one();
        let waits = |state: &mut State| state.acknowledged < goal && !state.is_ended();
        let state = self.state.wait_at_most(state, &self.moved, wait, waits);
        if let Some(why) = &state.fenced {
            return Err(why.clone());
        }
        if state.acknowledged < goal {
            let writes = state.line.pending().0;
            let error = state.last_error.clone().or_else(|| state.check_open().err());
            let error = error.unwrap_or_else(|| Error::unavailable("it takes long"));
            let told = error.told_as(|why| format!("{writes} writes still wait: {why}"));
            // Whatever keeps them: it may pass.
            return Err(told.with_kind(Kind::Unavailable));
        }
        Ok(())
    }

    /// Told once `goal` is reached, or never will be.
    pub(super) fn reached(&self, goal: Goal) -> oneshot::Receiver<Result<()>> {
        let (tell, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        state.waiters.push(Waiter { goal, tell });
        let told = self.told(&mut state);
        drop(state);
        told.tell();
        receiver
    }

    /// What a write waits for once it is committed here.
    pub(super) fn goal(&self, committed: &Committed) -> Goal {
        match committed.remote_first {
            true => Goal::Acknowledged(committed.seq),
            false => Goal::Room,
        }
    }

    /// Those whose goal is reached, and all where none will be.
    fn told(&self, state: &mut State) -> Told {
        let over = self.is_over(state);
        let mut told = Vec::new();
        let mut waiters = std::mem::take(&mut state.waiters);
        waiters.retain_mut(|waiter| !waiter.tell.is_canceled());
        for waiter in waiters {
            let reached = match waiter.goal {
                Goal::Acknowledged(seq) => state.acknowledged >= seq,
                Goal::Room => !over,
                Goal::End => false,
            };
            match (reached, state.is_ended()) {
                (true, _) => told.push((waiter.tell, Ok(()))),
                (false, true) => told.push((waiter.tell, state.check_open())),
                (false, false) => state.waiters.push(waiter),
            }
        }
        Told(told)
    }
}

/// The sender's thread.
impl Shared {
    /// Sends until the end.
    pub(super) fn send(&self, mut sender: Sender) -> Result<()> {
        let ended = self.send_until_the_end(&mut sender);
        let mut state = self.state.lock();
        match &ended {
            Err(error) if error.kind() == Kind::Fenced => state.fenced = Some(error.clone()),
            Err(error) => state.last_error = Some(error.clone()),
            Ok(()) => {}
        }
        // No write gets through any more.
        self.set_ending(state, End::Stop);
        ended
    }

    fn send_until_the_end(&self, sender: &mut Sender) -> Result<()> {
        let mut pause = RETRY_FIRST;
        loop {
            let state = self.state.lock();
            let (ending, seen) = (state.ending, state.line.written());
            drop(state);
            match ending {
                Some(End::Stop) => return Ok(()),
                Some(End::Release) => sender.carried = None,
                None => {}
            }
            let begun = self.env.monotonic();
            match sender.step()? {
                Step::Landed(writes, bytes) => {
                    pause = RETRY_FIRST;
                    let all = self.landed(sender, (writes, bytes));
                    self.gather(all, self.env.monotonic().saturating_sub(begun));
                }
                Step::Idle if self.is_all_sent(sender.held.head.seq) => {
                    sender.release()?;
                    self.landed(sender, (0, 0));
                    return Ok(());
                }
                Step::Idle => {}
                Step::Held(left) => {
                    let mut state = self.state.lock();
                    state.idle = true;
                    self.wait(state, left, |state| state.line.written() == seen).idle = false;
                }
                Step::Uncertain(error) if ending.is_some() => return Err(error),
                Step::Uncertain(error) => {
                    let mut state = self.state.lock();
                    state.last_error = Some(error);
                    drop(self.wait(state, pause, |_| true));
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// What a put means for those who wait. How many writes wait for the server once those that waited for
    /// this one have written again; none where nobody waited for it.
    pub(super) fn landed(&self, sender: &Sender, sent: (u64, u64)) -> Option<u64> {
        let mut state = self.state.lock();
        state.line.sent(sent);
        let waited = state.line.settle(sender.held.head.seq);
        state.landed(sender);
        let all = state.line.pending().0 + waited;
        let told = self.told(&mut state);
        drop(state);
        self.moved.notify_all();
        told.tell();
        (waited > 0).then_some(all)
    }

    /// Lets more come together for the next put. Those who were told just now write again: else two halves of
    /// them take turns, and each waits for the put of the other one, too.
    fn gather(&self, all: Option<u64>, took: Duration) {
        let calm = |state: &State| !self.is_urgent(state) && state.asked <= state.acknowledged;
        let state = self.state.lock();
        drop(match all {
            Some(all) => {
                let wait = (took / GATHER_SHARE).min(GATHER_MAX);
                self.wait(state, wait, |state| state.line.pending().0 < all)
            }
            None => self.wait(state, PAUSE.saturating_sub(took), calm),
        });
    }

    /// Waits at most for the given time, while `stays`, and while nobody asks for the end.
    fn wait<'a>(
        &'a self,
        state: Guard<'a, State>,
        wait: Duration,
        stays: impl Fn(&State) -> bool,
    ) -> Guard<'a, State> {
        let waits = |state: &mut State| state.ending.is_none() && stays(state);
        self.state.wait_at_most(state, &self.work, wait, waits)
    }

    /// Waits until something is written behind `sent`, or all ends. Whether the store can be released: nothing
    /// is behind it, and nothing will be.
    fn is_all_sent(&self, sent: u64) -> bool {
        let idle = |state: &mut State| {
            let stays = match state.ending {
                None => true,
                // What had a place before the end was asked for is written yet.
                Some(End::Release) => !state.is_still(),
                Some(End::Stop) => false,
            };
            stays && state.line.written() <= sent
        };
        let mut state = self.state.lock();
        state.idle = true;
        let mut state = self.state.wait_while(state, &self.work, idle);
        state.idle = false;
        state.ending == Some(End::Release) && state.is_still() && state.line.written() <= sent
    }
}
