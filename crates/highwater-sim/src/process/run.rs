//! A node as a process: one loop owns the driver; threads bring it what peers and operators say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;
use std::time::Duration;

use highwater::guard::{Guard, channel_marks, wait_to_start};
use highwater::ids::NodeName;
use highwater::kit;
use highwater::{Control, Env, Error, Result};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::control::{self, NodeRequest};
use super::ledger::LedgerLine;
use super::lines::{self, Connections};
use super::vault::{self, Backups};
use super::{RunArgs, home, peers, say};
use crate::driver::{Driver, Failure, Outcome};
use crate::gate::Gate;
use crate::ids::{ChannelId, PeerId};
use crate::keys::NodeKeys;
use crate::node::{Answer, ChannelState, Effect, Input, Listed};
use crate::store::{SqliteStore, Store as _};
use crate::wire::{Message, read_frame, write_frame};

/// How often the ledger is looked at, and lost sessions are sought again.
const TICK: Duration = Duration::from_millis(100);
/// A peer is there within this time, or is tried again later.
const DIAL_MAX: Duration = Duration::from_secs(2);

/// How many events can wait; whoever brings more waits with them.
const EVENTS_MAX: usize = 256;

/// What the threads bring.
pub(super) enum Event {
    /// A session has begun.
    Met(Link),
    /// A peer has spoken, in the session of that number.
    Heard(u64, Box<Message>),
    /// The session of that number has ended.
    Parted(u64),
    /// A peer could not be reached.
    Missed(String),
    /// An operator asks.
    Asked(NodeRequest, Sender<Result<Value>>),
    /// A backup wants the marks, and the database to stay as it is until `end`.
    Hold {
        /// Where the marks go.
        marks: Sender<BTreeMap<String, u64>>,
        /// Ends with the capture.
        end: Receiver<()>,
    },
}

/// A session.
pub(super) struct Link {
    number: u64,
    peer: PeerId,
    /// The name under which we called the peer; `None`: it called us.
    called: Option<String>,
    stream: TcpStream,
}

/// What the threads share.
struct Shared {
    keys: NodeKeys,
    control: Control,
    events: SyncSender<Event>,
    connections: Connections,
    sessions: AtomicU64,
    backups: Option<Backups>,
}

/// Runs a node until a signal, its operator, or a fence stops it.
pub(super) fn run(args: RunArgs, control: &Control) -> Result<()> {
    let stop = stop_signal()?;
    let dir = args.dir.canonicalize().map_err(|error| Error::io(args.dir.display(), error))?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => dir.file_name().unwrap_or_default().to_string_lossy().parse::<NodeName>()?,
    };
    let vault = args.vault().map(|vault| vault::open(&vault, &control.env)).transpose()?;
    let vault = vault.map(Arc::new);
    let backups =
        vault.clone().map(|vault| Backups { vault, node: name.clone(), dir: dir.clone() });
    #[cfg(feature = "unguarded")]
    if args.unguarded {
        let (keys, store) = home::open(&dir)?;
        let gate = crate::gate::PeerGate::unguarded();
        let driver = Driver::start(keys.clone(), store, gate)?;
        return serve(&args, &dir, keys, driver, backups, control, &stop);
    }
    // Before the witness is taken over, which deposes whoever owns it: a directory that is withheld must
    // not be started at all.
    wait_to_start(&dir, Some(Duration::ZERO), control)?;
    let policy = args.policy.into();
    let witness = match (policy, &vault) {
        (highwater_guard::Policy::Witness, Some(vault)) => {
            Some(vault::witness(vault, &name, &control.env)?)
        }
        _ => None,
    };
    // Before a channel is read: a directory that is withheld must not be opened at all.
    let guard = Guard::open(&dir, name, policy, witness, control)?;
    let (keys, store) = home::open(&dir)?;
    let driver = Driver::start(keys.clone(), store, guard)?;
    serve(&args, &dir, keys, driver, backups, control, &stop)
}

/// Whether the process was told to stop.
pub(super) fn stop_signal() -> Result<impl Fn() -> bool + Sync> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .map_err(|error| Error::io("the signal handlers", error))?;
    }
    Ok(move || flag.load(Ordering::Relaxed))
}

fn serve<G: Gate>(
    args: &RunArgs,
    dir: &Path,
    keys: NodeKeys,
    driver: Driver<SqliteStore, G>,
    backups: Option<Backups>,
    control: &Control,
    stop: &(impl Fn() -> bool + Sync),
) -> Result<()> {
    let (peers_listener, listen) = lines::listen(args.listen)?;
    let (control_listener, operator) = lines::listen(args.control)?;
    let (events, inbox) = sync_channel(EVENTS_MAX);
    let shared = Shared {
        keys,
        control: control.clone(),
        events,
        connections: Connections::default(),
        sessions: AtomicU64::new(0),
        backups,
    };
    std::thread::scope(|scope| {
        let shared = &shared;
        lines::accept(scope, peers_listener, &shared.connections, |stream| {
            session(shared, stream, None);
        });
        lines::accept(scope, control_listener, &shared.connections, |stream| {
            lines::answer_all(stream, |request| answer(shared, request));
        });
        let node = driver.node().peer_id();
        let said = say(&json!({ "listen": listen, "control": operator, "node": node }));
        let shell = Shell {
            driver,
            ledger: LedgerLine::new(args.ledger),
            links: BTreeMap::new(),
            peers: args.peers.iter().cloned().collect(),
            names: BTreeMap::new(),
            calling: BTreeSet::new(),
            scope,
            shared,
            stopping: false,
            dir,
            in_kit: BTreeSet::new(),
        };
        let ended = said.and_then(|()| shell.run(&inbox, stop));
        // Nobody is answered any more: who still waits for an answer hears that we are gone.
        drop(inbox);
        shared.connections.stop(&[listen, operator]);
        ended
    })
}

/// A session with a peer, from its introduction to its end.
fn session(shared: &Shared, mut stream: TcpStream, called: Option<String>) {
    let met = peers::greet(&mut stream, &shared.keys, &shared.control.env)
        .and_then(|peer| Ok((peer, stream.try_clone().map_err(|e| Error::io("a session", e))?)));
    let Ok((peer, copy)) = met else {
        called.map(|name| shared.events.send(Event::Missed(name)));
        return;
    };
    let number = shared.sessions.fetch_add(1, Ordering::Relaxed);
    let link = Link { number, peer, called, stream: copy };
    let mut told = shared.events.send(Event::Met(link));
    while told.is_ok() {
        // What is not a message ends the session, as its end does.
        let Ok(Some(message)) = read_frame::<Message>(&mut stream) else { break };
        told = shared.events.send(Event::Heard(number, Box::new(message)));
    }
    // Where the loop has ended, so has every session.
    let _ = shared.events.send(Event::Parted(number));
}

/// Answers an operator. A backup runs here, beside the loop, which it holds only for the capture.
fn answer(shared: &Shared, request: NodeRequest) -> Result<Value> {
    if let NodeRequest::Backup = request {
        let backups = shared.backups.as_ref().ok_or_else(|| {
            Error::input("the node has no vault").with_remedy("run it with --vault and --key-file")
        })?;
        return backups.run(&shared.events, &shared.control);
    }
    let gone = || Error::unavailable("the node stops");
    let (reply, replied) = channel();
    shared.events.send(Event::Asked(request, reply)).map_err(|_| gone())?;
    replied.recv().map_err(|_| gone())?
}

/// What the loop owns.
struct Shell<'scope, 'env, G> {
    driver: Driver<SqliteStore, G>,
    ledger: LedgerLine,
    links: BTreeMap<PeerId, Link>,
    /// Peers that we call, by name.
    peers: BTreeMap<String, SocketAddr>,
    /// Who answered to a name.
    names: BTreeMap<String, PeerId>,
    calling: BTreeSet<String>,
    scope: &'scope Scope<'scope, 'env>,
    shared: &'scope Shared,
    stopping: bool,
    dir: &'env Path,
    /// The channels that the recovery kit names.
    in_kit: BTreeSet<ChannelId>,
}

/// What ends the process.
struct Fatal(Error);

/// What an input came to: the answer to a command, or why it was refused.
type Handled = Result<Result<Option<Answer>>, Fatal>;

impl<G: Gate> Shell<'_, '_, G> {
    fn run(mut self, inbox: &Receiver<Event>, stop: &impl Fn() -> bool) -> Result<()> {
        let env: &Env = &self.shared.control.env;
        let mut ticked = env.monotonic();
        while !stop() && !self.stopping {
            let done = match inbox.recv_timeout(TICK) {
                Ok(event) => self.event(event),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let done = done.and_then(|()| {
                if env.monotonic() - ticked < TICK {
                    return Ok(());
                }
                ticked = env.monotonic();
                self.tick()
            });
            done.map_err(|Fatal(error)| error)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Met(link) => self.met(link)?,
            Event::Heard(number, message) => {
                if let Some(peer) = self.peer_of(number) {
                    self.feed(Input::Message(peer, *message))?;
                }
            }
            Event::Parted(number) => {
                if let Some(peer) = self.peer_of(number) {
                    self.part(peer)?;
                }
            }
            Event::Missed(name) => drop(self.calling.remove(&name)),
            Event::Asked(request, reply) => {
                let answer = self.asked(request)?;
                // An operator who has left does not wait for it.
                let _ = reply.send(answer);
            }
            Event::Hold { marks, end } => {
                if marks.send(self.marks()).is_ok() {
                    // Ends when the capture drops its side.
                    let _ = end.recv();
                }
            }
        }
        Ok(())
    }

    /// Writes what a recovery kit is made of beside the node's state, where it names other channels
    /// than there are: at the start, and within a tick of an opening.
    fn keep_kit(&mut self) -> Result<(), Fatal> {
        let open = |it: &Listed| !matches!(it.state, ChannelState::Offered | ChannelState::Closed);
        let listed = self.driver.node().list();
        let channels: BTreeSet<ChannelId> =
            listed.into_iter().filter(open).map(|it| it.id).collect();
        if channels == self.in_kit {
            return Ok(());
        }
        let address = |(name, peer): (&String, &PeerId)| Some((*peer, *self.peers.get(name)?));
        let addresses = self.names.iter().filter_map(address).collect();
        let stored = self.driver.store_mut().load().map_err(Fatal)?;
        let content = crate::kit::content(&self.shared.keys, &stored, &addresses);
        kit::write_beside(self.dir, &content, &self.shared.control.env).map_err(Fatal)?;
        self.in_kit = channels;
        Ok(())
    }

    /// Looks at the ledger, takes releases over that the program recorded, calls absent peers.
    fn tick(&mut self) -> Result<(), Fatal> {
        self.keep_kit()?;
        for id in self.driver.node().watched() {
            // Where the ledger can't be reached it is asked again at the next tick.
            let Ok(view) = self.ledger.view(id.clone()) else { break };
            self.feed(Input::Ledger(id, view))?;
        }
        for id in self.held() {
            if let Some(release) = self.driver.gate_mut().released(&id).map_err(Fatal)? {
                let released = self.driver.release(&id, &release);
                // What is refused is tried again at the next tick.
                drop(self.carry(released)?);
            }
        }
        let absent: Vec<(String, SocketAddr)> = self
            .peers
            .iter()
            .filter(|(name, _)| !self.calling.contains(*name) && !self.is_met(name))
            .map(|(name, address)| (name.clone(), *address))
            .collect();
        for (name, address) in absent {
            self.call(name, address);
        }
        Ok(())
    }

    fn call(&mut self, name: String, address: SocketAddr) {
        self.calling.insert(name.clone());
        let shared = self.shared;
        self.scope.spawn(move || {
            let connected = TcpStream::connect_timeout(&address, DIAL_MAX)
                .map_err(|error| Error::io(address, error))
                .and_then(|stream| Ok((shared.connections.begin(&stream)?, stream)));
            let Ok((number, stream)) = connected else {
                // Where the loop has ended, nobody has to be told.
                let _ = shared.events.send(Event::Missed(name));
                return;
            };
            session(shared, stream, Some(name));
            shared.connections.end(number);
        });
    }

    /// A session has begun. Of two that both sides opened at once, both keep the one that the lesser
    /// key has called for; else the newer one, since the older is dead.
    fn met(&mut self, link: Link) -> Result<(), Fatal> {
        let peer = link.peer;
        if let Some(name) = &link.called {
            self.calling.remove(name);
            self.names.insert(name.clone(), peer);
        }
        let us = self.shared.keys.peer_id();
        let by_lesser = |link: &Link| link.called.is_some() == (us < peer);
        if let Some(old) = self.links.get(&peer) {
            if by_lesser(old) && !by_lesser(&link) {
                // It ends on its own where it has ended already.
                let _ = link.stream.shutdown(Shutdown::Both);
                return Ok(());
            }
            self.part(peer)?;
        }
        self.links.insert(peer, link);
        self.feed(Input::Connected(peer))
    }

    fn part(&mut self, peer: PeerId) -> Result<(), Fatal> {
        let Some(link) = self.links.remove(&peer) else { return Ok(()) };
        // It ends on its own where it has ended already.
        let _ = link.stream.shutdown(Shutdown::Both);
        self.feed(Input::Disconnected(peer))
    }

    fn asked(&mut self, request: NodeRequest) -> Result<Result<Value>, Fatal> {
        let command = match request.command(|name| self.names.get(name).copied()) {
            Ok(Some(command)) => Input::Command(command),
            Err(error) => return Ok(Err(error)),
            Ok(None) => return self.asked_shell(request),
        };
        Ok(self.input(command)?.map(|answer| json!(answer)))
    }

    /// A request that is not a command of the core.
    fn asked_shell(&mut self, request: NodeRequest) -> Result<Result<Value>, Fatal> {
        Ok(Ok(match request {
            NodeRequest::Payment { hash } => json!(self.driver.node().payment(&hash)),
            NodeRequest::Release { channel, reason, by } => {
                let release = match control::release(reason, by) {
                    Ok(release) => release,
                    Err(error) => return Ok(Err(error)),
                };
                let released = self.driver.release(&channel, &release);
                return Ok(self.carry(released)?.map(|_| json!("done")));
            }
            NodeRequest::Connect { name, address } => {
                self.peers.insert(name, address);
                json!("done")
            }
            NodeRequest::Stop => {
                self.stopping = true;
                json!("done")
            }
            _ => self.list(),
        }))
    }

    fn list(&self) -> Value {
        let node = self.driver.node();
        json!({
            "node": node.peer_id(),
            "channels": node.list(),
            "lacking": node.lacking().collect::<Vec<_>>(),
            "sessions": self.links.keys().collect::<Vec<_>>(),
        })
    }

    /// An input that nobody waits for. Where the witness could not be reached, nothing has left, and
    /// new sessions begin.
    fn feed(&mut self, input: Input) -> Result<(), Fatal> {
        self.input(input).map(drop)
    }

    fn input(&mut self, input: Input) -> Handled {
        let outcome = self.driver.handle(input);
        self.carry(outcome)
    }

    /// Lets leave what may leave.
    fn carry(&mut self, outcome: Result<Outcome, Failure>) -> Handled {
        let Outcome { effects, answer } = match outcome {
            Ok(outcome) => outcome,
            Err(Failure::Refused(error)) => return Ok(Err(error)),
            Err(Failure::Stopped(error)) => return Err(Fatal(error)),
            Err(Failure::Silent(error)) => {
                // The core has ended its sessions: the next ones begin where the peers stand.
                for link in std::mem::take(&mut self.links).into_values() {
                    let _ = link.stream.shutdown(Shutdown::Both);
                }
                return Ok(Err(error));
            }
        };
        let mut broken = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Send(peer, message) => {
                    let Some(link) = self.links.get_mut(&peer) else { continue };
                    if !broken.contains(&peer) && write_frame(&mut link.stream, &message).is_err() {
                        broken.insert(peer);
                    }
                }
                // What it refuses came too late; what did not reach it is submitted again.
                Effect::Submit(transaction) => drop(self.ledger.submit(transaction)),
            }
        }
        for peer in broken {
            self.part(peer)?;
        }
        Ok(Ok(answer))
    }

    fn peer_of(&self, number: u64) -> Option<PeerId> {
        self.links.values().find(|link| link.number == number).map(|link| link.peer)
    }

    fn is_met(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|peer| self.links.contains_key(peer))
    }

    fn held(&self) -> Vec<ChannelId> {
        let list = self.driver.node().list().into_iter();
        list.filter(|it| matches!(it.state, ChannelState::Waiting | ChannelState::Blocked))
            .map(|it| it.id)
            .collect()
    }

    /// The marks of all channels that are not closed, as a backup records them.
    fn marks(&self) -> BTreeMap<String, u64> {
        let list = self.driver.node().list().into_iter();
        list.filter_map(|it| Some(channel_marks(it.id.as_str(), &it.ours?))).flatten().collect()
    }
}
