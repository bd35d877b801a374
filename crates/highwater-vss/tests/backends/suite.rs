//! The suite that the protocol's authors publish.

use crate::world::{Held, on_postgresql, on_sqlite};

mod sqlite {
    use super::*;
    api::define_kv_store_tests!(Suite, Held, on_sqlite());
}

mod postgresql {
    use super::*;
    api::define_kv_store_tests!(Suite, Held, on_postgresql().await);
}
