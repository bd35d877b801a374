//! The rules of the protocol, above any backend.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use highwater::{Env, Kind};
use vss_api::error::VssError;
use vss_api::kv_store::{GLOBAL_VERSION_KEY, KvStore};
use vss_api::types::{
    DeleteObjectRequest, DeleteObjectResponse, GetObjectRequest, GetObjectResponse, KeyValue,
    ListKeyVersionsRequest, ListKeyVersionsResponse, PutObjectRequest, PutObjectResponse,
};

use crate::backend::{Backend, Found, Place, Refusal, StoreName};
use crate::limits::{KEY_MAX, NAME_MAX, PAGE_MAX};
use crate::plan::{Plan, PutFault, check_key, check_name};
use crate::quota::Quotas;

/// The protocol over a backend. Every request is looked over here, so that a backend sees none that the
/// rules forbid.
#[derive(Clone)]
pub struct Service {
    backend: Arc<dyn Backend>,
    quotas: Arc<Quotas>,
}

impl Service {
    /// The protocol over `backend`.
    pub fn new(backend: Arc<dyn Backend>) -> Service {
        Service::with(backend, &Env::system())
    }

    /// The same by another clock.
    pub fn with(backend: Arc<dyn Backend>, env: &Env) -> Service {
        Service { backend, quotas: Arc::new(Quotas::new(env.clone())) }
    }

    /// A value of at most `most` bytes.
    pub(crate) async fn find(
        &self,
        user: String,
        request: &GetObjectRequest,
        most: usize,
    ) -> Result<Found, VssError> {
        let store = store_name(user, request.store_id.clone())?;
        check_key(&request.key).map_err(VssError::InvalidRequestError)?;
        match self.backend.get(&store, &request.key, most).await.map_err(refused)? {
            Some(found) => Ok(found),
            // A store without a global version has one of 0.
            None if request.key == GLOBAL_VERSION_KEY => {
                Ok(Found { version: 0, bytes: 0, value: Some(Bytes::new()) })
            }
            None => Err(VssError::NoSuchKeyError("the key is not there".to_owned())),
        }
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
}

#[async_trait]
impl KvStore for Service {
    async fn get(
        &self,
        user_token: String,
        request: GetObjectRequest,
    ) -> Result<GetObjectResponse, VssError> {
        let key = request.key.clone();
        let found = self.find(user_token, &request, usize::MAX).await?;
        let value = found.value.unwrap_or_default();
        Ok(GetObjectResponse { value: Some(KeyValue { key, version: found.version, value }) })
    }

    async fn put(
        &self,
        user_token: String,
        request: PutObjectRequest,
    ) -> Result<PutObjectResponse, VssError> {
        let store = store_name(user_token, request.store_id.clone())?;
        let plan = Plan::of(request).map_err(|fault| match fault {
            PutFault::Invalid(why) => VssError::InvalidRequestError(why),
            PutFault::Conflict(why) => VssError::ConflictError(why),
        })?;
        if !plan.effects.is_empty() {
            self.quotas.admit(&self.backend, &store, &plan).await.map_err(refused)?;
            self.backend.put(&store, plan).await.map_err(refused)?;
        }
        Ok(PutObjectResponse {})
    }

    async fn delete(
        &self,
        user_token: String,
        request: DeleteObjectRequest,
    ) -> Result<DeleteObjectResponse, VssError> {
        let store = store_name(user_token, request.store_id)?;
        let item = request
            .key_value
            .ok_or_else(|| VssError::InvalidRequestError("the request names no key".to_owned()))?;
        check_key(&item.key).map_err(VssError::InvalidRequestError)?;
        self.backend.delete(&store, &item.key, item.version).await.map_err(refused)?;
        Ok(DeleteObjectResponse {})
    }

    async fn list_key_versions(
        &self,
        user_token: String,
        request: ListKeyVersionsRequest,
    ) -> Result<ListKeyVersionsResponse, VssError> {
        let invalid = VssError::InvalidRequestError;
        let store = store_name(user_token, request.store_id)?;
        let prefix = request.key_prefix.unwrap_or_default();
        check_name("a prefix", &prefix, KEY_MAX).map_err(invalid)?;
        let size = match request.page_size {
            None => PAGE_MAX,
            Some(size) => u32::try_from(size)
                .map_err(|_| invalid("a page size below 0".to_owned()))?
                .min(PAGE_MAX),
        };
        let below = request.page_token.as_deref().map(place).transpose()?;
        let page = self.backend.list(&store, &prefix, below, size).await.map_err(refused)?;
        let item = |(key, version)| KeyValue { key, version, value: Bytes::new() };
        Ok(ListKeyVersionsResponse {
            key_versions: page.keys.into_iter().map(item).collect(),
            next_page_token: Some(page.next.map(|place| place.to_string()).unwrap_or_default()),
            global_version: below.is_none().then_some(page.global_version),
        })
    }
}

/// A store that may exist.
pub(crate) fn store_name(user: String, id: String) -> Result<StoreName, VssError> {
    let invalid = VssError::InvalidRequestError;
    check_name("a user", &user, NAME_MAX).map_err(invalid)?;
    check_name("a store id", &id, NAME_MAX).map_err(VssError::InvalidRequestError)?;
    Ok(StoreName { user, id })
}

/// The place that a page token stands for.
pub(crate) fn place(token: &str) -> Result<Place, VssError> {
    let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    let place = digits.then(|| token.parse().ok()).flatten();
    place.filter(|place| *place > 0).ok_or_else(|| {
        VssError::InvalidRequestError("a page token that no answer has given".to_owned())
    })
}

pub(crate) fn refused(refusal: Refusal) -> VssError {
    match refusal {
        Refusal::Conflict(why) => VssError::ConflictError(why),
        Refusal::Invalid(why) => VssError::InvalidRequestError(why),
        Refusal::Failed(error) if error.kind() == Kind::Input => {
            VssError::InvalidRequestError(error.summary())
        }
        Refusal::Failed(error) => VssError::InternalServerError(error.summary()),
    }
}
