//! What this process has counted, as text for Prometheus. A process has one recorder: a node that embeds the
//! library may have installed its own before, which then gets what is counted, and nothing is told here.

use std::sync::OnceLock;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The version of the text format that this is.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What histograms have gathered is folded so often, also where nobody asks.
const FOLD_EVERY: Duration = Duration::from_secs(10);
/// The bounds of a backup's duration, in seconds: from a small increment to a large first one.
const BACKUP_SECONDS: [f64; 12] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 43_200.0];
/// The bounds of a request's or a write's duration, in seconds.
const REQUEST_SECONDS: [f64; 11] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Folds what histograms have gathered, for as long as it is asked to run; ends at once where the
/// process has another recorder. What is counted from this call on is kept, whenever the future first runs.
pub fn upkeep() -> impl Future<Output = ()> + Send {
    let handle = recorder();
    async move {
        let Some(handle) = handle else { return };
        let mut due = tokio::time::interval(FOLD_EVERY);
        loop {
            due.tick().await;
            handle.run_upkeep();
        }
    }
}

/// All that this process has counted; nothing where it has another recorder.
pub fn counted() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}

/// The answer to whoever asks for figures.
pub fn answer(text: String) -> Response {
    ([(CONTENT_TYPE, TEXT)], text).into_response()
}

/// The recorder of this process, where it is ours.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let backup = Matcher::Full("highwater_backup_duration_seconds".to_owned());
        let any = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(backup, &BACKUP_SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(any, &REQUEST_SECONDS));
        let recorder = builder.ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        describe();
        Some(handle)
    };
    RECORDER.get_or_init(install).as_ref()
}

/// What the library counts, by the names under which it does.
fn describe() {
    metrics::describe_counter!(
        "highwater_backup_bytes_total",
        Unit::Bytes,
        "Bytes that backups have read from nodes, and stored in vaults."
    );
    metrics::describe_counter!(
        "highwater_backup_failures_total",
        Unit::Count,
        "Backups that have failed, by the kind of the error."
    );
    metrics::describe_counter!(
        "highwater_store_requests_total",
        Unit::Count,
        "Requests that went to vaults in object stores, by their method."
    );
    metrics::describe_histogram!(
        "highwater_backup_duration_seconds",
        Unit::Seconds,
        "How long backups took that have succeeded."
    );
    metrics::describe_histogram!(
        "highwater_witness_write_seconds",
        Unit::Seconds,
        "How long writes of a witness took."
    );
    metrics::describe_histogram!(
        "highwater_vss_request_seconds",
        Unit::Seconds,
        "How long requests to the versioned store took."
    );
}
