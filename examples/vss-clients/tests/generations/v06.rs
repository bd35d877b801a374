//! Of 0.6.

use std::collections::HashMap;
use std::sync::Arc;

use vss_client_v06 as vss;

#[path = "walk.rs"]
pub mod walk;

pub fn signed(key: &str) -> Arc<dyn vss::headers::VssHeaderProvider> {
    let key = key.parse().unwrap();
    Arc::new(vss::headers::sigs_auth::SigsAuthProvider::new(key, HashMap::new()))
}
