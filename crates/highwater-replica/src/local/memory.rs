//! A store in memory, for tests and simulations.

use std::collections::BTreeMap;

use highwater::Result;
use parking_lot::Mutex;

use super::{LocalStore, Op, Rows, Space};

/// A store that is gone with its process.
#[derive(Default)]
pub struct MemoryStore {
    rows: Mutex<BTreeMap<Place, Vec<u8>>>,
}

type Place = (Space, Vec<u8>);

impl MemoryStore {
    /// A copy of what it holds now.
    pub fn copy(&self) -> MemoryStore {
        MemoryStore { rows: Mutex::new(self.rows.lock().clone()) }
    }
}

impl LocalStore for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let rows = self.rows.lock();
        Ok(rows.get(&(space, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Rows> {
        let rows = self.rows.lock();
        let from = (space, after.map_or(prefix, |after| after.max(prefix)).to_vec());
        let found = rows
            .range(from..)
            .take_while(|((found, key), _)| *found == space && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
            .take(limit);
        Ok(found.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        let mut rows = self.rows.lock();
        for op in ops {
            let key = (op.space, op.key.clone());
            match &op.value {
                Some(value) => rows.insert(key, value.clone()),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }
}
