//! A light source of load: one thread, one epoll, connections that are kept, and requests whose bytes are
//! made once and only patched. It shares its cores with what it measures.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::message::{self, Answer, Request, Shape};

/// Answers that were asked for when the time is over are waited for so long.
const LAST_WAIT: u64 = 60_000_000_000;
/// Names the timer among the connections.
const TIMER: u64 = u64::MAX;
const READ_BYTES: usize = 16 << 10;

/// What is done to a server.
pub(super) struct Load {
    pub(super) clients: usize,
    pub(super) shape: Shape,
    /// Requests a second of all clients together; none: each asks again as soon as it is answered.
    pub(super) pace: Option<f64>,
    /// Before anything counts.
    pub(super) warm_up: Duration,
    pub(super) time: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// A second.
    pub(super) requests: f64,
    /// Milliseconds, from when a request was due.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Seconds of the processor that the load itself took, for each second.
    pub(super) busy: f64,
}

/// Nanoseconds of a clock that only rises.
pub(super) fn now() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

fn nanos(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

fn busy() -> u64 {
    nanos(clock_gettime(ClockId::ProcessCPUTime))
}

/// One connection and the request on it.
struct Client {
    stream: TcpStream,
    request: Request,
    sent: usize,
    answer: Answer,
    /// When the request on its way was due; none: nothing is on its way.
    due: Option<u64>,
    /// When the next one is due, where there is a pace.
    next: u64,
}

impl Load {
    /// Does it. What it writes, it writes again when it is done again.
    pub(super) fn run(&self, server: SocketAddr) -> Result<Outcome> {
        let mut running = Running::new(self, server)?;
        let begin = running.begin;
        let end = begin + whole(self.time);
        let busy_first = busy();
        running.all(end)?;
        let busy = (busy() - busy_first) as f64 / 1e9;
        let mut waits = running.waits;
        waits.sort_unstable();
        let at = |share: f64| {
            let place = (waits.len() as f64 * share) as usize;
            waits.get(place.min(waits.len().saturating_sub(1))).map_or(0.0, |&ns| ns as f64 / 1e6)
        };
        if waits.is_empty() {
            bail!("no answer came in time");
        }
        Ok(Outcome {
            requests: waits.len() as f64 / self.time.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            busy: busy / (self.time + self.warm_up).as_secs_f64(),
        })
    }
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

struct Running {
    epoll: OwnedFd,
    timer: OwnedFd,
    clients: Vec<Client>,
    /// Clients that wait for their time.
    idle: BinaryHeap<Reverse<(u64, usize)>>,
    /// Nanoseconds between two requests of a client; 0: none.
    every: u64,
    begin: u64,
    waits: Vec<u64>,
    buffer: Vec<u8>,
    /// What the timer is set to.
    rings: u64,
}

impl Running {
    fn new(load: &Load, server: SocketAddr) -> Result<Running> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let every = load.pace.map_or(0, |pace| (load.clients as f64 / pace * 1e9).round() as u64);
        let mut clients = Vec::with_capacity(load.clients);
        let first = now();
        for number in 0..load.clients {
            let stream = TcpStream::connect(server).context("connecting to the server")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(number as u64), flags)?;
            clients.push(Client {
                stream,
                request: message::put(&load.shape, number),
                sent: 0,
                answer: Answer::default(),
                due: None,
                next: first + every * number as u64 / load.clients as u64,
            });
        }
        let begin = first + whole(load.warm_up);
        let idle = (0..load.clients).map(|number| Reverse((clients[number].next, number)));
        let idle = idle.collect();
        let buffer = vec![0; READ_BYTES];
        Ok(Running {
            epoll,
            timer,
            clients,
            idle,
            every,
            begin,
            waits: Vec::new(),
            buffer,
            rings: 0,
        })
    }

    fn all(&mut self, end: u64) -> Result<()> {
        let mut events = Vec::with_capacity(self.clients.len() + 1);
        loop {
            let time = now();
            if time >= end {
                self.idle.clear();
                if self.clients.iter().all(|client| client.due.is_none()) {
                    return Ok(());
                }
                if time >= end + LAST_WAIT {
                    bail!("the server does not answer");
                }
            }
            while let Some(&Reverse((due, number))) = self.idle.peek()
                && due <= time
            {
                self.idle.pop();
                self.ask(number, due, end)?;
            }
            let next = self.idle.peek().map_or(end, |Reverse((due, _))| (*due).min(end));
            self.set(if time >= end { end + LAST_WAIT } else { next })?;
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                let event: epoll::Event = *event;
                match usize::try_from(event.data.u64()) {
                    Ok(number) if event.data.u64() != TIMER => self.go_on(number, end)?,
                    // It rings until it is read, or set anew; what is due is looked at above.
                    _ => {}
                }
            }
        }
    }

    /// Lets the timer ring at a time.
    fn set(&mut self, at: u64) -> Result<()> {
        if std::mem::replace(&mut self.rings, at) == at {
            return Ok(());
        }
        let at = i64::try_from(at)?;
        let it_value = Timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value)?;
        Ok(())
    }

    /// Begins a request, and goes on with it as far as that goes.
    fn ask(&mut self, number: usize, due: u64, end: u64) -> Result<()> {
        let client = &mut self.clients[number];
        client.request.turn();
        client.sent = 0;
        client.due = Some(due);
        client.next = due + self.every;
        self.go_on(number, end)
    }

    fn go_on(&mut self, number: usize, end: u64) -> Result<()> {
        loop {
            let client = &mut self.clients[number];
            let Some(due) = client.due else { return Ok(()) };
            if !client.advance(&mut self.buffer)? {
                return Ok(());
            }
            let time = now();
            if time >= self.begin && time < end {
                self.waits.push(time.saturating_sub(due));
            }
            client.due = None;
            if time >= end {
                return Ok(());
            }
            if self.every > 0 && client.next > time {
                self.idle.push(Reverse((client.next, number)));
                return Ok(());
            }
            // Late, or without a pace: at once. What is late counts from when it was due.
            let due = if self.every > 0 { client.next } else { time };
            client.request.turn();
            client.sent = 0;
            client.due = Some(due);
            client.next = due + self.every;
        }
    }
}

impl Client {
    /// Writes and reads what it can; whether the answer is there.
    fn advance(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let bytes = self.request.bytes();
        while self.sent < bytes.len() {
            match self.stream.write(&bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("sending a request"),
            }
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => {
                    if self.answer.take(&buffer[..count])? {
                        self.answer.finish()?;
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("receiving an answer"),
            }
        }
    }
}
