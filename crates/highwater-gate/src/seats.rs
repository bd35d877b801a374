//! Places for connections, shared fairly among those who call: when all are taken, a newcomer gets the place
//! of whoever rests longest among those from where most come.

use std::collections::{BTreeMap, HashMap};
use std::future::Future as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::connection::Calls;

/// Where an address belongs to: of version 6, whoever has one of a network of 64 bits has all of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())
        }
        address => address,
    }
}

/// The places of a server.
pub(crate) struct Seats {
    most: usize,
    /// Counts what happens on all connections: what happened longest ago has the lowest number.
    clock: Arc<AtomicU64>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    taken: BTreeMap<u64, Guest>,
}

/// A connection as the table knows it.
struct Guest {
    network: IpAddr,
    calls: Calls,
    /// Sent where it has to go.
    go: oneshot::Sender<()>,
}

/// The place of one connection, given back when this is dropped.
pub(crate) struct Seat {
    pub(crate) calls: Calls,
    seats: Arc<Seats>,
    number: u64,
    go: oneshot::Receiver<()>,
    gone: bool,
}

impl Seats {
    pub(crate) fn new(most: usize) -> Seats {
        Seats { most, clock: Arc::default(), table: Mutex::default() }
    }

    /// A place for a connection from `network`; none where nobody has to make room for it.
    pub(crate) fn take(seats: &Arc<Seats>, network: IpAddr) -> Option<Seat> {
        let mut table = seats.table.lock();
        if table.taken.len() >= seats.most {
            let number = table.whose(network)?;
            if let Some(guest) = table.taken.remove(&number) {
                // It may be on its way out.
                let _ = guest.go.send(());
            }
        }
        let calls = Calls::new(network, Arc::clone(&seats.clock));
        let (sender, go) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.taken.insert(number, Guest { network, calls: calls.clone(), go: sender });
        Some(Seat { calls, seats: Arc::clone(seats), number, go, gone: false })
    }
}

impl Table {
    /// Whose place a newcomer gets: of the network that has most of them, the one that rests longest. One
    /// that is at work only gives way to a network that has less than half as many.
    fn whose(&self, newcomer: IpAddr) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for guest in self.taken.values() {
            *counts.entry(guest.network).or_default() += 1;
        }
        let own = counts.get(&newcomer).copied().unwrap_or(0);
        let key = |(number, guest): &(&u64, &Guest)| {
            let (running, moved) = guest.calls.standing();
            let of = counts.get(&guest.network).copied().unwrap_or(0);
            (running, std::cmp::Reverse(of), moved, **number)
        };
        let (number, guest) = self.taken.iter().min_by_key(key)?;
        if !guest.calls.standing().0 {
            return Some(*number);
        }
        let (fullest, most) = counts.iter().max_by_key(|(_, count)| **count)?;
        if own >= most / 2 {
            return None;
        }
        let theirs = self.taken.iter().filter(|(_, guest)| guest.network == *fullest);
        theirs.min_by_key(|(_, guest)| guest.calls.standing().1).map(|(number, _)| *number)
    }
}

impl Seat {
    /// Whether another one has this place now; wakes the task once that is so.
    pub(crate) fn is_taken(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.gone {
            self.gone = matches!(Pin::new(&mut self.go).poll(cx), Poll::Ready(Ok(())));
        }
        self.gone
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.table.lock().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(most: usize) -> Arc<Seats> {
        Arc::new(Seats::new(most))
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_taken(seat: &mut Seat) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        seat.is_taken(&mut cx)
    }

    #[test]
    fn a_newcomer_gets_the_place_of_whoever_rests_longest_where_most_come_from() {
        let seats = seats(4);
        let mut others = Seats::take(&seats, from(2)).unwrap();
        let mut many: Vec<Seat> = (0..3).map(|_| Seats::take(&seats, from(1)).unwrap()).collect();
        drop(many[0].calls.begin());
        let newcomer = Seats::take(&seats, from(3)).unwrap();
        assert!(is_taken(&mut many[1]), "the first one has called since");
        assert!(!is_taken(&mut many[0]) && !is_taken(&mut many[2]) && !is_taken(&mut others));
        drop(newcomer);
        let _room = Seats::take(&seats, from(1)).unwrap();
        assert!(!is_taken(&mut many[0]) && !is_taken(&mut many[2]));
    }

    #[test]
    fn who_is_at_work_gives_way_to_a_stranger_alone() {
        let seats = seats(4);
        let mut many: Vec<Seat> = (0..4).map(|_| Seats::take(&seats, from(1)).unwrap()).collect();
        let calls: Vec<_> = many.iter().map(|seat| seat.calls.begin()).collect();
        assert!(Seats::take(&seats, from(1)).is_none());
        let mut stranger = Seats::take(&seats, from(2)).unwrap();
        assert!(is_taken(&mut many[0]) && !is_taken(&mut many[1]));
        let _call = stranger.calls.begin();
        assert!(Seats::take(&seats, from(2)).is_none(), "one of three is no less than half");
        drop(calls);
        assert!(Seats::take(&seats, from(2)).is_some());
        assert!(!is_taken(&mut stranger));
    }
}
