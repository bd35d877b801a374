//! Of 0.4, inside `ldk-node` 0.7.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use vss_client_v04 as vss;
use vss_client_v05::headers::VssHeaderProvider as _;
use vss_client_v05::headers::sigs_auth::SigsAuthProvider;

#[path = "walk.rs"]
pub mod walk;

/// This generation has no signatures of its own; it takes those of the next one.
struct Signatures(SigsAuthProvider);

#[async_trait]
impl vss::headers::VssHeaderProvider for Signatures {
    async fn get_headers(
        &self,
        request: &[u8],
    ) -> Result<HashMap<String, String>, vss::headers::VssHeaderProviderError> {
        self.0.get_headers(request).await.map_err(|error| {
            vss::headers::VssHeaderProviderError::InternalError { error: error.to_string() }
        })
    }
}

pub fn signed(key: &str) -> Arc<dyn vss::headers::VssHeaderProvider> {
    Arc::new(Signatures(SigsAuthProvider::new(key.parse().unwrap(), HashMap::new())))
}
