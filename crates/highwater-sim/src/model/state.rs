//! What there is at one instant: disks, processes, the witness, the peer, what is on the way, the
//! chain, and what an omniscient onlooker notes.

use highwater_guard::Ours;

/// The numbers of the channel, as a disk, a backup or the witness has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Numbers {
    /// `S`.
    pub signed: u8,
    /// `R`.
    pub revoked: u8,
    /// `L`.
    pub received: u8,
    /// A closing signature was given, or our own commitment is about to be published.
    pub closing: bool,
}

/// What is durable in one copy of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Disk {
    /// What the node remembers.
    pub numbers: Numbers,
    /// What commitment `S` says, while the peer hasn't answered it; else 0. Two contents under one
    /// number are two signatures.
    pub content: u8,
    /// The witness's epoch under which it was last moved.
    pub epoch: u8,
    /// The latch, where there is one.
    pub latch: Option<Latch>,
    /// It came from a backup, and was cleared or not.
    pub restored: bool,
    /// The onlooker's: it holds every move that any copy ever made, and whatever was raised since was
    /// raised from it.
    pub current: bool,
}

/// The latch of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Latch {
    /// How many backups the vault had: the highest numbers of these are its marks.
    pub backups: u8,
    /// The channel was condemned, which is recorded.
    pub blocked: bool,
}

/// A running copy of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its epoch as the witness's owner; 0 without a witness.
    pub epoch: u8,
    /// What it knows to be in the witness.
    pub known: Entry,
    /// How far its verdict is.
    pub stage: Stage,
    /// The last signature was made in this session: it is sent without asking what the peer has.
    pub fresh: bool,
}

/// How far the verdict of a running copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits, and has heard the peer or not.
    Held {
        /// The peer was heard in a session of this start.
        heard: bool,
    },
    /// It is condemned.
    Blocked,
    /// It may speak.
    Live,
    /// It has seen the close confirmed.
    Closed,
}

/// One copy of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copy {
    /// Its disk.
    pub disk: Option<Disk>,
    /// The process that runs on it.
    pub process: Option<Process>,
}

/// What the witness has of the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The highest numbers that may have left.
    pub numbers: Numbers,
    /// The epoch of the owner that raised them last.
    pub epoch: u8,
}

/// The witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    /// The epoch of its owner.
    pub owner: u8,
    /// What it has of the channel.
    pub entry: Entry,
}

/// What the peer remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// `l`: our revocations that it has.
    pub held: u8,
    /// Our signatures that it has taken.
    pub taken: u8,
    /// Revocations of its own that it has given.
    pub revoked: u8,
    /// It has our closing signature.
    pub closing: bool,
}

/// A message from us to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// `commitment_signed`: the number, counted from 1, and what the commitment says.
    Signature(u8, u8),
    /// `revoke_and_ack`: the commitment that it revokes, counted from 0.
    Revocation(u8),
    /// A closing signature.
    Closing,
}

/// The connection to the peer. A new one ends the old one, with all that is on the way in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// The copy that holds it; none once its process is gone.
    pub with: Option<usize>,
    /// What is on the way to the peer, in order. It arrives also after the process has died.
    pub on_the_way: Vec<Message>,
}

/// The output that funds the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Chain {
    /// Not spent.
    #[default]
    Unspent,
    /// Spent, which everybody sees, and not confirmed.
    Unconfirmed,
    /// Spent, and confirmed.
    Confirmed,
}

/// What an omniscient onlooker notes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notes {
    /// Our revocations that the peer, or its watchtower, has ever received.
    pub received: u8,
    /// The highest `R` that was ever durable in any copy; noted where a property asks for it.
    pub revoked: u8,
    /// The lowest commitment of ours that was published.
    pub published: Option<u8>,
    /// By number, what was signed first: what left first or, where second signatures only matter
    /// once the first was taken, what was taken first. 0: nothing.
    pub signed: Vec<u8>,
    /// `S` and `R` of the first copy of which a closing signature left.
    pub closing: Option<(u8, u8)>,
    /// The last report, noted where broken rules keep it for a later start.
    pub reported: Option<(u8, u8)>,
    /// What went wrong for ever.
    pub wrong: Wrong,
}

/// What went wrong, and can't be taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrong {
    /// Another content was signed under a number.
    pub second_signature: bool,
    /// A commitment left, or was revoked, that was newer than a closing signature which had left.
    pub after_closing: bool,
    /// Something left that the witness's owner, who is live, doesn't remember.
    pub behind_the_owner: bool,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The original's place and the copy's.
    pub copies: [Copy; 2],
    /// Backups, oldest first.
    pub backups: Vec<Disk>,
    /// The witness.
    pub witness: Witness,
    /// The peer.
    pub peer: Peer,
    /// The connection.
    pub session: Session,
    /// The chain.
    pub chain: Chain,
    /// The onlooker's notes.
    pub notes: Notes,
}

impl Numbers {
    /// The highest of each.
    pub(super) fn max(self, other: Numbers) -> Numbers {
        Numbers {
            signed: self.signed.max(other.signed),
            revoked: self.revoked.max(other.revoked),
            received: self.received.max(other.received),
            closing: self.closing || other.closing,
        }
    }

    /// As the guard knows them.
    pub(super) fn ours(self, epoch: u8) -> Ours {
        Ours {
            signed: Some(self.signed.into()),
            revoked: self.revoked.into(),
            received: self.received.into(),
            closing: self.closing,
            epoch: epoch.into(),
        }
    }
}

impl Disk {
    /// The peer hasn't answered the last signature.
    pub(super) fn outstanding(&self) -> bool {
        self.numbers.signed > self.numbers.received
    }

    /// Whether a message that leaves is remembered here.
    pub(super) fn remembers(&self, message: Message) -> bool {
        match message {
            Message::Signature(number, content) => {
                number < self.numbers.signed
                    || (number == self.numbers.signed
                        && (!self.outstanding() || content == self.content))
            }
            Message::Revocation(number) => number < self.numbers.revoked,
            Message::Closing => self.numbers.closing,
        }
    }
}

impl State {
    /// The process of a copy, and its disk.
    pub(super) fn running(&self, copy: usize) -> Option<(&Process, &Disk)> {
        let Copy { disk, process } = &self.copies[copy];
        process.as_ref().zip(disk.as_ref())
    }

    /// The same, where it may speak.
    pub(super) fn live(&self, copy: usize) -> Option<(&Process, &Disk)> {
        self.running(copy).filter(|(process, _)| process.stage == Stage::Live)
    }

    /// The same, where it is held.
    pub(super) fn held(&self, copy: usize) -> Option<(&Process, &Disk)> {
        self.running(copy).filter(|(process, _)| matches!(process.stage, Stage::Held { .. }))
    }

    /// Every disk there is, backups included.
    pub(super) fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.copies.iter().filter_map(|copy| copy.disk.as_ref()).chain(&self.backups)
    }

    fn disks_mut(&mut self) -> impl Iterator<Item = &mut Disk> {
        self.copies.iter_mut().filter_map(|copy| copy.disk.as_mut()).chain(&mut self.backups)
    }

    /// A content for commitment `number` that nobody has signed yet.
    pub(super) fn fresh_content(&self, number: u8) -> u8 {
        let on_the_way =
            |content| self.session.on_the_way.contains(&Message::Signature(number, content));
        let used = |content: u8| {
            self.notes.signed.get(usize::from(number)) == Some(&content)
                || self.disks().any(|it| it.numbers.signed == number && it.content == content)
                || on_the_way(content)
        };
        (1..=u8::MAX).find(|&content| !used(content)).expect("fewer contents than numbers")
    }

    /// A copy moves: it has a new disk, and nobody else has that move.
    pub(super) fn moved(&mut self, copy: usize, disk: Disk) {
        self.disks_mut().for_each(|other| other.current = false);
        self.copies[copy].disk = Some(disk);
    }

    /// Epochs count only by their order: they are renamed to the lowest that keep it, so that any
    /// number of starts leads to a bounded number of states.
    pub(super) fn rename_epochs(&mut self) {
        let mut epochs: Vec<u8> = Vec::with_capacity(12);
        self.each_epoch(|epoch| epochs.push(*epoch));
        epochs.push(0);
        epochs.sort_unstable();
        epochs.dedup();
        self.each_epoch(|epoch| {
            let place = epochs.binary_search(epoch).expect("every epoch was listed");
            *epoch = u8::try_from(place).expect("a dozen epochs at most");
        });
    }

    /// A copy has raised the witness under `epoch`: whoever else is older has missed that.
    pub(super) fn raised(&mut self, copy: usize, epoch: u8) {
        let own = self.copies[copy].disk;
        self.disks_mut().filter(|disk| disk.epoch < epoch).for_each(|disk| disk.current = false);
        self.copies[copy].disk = own;
    }

    fn each_epoch(&mut self, mut visit: impl FnMut(&mut u8)) {
        visit(&mut self.witness.owner);
        visit(&mut self.witness.entry.epoch);
        for process in self.copies.iter_mut().filter_map(|copy| copy.process.as_mut()) {
            visit(&mut process.epoch);
            visit(&mut process.known.epoch);
        }
        self.disks_mut().for_each(|disk| visit(&mut disk.epoch));
    }
}
