//! A Lightning node without a chain and without a network: LDK's manager, chain monitor, keys and persister
//! as they are.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use highwater_replica::ReplicatedStore;
use highwater_replica::ldk::Persistence;
use lightning::bitcoin::hashes::Hash as _;
use lightning::bitcoin::secp256k1::PublicKey;
use lightning::bitcoin::{
    Amount, BlockHash, Network, ScriptBuf, Transaction, TxOut, absolute, transaction,
};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BestBlock, Filter, Watch};
use lightning::events::{Event, EventsProvider as _, PaymentPurpose};
use lightning::io;
use lightning::ln::channelmanager::{
    ChainParameters, ChannelManager, ChannelManagerReadArgs, PaymentId, RecipientOnionFields,
};
use lightning::ln::msgs::{BaseMessageHandler as _, Init};
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::router::{InFlightHtlcs, Path, Route, RouteHop, RouteParameters, Router};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner as _};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::util::config::UserConfig;
use lightning::util::logger::{Logger, Record};
use lightning::util::native_async::FutureSpawner;
use lightning::util::persist::{
    KVStore, KVStoreSync, MonitorUpdatingPersister, MonitorUpdatingPersisterAsync,
};
use lightning::util::ser::{ReadableArgs as _, Writeable as _};

/// Updates between two whole monitors.
const UPDATES_MAX: u64 = 7;
const CHANNEL_SATS: u64 = 10_000_000;

/// Transactions go nowhere.
pub(crate) struct Silent;

impl BroadcasterInterface for Silent {
    fn broadcast_transactions(&self, _: &[&Transaction]) {}
}

impl FeeEstimator for Silent {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

/// The routes here have one hop, and are given.
impl Router for Silent {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&lightning::ln::channel_state::ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("no route is looked for")
    }

    fn create_blinded_payment_paths<
        T: lightning::bitcoin::secp256k1::Signing + lightning::bitcoin::secp256k1::Verification,
    >(
        &self,
        _: PublicKey,
        _: Vec<lightning::ln::channel_state::ChannelDetails>,
        _: lightning::blinded_path::payment::ReceiveTlvs,
        _: Option<u64>,
        _: &lightning::bitcoin::secp256k1::Secp256k1<T>,
    ) -> Result<Vec<lightning::blinded_path::payment::BlindedPaymentPath>, ()> {
        Err(())
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Writes that LDK does not wait for; the test drives them, so that it knows when they are done.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Mutex<Vec<Task>>>);

impl FutureSpawner for Tasks {
    fn spawn<T: Future<Output = ()> + Send + 'static>(&self, future: T) {
        self.0.lock().unwrap().push(Box::pin(future));
    }
}

impl Tasks {
    /// Waits for all of them; whether there were any.
    pub(crate) fn finish(&self) -> bool {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap());
        let any = !tasks.is_empty();
        futures::executor::block_on(futures::future::join_all(tasks));
        any
    }

    /// Forgets them: the process is dead.
    pub(crate) fn clear(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap());
        drop(tasks);
    }
}

/// The store of the peer, which loses nothing.
#[derive(Default)]
pub(crate) struct Plain(Mutex<BTreeMap<(String, String, String), Vec<u8>>>);

impl Plain {
    /// Namespaces, keys and values.
    pub(crate) fn rows(&self) -> BTreeMap<(String, String, String), Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

/// The number of the last update of each monitor in a store, as LDK reads it.
pub(crate) fn update_ids(seed: u8, store: &Store) -> BTreeMap<String, u64> {
    let read = parts(seed, store).read;
    let monitors = read().unwrap().into_iter();
    let told = |monitor: ChannelMonitor<InMemorySigner>| {
        (monitor.persistence_key().to_string(), monitor.get_latest_update_id())
    };
    monitors.map(|(_, monitor)| told(monitor)).collect()
}

fn name(primary: &str, secondary: &str, key: &str) -> (String, String, String) {
    (primary.to_owned(), secondary.to_owned(), key.to_owned())
}

impl KVStoreSync for Plain {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> io::Result<Vec<u8>> {
        let found = self.0.lock().unwrap().get(&name(primary, secondary, key)).cloned();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such value"))
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, value: Vec<u8>) -> io::Result<()> {
        self.0.lock().unwrap().insert(name(primary, secondary, key), value);
        Ok(())
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, _: bool) -> io::Result<()> {
        self.0.lock().unwrap().remove(&name(primary, secondary, key));
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> io::Result<Vec<String>> {
        let rows = self.0.lock().unwrap();
        let keys = rows.keys().filter(|(p, s, _)| p == primary && s == secondary);
        Ok(keys.map(|(_, _, key)| key.clone()).collect())
    }
}

/// Where a node keeps its state, and how.
#[derive(Clone)]
pub(crate) enum Store {
    Plain(Arc<Plain>),
    Replicated(Arc<ReplicatedStore>, Persistence),
}

type Monitors = Arc<dyn Watch<InMemorySigner> + Send + Sync>;
pub(crate) type Manager = ChannelManager<
    Monitors,
    Arc<Silent>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Silent>,
    Arc<Silent>,
    Arc<NullMessageRouter>,
    Arc<Silent>,
>;
type Chain = Option<Arc<dyn Filter + Send + Sync>>;
type Load = Box<dyn Fn(ChannelId, ChannelMonitor<InMemorySigner>)>;
type Loaded = Vec<(BlockHash, ChannelMonitor<InMemorySigner>)>;

/// A node.
pub(crate) struct Node {
    pub(crate) manager: Manager,
    pub(crate) store: Store,
    pub(crate) tasks: Tasks,
    /// Channels that were closed, and why.
    pub(crate) closed: Vec<String>,
    /// Their names, as those of their monitors.
    pub(crate) closed_names: Vec<String>,
    /// Payments that were sent, and claimed.
    pub(crate) sent: usize,
    pub(crate) claimed: usize,
}

/// What stands between a manager and a store.
struct Parts {
    keys: Arc<KeysManager>,
    watch: Monitors,
    load: Load,
    read: Box<dyn Fn() -> io::Result<Loaded>>,
    tasks: Tasks,
}

/// LDK's randomness comes from the seed and from the time of a start, which no two starts share.
static STARTS: AtomicU32 = AtomicU32::new(0);

fn parts(seed: u8, store: &Store) -> Parts {
    let nanos = STARTS.fetch_add(1, Ordering::SeqCst);
    let keys = Arc::new(KeysManager::new(&[seed; 32], 1_700_000_000, nanos, true));
    match store {
        Store::Plain(store) => waiting(keys, Arc::clone(store)),
        Store::Replicated(store, Persistence::Synchronous) => waiting(keys, Arc::clone(store)),
        Store::Replicated(store, Persistence::Asynchronous) => going_on(keys, Arc::clone(store)),
    }
}

/// LDK waits within each write.
fn waiting<S: KVStoreSync + Send + Sync + 'static>(keys: Arc<KeysManager>, store: Arc<S>) -> Parts {
    let (k, s) = (&keys, Arc::new(Silent));
    let persister = Arc::new(MonitorUpdatingPersister::new(
        store,
        Arc::clone(&s),
        UPDATES_MAX,
        Arc::clone(k),
        Arc::clone(k),
        Arc::clone(&s),
        Arc::clone(&s),
    ));
    let watch = Arc::new(ChainMonitor::new(
        Chain::None,
        Arc::clone(&s),
        Arc::clone(&s),
        Arc::clone(&s),
        Arc::clone(&persister),
        Arc::clone(k),
        k.get_peer_storage_key(),
    ));
    let load: Load = Box::new({
        let watch = Arc::clone(&watch);
        move |id, monitor| {
            let _ = watch.load_existing_monitor(id, monitor).unwrap();
        }
    });
    let read = Box::new(move || persister.read_all_channel_monitors_with_updates());
    Parts { keys, watch, load, read, tasks: Tasks::default() }
}

/// LDK goes on.
fn going_on(keys: Arc<KeysManager>, store: Arc<ReplicatedStore>) -> Parts {
    let (k, s, tasks) = (&keys, Arc::new(Silent), Tasks::default());
    let persister = |store: &Arc<ReplicatedStore>| {
        MonitorUpdatingPersisterAsync::new(
            Arc::clone(store),
            tasks.clone(),
            Arc::clone(&s),
            UPDATES_MAX,
            Arc::clone(k),
            Arc::clone(k),
            Arc::clone(&s),
            Arc::clone(&s),
        )
    };
    let watch = Arc::new(ChainMonitor::new_async_beta(
        Chain::None,
        Arc::clone(&s),
        Arc::clone(&s),
        Arc::clone(&s),
        persister(&store),
        Arc::clone(k),
        k.get_peer_storage_key(),
    ));
    let load: Load = Box::new({
        let watch = Arc::clone(&watch);
        move |id, monitor| {
            let _ = watch.load_existing_monitor(id, monitor).unwrap();
        }
    });
    let reader = persister(&store);
    let read = Box::new(move || {
        futures::executor::block_on(reader.read_all_channel_monitors_with_updates())
    });
    Parts { keys, watch, load, read, tasks }
}

/// Channels open at once, without a confirmation.
fn config() -> UserConfig {
    let mut config = UserConfig { manually_accept_inbound_channels: true, ..UserConfig::default() };
    config.channel_handshake_config.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    config
}

impl Node {
    /// A new node.
    pub(crate) fn new(seed: u8, store: Store) -> Node {
        let Parts { keys, watch, tasks, .. } = parts(seed, &store);
        let s = Arc::new(Silent);
        let params = ChainParameters {
            network: Network::Regtest,
            best_block: BestBlock::from_network(Network::Regtest),
        };
        let manager = ChannelManager::new(
            Arc::clone(&s),
            watch,
            Arc::clone(&s),
            Arc::clone(&s),
            Arc::new(NullMessageRouter {}),
            Arc::clone(&s),
            Arc::clone(&keys),
            Arc::clone(&keys),
            keys,
            config(),
            params,
            1_700_000_000,
        );
        Node {
            manager,
            store,
            tasks,
            closed: Vec::new(),
            closed_names: Vec::new(),
            sent: 0,
            claimed: 0,
        }
    }

    /// The node that a store has; why LDK does not load it, where it doesn't.
    pub(crate) fn load(seed: u8, store: Store) -> Result<Node, String> {
        let Parts { keys, watch, load, read, tasks } = parts(seed, &store);
        let text = |error: io::Error| format!("{error:?}");
        let monitors: Vec<_> =
            read().map_err(text)?.into_iter().map(|(_, monitor)| monitor).collect();
        let bytes = match &store {
            Store::Plain(plain) => plain.read("", "", "manager"),
            Store::Replicated(store, _) => KVStoreSync::read(&**store, "", "", "manager"),
        };
        let s = Arc::new(Silent);
        let args = ChannelManagerReadArgs::new(
            Arc::clone(&keys),
            Arc::clone(&keys),
            keys,
            Arc::clone(&s),
            watch,
            Arc::clone(&s),
            Arc::clone(&s),
            Arc::new(NullMessageRouter {}),
            s,
            config(),
            monitors.iter().collect(),
        );
        let bytes = bytes.map_err(text)?;
        let read = <(BlockHash, Manager)>::read(&mut &bytes[..], args);
        let (_, manager) = read.map_err(|error| format!("{error:?}"))?;
        for monitor in monitors {
            load(monitor.channel_id(), monitor);
        }
        Ok(Node {
            manager,
            store,
            tasks,
            closed: Vec::new(),
            closed_names: Vec::new(),
            sent: 0,
            claimed: 0,
        })
    }

    pub(crate) fn id(&self) -> PublicKey {
        self.manager.get_our_node_id()
    }

    /// Writes the manager, where LDK asks for it, as its background processor does.
    pub(crate) fn persist(&self) {
        if !self.manager.get_and_clear_needs_persistence() {
            return;
        }
        let bytes = self.manager.encode();
        match &self.store {
            Store::Plain(store) => store.write("", "", "manager", bytes).unwrap(),
            Store::Replicated(store, _) => {
                let written = KVStore::write(&**store, "", "", "manager", bytes);
                futures::executor::block_on(written).unwrap();
            }
        }
    }

    /// Does what events ask for.
    pub(crate) fn events(&mut self) {
        let events = Mutex::new(Vec::new());
        self.manager.process_pending_events(&|event| {
            events.lock().unwrap().push(event);
            Ok(())
        });
        self.manager.process_pending_htlc_forwards();
        for event in events.into_inner().unwrap() {
            match event {
                Event::OpenChannelRequest {
                    temporary_channel_id, counterparty_node_id, ..
                } => self
                    .manager
                    .accept_inbound_channel_from_trusted_peer_0conf(
                        &temporary_channel_id,
                        &counterparty_node_id,
                        0,
                        None,
                    )
                    .unwrap(),
                Event::FundingGenerationReady {
                    temporary_channel_id,
                    counterparty_node_id,
                    channel_value_satoshis,
                    output_script,
                    user_channel_id,
                } => {
                    let lock_time = u32::try_from(user_channel_id).unwrap();
                    let funding = funding(channel_value_satoshis, output_script, lock_time);
                    let manager = &self.manager;
                    manager
                        .funding_transaction_generated(
                            temporary_channel_id,
                            counterparty_node_id,
                            funding,
                        )
                        .unwrap();
                }
                Event::PaymentClaimable {
                    purpose:
                        PaymentPurpose::Bolt11InvoicePayment {
                            payment_preimage: Some(preimage), ..
                        },
                    ..
                } => self.manager.claim_funds(preimage),
                Event::PaymentClaimed { .. } => self.claimed += 1,
                Event::PaymentSent { .. } => self.sent += 1,
                Event::ChannelClosed { reason, channel_funding_txo, .. } => {
                    self.closed.push(reason.to_string());
                    let funding = channel_funding_txo.unwrap();
                    self.closed_names.push(format!("{}_{}", funding.txid, funding.index));
                }
                _ => {}
            }
        }
    }

    /// Pays over one channel; false where it can't now.
    pub(crate) fn pay(&self, to: &Node, msat: u64, channel: usize, id: [u8; 32]) -> bool {
        let channels = self.manager.list_usable_channels();
        let Some(channel) = channels.get(channel % channels.len().max(1)) else { return false };
        if channel.next_outbound_htlc_limit_msat < msat {
            return false;
        }
        let invoice = to.manager.create_inbound_payment(None, 7200, None);
        let (hash, secret) = invoice.unwrap();
        let hop = RouteHop {
            pubkey: to.id(),
            node_features: NodeFeatures::empty(),
            short_channel_id: channel.get_outbound_payment_scid().unwrap(),
            channel_features: ChannelFeatures::empty(),
            fee_msat: msat,
            cltv_expiry_delta: 100,
            maybe_announced_channel: false,
        };
        let path = Path { hops: vec![hop], blinded_tail: None };
        let route = Route { paths: vec![path], route_params: None };
        let onion = RecipientOnionFields::secret_only(secret);
        self.manager.send_payment_with_route(route, hash, onion, PaymentId(id)).is_ok()
    }

    /// Asks for a channel; its number makes its funding another one's.
    pub(crate) fn open(&self, to: &Node, number: u32) {
        let half = CHANNEL_SATS / 2 * 1000;
        let number = u128::from(number);
        self.manager.create_channel(to.id(), CHANNEL_SATS, half, number, None, None).unwrap();
    }
}

fn funding(sats: u64, output_script: ScriptBuf, number: u32) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_consensus(number),
        input: vec![lightning::bitcoin::TxIn {
            previous_output: lightning::bitcoin::OutPoint {
                txid: lightning::bitcoin::Txid::from_byte_array([7; 32]),
                vout: number,
            },
            witness: lightning::bitcoin::Witness::from_slice(&[[1; 72]]),
            ..lightning::bitcoin::TxIn::default()
        }],
        output: vec![TxOut { value: Amount::from_sat(sats), script_pubkey: output_script }],
    }
}

/// Joins two nodes.
pub(crate) fn connect(a: &Node, b: &Node) {
    for (from, to, inbound) in [(a, b, false), (b, a, true)] {
        let features = to.manager.provided_init_features(from.id());
        let init = Init { features, networks: None, remote_network_address: None };
        from.manager.peer_connected(to.id(), &init, inbound).unwrap();
    }
}
