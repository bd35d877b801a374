//! The suite that every local store passes.

use std::sync::Arc;

use highwater::{Error, Result};

use super::{LocalStore, Op, Rows, Space};

/// Runs the suite. `open` opens the store of one place again and again, what was written still in it;
/// the first time it is empty. An opened store is dropped before the next one is opened.
///
/// # Errors
/// A bug, with what was not as it must be.
pub fn check(open: &dyn Fn() -> Result<Arc<dyn LocalStore>>) -> Result<()> {
    let store = open()?;
    ensure(store.get(Space::Data, b"a")?.is_none(), "an empty store holds nothing")?;
    store.write(&[
        Op::put(Space::Data, *b"a", *b"1"),
        Op::put(Space::Data, *b"ab", *b"2"),
        Op::put(Space::Data, *b"b", *b""),
        Op::put(Space::Book, *b"a", *b"other"),
        Op::put(Space::Data, vec![0xff, 0xff], vec![0; 100_000]),
        Op::put(Space::Data, Vec::new(), *b"empty key"),
        Op::put(Space::Data, *b"gone", *b"x"),
        Op::delete(Space::Data, *b"gone"),
        Op::delete(Space::Data, *b"never"),
    ])?;
    all_there(&*store)?;
    drop(store);
    let store = open()?;
    all_there(&*store)?;
    // Steps go in order, and a later one counts.
    store.write(&[
        Op::put(Space::Data, *b"a", *b"first"),
        Op::delete(Space::Data, *b"a"),
        Op::put(Space::Data, *b"a", *b"last"),
    ])?;
    ensure(store.get(Space::Data, b"a")?.as_deref() == Some(b"last"), "the last step counts")?;
    store.write(&[])?;
    store.apply(&[Op::put(Space::Book, *b"soon", *b"1"), Op::delete(Space::Data, *b"a")])?;
    ensure(store.get(Space::Data, b"a")?.is_none(), "what is applied is seen")?;
    store.write(&[Op::delete(Space::Book, *b"a")])?;
    drop(store);
    let store = open()?;
    ensure(store.get(Space::Book, b"soon")?.is_some(), "a write makes durable what was applied")?;
    together(&store)
}

fn all_there(store: &dyn LocalStore) -> Result<()> {
    let keys = |rows: Rows| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let scan = |prefix: &[u8], after: Option<&[u8]>, limit| {
        store.scan(Space::Data, prefix, after, limit).map(keys)
    };
    ensure(store.get(Space::Data, b"a")?.as_deref() == Some(b"1"), "a value is read back")?;
    ensure(store.get(Space::Data, b"b")?.as_deref() == Some(b""), "an empty value is a value")?;
    ensure(store.get(Space::Book, b"a")?.as_deref() == Some(b"other"), "spaces don't meet")?;
    ensure(store.get(Space::Data, b"gone")?.is_none(), "what was deleted is gone")?;
    let all: [&[u8]; 5] = [b"", b"a", b"ab", b"b", &[0xff, 0xff]];
    ensure(scan(b"", None, 100)? == all, "a scan goes by the bytes of keys")?;
    ensure(scan(b"a", None, 100)? == all[1..3], "a prefix is a prefix")?;
    ensure(scan(b"a", Some(b"a"), 100)? == all[2..3], "a scan begins above a key")?;
    ensure(scan(b"", Some(b""), 2)? == all[1..3], "a scan ends at its limit")?;
    ensure(scan(b"b", Some(b"a"), 100)? == all[3..4], "a key below the prefix hides nothing")?;
    ensure(scan(&[0xff], None, 100)? == all[4..], "a prefix may be the highest byte")?;
    let book = store.scan(Space::Book, b"", None, 100)?;
    ensure(book == [(b"a".to_vec(), b"other".to_vec())], "a scan stays in its space")
}

/// Whoever reads sees all of a transaction or nothing.
fn together(store: &Arc<dyn LocalStore>) -> Result<()> {
    const ROUNDS: u64 = 100;
    let pair = |round: u64| {
        let value = round.to_le_bytes();
        [Op::put(Space::Book, *b"t1", value), Op::put(Space::Book, *b"t2", value)]
    };
    store.write(&pair(0))?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..=ROUNDS).try_for_each(|round| store.write(&pair(round))));
        while !writer.is_finished() {
            let rows = store.scan(Space::Book, b"t", None, 10)?;
            ensure(rows.len() == 2 && rows[0].1 == rows[1].1, "half a transaction was seen")?;
        }
        writer.join().unwrap_or_else(|_| Err(Error::bug("the writer has panicked")))
    })
}

fn ensure(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::bug(format!("a local store: {what}"))) }
}
