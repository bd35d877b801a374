//! A store in memory, with a disk that survives its crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use highwater::{Error, Result};

use super::{Counters, Payment, Record, Store, Stored, StoredChannel};
use crate::channel::Offer;
use crate::ids::{ChannelId, PaymentHash, Preimage};

/// A disk; clones are the same one. A copy of it is [`Disk::image`].
#[derive(Clone, Default)]
pub struct Disk {
    content: Arc<Mutex<Content>>,
}

#[derive(Clone, Default)]
struct Content {
    offers: BTreeMap<ChannelId, Offer>,
    channels: BTreeMap<ChannelId, StoredChannel>,
    invoices: Vec<Preimage>,
    payments: BTreeMap<PaymentHash, Payment>,
    counters: Counters,
}

impl Disk {
    /// What a backup at this instant would bring back.
    pub fn image(&self) -> Disk {
        Disk { content: Arc::new(Mutex::new(self.with(|content| content.clone()))) }
    }

    /// Puts the mark on every channel that could be punished, as a restore does.
    pub fn mark_stale(&self) {
        self.with(|content| {
            for stored in content.channels.values_mut().filter(|stored| !stored.closed) {
                stored.stale.get_or_insert_default();
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> T {
        act(&mut self.content.lock().expect("nothing panics while it holds the disk"))
    }
}

/// A store on a [`Disk`]. A transaction that was not synced is gone when the store is dropped.
pub struct MemoryStore {
    disk: Disk,
    cut: Option<Cut>,
}

/// Where the next commit stops, as if the power went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Written, not synced: it is gone.
    BeforeSync,
    /// Synced, not reported.
    AfterSync,
}

impl MemoryStore {
    /// Opens the disk.
    pub fn new(disk: Disk) -> MemoryStore {
        MemoryStore { disk, cut: None }
    }

    /// Lets the next commit stop there.
    pub fn cut(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Stored> {
        let content = self.disk.with(|content| content.clone());
        Ok(Stored {
            offers: content.offers.into_values().collect(),
            channels: content.channels.into_values().collect(),
            invoices: content.invoices,
            payments: content.payments.into_values().collect(),
            counters: content.counters,
        })
    }

    fn commit(&mut self, records: &[Record]) -> Result<()> {
        let gone = || Error::unavailable("the power went");
        match self.cut.take() {
            Some(Cut::BeforeSync) => Err(gone()),
            cut => {
                self.disk.with(|content| records.iter().for_each(|record| content.apply(record)));
                if cut.is_some() { Err(gone()) } else { Ok(()) }
            }
        }
    }
}

impl Content {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Offer(offer) => {
                self.offers.insert(offer.id.clone(), offer.clone());
            }
            Record::Channel(channel) => {
                self.offers.remove(channel.id());
                let stored = self.channels.entry(channel.id().clone());
                let fresh =
                    || StoredChannel { channel: (**channel).clone(), stale: None, closed: false };
                stored.or_insert_with(fresh).channel = (**channel).clone();
            }
            Record::Stale(id, stale) => {
                if let Some(stored) = self.channels.get_mut(id) {
                    stored.stale = Some(*stale);
                }
            }
            Record::Unmark(id, epoch) => {
                if let Some(stored) = self.channels.get_mut(id) {
                    stored.stale = None;
                    stored.channel.stamp(*epoch);
                }
            }
            Record::Closed(id) => {
                if let Some(stored) = self.channels.get_mut(id) {
                    stored.closed = true;
                    stored.stale = None;
                }
            }
            Record::Invoice(preimage) => self.invoices.push(*preimage),
            Record::Payment(payment) => {
                self.payments.insert(payment.hash, payment.clone());
            }
            Record::Counters(counters) => self.counters = *counters,
        }
    }
}
