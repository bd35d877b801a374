//! A wire that is listened to: each session from node 0 to node 1 goes through it, frame by frame, and
//! it keeps a copy of every byte. It can hold frames back, so that a test stops the talk where it wants.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use highwater_sim::wire::FRAME_BYTES_MAX;

/// What is waited for on the wire comes within this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// With two frames each, both sides say who they are; they tell nothing of any channel.
pub(crate) const GREETING: usize = 2;

pub(crate) struct Tap {
    address: SocketAddr,
    state: Mutex<TapState>,
    changed: Condvar,
}

#[derive(Default)]
struct TapState {
    target: Option<SocketAddr>,
    /// A frame with this in it, and all after it, stays with its sender; for each sender.
    holds: [Option<&'static str>; 2],
    sessions: Vec<Session>,
    ended: bool,
}

struct Session {
    /// What each side has sent, held back or not.
    sent: [Vec<Vec<u8>>; 2],
    /// What has passed, by whom, in this order: before it reached the other side.
    passed: Vec<(usize, Vec<u8>)>,
    streams: [TcpStream; 2],
    /// Directions that still carry.
    open: usize,
    /// Frames that are held back are lost, so that the end of the session is seen behind them.
    ending: bool,
}

/// What becomes of a frame.
enum Pass {
    Through,
    Lost,
    /// The session has ended.
    End,
}

/// Ends the wire, also where the test has failed, so that its threads end.
struct End<'a>(&'a Tap);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.cut();
        self.0.changed.notify_all();
        // It only wakes who accepts.
        drop(TcpStream::connect(self.0.address));
    }
}

/// Runs a test with a wire.
pub(crate) fn with_tap<T>(test: impl FnOnce(&Tap) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tap = Tap { address, state: Mutex::default(), changed: Condvar::new() };
    std::thread::scope(|scope| {
        let tap = &tap;
        let _end = End(tap);
        scope.spawn(move || tap.accept(scope, &listener));
        test(tap)
    })
}

impl Tap {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads to, from the next session on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.state().target = Some(target);
    }

    /// Holds back what `from` says after its greeting, from the first frame with `needle` in it on.
    pub(crate) fn hold(&self, from: usize, needle: &'static str) {
        self.state().holds[from] = Some(needle);
    }

    /// Lets all through.
    pub(crate) fn let_through(&self) {
        self.state().holds = [None, None];
        self.changed.notify_all();
    }

    /// Ends all sessions.
    pub(crate) fn cut(&self) {
        for stream in self.state().sessions.iter().flat_map(|session| &session.streams) {
            // One that has ended already is ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many sessions there have been.
    pub(crate) fn sessions(&self) -> usize {
        self.state().sessions.len()
    }

    /// Waits until a frame with `needle` in it has left `from`, in a session from number `since` on;
    /// it may be held back.
    pub(crate) fn await_frame(&self, since: usize, from: usize, needle: &str) {
        self.wait(|state| {
            let mut frames = state.sessions[since.min(state.sessions.len())..].iter();
            frames.any(|session| session.sent[from].iter().any(|frame| contains(frame, needle)))
        });
    }

    /// Waits until every session has ended, as one does with a node that was killed: then all that was
    /// ever sent is known. What was held back is lost.
    pub(crate) fn await_end(&self) {
        self.state().sessions.iter_mut().for_each(|session| session.ending = true);
        self.changed.notify_all();
        self.wait(|state| state.sessions.iter().all(|session| session.open == 0));
    }

    /// All that `from` has said about a channel since the session of that number.
    pub(crate) fn said_about(&self, since: usize, from: usize, id: &str) -> Vec<String> {
        let state = self.state();
        let frames = state.sessions[since..].iter().flat_map(|session| &session.sent[from]);
        frames
            .filter(|frame| contains(frame, id))
            .map(|frame| String::from_utf8_lossy(&frame[4..]).into_owned())
            .collect()
    }

    /// All that `from` has said since the session of that number, but its greetings.
    pub(crate) fn said(&self, since: usize, from: usize) -> Vec<String> {
        let state = self.state();
        let sessions = state.sessions[since..].iter();
        let frames = sessions.flat_map(|session| session.sent[from].iter().skip(GREETING));
        frames.map(|frame| String::from_utf8_lossy(&frame[4..]).into_owned()).collect()
    }

    /// In every session since that number, `from` has said nothing about the channel before it heard
    /// where the other side stands.
    pub(crate) fn listened_first(&self, since: usize, from: usize, id: &str) -> bool {
        self.state().sessions[since..].iter().all(|session| {
            let about = session.passed.iter().find(|(_, frame)| contains(frame, id));
            about.is_none_or(|(first, frame)| *first != from && contains(frame, "\"reestablish\""))
        })
    }

    fn accept<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let target = self.state().target;
            if self.state().ended {
                return;
            }
            let (Ok(caller), Some(target)) = (stream, target) else { continue };
            // Where nobody is there, the caller finds the session ended, and calls again.
            let Ok(called) = TcpStream::connect(target) else { continue };
            let copies =
                |[one, two]: [&TcpStream; 2]| [one.try_clone().unwrap(), two.try_clone().unwrap()];
            let streams = copies([&caller, &called]);
            let number = {
                let mut state = self.state();
                state.sessions.push(Session::new(streams));
                state.sessions.len() - 1
            };
            for (from, [read, write]) in
                [copies([&caller, &called]), copies([&called, &caller])].into_iter().enumerate()
            {
                scope.spawn(move || self.carry(number, from, read, write));
            }
        }
    }

    fn carry(&self, number: usize, from: usize, mut read: TcpStream, mut write: TcpStream) {
        while let Some(frame) = read_frame(&mut read) {
            match self.pass(number, from, &frame) {
                Pass::Lost => {}
                Pass::Through if write.write_all(&frame).is_ok() => {}
                Pass::Through | Pass::End => break,
            }
        }
        for stream in [read, write] {
            // One that has ended already is ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.state().sessions[number].open -= 1;
        self.changed.notify_all();
    }

    /// Keeps a copy of a frame, and waits while it is held back.
    fn pass(&self, number: usize, from: usize, frame: &[u8]) -> Pass {
        let mut state = self.state();
        state.sessions[number].sent[from].push(frame.to_vec());
        self.changed.notify_all();
        let held = |state: &TapState| {
            let greeted = state.sessions[number].sent[from].len() > GREETING;
            greeted && state.holds[from].is_some_and(|needle| contains(frame, needle))
        };
        let goes_on = |state: &TapState| {
            let session = &state.sessions[number];
            !state.ended && session.open == 2 && !session.ending
        };
        let waits = |state: &mut TapState| held(state) && goes_on(state);
        state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        if state.ended || state.sessions[number].open < 2 {
            return Pass::End;
        }
        if held(&state) {
            return Pass::Lost;
        }
        state.sessions[number].passed.push((from, frame.to_vec()));
        Pass::Through
    }

    fn wait(&self, wanted: impl Fn(&TapState) -> bool) {
        let (state, waited) = self
            .changed
            .wait_timeout_while(self.state(), PATIENCE, |state| !wanted(state))
            .unwrap();
        drop(state);
        assert!(!waited.timed_out(), "it never came over the wire");
    }

    fn state(&self) -> MutexGuard<'_, TapState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn new(streams: [TcpStream; 2]) -> Session {
        Session {
            sent: [Vec::new(), Vec::new()],
            passed: Vec::new(),
            streams,
            open: 2,
            ending: false,
        }
    }
}

/// The bytes of one frame as they stand on the wire; `None` at the end of a session.
fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let bytes = u32::from_be_bytes(length) as usize;
    assert!(bytes <= FRAME_BYTES_MAX, "a frame of {bytes} bytes");
    let mut frame = length.to_vec();
    frame.resize(4 + bytes, 0);
    stream.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

fn contains(frame: &[u8], needle: &str) -> bool {
    needle.is_empty() || frame.windows(needle.len()).any(|window| window == needle.as_bytes())
}
