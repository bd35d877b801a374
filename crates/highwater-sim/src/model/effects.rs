//! What each step does.

use highwater_guard::{Evidence, FundingSpent, Ours, Reason, Report, Verdict};

use super::setup::Character;
use super::state::{Chain, Disk, Entry, Latch, Message, Numbers, Process, Stage, State, Witness};
use super::steps::{Channel, Step};

impl Channel {
    pub(super) fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Start(copy) => self.start(state, copy),
            Step::Crash(copy) => self.crash(state, copy),
            Step::Connect(copy) => {
                state.session.with = Some(copy);
                if !self.setup.lingering {
                    state.session.on_the_way.clear();
                }
                if let Some(process) = &mut state.copies[copy].process {
                    process.fresh = false;
                }
            }
            Step::Hear(copy, revocations_held, signatures_taken) => {
                let report = Report {
                    revocations_held: revocations_held.into(),
                    signatures_taken: signatures_taken.into(),
                };
                self.settle(state, copy, Some(report));
                if self.rules.reports_outlive_the_start {
                    state.notes.reported = Some((revocations_held, signatures_taken));
                }
            }
            Step::Sign(copy) | Step::Revoke(copy) | Step::Receive(copy) | Step::Decide(copy) => {
                self.make_durable(state, copy, step);
            }
            Step::Raise(copy) => self.raise(state, copy),
            Step::Send(copy, message) => self.send(state, copy, message),
            Step::Publish(copy) => self.publish(state, copy),
            Step::Look(copy) => self.settle_closed(state, copy),
            Step::Arrive => self.arrive(state),
            Step::Lose => state.session.on_the_way.clear(),
            Step::PeerRevokes => state.peer.revoked += 1,
            Step::PeerForgets(less) => state.peer = less,
            Step::PeerCloses => state.chain = Chain::Unconfirmed,
            Step::Confirm => state.chain = Chain::Confirmed,
            Step::Backup(copy) => {
                let disk = state.copies[copy].disk.expect("only a disk is backed up");
                let kept = Disk { latch: None, restored: false, ..disk };
                if !state.backups.contains(&kept) {
                    state.backups.push(kept);
                }
            }
            Step::Restore { backup, copy } => self.restore(state, backup, copy),
            Step::Clone(copy) => state.copies[1 - copy].disk = state.copies[copy].disk,
            Step::Resume(copy) => state.copies[1 - copy] = state.copies[copy],
        }
    }

    fn start(&self, state: &mut State, copy: usize) {
        let Some(disk) = state.copies[copy].disk else { return };
        let mut process = Process {
            epoch: 0,
            known: Entry::default(),
            stage: Stage::Held { heard: false },
            fresh: false,
        };
        if self.setup.witness {
            let Witness { owner, entry } = state.witness;
            state.witness.owner = owner + 1;
            process.epoch = owner + 1;
            process.known = entry;
        }
        if self.setup.original_dead
            && let Some(other) = &mut state.copies[1 - copy].disk
        {
            other.latch.get_or_insert(Latch { backups: count(&state.backups), blocked: false });
        }
        if disk.latch.is_some_and(|latch| latch.blocked) {
            process.stage = Stage::Blocked;
            process.known = Entry::default();
        } else if !self.setup.witness && disk.latch.is_none() {
            process.stage = Stage::Live;
        }
        state.copies[copy].process = Some(process);
        if matches!(process.stage, Stage::Held { .. }) {
            // There is none but under the broken rules that keep it.
            let kept = state.notes.reported.map(|(held, taken)| Report {
                revocations_held: held.into(),
                signatures_taken: taken.into(),
            });
            self.settle(state, copy, kept);
        }
    }

    fn crash(&self, state: &mut State, copy: usize) {
        let Some(process) = state.copies[copy].process.take() else { return };
        if state.session.with == Some(copy) {
            state.session.with = None;
        }
        let quarantined = matches!(process.stage, Stage::Held { .. } | Stage::Blocked);
        if quarantined
            && !self.rules.latch_lasts
            && let Some(disk) = &mut state.copies[copy].disk
        {
            disk.latch = None;
        }
    }

    /// Judges a held copy, and does what the verdict says.
    fn settle(&self, state: &mut State, copy: usize, report: Option<Report>) {
        let verdict = self.verdict(state, copy, report);
        let closes_on =
            verdict == Verdict::Wait(Reason::PeerForgot) && !self.rules.forgotten_is_waited_for;
        let (mut process, mut disk) = match state.running(copy) {
            Some((process, disk)) => (*process, *disk),
            None => return,
        };
        match verdict {
            Verdict::Clear(_) => {
                process.stage = Stage::Live;
                process.known.epoch = 0;
                disk.latch = None;
                if self.rules.clear_takes_the_epoch {
                    disk.epoch = process.epoch;
                }
            }
            Verdict::Blocked(_) => {
                process.stage = Stage::Blocked;
                process.known = Entry::default();
                disk.latch = Some(Latch { blocked: true, ..disk.latch.unwrap_or_default() });
            }
            Verdict::Wait(_) => process.stage = Stage::Held { heard: report.is_some() },
            Verdict::Closed => process.stage = Stage::Closed,
        }
        state.copies[copy].process = Some(process);
        state.copies[copy].disk = Some(disk);
        if closes_on {
            self.publish(state, copy);
        }
    }

    /// The chain decides, for whomever it is.
    fn settle_closed(&self, state: &mut State, copy: usize) {
        if self.verdict(state, copy, None) == Verdict::Closed
            && let Some(process) = &mut state.copies[copy].process
        {
            process.stage = Stage::Closed;
            process.known = Entry::default();
        }
    }

    /// The verdict on a copy whose process runs.
    fn verdict(&self, state: &State, copy: usize, report: Option<Report>) -> Verdict {
        let (process, disk) = state.running(copy).expect("only a running copy is judged");
        let marks = disk.latch.map(|latch| &state.backups[..latch.backups.into()]);
        let highest = marks.filter(|marks| !marks.is_empty()).map(|marks| {
            marks.iter().fold(Numbers::default(), |highest, mark| highest.max(mark.numbers))
        });
        let Entry { numbers, epoch } = process.known;
        let witness = self.setup.witness.then_some(highwater_guard::Witness {
            signed: numbers.signed.into(),
            revoked: numbers.revoked.into(),
            received: numbers.received.into(),
            closing: numbers.closing,
            continuous: true,
            owned: true,
            epoch: epoch.into(),
        });
        let ours: Ours = disk.numbers.ours(disk.epoch);
        let evidence = Evidence {
            chain: match state.chain {
                Chain::Unspent => None,
                Chain::Unconfirmed => Some(FundingSpent::Unconfirmed),
                Chain::Confirmed => Some(FundingSpent::Confirmed),
            },
            backup: highest.map(|highest| highest.ours(0)),
            witness,
            report,
            policy: self.setup.policy,
        };
        (self.rules.judge)(&ours, &evidence)
    }

    fn make_durable(&self, state: &mut State, copy: usize, step: Step) {
        let Some((process, disk)) = state.live(copy) else { return };
        let mut disk = Disk { epoch: process.epoch, ..*disk };
        match step {
            Step::Sign(_) => {
                disk.numbers.signed += 1;
                disk.content = state.fresh_content(disk.numbers.signed);
            }
            Step::Revoke(_) => disk.numbers.revoked += 1,
            Step::Receive(_) => {
                disk.numbers.received += 1;
                disk.content = 0;
            }
            _ => disk.numbers.closing = true,
        }
        if self.setup.literal {
            state.notes.revoked = state.notes.revoked.max(disk.numbers.revoked);
        }
        state.moved(copy, disk);
        if let Some(process) = &mut state.copies[copy].process {
            process.fresh = disk.outstanding() && (process.fresh || matches!(step, Step::Sign(_)));
        }
    }

    /// The witness takes what its owner has; whom it has been taken from stops.
    fn raise(&self, state: &mut State, copy: usize) {
        let Some((process, disk)) = state.live(copy) else { return };
        let (mut process, disk) = (*process, *disk);
        // Compare and set: it is the owner's, and is what the owner knows it to be.
        let Witness { owner, entry } = state.witness;
        let stands = process.epoch == owner && process.known.numbers == entry.numbers;
        if self.rules.fenced && !stands {
            return self.crash(state, copy);
        }
        let entry = &mut state.witness.entry;
        let raised = entry.numbers.max(disk.numbers);
        if raised != entry.numbers {
            let owners = self.rules.entry_has_the_owners_epoch;
            entry.epoch = if owners { process.epoch } else { disk.epoch };
            entry.numbers = raised;
            let epoch = entry.epoch;
            if !self.setup.strict {
                state.raised(copy, epoch);
            }
        }
        process.known.numbers = disk.numbers;
        state.copies[copy].process = Some(process);
    }

    fn send(&self, state: &mut State, copy: usize, message: Message) {
        state.session.on_the_way.push(message);
        let numbers = state.copies[copy].disk.unwrap_or_default().numbers;
        let notes = &mut state.notes;
        notes.wrong.after_closing |= match (notes.closing, message) {
            (Some((signed, _)), Message::Signature(number, _)) => number > signed,
            (Some((_, revoked)), Message::Revocation(number)) => number >= revoked,
            _ => false,
        };
        if message == Message::Closing {
            notes.closing.get_or_insert((numbers.signed, numbers.revoked));
        }
        if let Message::Signature(number, content) = message {
            let first = &mut notes.signed[usize::from(number)];
            notes.wrong.second_signature |= *first != 0 && *first != content;
            if *first == 0 && !self.setup.second_once_taken {
                *first = content;
            }
        }
        let other = state.live(1 - copy);
        let owner = other.filter(|(process, _)| process.epoch == state.witness.owner);
        if self.setup.witness && owner.is_some_and(|(_, disk)| !disk.remembers(message)) {
            state.notes.wrong.behind_the_owner = true;
        }
    }

    fn publish(&self, state: &mut State, copy: usize) {
        let Some(disk) = state.copies[copy].disk else { return };
        if state.chain == Chain::Unspent {
            state.chain = Chain::Unconfirmed;
        }
        let ours = disk.numbers.revoked;
        let lowest = state.notes.published.map_or(ours, |published| published.min(ours));
        state.notes.published = Some(lowest);
    }

    fn arrive(&self, state: &mut State) {
        let message = state.session.on_the_way.remove(0);
        let lying = self.setup.peer == Character::Lying;
        let peer = &mut state.peer;
        match message {
            Message::Revocation(number) if lying => {
                state.notes.received = state.notes.received.max(number + 1);
            }
            Message::Revocation(number) if number == peer.held => {
                peer.held += 1;
                state.notes.received = state.notes.received.max(peer.held);
            }
            Message::Signature(number, content)
                if !lying
                    && number == peer.taken + 1
                    && peer.taken == peer.revoked
                    && !peer.closing =>
            {
                peer.taken = number;
                if self.setup.second_once_taken {
                    state.notes.signed[usize::from(number)] = content;
                }
            }
            Message::Closing => peer.closing = true,
            // What it has already, or what it can't take: it does nothing.
            Message::Revocation(_) | Message::Signature(..) => {}
        }
    }

    fn restore(&self, state: &mut State, backup: usize, copy: usize) {
        let latch = Some(Latch { backups: count(&state.backups), blocked: false });
        let disk = Disk { latch, restored: true, ..state.backups[backup] };
        state.copies[copy].disk = Some(disk);
    }

    /// Whether a copy that is not clear gets out: by the peer's close, once it is confirmed.
    pub(super) fn has_a_way_out(&self, state: &State, copy: usize) -> bool {
        let mut state = state.clone();
        if state.chain == Chain::Unspent {
            self.apply(&mut state, Step::PeerCloses);
        }
        self.apply(&mut state, Step::Confirm);
        self.apply(&mut state, Step::Look(copy));
        state.running(copy).is_some_and(|(process, _)| process.stage == Stage::Closed)
    }
}

fn count(backups: &[Disk]) -> u8 {
    u8::try_from(backups.len()).expect("a few backups")
}
