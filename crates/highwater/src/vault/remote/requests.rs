//! How many requests went to a store: each as it is sent, those that are sent again among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::vault::medium::Requests;

/// What the clients of one store have sent so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    put: AtomicU64,
    get: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
}

impl Counts {
    fn count(&self, request: &HttpRequest) {
        let (of, name) = match request.method().as_str() {
            "PUT" | "POST" => (&self.put, "put"),
            "DELETE" => (&self.delete, "delete"),
            _ if is_list(request.uri().query().unwrap_or_default()) => (&self.list, "list"),
            _ => (&self.get, "get"),
        };
        of.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("highwater_store_requests_total", "method" => name).increment(1);
    }

    pub(super) fn so_far(&self) -> Requests {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests {
            put: of(&self.put),
            get: of(&self.get),
            list: of(&self.list),
            delete: of(&self.delete),
        }
    }
}

/// How S3 and GCS (`list-type`), and Azure (`comp`), are asked for a list.
fn is_list(query: &str) -> bool {
    let mut pairs = query.split('&');
    pairs.any(|pair| pair.starts_with("list-type=") || pair == "comp=list")
}

/// Makes clients whose requests are counted.
#[derive(Debug)]
pub(super) struct Counted(pub(super) Arc<Counts>);

impl HttpConnector for Counted {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(CountedClient { client, counts: Arc::clone(&self.0) }))
    }
}

#[derive(Debug)]
struct CountedClient {
    client: HttpClient,
    counts: Arc<Counts>,
}

#[async_trait]
impl HttpService for CountedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.counts.count(&request);
        self.client.execute(request).await
    }
}
