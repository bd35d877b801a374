//! A witness on a server of the Versioned Storage Service: sealed, one object.

use std::sync::Arc;

use highwater::Result;
use highwater::env::Env;
use highwater::guard::WitnessStore;

use super::keys::ReplicaKeys;
use super::remote::Remote;
use object::WitnessObject;

mod object;
#[cfg(test)]
mod tests;

/// The witness of a node on a server, in the store of its replica or in one of its own. A store holds
/// one witness.
///
/// Any server of the protocol will do, since it need not know about witnesses. Keep the witness on other
/// hardware than the node's, and preferably not beside the vault: what is set back together proves nothing.
#[derive(Debug)]
pub struct VssWitness {
    object: WitnessObject,
}

impl VssWitness {
    /// The witness in the store that `remote` sees. `keys` are those of that store's id.
    pub fn new(remote: Arc<dyn Remote>, keys: ReplicaKeys, env: &Env) -> VssWitness {
        VssWitness { object: WitnessObject::new(remote, keys, env) }
    }
}

impl WitnessStore for VssWitness {
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        self.object.newest()
    }

    fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
        self.object.put_new(number, document)
    }
}
