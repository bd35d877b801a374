//! What callers ask of a record, and what each of them changes in it.

use highwater_guard::Ours;

use crate::error::{Error, Result};
use crate::vault::witness::{WitnessEntry, WitnessOff, WitnessRecord};

use super::{Move, Raised};

/// One caller's wish.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Raise { moves: Vec<Move>, counters: Vec<(String, u64)> },
    Accept(Move),
    Retire(String),
    Off(WitnessOff),
    On,
}

impl Change {
    /// Changes `record` by it, all or nothing.
    pub(super) fn apply(self, record: &mut WitnessRecord) -> Result<Raised> {
        match self {
            Change::Raise { moves, counters } => raise(record, moves, counters),
            Change::Accept(Move { channel, ours }) => {
                let continuous = record.off.is_none();
                let Ours { revoked, received, closing, .. } = ours;
                let epoch = record.epoch;
                let signed = signed(&ours);
                record.channels.insert(
                    channel,
                    WitnessEntry { signed, revoked, received, closing, continuous, epoch },
                );
                Ok(Raised::Durable)
            }
            Change::Retire(channel) => {
                record.channels.remove(&channel);
                Ok(Raised::Durable)
            }
            Change::Off(off) => {
                record.off.get_or_insert(off);
                record.channels.values_mut().for_each(|entry| entry.continuous = false);
                Ok(Raised::Durable)
            }
            Change::On => {
                record.off = None;
                Ok(Raised::Durable)
            }
        }
    }
}

fn raise(
    record: &mut WitnessRecord,
    moves: Vec<Move>,
    counters: Vec<(String, u64)>,
) -> Result<Raised> {
    moves.iter().try_for_each(|step| possible(record, step))?;
    for (name, value) in &counters {
        match record.counters.get(name) {
            Some(stands) if value < stands => {
                return Err(below(name, "the counter", *value, *stands));
            }
            _ => {}
        }
    }
    if record.off.is_some() {
        return Ok(Raised::SwitchedOff);
    }
    for Move { channel, ours } in moves {
        let epoch = record.epoch;
        let entry = record.channels.entry(channel).or_insert(WitnessEntry {
            signed: 0,
            revoked: 0,
            received: 0,
            closing: false,
            continuous: true,
            epoch,
        });
        let mut raised = *entry;
        raised.signed = signed(&ours).max(entry.signed);
        raised.revoked = ours.revoked.max(entry.revoked);
        raised.received = ours.received.max(entry.received);
        raised.closing |= ours.closing;
        // Numbers that are raised again as they stand stay those of the epoch that raised them.
        if raised != *entry {
            raised.epoch = epoch;
        }
        *entry = raised;
    }
    for (name, value) in counters {
        let counter = record.counters.entry(name).or_default();
        *counter = value.max(*counter);
    }
    Ok(Raised::Durable)
}

/// Whether a move leads up from what stands, in the history of this owner.
fn possible(record: &WitnessRecord, step: &Move) -> Result<()> {
    let Move { channel, ours } = step;
    let stands = record.channels.get(channel);
    let (signed, revoked, received, closing) =
        stands.map_or((0, 0, 0, false), |it| (it.signed, it.revoked, it.received, it.closing));
    let numbers = [
        ("commitments signed", self::signed(ours), signed),
        ("revocations sent", ours.revoked, revoked),
        ("revocations received", ours.received, received),
        ("closing signatures", ours.closing.into(), closing.into()),
    ];
    for (what, mine, its) in numbers {
        if mine < its {
            return Err(below(channel, what, mine, its));
        }
    }
    let rises = stands.is_none() || numbers.iter().any(|(_, mine, its)| mine > its);
    // Stored under an older epoch it would be found to have moved elsewhere at the next start.
    if rises && record.off.is_none() && ours.epoch != record.epoch {
        return Err(Error::bug(format!(
            "the move was stored under epoch {}, the witness is owned under {}",
            ours.epoch, record.epoch
        ))
        .with_entry(channel.clone())
        .with_remedy("store what is not yet in the witness again, under the epoch of this start"));
    }
    Ok(())
}

fn signed(ours: &highwater_guard::Ours) -> u64 {
    ours.signed.unwrap_or(ours.received)
}

fn below(entry: &str, what: &str, mine: u64, its: u64) -> Error {
    Error::bug(format!("{what}: {mine} is below {its}, which the witness has")).with_entry(entry)
}
