//! Group commit: callers stand in line, the first of them leads and puts one record for a batch.
//!
//! The order of things: what is put is in doubt first, then known. So whatever fails, or panics,
//! in between, the next leader begins by reading back.

use std::collections::{BTreeMap, VecDeque};

use crate::error::{Error, Result};
use crate::ids::{PutId, Time};
use crate::vault::witness::WitnessRecord;

use super::change::Change;
use super::{PUT_TRIES_MAX, Raised, Witness, passes, pause_before, unreachable_witness};

/// How many callers one record answers at most.
const BATCH_MAX: usize = 1024;

/// What all callers share.
pub(super) struct Line {
    /// The newest record of ours that is known to stand.
    pub(super) recorded: WitnessRecord,
    /// The one behind it, where it was put and nobody knows whether it stands.
    doubt: Option<WitnessRecord>,
    /// Who has taken the witness over from us.
    pub(super) deposed: Option<(String, Time)>,
    pub(super) waiting: VecDeque<(u64, Change)>,
    answers: BTreeMap<u64, Result<Raised>>,
    next_ticket: u64,
    led: bool,
}

impl Line {
    pub(super) fn new(recorded: WitnessRecord) -> Line {
        Line {
            recorded,
            doubt: None,
            deposed: None,
            waiting: VecDeque::new(),
            answers: BTreeMap::new(),
            next_ticket: 0,
            led: false,
        }
    }
}

/// The leader's time. It ends also where the store panics: the others must not wait for ever.
struct Lead<'a> {
    witness: &'a Witness,
    tickets: Vec<u64>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut line = self.witness.line();
        line.led = false;
        for &ticket in &self.tickets {
            let panicked = || Err(Error::bug("the store of the witness panicked"));
            line.answers.entry(ticket).or_insert_with(panicked);
        }
        self.witness.moved.notify_all();
    }
}

impl Witness {
    /// Stands in line, leads where nobody does, and returns with the answer.
    pub(super) fn submit(&self, change: Change) -> Result<Raised> {
        let mut line = self.line();
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.waiting.push_back((ticket, change));
        loop {
            if let Some(answer) = line.answers.remove(&ticket) {
                return answer;
            }
            if line.led {
                self.moved.wait(&mut line);
                continue;
            }
            line.led = true;
            drop(line);
            self.lead();
            line = self.line();
        }
    }

    /// Answers the first callers in line with one record.
    fn lead(&self) {
        let mut line = self.line();
        let batch: Vec<(u64, Change)> = {
            let end = line.waiting.len().min(BATCH_MAX);
            line.waiting.drain(..end).collect()
        };
        drop(line);
        let tickets: Vec<u64> = batch.iter().map(|(ticket, _)| *ticket).collect();
        let lead = Lead { witness: self, tickets: tickets.clone() };
        let answers = match self.settle().and_then(|()| self.commit(batch)) {
            Ok(answers) => answers,
            Err(error) => tickets.iter().map(|&ticket| (ticket, Err(error.clone()))).collect(),
        };
        self.line().answers.extend(answers);
        drop(lead);
    }

    /// Settles what an earlier leader left in doubt: it stands, or is put again as it was.
    fn settle(&self) -> Result<()> {
        let doubt = {
            let line = self.line();
            if let Some(deposed) = &line.deposed {
                return Err(self.fenced(deposed));
            }
            line.doubt.clone()
        };
        let Some(doubt) = doubt else { return Ok(()) };
        if self.stands(&doubt).map_err(|error| unreachable_witness(&self.node, error))? {
            self.record_known(doubt);
            return Ok(());
        }
        self.place(doubt)
    }

    /// Changes the record by all of `batch` and puts it, unless nothing changes.
    fn commit(&self, batch: Vec<(u64, Change)>) -> Result<Vec<(u64, Result<Raised>)>> {
        let recorded = self.record();
        let mut next = recorded.clone();
        let answers =
            batch.into_iter().map(|(ticket, change)| (ticket, change.apply(&mut next))).collect();
        if next != recorded {
            next.number += 1;
            next.put = PutId::random(&self.env)?;
            self.line().doubt = Some(next.clone());
            self.place(next)?;
        }
        Ok(answers)
    }

    /// Puts `next`, which is in doubt, until it is known to stand.
    fn place(&self, next: WitnessRecord) -> Result<()> {
        let document = next.to_bytes()?;
        let mut failure = None;
        for attempt in 0..PUT_TRIES_MAX {
            if failure.is_some() {
                self.env.pause(pause_before(attempt));
            }
            failure = match self.store.put_new(next.number, &document) {
                Ok(true) => {
                    self.record_known(next);
                    return Ok(());
                }
                Ok(false) => None,
                Err(error) => Some(error),
            };
            // Refused or failed, it may be there: the answer to an earlier try was lost.
            match self.stands(&next) {
                Ok(true) => {
                    self.record_known(next);
                    return Ok(());
                }
                Ok(false) if failure.as_ref().is_none_or(|error| passes(error.kind())) => {}
                Ok(false) => break,
                Err(error) if passes(error.kind()) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        let failure = failure.unwrap_or_else(|| Error::unavailable("it takes no record"));
        Err(unreachable_witness(&self.node, failure))
    }

    /// Asks the witness whether this start still owns it: for a message that moves no number, such as
    /// the first word of a session, or our own commitment.
    ///
    /// # Errors
    /// Fenced where another start has taken it over; unavailable where it can't be reached.
    pub fn confirm(&self) -> Result<()> {
        let newest = Witness::look(&*self.store, &self.node)
            .map_err(|error| unreachable_witness(&self.node, error))?;
        let mut line = self.line();
        match newest {
            _ if line.deposed.is_some() => {}
            Some(newest) if newest.epoch > self.epoch => {
                line.deposed = Some((newest.holder, newest.since));
            }
            Some(newest) if newest.epoch == self.epoch => return Ok(()),
            _ => {
                return Err(Error::corrupt(
                    "the witness has forgotten that this start took it over",
                )
                .with_entry(self.node.to_string())
                .with_remedy("put back what its store has lost"));
            }
        }
        let deposed = line.deposed.clone().expect("it was found, or known");
        Err(self.fenced(&deposed))
    }

    fn record_known(&self, record: WitnessRecord) {
        let mut line = self.line();
        line.recorded = record;
        line.doubt = None;
    }

    /// Whether `next` is the newest record; else the one before it is. Fenced, from now on, where
    /// it is neither: a copy of this very process would put the same numbers, but not the same put.
    fn stands(&self, next: &WitnessRecord) -> Result<bool> {
        let newest = Witness::look(&*self.store, &self.node)?;
        let mut line = self.line();
        match newest {
            Some(newest) if newest == *next => Ok(true),
            Some(newest) if newest == line.recorded => Ok(false),
            Some(newest) if newest.number >= line.recorded.number => {
                let deposed = (newest.holder, newest.since);
                let error = self.fenced(&deposed);
                line.deposed = Some(deposed);
                Err(error)
            }
            _ => Err(Error::corrupt(format!(
                "the witness has forgotten record {}, which it had confirmed",
                line.recorded.number
            ))
            .with_entry(self.node.to_string())
            .with_remedy(
                "put back what its store has lost; it clears no channel of this node any more",
            )),
        }
    }

    fn fenced(&self, (holder, since): &(String, Time)) -> Error {
        Error::fenced(format!(
            "another start has taken the witness of this node over: {holder}, since {since}"
        ))
        .with_entry(self.node.to_string())
        .with_remedy(
            "stop the other copy of this node; then start this one again, to be judged anew",
        )
    }
}
