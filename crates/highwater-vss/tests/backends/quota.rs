//! How much a user may keep, on both backends.

use std::sync::Arc;
use std::time::Duration;

use api::error::VssError;
use api::kv_store::KvStore as _;
use api::types::PutObjectRequest;
use highwater_vss::{Backend, Change, Keep, Quota, Service};

use crate::history::on_both;
use crate::world::{Standing, item, store};

/// A service, its database, and a clock that is set forward until all is looked up anew.
struct Bench {
    service: Service,
    backend: Arc<dyn Backend>,
    clock: Standing,
}

impl Bench {
    fn new(backend: Arc<dyn Backend>, clock: Standing) -> Bench {
        Bench { service: Service::with(Arc::clone(&backend), &clock.env()), backend, clock }
    }

    async fn put(
        &self,
        store: &str,
        items: &[(&str, usize)],
        deletes: &[&str],
    ) -> Result<(), String> {
        let request = PutObjectRequest {
            store_id: store.to_owned(),
            global_version: None,
            transaction_items: items
                .iter()
                .map(|(key, bytes)| item(key, -1, &vec![7; *bytes]))
                .collect(),
            delete_items: deletes.iter().map(|key| item(key, -1, b"")).collect(),
        };
        match self.service.put("user".to_owned(), request).await {
            Ok(_) => Ok(()),
            Err(VssError::InvalidRequestError(why)) => Err(why),
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn limit(&self, user: Option<&str>, quota: Option<Quota>) {
        self.backend.set_quota(user, quota).await.unwrap();
        self.clock.forward(Duration::from_secs(60));
    }
}

const BYTES: Quota = Quota { bytes: Some(10_000), keys: None, stores: None };

#[tokio::test]
async fn a_user_keeps_no_more_than_the_quota_and_can_always_write_again() {
    on_both(async |backend, clock| {
        let bench = Bench::new(backend, clock);
        bench.put("s", &[("a", 4000)], &[]).await.unwrap();
        bench.limit(Some("user"), Some(BYTES)).await;
        bench.put("s", &[("b", 4000)], &[]).await.unwrap();
        let refused = bench.put("s", &[("c", 4000)], &[]).await.unwrap_err();
        assert!(refused.contains("10000 bytes") && refused.contains("8002"), "{refused}");
        // In another store, or together with what fits, it is the same.
        bench.put("t", &[("c", 4000)], &[]).await.unwrap_err();
        bench.put("s", &[("b", 4000), ("c", 4000)], &[]).await.unwrap_err();
        assert_eq!(bench.backend.usage("user").await.unwrap().stores, 1);
        // What is there can be written again, as often as a node has to.
        for _ in 0..20 {
            bench.put("s", &[("a", 4000), ("b", 4000)], &[]).await.unwrap();
        }
        bench.put("s", &[("b", 10)], &[]).await.unwrap();
        bench.put("s", &[("c", 4000)], &[]).await.unwrap();
        // A put that makes room for itself.
        bench.put("s", &[("d", 4000)], &["a"]).await.unwrap();
        bench.put("s", &[("e", 4000)], &[]).await.unwrap_err();
        // Above it, since it was made smaller: less and as much go, more does not.
        bench.limit(Some("user"), Some(Quota { bytes: Some(100), ..BYTES })).await;
        bench.put("s", &[("d", 4000)], &[]).await.unwrap();
        bench.put("s", &[("d", 3999)], &[]).await.unwrap();
        bench.put("s", &[("d", 4000)], &[]).await.unwrap_err();
        bench.limit(Some("user"), None).await;
        bench.put("s", &[("e", 20_000)], &[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn keys_and_stores_are_counted_and_everybody_has_a_quota_too() {
    on_both(async |backend, clock| {
        let bench = Bench::new(backend, clock);
        let two = Quota { bytes: None, keys: Some(3), stores: Some(2) };
        bench.limit(None, Some(two)).await;
        assert_eq!(bench.backend.everybody().await.unwrap(), two);
        bench.put("s", &[("a", 1), ("b", 1)], &[]).await.unwrap();
        bench.put("t", &[("a", 1)], &[]).await.unwrap();
        let refused = bench.put("t", &[("b", 1)], &[]).await.unwrap_err();
        assert!(refused.contains("3 keys"), "{refused}");
        bench.put("s", &[("a", 1)], &["b"]).await.unwrap();
        let refused = bench.put("u", &[("a", 1)], &[]).await.unwrap_err();
        assert!(refused.contains("2 stores"), "{refused}");
        // A user's own one goes before it, and its end brings it back.
        let own = Quota { stores: Some(3), ..Quota::default() };
        bench.limit(Some("user"), Some(own)).await;
        bench.put("u", &[("a", 1), ("b", 1), ("c", 1)], &[]).await.unwrap();
        bench.put("v", &[("a", 1)], &[]).await.unwrap_err();
        let users = bench.backend.users(10).await.unwrap();
        assert_eq!(users.len(), 1);
        assert_eq!((users[0].usage.stores, users[0].usage.keys), (3, 5));
        assert_eq!((users[0].usage.bytes, users[0].quota), (10, own));
        bench.limit(Some("user"), None).await;
        bench.put("u", &[("d", 1)], &[]).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn old_values_count() {
    on_both(async |backend, clock| {
        let bench = Bench::new(backend, clock);
        let keep = Change { fence: None, history: Some(Some(Keep { versions: 100, days: 100 })) };
        bench.backend.change(&store("s"), keep).await.unwrap();
        bench.limit(Some("user"), Some(BYTES)).await;
        for _ in 0..2 {
            bench.put("s", &[("a", 3000)], &[]).await.unwrap();
        }
        bench.put("s", &[("a", 3900)], &[]).await.unwrap();
        let refused = bench.put("s", &[("a", 3000)], &[]).await.unwrap_err();
        assert!(refused.contains("9903"), "{refused}");
        assert_eq!(bench.backend.usage("user").await.unwrap().bytes, 9903);
    })
    .await;
}
