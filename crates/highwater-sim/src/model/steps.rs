//! What may happen next.

use highwater_guard::{Evidence, FundingSpent, Ours, Reason, Report, Verdict};
use stateright::{Model, Property};

use super::properties;
use super::rules::Rules;
use super::setup::{Character, Counted, Setup};
use super::state::{
    Chain, Disk, Entry, Latch, Message, Numbers, Peer, Process, Stage, State, Witness,
};

/// One node, its copies, its peer and its witness, by some rules.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Who is there, and what may happen.
    pub setup: Setup,
    /// What the node obeys.
    pub rules: Rules,
}

/// One thing that happens. Copies and backups are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A process starts: it takes the witness over, and is judged.
    Start(usize),
    /// A process dies, at any point.
    Crash(usize),
    /// A process opens a session; the one before it ends.
    Connect(usize),
    /// A process that is held hears `l` and `r`.
    Hear(usize, u8, u8),
    /// Durable: a commitment is signed for the peer.
    Sign(usize),
    /// Durable: our commitment is revoked for a newer one, which the peer has signed.
    Revoke(usize),
    /// Durable: the peer's revocation is received.
    Receive(usize),
    /// Durable: it is decided to close.
    Decide(usize),
    /// All that is durable goes to the witness.
    Raise(usize),
    /// A message leaves.
    Send(usize, Message),
    /// Our own commitment leaves for the chain.
    Publish(usize),
    /// A process sees that the close is confirmed.
    Look(usize),
    /// The first message on the way arrives.
    Arrive,
    /// The peer gives its revocation.
    PeerRevokes,
    /// The peer loses memory: this is all that it has still.
    PeerForgets(Peer),
    /// The peer closes with its own commitment.
    PeerCloses,
    /// The spend is confirmed.
    Confirm,
    /// A disk is backed up.
    Backup(usize),
    /// A backup is restored.
    Restore {
        /// This one.
        backup: usize,
        /// To this place.
        copy: usize,
    },
    /// A disk is copied, without a mark, to the other place.
    Clone(usize),
    /// The same, with the process that runs on it.
    Resume(usize),
}

impl Channel {
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
            self.settle(state, copy, None);
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

    /// Whether a number, as the disk has it, may leave or be acted on.
    fn raised<T: PartialEq>(&self, copy: (&Process, &Disk), number: fn(&Numbers) -> T) -> bool {
        let (process, disk) = copy;
        !self.setup.witness
            || !self.rules.witness_first
            || number(&process.known.numbers) == number(&disk.numbers)
    }

    /// The moves that a live copy may make durable, in its session.
    fn moves(&self, state: &State, copy: usize, steps: &mut Vec<Step>) {
        let Some(live) = state.live(copy) else { return };
        let numbers = live.1.numbers;
        if numbers.closing {
            return;
        }
        if self.setup.closing {
            steps.push(Step::Decide(copy));
        }
        if state.session.with != Some(copy) {
            return;
        }
        let Setup { signed_max, revoked_max, peer, .. } = self.setup;
        let lying = peer == Character::Lying;
        let signed = self.raised(live, |numbers| numbers.signed);
        let received = self.raised(live, |numbers| numbers.received);
        if !live.1.outstanding() && numbers.signed < signed_max && signed && received {
            steps.push(Step::Sign(copy));
        }
        let answered = lying || state.peer.revoked == numbers.received + 1;
        if live.1.outstanding() && answered && signed && received {
            steps.push(Step::Receive(copy));
        }
        let newer = lying || (state.peer.held == numbers.revoked && !state.peer.closing);
        if numbers.revoked < revoked_max && newer && self.raised(live, |numbers| numbers.revoked) {
            steps.push(Step::Revoke(copy));
        }
    }

    /// What a live copy may let out.
    fn leaving(&self, state: &State, copy: usize, steps: &mut Vec<Step>) {
        let Some(live) = state.live(copy) else { return };
        let (process, disk) = live;
        let Disk { numbers, content, .. } = *disk;
        if self.setup.witness && process.known.numbers != numbers {
            steps.push(Step::Raise(copy));
        }
        let told = !self.rules.publication_is_a_move || self.raised(live, |it| it.closing);
        let decided = numbers.closing && told;
        if self.setup.publishing && decided && state.chain != Chain::Confirmed {
            steps.push(Step::Publish(copy));
        }
        let on_the_way = &state.session.on_the_way;
        if state.session.with != Some(copy) || on_the_way.len() >= self.setup.on_the_way_max {
            return;
        }
        let mut send = |message| {
            if !on_the_way.contains(&message) {
                steps.push(Step::Send(copy, message));
            }
        };
        if numbers.closing {
            if !disk.outstanding() && self.raised(live, |numbers| numbers.closing) {
                send(Message::Closing);
            }
            return;
        }
        let lying = self.setup.peer == Character::Lying;
        let lacks = lying || process.fresh || self.report_of(&state.peer).1 < numbers.signed;
        if disk.outstanding() && lacks && self.raised(live, |numbers| numbers.signed) {
            send(Message::Signature(numbers.signed, content));
        }
        let lacks = lying || state.peer.held < numbers.revoked;
        if numbers.revoked > 0 && lacks && self.raised(live, |numbers| numbers.revoked) {
            send(Message::Revocation(numbers.revoked - 1));
        }
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

    /// `l` and `r` of a peer that says what it has.
    fn report_of(&self, peer: &Peer) -> (u8, u8) {
        let taken = match self.setup.counted {
            Counted::Taken => peer.taken,
            Counted::Answered => peer.revoked,
        };
        (peer.held, taken)
    }

    /// What the peer may say.
    fn reports(&self, state: &State, copy: usize, steps: &mut Vec<Step>) {
        if state.session.with != Some(copy) || state.held(copy).is_none() {
            return;
        }
        if self.setup.peer == Character::Lying {
            for held in 0..=self.setup.revoked_max + 1 {
                let said = (0..=self.setup.signed_max + 1).map(|taken| (held, taken));
                steps.extend(said.map(|(held, taken)| Step::Hear(copy, held, taken)));
            }
            return;
        }
        let (held, taken) = self.report_of(&state.peer);
        steps.push(Step::Hear(copy, held, taken));
    }

    fn around_the_copies(&self, state: &State, steps: &mut Vec<Step>) {
        for copy in 0..2 {
            let it = &state.copies[copy];
            let other = &state.copies[1 - copy];
            let alone = !self.setup.original_dead || other.process.is_none();
            if it.disk.is_some() && it.process.is_none() && alone {
                steps.push(Step::Start(copy));
            }
            if it.process.is_some() {
                steps.extend([Step::Crash(copy), Step::Connect(copy)]);
                if state.chain == Chain::Confirmed {
                    steps.push(Step::Look(copy));
                }
            }
            if it.disk.is_some() && state.backups.len() < self.setup.backups_max {
                steps.push(Step::Backup(copy));
            }
            if it.process.is_none() && alone {
                let all = 0..state.backups.len();
                steps.extend(all.map(|backup| Step::Restore { backup, copy }));
            }
            if self.setup.clones && it.disk.is_some() && other.process.is_none() {
                steps.push(Step::Clone(copy));
            }
            if self.setup.resumes && it.process.is_some() && other.process.is_none() {
                steps.push(Step::Resume(copy));
            }
        }
    }

    fn around_the_peer(&self, state: &State, steps: &mut Vec<Step>) {
        let Peer { held, taken, revoked, .. } = state.peer;
        if !state.session.on_the_way.is_empty() {
            steps.push(Step::Arrive);
        }
        if revoked < taken {
            steps.push(Step::PeerRevokes);
        }
        if self.setup.peer == Character::Forgetful {
            for held in 0..=held {
                for taken in 0..=taken {
                    let less = Peer { held, taken, revoked: revoked.min(taken), ..state.peer };
                    steps.push(Step::PeerForgets(less));
                }
            }
        }
        if self.setup.peer_closes && state.chain == Chain::Unspent {
            steps.push(Step::PeerCloses);
        }
        if state.chain == Chain::Unconfirmed {
            steps.push(Step::Confirm);
        }
    }

    fn restore(&self, state: &mut State, backup: usize, copy: usize) {
        let latch = Some(Latch { backups: count(&state.backups), blocked: false });
        let disk = Disk { latch, restored: true, ..state.backups[backup] };
        state.copies[copy].disk = Some(disk);
    }

    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Start(copy) => self.start(state, copy),
            Step::Crash(copy) => self.crash(state, copy),
            Step::Connect(copy) => {
                state.session.with = Some(copy);
                state.session.on_the_way.clear();
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
            }
            Step::Sign(copy) | Step::Revoke(copy) | Step::Receive(copy) | Step::Decide(copy) => {
                self.make_durable(state, copy, step);
            }
            Step::Raise(copy) => self.raise(state, copy),
            Step::Send(copy, message) => self.send(state, copy, message),
            Step::Publish(copy) => self.publish(state, copy),
            Step::Look(copy) => self.settle_closed(state, copy),
            Step::Arrive => self.arrive(state),
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

    /// The chain decides, for whomever it is.
    fn settle_closed(&self, state: &mut State, copy: usize) {
        if self.verdict(state, copy, None) == Verdict::Closed
            && let Some(process) = &mut state.copies[copy].process
        {
            process.stage = Stage::Closed;
            process.known = Entry::default();
        }
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

impl Model for Channel {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let epoch = u8::from(self.setup.witness);
        let disk = Disk { epoch, current: true, ..Disk::default() };
        let process = Process { epoch, known: Entry::default(), stage: Stage::Live, fresh: false };
        let original = super::state::Copy { disk: Some(disk), process: Some(process) };
        let signed = vec![0; usize::from(self.setup.signed_max) + 1];
        vec![State {
            copies: [original, super::state::Copy::default()],
            backups: Vec::new(),
            witness: Witness { owner: epoch, entry: Entry::default() },
            peer: Peer::default(),
            session: super::state::Session::default(),
            chain: Chain::Unspent,
            notes: super::state::Notes { signed, ..super::state::Notes::default() },
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.around_the_copies(state, steps);
        self.around_the_peer(state, steps);
        for copy in 0..2 {
            self.reports(state, copy, steps);
            self.moves(state, copy, steps);
            self.leaving(state, copy, steps);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        self.apply(&mut state, step);
        state.rename_epochs();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Channel>> {
        properties::all(self)
    }
}

fn count(backups: &[Disk]) -> u8 {
    u8::try_from(backups.len()).expect("a few backups")
}
