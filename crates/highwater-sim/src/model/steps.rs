//! What may happen next.

use stateright::{Model, Property};

use super::properties;
use super::rules::Rules;
use super::setup::{Character, Counted, Setup};
use super::state::{Chain, Disk, Entry, Message, Numbers, Peer, Process, Stage, State, Witness};

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
    /// All that is on the way is lost.
    Lose,
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
            if self.setup.lingering {
                steps.push(Step::Lose);
            }
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
