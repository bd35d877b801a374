//! Both stores keep the same promises; the adapter tells what is in the database.

use highwater::guard::{Adapter as _, Phase};
use highwater_guard::{Channel as _, Reason, Verdict};

use super::*;
use crate::adapter::NodeAdapter;
use crate::channel::Terms;
use crate::ids::{Both, Side};
use crate::keys::NodeKeys;

const BALANCE: Both<Sats> = Both { opener: Sats(10), acceptor: Sats(20) };

fn offer(index: u64) -> Offer {
    let (us, them) = (NodeKeys::new([1; 32]), NodeKeys::new([2; 32]));
    Offer::new(&us, them.peer_id(), index, BALANCE)
}

/// A channel with both first signatures.
fn channel(index: u64) -> Channel {
    let (us, them) = (NodeKeys::new([1; 32]), NodeKeys::new([2; 32]));
    let terms = |with: &NodeKeys, side| {
        let (peer, keys) = (with.peer_id(), with.channel(index));
        let revocations = [keys.revocation_hash(0), keys.revocation_hash(1)];
        let (id, their_key) = (offer(index).id, keys.signing.public());
        Terms { id, peer, side, index, balance: BALANCE, their_key, revocations }
    };
    let signature = terms(&us, Side::Acceptor).sign(&them.channel(index));
    terms(&them, Side::Opener).channel(&us, signature, 0).unwrap()
}

/// Writes one of everything; `again` opens the store anew.
fn keeps_its_promises(again: &dyn Fn() -> Box<dyn Store>) {
    assert_eq!(again().load().unwrap(), Stored::default());
    let (live, held, closed) = (channel(0), channel(1), channel(2));
    let payment = Payment {
        hash: PaymentHash([5; 32]),
        channel: live.id().clone(),
        amount: Sats(3),
        state: PaymentState::Paid(Preimage([6; 32])),
    };
    let counters = Counters { channel: 4, invoice: 7 };
    let stale = Stale { verdict: Some(Verdict::Blocked(Reason::RevocationLost)) };
    let mut records = vec![
        Record::Offer(offer(0)),
        Record::Offer(offer(3)),
        Record::Invoice(Preimage([8; 32])),
        Record::Payment(payment.clone()),
        Record::Counters(counters),
    ];
    for channel in [&live, &held, &closed] {
        records.push(Record::Channel(Box::new(channel.clone())));
        records.push(Record::Stale(channel.id().clone(), stale));
    }
    records.push(Record::Unmark(live.id().clone(), u64::from(u32::MAX) + 9));
    records.push(Record::Closed(closed.id().clone()));
    // A channel that moves on keeps its mark.
    records.push(Record::Channel(Box::new(held.clone())));
    again().commit(&records).unwrap();

    let mut stamped = live;
    stamped.stamp(u64::from(u32::MAX) + 9);
    let mut channels = vec![
        StoredChannel { channel: stamped, stale: None, closed: false },
        StoredChannel { channel: held, stale: Some(stale), closed: false },
        StoredChannel { channel: closed, stale: None, closed: true },
    ];
    channels.sort_by(|one, other| one.channel.id().cmp(other.channel.id()));
    let expected = Stored {
        offers: vec![offer(3)],
        channels,
        invoices: vec![Preimage([8; 32])],
        payments: vec![payment],
        counters,
    };
    assert_eq!(again().load().unwrap(), expected);
}

#[test]
fn what_is_committed_is_there_after_a_crash_in_either_store() {
    let disk = Disk::default();
    keeps_its_promises(&|| Box::new(MemoryStore::new(disk.clone())));
    let dir = tempfile::tempdir().unwrap();
    keeps_its_promises(&|| Box::new(SqliteStore::open(dir.path(), true).unwrap()));
}

#[test]
fn the_adapter_lists_channels_with_their_phase_and_marks_them_for_good() {
    let dir = tempfile::tempdir().unwrap();
    assert!(NodeAdapter.open(dir.path()).is_err(), "it makes no database");
    let (open, closed) = (channel(1), channel(2));
    let mut store = SqliteStore::open(dir.path(), true).unwrap();
    let records = [
        Record::Offer(offer(0)),
        Record::Channel(Box::new(open.clone())),
        Record::Channel(Box::new(closed.clone())),
        Record::Closed(closed.id().clone()),
    ];
    store.commit(&records).unwrap();
    drop(store);

    let mut guarded = NodeAdapter.open(dir.path()).unwrap();
    let listed = guarded.channels().unwrap();
    let phase = |id: &ChannelId| {
        let record = listed.iter().find(|record| record.id == id.as_str()).unwrap();
        (record.phase, record.ours)
    };
    assert_eq!(phase(&offer(0).id).0, Phase::Funding);
    assert_eq!(phase(open.id()), (Phase::Open, open.ours()));
    assert_eq!(phase(closed.id()).0, Phase::Closed);
    guarded.mark_stale(open.id().as_str()).unwrap();
    guarded.mark_stale(open.id().as_str()).unwrap();
    assert!(guarded.mark_stale("unknown").is_err());
    drop(guarded);
    assert_eq!(NodeAdapter.open(dir.path()).unwrap().stale().unwrap(), [open.id().as_str()]);
}
