//! How many puts a database takes: `vss-load postgres://…` or `vss-load DIRECTORY`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it is there to print")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use highwater::Env;
use highwater_vss::{Backend, Plan, Postgres, Sqlite, StoreName};
use tokio::task::JoinSet;
use vss_api::types::{KeyValue, PutObjectRequest};

/// Puts at once.
const WRITERS: u64 = 64;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(10);

fn plan(items: u64, writer: u64, round: u64) -> Plan {
    // A value that is there already would cost a database nothing.
    let value: Bytes = round.to_le_bytes().repeat(128).into();
    let item = |number| KeyValue {
        key: format!("{writer} {number} {}", round % 50),
        version: -1,
        value: value.clone(),
    };
    Plan::of(PutObjectRequest {
        store_id: String::new(),
        global_version: None,
        transaction_items: (0..items).map(item).collect(),
        delete_items: Vec::new(),
    })
    .unwrap()
}

/// Puts a second.
async fn load(backend: &Arc<dyn Backend>, env: &Env, stores: u64, items: u64) -> f64 {
    let (begin, landed) = (env.monotonic(), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (backend, env, landed) = (Arc::clone(backend), env.clone(), Arc::clone(&landed));
        writers.spawn(async move {
            let id = format!("{items} {stores} {}", writer % stores);
            let store = StoreName { user: "load".to_owned(), id };
            let mut round = 0;
            while env.monotonic() - begin < LASTS {
                backend.put(&store, plan(items, writer, round)).await.unwrap();
                landed.fetch_add(1, Ordering::Relaxed);
                round += 1;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    landed.load(Ordering::Relaxed) as f64 / (env.monotonic() - begin).as_secs_f64()
}

#[tokio::main]
async fn main() {
    let env = Env::system();
    let name = std::env::args().nth(1).unwrap();
    let backend: Arc<dyn Backend> = if name.contains("://") {
        Arc::new(Postgres::connect(&name, env.clone()).await.unwrap())
    } else {
        Arc::new(Sqlite::serve(Path::new(&name), &env).unwrap())
    };
    for (stores, items) in [(64, 1), (1, 1), (64, 100)] {
        let rate = load(&backend, &env, stores, items).await;
        println!("{WRITERS} at once, {stores} stores, {items} items of 1 KiB: {rate:.0} puts/s");
    }
    backend.close().await;
}
