use std::time::Duration;

use super::*;

fn shares(user_bytes: usize) -> Arc<Shares> {
    let limits = Limits {
        body_bytes: 1000,
        memory_bytes: 20 * user_bytes,
        user_bytes,
        calls_per_user: 2,
        ..Limits::default()
    };
    Arc::new(Shares::new(limits, 4))
}

/// So soon that nothing can be waited for.
fn now() -> Instant {
    Instant::now()
}

/// Late enough for what is there to be had.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

const SHARE: usize = 1 << 20;

#[tokio::test]
async fn a_user_waits_for_oneself_alone() {
    let shares = shares(SHARE);
    let first = shares.turn("one", None, later()).await.unwrap();
    let second = shares.turn("one", None, later()).await.unwrap();
    assert!(shares.turn("one", None, now()).await.is_err(), "two at once");
    let other = shares.turn("two", None, later()).await.unwrap();

    // To announce as much as there is for a user leaves the others theirs.
    let held = first.announced(usize::MAX, later()).await.unwrap();
    assert!(second.announced(1, now()).await.is_err());
    let theirs = other.memory(SHARE, later()).await.unwrap();
    drop((held, theirs));
    second.memory(SHARE, later()).await.unwrap();

    let long = first.long(later()).await.unwrap();
    assert!(second.long(now()).await.is_err());
    let theirs = other.long(later()).await.unwrap();
    let third = shares.turn("three", None, later()).await.unwrap();
    assert!(third.long(now()).await.is_err(), "two of all users");
    drop((long, theirs));
    third.long(later()).await.unwrap();

    // One place of the database's four is always another one's.
    let mut reads = Vec::new();
    for _ in 0..3 {
        reads.push(first.read(later()).await.unwrap());
    }
    assert!(second.read(now()).await.is_err());
    other.read(later()).await.unwrap();
}

#[tokio::test]
async fn users_that_come_from_one_network_share_what_it_may_hold() {
    let shares = shares(SHARE);
    let network = Some(IpAddr::from([192, 0, 2, 1]));
    let mut turns = Vec::new();
    for user in 0..8 {
        turns.push(shares.turn(&user.to_string(), network, later()).await.unwrap());
    }
    assert!(shares.turn("another", network, now()).await.is_err());
    let mut held = Vec::new();
    for turn in &turns[..USERS_OF_NETWORK] {
        held.push(turn.memory(SHARE, later()).await.unwrap());
    }
    assert!(turns[5].memory(SHARE, now()).await.is_err());
    let elsewhere = Some(IpAddr::from([192, 0, 2, 2]));
    let turn = shares.turn("another", elsewhere, later()).await.unwrap();
    turn.memory(SHARE, later()).await.unwrap();
    drop(held);
    turns[5].memory(SHARE, later()).await.unwrap();
}

#[tokio::test]
async fn a_put_of_the_longest_kind_fits_whatever_the_limits_are() {
    let limits =
        Limits { body_bytes: 1 << 20, memory_bytes: 1, user_bytes: 1, ..Limits::default() };
    let shares = Arc::new(Shares::new(limits, 1));
    let turn = shares.turn("one", None, later()).await.unwrap();
    let mut held = turn.announced(wire::put_bytes(1 << 20), later()).await.unwrap();
    held.add(turn.arrived(wire::put_bytes(1 << 20), later()).await.unwrap());
    turn.read(later()).await.unwrap();
}

#[tokio::test]
async fn who_has_nothing_under_way_is_forgotten() {
    let shares = shares(SHARE);
    let mut turns = Vec::new();
    for user in 0..3 * CLIENTS {
        let turn = shares.turn(&user.to_string(), None, later()).await.unwrap();
        if user < 10 {
            turns.push(turn);
        }
    }
    let known = shares.users.lock().len();
    assert!((10..=CLIENTS + 10).contains(&known), "{known}");
    // Those at work are counted on.
    let second = shares.turn("0", None, later()).await.unwrap();
    assert!(shares.turn("0", None, now()).await.is_err());
    drop(second);
}
