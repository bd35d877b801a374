//! Three generations of the published client walk the protocol against the program: the one inside
//! `ldk-node` 0.7, the one after it, and the newest one, which looks for the version of the protocol.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]
#![allow(clippy::duplicate_mod, reason = "one walk, compiled for the types of each generation")]

mod v04;
mod v05;
mod v06;

use vss_clients::{Auth, Served};

#[tokio::test]
async fn the_client_of_ldk_node_walks_the_protocol() {
    v04::walk::all(&Served::start(Auth::None).unwrap()).await;
}

#[tokio::test]
async fn the_client_after_it_walks_the_protocol() {
    v05::walk::all(&Served::start(Auth::None).unwrap()).await;
}

#[tokio::test]
async fn the_newest_client_walks_the_protocol() {
    v06::walk::all(&Served::start(Auth::None).unwrap()).await;
}

#[tokio::test]
async fn every_generation_signs() {
    let served = Served::start(Auth::Signature).unwrap();
    v04::walk::signatures(&served).await;
    v05::walk::signatures(&served).await;
    v06::walk::signatures(&served).await;
}

#[tokio::test]
async fn every_generation_brings_tokens() {
    let served = Served::start(Auth::Jwt).unwrap();
    v04::walk::tokens(&served).await;
    v05::walk::tokens(&served).await;
    v06::walk::tokens(&served).await;
}

/// What one generation writes, the others read.
#[tokio::test]
async fn generations_share_a_store() {
    let served = Served::start(Auth::Signature).unwrap();
    v04::walk::leave(&served, "from 0.4").await;
    v05::walk::find(&served, "from 0.4").await;
    v06::walk::find(&served, "from 0.4").await;
    v05::walk::leave(&served, "from 0.5").await;
    v04::walk::find(&served, "from 0.5").await;
    v06::walk::find(&served, "from 0.5").await;
    v06::walk::leave(&served, "from 0.6").await;
    v04::walk::find(&served, "from 0.6").await;
    v05::walk::find(&served, "from 0.6").await;
}
