//! Commits of many threads in one transaction: the line in which they wait for their turn, and what of it the
//! server does not have yet. Without a lock of its own: it is a part of what [`super::shared`] locks.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use futures::channel::oneshot;
use highwater::Result;
use highwater::env::Env;

use super::book::{Queued, Way, seq_op};
use super::class::{Class, Classes};
use super::local::{Op, Space};
use super::sync::Condvar;
use super::write::Write;

/// Commits of one local store, in one order.
pub(super) struct Line {
    waiting: Vec<Asked>,
    /// Somebody writes for others.
    busy: bool,
    /// The last number given, whatever became of its transaction: no number is given twice.
    given: u64,
    /// The last number of a transaction that is known to be durable here.
    written: u64,
    /// Writes in the queue, and their bytes. They are counted before anybody can send them.
    pending: (u64, u64),
    /// Keys whose last write waits for the server before it is seen here, and its number.
    unseen: HashMap<Vec<u8>, u64>,
}

/// A transaction that waits for its turn.
pub(super) struct Asked {
    writes: Vec<Write>,
    lazy: bool,
    /// One of its keys is remote-first, and it is not lazy.
    asks: bool,
    /// Writes of it that are replicated, and their bytes.
    replicated: (u64, u64),
    by: By,
}

/// Who is told.
pub(super) enum By {
    /// A thread, which waits there.
    Thread(Arc<Slot>),
    /// Nobody, perhaps: who submitted it may have gone.
    Future(oneshot::Sender<Outcome>),
}

/// Where one thread waits: for its outcome, or for its turn to write.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) moved: Condvar,
    /// Set under the lock, which those who wait for it hold when they look.
    outcome: OnceLock<Outcome>,
}

impl Slot {
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }
}

/// What each writer of a common transaction learns.
pub(super) type Outcome = Result<Committed>;

/// What was committed for one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    /// The last of its writes that is replicated; 0 where none is.
    pub(super) seq: u64,
    /// Whether it must wait until the server has that.
    pub(super) remote_first: bool,
}

impl Asked {
    /// What can be known of a transaction before its turn. Lazy ones are never waited for, whatever their class.
    pub(super) fn new(writes: Vec<Write>, lazy: bool, by: By, classes: &Classes) -> Asked {
        let class = |write: &Write| classes.of(&write.key);
        let asks = !lazy && writes.iter().any(|write| class(write) == Class::RemoteFirst);
        let sent = writes.iter().filter(|write| class(write) != Class::LocalOnly);
        let bytes =
            |write: &Write| (write.key.len() + write.value.as_ref().map_or(0, Vec::len)) as u64;
        let replicated = sent.fold((0, 0), |(writes, all), write| (writes + 1, all + bytes(write)));
        Asked { writes, lazy, asks, replicated, by }
    }
}

/// Transactions that are committed in one.
pub(super) struct Batch {
    transactions: Vec<Numbered>,
    /// The last number that it uses.
    seq: u64,
}

/// A transaction whose writes have numbers.
struct Numbered {
    writes: Vec<Write>,
    /// The number before its first one.
    after: u64,
    way: Way,
    replicated: (u64, u64),
    committed: Committed,
    by: By,
}

/// Who is told of a batch once the lock is given up.
#[must_use]
pub(super) struct Done {
    threads: Vec<Arc<Slot>>,
    futures: Vec<(oneshot::Sender<Outcome>, Outcome)>,
}

impl Done {
    pub(super) fn tell(self) {
        self.threads.iter().for_each(|slot| slot.moved.notify_one());
        // Who asked may have gone; the write stays.
        self.futures.into_iter().for_each(|(tell, outcome)| drop(tell.send(outcome)));
    }
}

impl Line {
    /// `last`: the last number given; `pending`: what waits for the server.
    pub(super) fn new(last: u64, pending: (u64, u64)) -> Line {
        Line {
            waiting: Vec::new(),
            busy: false,
            given: last,
            written: last,
            pending,
            unseen: HashMap::new(),
        }
    }

    /// The last write that is durable here.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The last number given.
    #[cfg(test)]
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Writes that wait for the server, and their bytes.
    pub(super) fn pending(&self) -> (u64, u64) {
        self.pending
    }

    /// Whether somebody writes for others.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether nothing waits for its turn.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a write waits for the server that is not seen here before.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Takes a place, for good.
    pub(super) fn push(&mut self, asked: Asked) {
        self.waiting.push(asked);
    }

    /// Who comes next.
    pub(super) fn next(&self) -> Option<&By> {
        self.waiting.first().map(|asked| &asked.by)
    }

    /// This many no longer wait for the server.
    pub(super) fn sent(&mut self, (writes, bytes): (u64, u64)) {
        let (all, all_bytes) = self.pending;
        self.pending = (all.saturating_sub(writes), all_bytes.saturating_sub(bytes));
    }

    /// Writes up to this one are seen here; how many keys that waited for it.
    pub(super) fn settle(&mut self, seq: u64) -> u64 {
        let before = self.unseen.len();
        self.unseen.retain(|_, last| *last > seq);
        (before - self.unseen.len()) as u64
    }

    /// Gives numbers to all that wait; nobody else writes until [`Line::done`]. No value is copied here.
    pub(super) fn take(&mut self, classes: &Classes) -> Batch {
        self.busy = true;
        let mut seq = self.given;
        let waiting = std::mem::take(&mut self.waiting);
        let transactions = waiting.into_iter().map(|asked| self.number(asked, classes, &mut seq));
        Batch { transactions: transactions.collect(), seq }
    }

    fn number(&mut self, asked: Asked, classes: &Classes, seq: &mut u64) -> Numbered {
        let Asked { writes, lazy, asks, replicated, by } = asked;
        // Writes of one transaction become visible together: where one of them waits for the server, all
        // do. And what is written over a value that still waits for it must not be seen before that one.
        let remote_first = asks || writes.iter().any(|write| self.unseen.contains_key(&write.key));
        let after = *seq;
        *seq += replicated.0;
        if remote_first {
            let sent = writes.iter().filter(|write| classes.of(&write.key) != Class::LocalOnly);
            self.unseen.extend(sent.map(|write| write.key.clone()).zip(after + 1..));
        }
        self.pending = (self.pending.0 + replicated.0, self.pending.1 + replicated.1);
        Numbered {
            writes,
            after,
            way: if remote_first { Way::RemoteFirst } else { Way::LocalFirst },
            replicated,
            committed: Committed {
                seq: if replicated.0 == 0 { 0 } else { *seq },
                remote_first: remote_first && !lazy,
            },
            by,
        }
    }

    /// What became of a batch; the next one may be taken.
    pub(super) fn done(&mut self, batch: Batch, written: &Result<()>) -> Done {
        self.given = batch.seq;
        if written.is_ok() {
            self.written = batch.seq;
        }
        let mut done = Done { threads: Vec::new(), futures: Vec::new() };
        for Numbered { replicated, committed, by, .. } in batch.transactions {
            if written.is_err() {
                self.sent(replicated);
            }
            let outcome = written.clone().map(|()| committed);
            match by {
                By::Thread(slot) => {
                    // Only one batch has it.
                    let _ = slot.outcome.set(outcome);
                    done.threads.push(slot);
                }
                By::Future(tell) => done.futures.push((tell, outcome)),
            }
        }
        self.busy = false;
        done
    }
}

impl Batch {
    /// The steps of the one transaction; the writes are gone then.
    pub(super) fn ops(&mut self, classes: &Classes, env: &Env) -> Vec<Op> {
        let mut ops = Vec::new();
        self.transactions.iter_mut().for_each(|numbered| numbered.ops(classes, env, &mut ops));
        ops.push(seq_op(self.seq));
        ops
    }
}

impl Numbered {
    fn ops(&mut self, classes: &Classes, env: &Env, ops: &mut Vec<Op>) {
        let (mut seq, last) = (self.after, self.after + self.replicated.0);
        for Write { key, value } in std::mem::take(&mut self.writes) {
            if classes.of(&key) == Class::LocalOnly {
                ops.push(Op { space: Space::Data, key, value });
                continue;
            }
            seq += 1;
            let (way, more) = (self.way, seq < last);
            let queued = Queued { seq, way, at: env.now(), key, value, more };
            ops.push(queued.op());
            if way == Way::LocalFirst {
                ops.push(Op { space: Space::Data, key: queued.key, value: queued.value });
            }
        }
    }
}
