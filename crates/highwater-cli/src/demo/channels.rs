//! The demo's second act: a node with two payment channels is restored from a backup that is old for
//! one of them. The peer speaks; one channel is cleared and pays again, the other one stays blocked
//! until the peer closes it. Nothing is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::backup::{self, BackupOptions};
use highwater::engine::HoldHook;
use highwater::guard::{
    Adapter, Arrival, ChannelRecord, Guard, GuardKind, GuardedStore, Phase, Released, channel_marks,
};
use highwater::ids::NodeName;
use highwater::restore::{self, RestoreOptions};
use highwater::vault::{Selector, Vault};
use highwater::{Error, Result};
use highwater_guard::{FundingSpent, Opened, Ours, Policy, Quarantined, Reason, Report, Verdict};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::Demo;
use crate::{cli, commands};

/// The node's database.
const DATABASE: &str = "channels.sqlite";
/// The channels.
const NAMES: [&str; 2] = ["bakery", "cinema"];
/// What each side of a channel has at first, in satoshis.
const BALANCE: i64 = 50_000;
/// What each payment moves from us to the peer.
const PAYMENT: i64 = 1_000;

/// Tells the second act; the answer is what was found.
pub(super) fn act(demo: &Demo) -> Result<Value> {
    let shop = Shop { demo, dir: demo.node.with_file_name("shop") };
    let vault = demo.context.vault(&demo.vault_args()?)?;
    demo.say("A second node: two payment channels with one peer. Each has paid once.")?;
    let node = Arc::new(Mutex::new(Node::create(&shop.dir)?));
    let mut peer = Peer::default();
    for name in NAMES {
        pay(&node, &mut peer, name)?;
    }
    shop.backup(&vault, &node)?;
    for _ in 0..3 {
        pay(&node, &mut peer, "cinema")?;
    }
    drop(node);
    std::fs::remove_dir_all(&shop.dir).map_err(|error| Error::io("the node", error))?;
    demo.say("After the backup `cinema` pays three times more. Then the disk is lost.\n")?;

    let quarantined = shop.restore(&vault)?;
    shop.list()?;
    let (mut node, guard) = (Node::open(&shop.dir)?, shop.guard()?);
    let admitted = guard.admit(node.arrivals()?, |name| node.unmark(name))?;
    if !admitted.free.is_empty() {
        return Err(Error::bug("a restored channel was free before anybody had spoken"));
    }
    demo.say("The node starts, and is silent. The peer says what it has of each channel:")?;
    let mut held: BTreeMap<String, Quarantined<Channel>> = admitted.held.into_iter().collect();
    shop.hear(&guard, &mut held, &peer, &mut node)?;
    let blocked = held.remove("cinema").filter(|_| held.is_empty());
    let blocked = blocked.ok_or_else(|| Error::bug("the wrong channel was cleared"))?;
    node.pay("bakery")?;
    peer.take("bakery");
    demo.say("    `bakery` pays again\n")?;
    shop.list()?;

    let total = shop.close(&guard, blocked, &peer, &node)?;
    shop.list()?;
    Ok(
        json!({"quarantined": quarantined, "cleared": ["bakery"], "blocked": ["cinema"], "satoshis": total}),
    )
}

/// The node directory, and who tells of it.
struct Shop<'a> {
    demo: &'a Demo,
    dir: PathBuf,
}

impl Shop<'_> {
    /// A backup from inside the node: its writers are held, and its marks told, at the barrier.
    fn backup(&self, vault: &Vault, node: &Arc<Mutex<Node>>) -> Result<()> {
        let node = Arc::clone(node);
        let hold: HoldHook = Arc::new(move |capture| {
            let node = node.lock();
            capture(node.marks()?);
            Ok(())
        });
        let mut options = BackupOptions::default();
        options.guard = Some(GuardKind::Channels);
        options.capture.hold = Some(hold);
        let context = &self.demo.context;
        let report = backup::run(vault, &self.dir, &context.actor()?, &options, &context.control)?;
        self.demo.say(&format!("    backed up, with {} marks of its channels", report.marks.len()))
    }

    /// A restore through the node's own adapter, which marks the channels before the exchange.
    fn restore(&self, vault: &Vault) -> Result<u64> {
        let adapter: Arc<dyn Adapter> = Arc::new(ShopAdapter);
        let node: NodeName = "shop".parse()?;
        let mut options = RestoreOptions::default();
        options.selector =
            Selector { snapshot: "latest".to_owned(), node: Some(node), ..Selector::default() };
        options.adapter = Some(adapter);
        options.original_gone = Some(self.statement()?);
        let plan = restore::plan(vault, &self.dir, &options)?;
        let report = restore::run(vault, &plan, &options, &self.demo.context.control)?;
        let text =
            "It is restored from that backup, which is old for `cinema`. Nobody knows that yet:";
        self.demo.say(text)?;
        Ok(report.quarantined)
    }

    /// Without a witness nothing else keeps two copies of a node apart.
    fn statement(&self) -> Result<Released> {
        let (by, time) = (self.demo.context.actor()?.name, self.demo.context.env().now());
        Ok(Released { reason: "its disk is lost".to_owned(), by, time })
    }

    fn guard(&self) -> Result<Guard> {
        Guard::open(&self.dir, "shop".parse()?, Policy::Peer, None, &self.demo.context.control)
    }

    /// The peer's word on each channel, and what it lets out.
    fn hear(
        &self,
        guard: &Guard,
        held: &mut BTreeMap<String, Quarantined<Channel>>,
        peer: &Peer,
        node: &mut Node,
    ) -> Result<()> {
        for (name, mut channel) in std::mem::take(held) {
            let report = peer.report(&name);
            let (ours, verdict) = (channel.ours(), channel.hear(report));
            self.demo.say(&format!(
                "    {name}: the peer has {} of our revocations, we remember {}: {}",
                report.revocations_held,
                ours.revoked,
                word(verdict)
            ))?;
            if let Opened::Held(channel) = guard.settle(&name, channel, || node.unmark(&name))? {
                held.insert(name, channel);
            }
        }
        Ok(())
    }

    /// The peer closes the blocked channel; what is left is to claim.
    fn close(
        &self,
        guard: &Guard,
        mut blocked: Quarantined<Channel>,
        peer: &Peer,
        node: &Node,
    ) -> Result<i64> {
        self.demo.say("`cinema` can't speak, sign or be closed by us. The peer closes it:")?;
        blocked.see(FundingSpent::Confirmed);
        let Opened::Closed(closed) = guard.settle("cinema", blocked, || node.unmark("cinema"))?
        else {
            return Err(Error::bug("a channel that is closed stayed in quarantine"));
        };
        let claimed = closed.claims().claim(peer);
        let total = claimed + node.balance("bakery")?;
        let paid = 6 * PAYMENT;
        if total + paid != 2 * BALANCE {
            return Err(Error::bug(format!("{total} satoshis are left, {paid} were paid")));
        }
        self.demo.say(&format!(
            "    {claimed} satoshis claimed: what was ours after its last payment. Nothing is lost.\n"
        ))?;
        Ok(total)
    }

    fn list(&self) -> Result<()> {
        self.demo.command("guard list shop")?;
        let args = cli::TargetArgs { node_dir: self.dir.clone() };
        let answer = commands::guard::run(&self.demo.context, &cli::GuardCommand::List(args))?;
        self.demo.show(&answer)
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Clear(_) => "nothing is missing, clear",
        Verdict::Blocked(Reason::RevocationLost) => "we have forgotten some, blocked",
        Verdict::Blocked(_) => "blocked",
        Verdict::Closed => "closed",
        Verdict::Wait(_) => "not known, wait",
    }
}

/// One payment: durable here, then the peer has it.
fn pay(node: &Mutex<Node>, peer: &mut Peer, name: &str) -> Result<()> {
    node.lock().pay(name)?;
    peer.take(name);
    Ok(())
}

/// What the peer remembers: how many payments it has taken in each channel. Each payment is one
/// signature and one revocation in both directions.
#[derive(Default)]
struct Peer {
    taken: BTreeMap<String, u64>,
}

impl Peer {
    fn take(&mut self, name: &str) {
        *self.taken.entry(name.to_owned()).or_default() += 1;
    }

    fn report(&self, name: &str) -> Report {
        let taken = self.taken.get(name).copied().unwrap_or(0);
        Report { revocations_held: taken, signatures_taken: taken }
    }
}

/// A channel, as the node loads it.
struct Channel {
    ours: Ours,
    claims: Claims,
}

/// What stays allowed: to take what the chain gives.
struct Claims {
    name: String,
}

impl Claims {
    /// Our balance in the commitment that the peer has published: its newest.
    fn claim(&self, peer: &Peer) -> i64 {
        let payments = peer.taken.get(&self.name).copied().unwrap_or(0);
        BALANCE - PAYMENT * i64::try_from(payments).unwrap_or(i64::MAX / PAYMENT)
    }
}

impl highwater_guard::Channel for Channel {
    type Claims = Claims;

    fn ours(&self) -> Ours {
        self.ours
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// The node: one table.
struct Node {
    database: Connection,
}

impl Node {
    fn create(dir: &Path) -> Result<Node> {
        std::fs::create_dir(dir).map_err(|error| Error::io("the node", error))?;
        let node = Node::open(dir)?;
        node.database
            .execute_batch(
                "pragma journal_mode = wal; create table channels (name text primary key, \
                 payments integer not null, balance integer not null, stale integer not null)",
            )
            .map_err(failed)?;
        for name in NAMES {
            let insert = "insert into channels values (?1, 0, ?2, 0)";
            node.database.execute(insert, params![name, BALANCE]).map_err(failed)?;
        }
        Ok(node)
    }

    fn open(dir: &Path) -> Result<Node> {
        Ok(Node { database: Connection::open(dir.join(DATABASE)).map_err(failed)? })
    }

    fn pay(&self, name: &str) -> Result<()> {
        let update = "update channels set payments = payments + 1, balance = balance - ?2 \
                      where name = ?1 and not stale";
        match self.database.execute(update, params![name, PAYMENT]).map_err(failed)? {
            1 => Ok(()),
            _ => Err(Error::bug(format!("{name} could not pay"))),
        }
    }

    fn balance(&self, name: &str) -> Result<i64> {
        let select = "select balance from channels where name = ?1";
        self.database.query_row(select, [name], |row| row.get(0)).map_err(failed)
    }

    fn unmark(&self, name: &str) -> Result<()> {
        let update = "update channels set stale = 0 where name = ?1";
        self.database.execute(update, [name]).map(drop).map_err(failed)
    }

    /// Name, numbers and stale mark of each channel.
    fn rows(&self) -> Result<Vec<(String, Ours, bool)>> {
        let select = "select name, payments, stale from channels order by name";
        let mut statement = self.database.prepare(select).map_err(failed)?;
        let rows = statement.query_map([], |row| {
            let payments = row.get::<_, i64>(1)?.unsigned_abs();
            let signed = Some(payments);
            let ours = Ours { signed, revoked: payments, received: payments, ..Ours::default() };
            Ok((row.get(0)?, ours, row.get(2)?))
        });
        rows.and_then(Iterator::collect).map_err(failed)
    }

    fn marks(&self) -> Result<BTreeMap<String, u64>> {
        Ok(self.rows()?.iter().flat_map(|(name, ours, _)| channel_marks(name, ours)).collect())
    }

    fn arrivals(&self) -> Result<Vec<Arrival<Channel>>> {
        let arrival = |(id, ours, stale): (String, Ours, bool)| {
            let claims = Claims { name: id.clone() };
            Arrival { id, channel: Channel { ours, claims }, stale }
        };
        Ok(self.rows()?.into_iter().map(arrival).collect())
    }
}

/// Opens the node's database for a restore.
struct ShopAdapter;

impl Adapter for ShopAdapter {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        Ok(Box::new(Node::open(dir)?))
    }
}

impl GuardedStore for Node {
    fn channels(&mut self) -> Result<Vec<ChannelRecord>> {
        let record = |(id, ours, _)| ChannelRecord { id, phase: Phase::Open, ours };
        Ok(self.rows()?.into_iter().map(record).collect())
    }

    fn mark_stale(&mut self, name: &str) -> Result<()> {
        let update = "update channels set stale = 1 where name = ?1";
        self.database.execute(update, [name]).map(drop).map_err(failed)
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        let marked = self.rows()?.into_iter().filter(|(_, _, stale)| *stale);
        Ok(marked.map(|(name, ..)| name).collect())
    }
}

fn failed(error: rusqlite::Error) -> Error {
    Error::unavailable(format!("the demo's database: {error}")).with_entry(DATABASE)
}
