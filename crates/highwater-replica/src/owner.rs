//! Who may write: what is found here and on the server, and what becomes of it at a start.

use std::sync::Arc;

use highwater::env::Env;
use highwater::ids::Time;
use highwater::{Error, Kind, Remedy, Result};

use super::book::{Attempt, Book};
use super::digest::Sum;
use super::head::{self, Head, HeadState, Placed, ROOT};
use super::hydrate::{self, find_head, hydrate, learn};
use super::keys::ReplicaKeys;
use super::remote::Remote;
use super::sender::Sender;

/// A put of an earlier process may land while this one begins; then it looks again.
const TRIES: u32 = 3;

/// What a start may do that it would not do by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Take the head from an owner that has not released it, and why. That one fails at its next write.
    pub take_over: Option<String>,
    /// Begin with nothing where this store and the server are both empty: a new node.
    pub allow_empty: bool,
    /// Take what the server has where it is not one instant of its owner's store.
    pub accept_inconsistent: bool,
    /// Write over a server that remembers less than this store: it was set back.
    pub accept_older: bool,
}

/// What a start has found, and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Started {
    /// A new node, and a new store on the server.
    New,
    /// The owner goes on.
    Resumed,
    /// The server held nothing of this store: all of it is sent.
    Filling,
    /// This store was empty, and has now what the server had.
    Hydrated {
        /// Values that were read.
        values: u64,
        /// Their bytes.
        bytes: u64,
    },
}

/// What a start needs.
pub(super) struct Start<'a> {
    pub(super) book: Book,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) keys: Arc<ReplicaKeys>,
    pub(super) env: Env,
    /// Who this is, for people.
    pub(super) owner: &'a str,
    pub(super) permissions: &'a Permissions,
    pub(super) is_replicated: &'a dyn Fn(&[u8]) -> bool,
}

/// What is known here.
enum Here {
    /// No value, and no memory of a server.
    Empty,
    /// Values that were never on a server.
    Unreplicated,
    /// A hydration that did not end.
    Hydrating(Placed),
    /// The head as it was last acknowledged.
    Known(Placed),
}

/// What the server has, as this store sees it.
enum There {
    /// Nothing: neither a head nor a first owner.
    Nothing,
    /// What was last acknowledged here.
    Same,
    /// Less than that.
    Older(Placed),
    /// More, by an owner that this store does not know.
    Other(Placed),
}

impl Start<'_> {
    /// Becomes the owner, or says why not.
    ///
    /// # Errors
    /// Denied where the keys are not those of this store, or of the server's; fenced where somebody else
    /// owns it, or where this store is a copy of the owner's; conflict where both have values that have
    /// nothing to do with one another; not found where both are empty; corrupt where the server's values
    /// are not what they were; unavailable where the server can't be asked.
    pub(super) fn run(self) -> Result<(Sender, Started)> {
        self.check_keys()?;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.once() {
                Err(error) if error.kind() == Kind::Fenced && tries < TRIES => {
                    if self.adopted()?.is_none() {
                        return Err(error);
                    }
                }
                done => {
                    let done = done?;
                    self.book.complete_order()?;
                    return Ok(done);
                }
            }
        }
    }

    /// These keys are those that this store was opened with before.
    fn check_keys(&self) -> Result<()> {
        let check = self.keys.check();
        match self.book.check()? {
            None => self.book.set_check(&check),
            Some(known) if known == check => Ok(()),
            Some(_) => Err(Error::denied("this store was opened with other keys before")
                .with_remedy(Remedy::ReplicaKeys)),
        }
    }

    fn once(&self) -> Result<(Sender, Started)> {
        self.adopted()?;
        let here = match (self.book.head()?, self.book.is_hydrating()?) {
            (Some(placed), true) => Here::Hydrating(placed),
            (Some(placed), false) => Here::Known(placed),
            (None, _) if self.book.has_data()? => Here::Unreplicated,
            (None, _) => Here::Empty,
        };
        let there = self.there(&here)?;
        match (here, there) {
            (Here::Empty, There::Nothing) => self.begin(),
            (Here::Unreplicated, There::Nothing) => self.fill(None),
            (Here::Unreplicated, There::Same | There::Older(_) | There::Other(_)) => {
                Err(Error::conflict("this store has values, and the server has others")
                    .with_remedy(
                        "begin in an empty directory to take the server's, or with another store",
                    ))
            }
            (Here::Empty, There::Same | There::Older(_)) => {
                Err(Error::bug("an empty store remembers a head"))
            }
            (Here::Empty, There::Other(placed)) => self.take_and_hydrate(placed),
            (Here::Hydrating(known), There::Same) => self.hydrate(known),
            (Here::Hydrating(_), There::Older(placed) | There::Other(placed)) => {
                self.take_and_hydrate(placed)
            }
            (Here::Hydrating(_), There::Nothing) => {
                Err(Error::not_found("the server has lost what was being read from it")
                    .with_remedy("look for a backup of the node"))
            }
            (Here::Known(known), There::Same) => self.resume(known),
            // Whoever put the head for the first time won; nobody else can have been there.
            (Here::Known(_), There::Nothing) => self.fill(None),
            (Here::Known(known), There::Older(placed)) => {
                if !self.permissions.accept_older {
                    return Err(Error::corrupt(format!(
                        "the server remembers less than it has acknowledged: write {} of epoch {}, not \
                         {} of {}",
                        placed.head.seq, placed.head.epoch, known.head.seq, known.head.epoch
                    ))
                    .with_remedy(Remedy::AcceptOlder));
                }
                self.fill(Some(placed))
            }
            (Here::Known(known), There::Other(placed)) => Err(self.foreign(&known, &placed)),
        }
    }

    /// A put of an earlier process that has landed without its knowledge becomes known.
    fn adopted(&self) -> Result<Option<Placed>> {
        let attempts = self.book.attempts()?;
        if attempts.is_empty() {
            return Ok(None);
        }
        let Some(found) = find_head(&*self.remote, &self.keys)? else { return Ok(None) };
        let ours = |attempt: &&Attempt| {
            attempt.placed.name == found.name && attempt.placed.head.put == found.head.put
        };
        let Some(attempt) = attempts.iter().find(ours) else { return Ok(None) };
        self.book.adopt(attempt)?;
        Ok(Some(found))
    }

    fn there(&self, here: &Here) -> Result<There> {
        let mut found = find_head(&*self.remote, &self.keys)?;
        if found.is_none() {
            if self.remote.get(ROOT)?.is_none() {
                return Ok(There::Nothing);
            }
            // A first owner may have come between the two looks.
            found = find_head(&*self.remote, &self.keys)?;
        }
        let Some(found) = found else {
            return Err(Error::corrupt("the server has a store without a head")
                .with_remedy("somebody deleted it; look for a backup of the server"));
        };
        Ok(match here {
            Here::Known(known) | Here::Hydrating(known) => {
                let (mine, theirs) = (&known.head, &found.head);
                if known.name == found.name
                    && mine.version == theirs.version
                    && mine.put == theirs.put
                {
                    There::Same
                } else if (theirs.epoch, theirs.seq) < (mine.epoch, mine.seq)
                    || (known.name == found.name && theirs.version < mine.version)
                {
                    There::Older(found)
                } else {
                    There::Other(found)
                }
            }
            Here::Empty | Here::Unreplicated => There::Other(found),
        })
    }

    /// What an owner is told that finds another one.
    fn foreign(&self, known: &Placed, found: &Placed) -> Error {
        let same = known.name == found.name;
        let message = match same {
            true => "the server has writes of this epoch that this store lacks: it is a copy, or an old \
                     state, of the owner's"
                .to_owned(),
            false => format!("another owner writes to the server: {}", found.told()),
        };
        Error::fenced(message).with_remedy(
            "this store must not act. To go on from the server's values, begin in an empty directory",
        )
    }

    /// A new node.
    fn begin(&self) -> Result<(Sender, Started)> {
        if !self.permissions.allow_empty {
            return Err(Error::not_found(
                "this store is empty, and the server has nothing for these keys",
            )
            .with_remedy(Remedy::AllowEmpty)
            .with_remedy(Remedy::ReplicaKeys));
        }
        let mut sender = self.sender(self.nothing())?;
        sender.take(self.owner, None, true)?;
        Ok((sender, Started::New))
    }

    /// The server gets all that is here, in the place of what it has.
    fn fill(&self, over: Option<Placed>) -> Result<(Sender, Started)> {
        let first = over.is_none();
        let before = self.book.last_seq()?;
        self.book.fill(self.env.now(), self.is_replicated)?;
        let mut held = over.unwrap_or_else(|| self.nothing());
        if let Some(known) = self.book.head()? {
            held.head.epoch = held.head.epoch.max(known.head.epoch);
            held.head.breaks = known.head.breaks;
        }
        // A store's numbers go on, whatever the server has.
        held.head.seq = before;
        if first {
            held.head.sum = Sum::default();
        }
        let mut sender = self.sender(held)?;
        sender.take(self.owner, None, first)?;
        sender.finish_parts()?;
        self.learn(&mut sender)?;
        Ok((sender, Started::Filling))
    }

    /// Where a server is filled, what is there has to be known, so that the digest is right and nothing of
    /// it stays. A server that had shown nothing may be back by now.
    fn learn(&self, sender: &mut Sender) -> Result<()> {
        if self.book.is_learning()? {
            let now = self.env.now();
            sender.held.head.sum = learn(&self.book, &*self.remote, &self.keys, now)?;
        }
        Ok(())
    }

    fn resume(&self, known: Placed) -> Result<(Sender, Started)> {
        if self.book.is_learning()? && self.book.filling()?.is_none() {
            // The server had shown less for a while, and this store had begun to fill it.
            return self.fill(Some(known));
        }
        let mut sender = self.sender(known)?;
        sender.take(self.owner, None, false)?;
        // Nothing of before can land any more.
        self.book.undo_remote_first()?;
        sender.finish_parts()?;
        self.learn(&mut sender)?;
        let filling = self.book.filling()?.is_some();
        Ok((sender, if filling { Started::Filling } else { Started::Resumed }))
    }

    fn take_and_hydrate(&self, mut placed: Placed) -> Result<(Sender, Started)> {
        let reason = self.permissions.take_over.as_deref();
        if placed.head.state != HeadState::Released && reason.is_none() {
            return Err(Error::fenced(format!(
                "the server has an owner that has not released it: {}",
                placed.told()
            ))
            .with_remedy(
                "where that one is gone for good, take over with a reason; it fails at its next write",
            ));
        }
        // Who fills it has all of it; without that one nobody could.
        hydrate::check_filled(&placed, self.permissions.accept_inconsistent)?;
        placed.head.add_break();
        let mut sender = self.sender(placed)?;
        // From here on the store is one that has to be hydrated, whatever becomes of this process.
        self.book.begin_hydration()?;
        sender.take(self.owner, reason, false)?;
        self.hydrate_into(sender)
    }

    fn hydrate(&self, known: Placed) -> Result<(Sender, Started)> {
        let mut sender = self.sender(known)?;
        sender.take(self.owner, None, false)?;
        self.hydrate_into(sender)
    }

    fn hydrate_into(&self, mut sender: Sender) -> Result<(Sender, Started)> {
        sender.finish_parts()?;
        let accept = self.permissions.accept_inconsistent;
        let done = hydrate(&self.book, &*self.remote, &self.keys, &sender.held, accept)?;
        sender.held.head.sum = done.sum;
        self.book.end_hydration(sender.held.head.seq)?;
        Ok((sender, Started::Hydrated { values: done.values, bytes: done.bytes }))
    }

    fn sender(&self, held: Placed) -> Result<Sender> {
        Sender::new(
            self.book.clone(),
            Arc::clone(&self.remote),
            Arc::clone(&self.keys),
            self.env.clone(),
            held,
        )
    }

    /// The head before the first one.
    fn nothing(&self) -> Placed {
        let head = Head {
            epoch: 0,
            owner: String::new(),
            since: Time::default(),
            put: [0; 16],
            version: 0,
            seq: 0,
            sum: Sum::default(),
            state: HeadState::Open,
            reason: None,
            parts: None,
            breaks: Vec::new(),
        };
        Placed { name: head::name_of(&[0; 16]), head }
    }
}
