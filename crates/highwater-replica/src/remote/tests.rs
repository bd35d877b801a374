//! Servers that would have us take more than memory holds.

use std::sync::atomic::{AtomicU64, Ordering};

use highwater::Kind;

use super::*;

/// A server whose list has no end; each page has `names` that are `length` long.
struct Endless {
    names: usize,
    length: usize,
    asked: AtomicU64,
}

impl Remote for Endless {
    fn get(&self, _: &str) -> Result<Option<Versioned>> {
        Ok(None)
    }

    fn put(&self, _: &RemotePut) -> Result<Put> {
        Ok(Put::Conflict)
    }

    fn list(&self, prefix: &str, _: Option<&str>) -> Result<Listed> {
        let page = self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(page < 2 * PAGES_MAX, "it is asked for ever");
        let name = |number| (format!("{prefix}{page}-{number}{}", "x".repeat(self.length)), 1);
        Ok(Listed { keys: (0..self.names).map(name).collect(), next: Some(page.to_string()) })
    }
}

#[test]
fn a_list_without_an_end_is_left() {
    let empty = Endless { names: 0, length: 0, asked: AtomicU64::new(0) };
    let error = list_all(&empty, "values/").unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Unavailable, Some("values/")));
    assert!(error.hint().is_some());
    assert_eq!(empty.asked.into_inner(), PAGES_MAX);

    let full = Endless { names: 100, length: 1000, asked: AtomicU64::new(0) };
    let error = list_at_most(&full, "values/", 1 << 20).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Unavailable, Some("values/")));
    assert!(full.asked.into_inner() < 20, "a page has 100 kB");
}

/// A server's client that gives two values at once.
struct ByTwo(usize);

impl Remote for ByTwo {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        Ok(Some((1, key.as_bytes().to_vec())))
    }

    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>> {
        keys.iter().take(self.0).map(|key| self.get(key)).collect()
    }

    fn put(&self, _: &RemotePut) -> Result<Put> {
        Ok(Put::Conflict)
    }

    fn list(&self, _: &str, _: Option<&str>) -> Result<Listed> {
        Ok(Listed::default())
    }
}

#[test]
fn all_values_are_asked_for_though_few_are_given_at_once() {
    let keys: Vec<String> = (0..5).map(|number| number.to_string()).collect();
    let mut seen = Vec::new();
    each_value(&ByTwo(2), &keys, |key, found| {
        assert_eq!(found, Some((1, key.as_bytes().to_vec())));
        seen.push(key.to_owned());
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, keys);
    assert_eq!(each_value(&ByTwo(0), &keys, |_, _| Ok(())).unwrap_err().kind(), Kind::Bug);
}
