//! SQLite, PostgreSQL and a model are asked the same, and answer the same.

use std::sync::Arc;
use std::time::Duration;

use api::error::VssError;
use api::kv_store::KvStore as _;
use api::types::{
    DeleteObjectRequest, GetObjectRequest, KeyValue, ListKeyVersionsRequest, PutObjectRequest,
};
use highwater_vss::{Backend, Change, Keep, Postgres, Service, Sqlite, StoreName};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::model::{End, Model};
use crate::world::{Chance, Standing, get, item, kind};

/// Sequences of the ordinary run.
const SEQUENCES: u64 = 240;
/// At once.
const WORKERS: u64 = 12;
/// Requests of each.
const STEPS: usize = 40;

/// Keys that a pattern would confuse, and those at the edges of prefixes.
const KEYS: &[&str] = &[
    "a",
    "a_",
    "a%",
    "aXb",
    "a_b",
    "a\u{d7ff}",
    "a\u{d7ff}x",
    "a\u{e000}",
    "a\u{10ffff}",
    "a\u{10ffff}z",
    "b",
    "B",
    "é",
    "e\u{301}",
    "head.",
    "head.1",
    "head.2",
    "head/",
    "global_version",
    "\u{10ffff}",
    "",
    "\\",
    "'",
    "\"quoted\"",
    "\n",
];
const PREFIXES: &[&str] = &[
    "",
    "a",
    "a_",
    "a%",
    "a\u{d7ff}",
    "a\u{10ffff}",
    "\u{10ffff}",
    "head.",
    "global",
    "b",
    "é",
    "\\",
    "zz",
];

/// One backend under the protocol.
#[derive(Clone)]
struct Asked {
    service: Service,
    backend: Arc<dyn Backend>,
}

impl Asked {
    fn new(backend: impl Backend) -> Asked {
        let backend: Arc<dyn Backend> = Arc::new(backend);
        Asked { service: Service::new(Arc::clone(&backend)), backend }
    }
}

struct World {
    asked: Vec<Asked>,
    clock: Standing,
    cluster: Arc<Cluster>,
    dir: tempfile::TempDir,
}

async fn world() -> World {
    let clock = Standing::new();
    let cluster = Cluster::shared();
    let dir = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::serve(dir.path(), &clock.env()).unwrap();
    let postgres = Postgres::connect(&cluster.database(), clock.env()).await.unwrap();
    World { asked: vec![Asked::new(sqlite), Asked::new(postgres)], clock, cluster, dir }
}

fn end<T>(answer: &Result<T, VssError>) -> End {
    match answer {
        Ok(_) => End::Ok,
        Err(VssError::ConflictError(_)) => End::Conflict,
        Err(VssError::InvalidRequestError(_)) => End::Invalid,
        Err(error) => panic!("{error:?}"),
    }
}

/// One sequence over one store.
struct Run {
    seed: u64,
    chance: Chance,
    name: StoreName,
    model: Model,
    asked: Vec<Asked>,
    clock: Standing,
}

impl Run {
    fn new(seed: u64, world: &World) -> Run {
        let name = StoreName { user: format!("user {}", seed % 3), id: format!("store {seed}") };
        let chance = Chance::new(seed);
        let (asked, clock) = (world.asked.clone(), world.clock.clone());
        Run { seed, chance, name, model: Model::default(), asked, clock }
    }

    fn now(&self) -> i64 {
        use highwater::env::Clock as _;
        self.clock.now().as_nanos()
    }

    /// A version that is likely to fit, for a put or for a delete.
    fn version(&self, key: &str, puts: bool) -> i64 {
        let there = self.model.items.get(key).map(|value| value.version);
        match (self.chance.below(10), there) {
            (0, _) => i64::try_from(self.chance.below(4)).unwrap(),
            (1, _) => -1,
            (2, _) if self.chance.one_in(8) => -2,
            (_, Some(version)) => version,
            (_, None) if puts => 0,
            (_, None) => -1,
        }
    }

    fn items(&self, puts: bool) -> Vec<KeyValue> {
        let count = if self.chance.one_in(4) { self.chance.below(8) } else { self.chance.below(3) };
        let mut items: Vec<KeyValue> = Vec::new();
        for _ in 0..count {
            let key = *self.chance.of(KEYS);
            let named = items.iter().rev().find(|item| item.key == key);
            let version = match named {
                Some(named) if puts && !self.chance.one_in(3) => named.version + 1,
                _ => self.version(key, puts),
            };
            let value = vec![b'x'; usize::try_from(self.chance.below(3000)).unwrap()];
            items.push(item(key, version, if puts { &value } else { b"" }));
        }
        items
    }

    async fn put(&mut self) {
        let mut transaction_items = self.items(true);
        let mut delete_items = if self.chance.one_in(2) { self.items(false) } else { Vec::new() };
        if self.model.fence && !self.chance.one_in(4) {
            // As a client does that holds the head.
            transaction_items.retain(|item| !item.key.starts_with("head."));
            delete_items.retain(|item| !item.key.starts_with("head."));
            let head = self.model.items.iter().find(|(key, _)| key.starts_with("head."));
            transaction_items.push(match head {
                Some((key, value)) => item(key, value.version, b"head"),
                None => item("head.1", 0, b"head"),
            });
        }
        let global_version = self.chance.one_in(3).then(|| self.version("global_version", true));
        let request = PutObjectRequest {
            store_id: self.name.id.clone(),
            global_version,
            transaction_items,
            delete_items,
        };
        if request.transaction_items.is_empty()
            && request.delete_items.is_empty()
            && request.global_version.is_none()
        {
            return;
        }
        let now = self.now();
        let expected = self.model.put(&request, now);
        let mut ends = Vec::new();
        for asked in &self.asked {
            ends.push(end(&asked.service.put(self.name.user.clone(), request.clone()).await));
        }
        assert_eq!(ends[0], ends[1], "seed {}: {request:?}", self.seed);
        let same =
            ends[0] == expected || (self.model.fence && ends[0] != End::Ok && expected != End::Ok);
        assert!(same, "seed {}: {ends:?}, the model {expected:?}: {request:?}", self.seed);
    }

    async fn delete(&mut self) {
        let key = *self.chance.of(KEYS);
        let version = self.version(key, false);
        let now = self.now();
        let expected = self.model.delete(key, version, now);
        for asked in &self.asked {
            let request = DeleteObjectRequest {
                store_id: self.name.id.clone(),
                key_value: Some(item(key, version, b"")),
            };
            let answer = asked.service.delete(self.name.user.clone(), request).await;
            // A fence holds for a store that is there.
            assert_eq!(end(&answer), expected, "seed {}: {key:?} {version}", self.seed);
        }
    }

    async fn get(&self) {
        let key = *self.chance.of(KEYS);
        let there = self.model.items.get(key).map(|value| (value.version, value.bytes.clone()));
        let expected = match there {
            None if key == "global_version" => Some((0, Vec::new())),
            there => there,
        };
        for asked in &self.asked {
            let request = GetObjectRequest { store_id: self.name.id.clone(), key: key.to_owned() };
            let found = match asked.service.get(self.name.user.clone(), request).await {
                Ok(answer) => answer.value.map(|value| (value.version, value.value.to_vec())),
                Err(VssError::NoSuchKeyError(_)) => None,
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(found, expected, "seed {}: {key:?}", self.seed);
        }
    }

    /// All pages of a listing.
    async fn list(&self) {
        let prefix = *self.chance.of(PREFIXES);
        let size = i32::try_from(self.chance.below(6)).unwrap();
        let expected = if size == 0 { Vec::new() } else { self.model.list(prefix) };
        for asked in &self.asked {
            let (mut found, mut page_token) = (Vec::new(), None);
            loop {
                let first = page_token.is_none();
                let request = ListKeyVersionsRequest {
                    store_id: self.name.id.clone(),
                    key_prefix: Some(prefix.to_owned()),
                    page_size: Some(size),
                    page_token,
                };
                let answer =
                    asked.service.list_key_versions(self.name.user.clone(), request).await.unwrap();
                assert!(answer.key_versions.len() <= usize::try_from(size).unwrap());
                assert_eq!(
                    answer.global_version,
                    first.then(|| self.model.global_version()),
                    "seed {}",
                    self.seed
                );
                found.extend(answer.key_versions.into_iter().map(|item| (item.key, item.version)));
                page_token = answer.next_page_token.filter(|token| !token.is_empty());
                if page_token.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "seed {}: {prefix:?} by {size}", self.seed);
        }
    }

    async fn change(&mut self) {
        let keep = Keep {
            versions: u32::try_from(self.chance.below(3)).unwrap(),
            days: u32::try_from(self.chance.below(3)).unwrap(),
        };
        let change = Change {
            fence: self.chance.one_in(2).then(|| self.chance.one_in(2)),
            history: self.chance.one_in(2).then(|| (!self.chance.one_in(4)).then_some(keep)),
        };
        let now = self.now();
        self.model.change(change, now);
        for asked in &self.asked {
            asked.backend.change(&self.name, change).await.unwrap();
        }
        self.policy().await;
    }

    async fn policy(&self) {
        for asked in &self.asked {
            let policy = asked.backend.policy(&self.name).await.unwrap();
            let model = &self.model;
            assert_eq!(
                (policy.fence, policy.history, policy.generation, policy.commit, policy.oldest),
                (model.fence, model.history, model.generation, model.commit, model.oldest),
                "seed {}",
                self.seed
            );
        }
    }

    async fn restore(&mut self) {
        let (oldest, commit) = (self.model.oldest, self.model.commit);
        let to = (oldest + self.chance.below(commit - oldest + 2))
            .saturating_sub(u64::from(self.chance.one_in(6)));
        let now = self.now();
        let expected = self.model.restore(to, now);
        for asked in &self.asked {
            let answer = asked.backend.restore(&self.name, to).await;
            let found = answer.as_ref().ok().map(|done| (done.puts, done.deletes));
            assert_eq!(found, expected, "seed {}: {}", self.seed, kind(&answer));
            if let Ok(done) = answer {
                let model = (self.model.commit, self.model.generation);
                assert_eq!((done.commit, done.generation), model, "seed {}", self.seed);
            }
        }
    }

    async fn commits(&self) {
        let mut expected = self.model.commits.clone();
        expected.reverse();
        for asked in &self.asked {
            let (mut found, mut below) = (Vec::new(), None);
            loop {
                let page = asked.backend.commits(&self.name, below, 7).await.unwrap();
                let Some(last) = page.last() else { break };
                below = Some(last.commit);
                found.extend(page.iter().map(|made| {
                    (made.commit, made.time.as_nanos(), made.puts, made.deletes, made.restored)
                }));
            }
            assert_eq!(found, expected, "seed {}", self.seed);
        }
    }

    async fn digest(&self) {
        for asked in &self.asked {
            let digest = asked.backend.digest(&self.name).await.unwrap();
            assert_eq!(
                (digest.count, digest.sum, digest.generation, digest.commit),
                (
                    self.model.items.len() as u64,
                    self.model.sum(),
                    self.model.generation,
                    self.model.commit
                ),
                "seed {}",
                self.seed
            );
        }
    }

    async fn step(&mut self) {
        match self.chance.below(20) {
            0 | 1 => self.change().await,
            2 => self.delete().await,
            3 | 4 => self.get().await,
            5 | 6 => self.list().await,
            7 => self.restore().await,
            8 => self.digest().await,
            _ => self.put().await,
        }
    }

    /// Everything that can be seen.
    async fn look(&self) {
        self.list().await;
        self.digest().await;
        self.commits().await;
        self.policy().await;
        for asked in &self.asked {
            for (key, value) in &self.model.items {
                let found = get(asked.backend.as_ref(), &self.name, key).await.unwrap();
                assert_eq!((found.0, &found.1[..]), (value.version, &value.bytes[..]));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_backends_answer_as_the_model_does() {
    let sequences =
        std::env::var("VSS_SEQUENCES").map_or(SEQUENCES, |count| count.parse().unwrap());
    let world = Arc::new(world().await);
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let world = Arc::clone(&world);
        workers.spawn(async move {
            for seed in (worker..sequences).step_by(usize::try_from(WORKERS).unwrap()) {
                let mut run = Run::new(seed, &world);
                for _ in 0..STEPS {
                    run.step().await;
                }
                run.look().await;
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    let world = Arc::into_inner(world).unwrap();
    let stats: Vec<_> = [&world.asked[0], &world.asked[1]].into_iter().collect();
    assert_eq!(stats[0].backend.stats().await.unwrap(), stats[1].backend.stats().await.unwrap());
    assert_eq!(
        stats[0].backend.stores(10_000).await.unwrap(),
        stats[1].backend.stores(10_000).await.unwrap()
    );
    drop((world.cluster, world.dir));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_backends_prune_as_the_model_does() {
    let world = world().await;
    for seed in 0..30 {
        let mut run = Run::new(1_000_000 + seed, &world);
        let keep = Keep { versions: 1, days: 1 };
        let begin = Change { fence: None, history: Some(Some(keep)) };
        let now = run.now();
        run.model.change(begin, now);
        for asked in &run.asked {
            asked.backend.change(&run.name, begin).await.unwrap();
        }
        for _ in 0..STEPS {
            world.clock.forward(Duration::from_secs(run.chance.below(24 * 60 * 60)));
            run.step().await;
            if run.chance.one_in(4) {
                let now = run.now();
                let expected = run.model.prune(now);
                for asked in &run.asked {
                    let found = asked.backend.prune().await.unwrap();
                    assert_eq!(found, expected, "seed {}", run.seed);
                    let stats = asked.backend.stats().await.unwrap();
                    assert_eq!(stats.old_values, run.model.old_values(), "seed {}", run.seed);
                }
            }
        }
        run.look().await;
        // What is left is no matter of the next one.
        let end = Change { fence: None, history: Some(None) };
        for asked in &run.asked {
            asked.backend.change(&run.name, end).await.unwrap();
        }
    }
    drop((world.cluster, world.dir));
}
