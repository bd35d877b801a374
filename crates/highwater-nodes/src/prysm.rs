//! Prysm, a validator client of Ethereum: its database of what was signed, `validator.db`, beside a wallet
//! (`validator/db/kv` of Prysm).

use highwater::ids::RelPath;

use crate::profile::{Files, Profile, below};

/// Where it keeps what it has signed: in its data directory, or with its keys.
const DATABASES: [&str; 2] = ["validator.db", "direct/validator.db"];
/// A wallet with keys of its own, and one of a remote signer.
const WALLETS: [&str; 4] = [
    "direct/accounts/all-accounts.keystore.json",
    "prysm-wallet-v2/direct/accounts/all-accounts.keystore.json",
    "accounts/all-accounts.keystore.json",
    "keymanageropts.json",
];

pub(crate) struct Prysm;

impl Profile for Prysm {
    fn name(&self) -> &'static str {
        "prysm"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        let mut found: Vec<RelPath> = Vec::new();
        for database in DATABASES {
            for at in files.with(database) {
                let has_wallet = WALLETS.iter().any(|wallet| files.has(&at, wallet));
                // The same database, seen from the directory of the wallet.
                let seen = found.iter().any(|other| below(other, "direct") == at);
                if has_wallet && !seen {
                    found.push(at);
                }
            }
        }
        found
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a validator that has forgotten what it signed signs the same slots and epochs again, and is slashed \
             for it",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn before_start(&self) -> Option<&'static str> {
        Some(
            "no floor is written into its database; before it starts, let it import an interchange file \
             (EIP-3076) whose slot, source and target for each of its keys lie above the chain's current ones",
        )
    }
}
