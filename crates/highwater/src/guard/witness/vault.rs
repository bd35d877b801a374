//! A witness in a vault: sealed, under `witness/<node>/`.

use std::sync::Arc;

use crate::error::Result;
use crate::ids::NodeName;
use crate::vault::Vault;

use super::WitnessStore;

/// The witness of a node, kept in a vault.
pub struct VaultWitness {
    vault: Arc<Vault>,
    node: NodeName,
}

impl VaultWitness {
    /// The witness of `node` in `vault`. Input where the vault's store was seen to overwrite what a
    /// create-only put must keep.
    pub fn new(vault: Arc<Vault>, node: NodeName) -> Result<VaultWitness> {
        vault.refuse_overwriting_store()?;
        Ok(VaultWitness { vault, node })
    }
}

impl WitnessStore for VaultWitness {
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        self.vault.newest_witness(&self.node)
    }

    fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
        self.vault.put_witness(&self.node, number, document)
    }
}

impl std::fmt::Debug for VaultWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VaultWitness({})", self.node)
    }
}
