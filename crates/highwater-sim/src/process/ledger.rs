//! The ledger as a process, and how a node asks it.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Subcommand;
use highwater::{Control, Error, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lines::{self, Client, Connections};
use super::{run, say};
use crate::ids::{ChannelId, PeerId};
use crate::ledger::{Ledger, Transaction, View};

/// What the ledger is asked.
#[derive(Clone, Debug, Serialize, Deserialize, Subcommand)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum LedgerRequest {
    /// Adds blocks.
    Advance {
        /// How many.
        blocks: u64,
    },
    /// What it shows of a channel.
    View {
        /// The channel.
        channel: ChannelId,
    },
    /// What a node was paid in the end.
    Paid {
        /// The node.
        node: PeerId,
    },
    /// Takes a transaction.
    #[command(skip)]
    Submit {
        /// The transaction.
        transaction: Box<Transaction>,
    },
}

/// Runs the ledger until it is told to stop.
pub(super) fn serve(address: SocketAddr, control: &Control) -> Result<()> {
    let stop = run::stop_signal()?;
    let (listener, address) = lines::listen(address)?;
    say(&json!({ "listen": address }))?;
    let ledger = Mutex::new(Ledger::default());
    let connections = Connections::default();
    std::thread::scope(|scope| {
        let (ledger, connections) = (&ledger, &connections);
        lines::accept(scope, listener, connections, move |stream| {
            lines::answer_all(stream, |request| answer(&mut ledger.lock(), request));
        });
        while !stop() {
            control.env.pause(Duration::from_millis(50));
        }
        connections.stop(&[address]);
    });
    Ok(())
}

fn answer(ledger: &mut Ledger, request: LedgerRequest) -> Result<Value> {
    match request {
        LedgerRequest::Advance { blocks } => {
            ledger.advance(blocks);
            Ok(json!({ "height": ledger.height() }))
        }
        LedgerRequest::View { channel } => serde_json::to_value(ledger.view(&channel))
            .map_err(|error| Error::bug("a view can't be written as JSON").with_source(error)),
        LedgerRequest::Paid { node } => Ok(json!(ledger.paid(&node))),
        LedgerRequest::Submit { transaction } => ledger.submit(*transaction).map(|()| Value::Null),
    }
}

/// A node's line to the ledger. It comes back by itself.
pub(super) struct LedgerLine {
    address: SocketAddr,
    client: Option<Client>,
}

impl LedgerLine {
    pub(super) fn new(address: SocketAddr) -> LedgerLine {
        LedgerLine { address, client: None }
    }

    /// What the ledger shows of a channel.
    pub(super) fn view(&mut self, channel: ChannelId) -> Result<View> {
        self.ask(&LedgerRequest::View { channel })
    }

    /// Submits a transaction. What the ledger lacks is submitted again when it is looked at next.
    pub(super) fn submit(&mut self, transaction: Transaction) -> Result<()> {
        self.ask::<Value>(&LedgerRequest::Submit { transaction: Box::new(transaction) }).map(drop)
    }

    fn ask<A: serde::de::DeserializeOwned>(&mut self, request: &LedgerRequest) -> Result<A> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.address)?,
        };
        let answer = client.ask(request);
        let broken = matches!(&answer, Err(error) if error.kind() == highwater::Kind::Unavailable);
        self.client = (!broken).then_some(client);
        answer
    }
}
