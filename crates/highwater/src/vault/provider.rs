//! The kinds of object stores: how their URLs are written, and which settings they take.

#[cfg(feature = "remote")]
use object_store::ClientConfigKey;
#[cfg(feature = "s3")]
use object_store::aws::AmazonS3ConfigKey;
#[cfg(feature = "azure")]
use object_store::azure::AzureConfigKey;
#[cfg(feature = "gcs")]
use object_store::gcp::GoogleConfigKey;

/// A kind of object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    S3,
    Gcs,
    Azure,
}

/// What a setting is about, where that matters here.
#[cfg(feature = "remote")]
#[derive(PartialEq, Eq)]
pub(super) enum Role {
    /// Where the requests go.
    Endpoint,
    /// Whether plain HTTP is let out to other machines.
    AllowHttp,
    Other,
}

impl Provider {
    pub(super) fn of_scheme(scheme: &str) -> Option<Provider> {
        let all = [Provider::S3, Provider::Gcs, Provider::Azure];
        all.into_iter().find(|provider| provider.scheme().eq_ignore_ascii_case(scheme))
    }

    pub(super) fn scheme(self) -> &'static str {
        match self {
            Provider::S3 => "s3",
            Provider::Gcs => "gs",
            Provider::Azure => "az",
        }
    }

    /// What stands behind the scheme.
    pub(super) fn bucket_word(self) -> &'static str {
        match self {
            Provider::S3 | Provider::Gcs => "BUCKET",
            Provider::Azure => "CONTAINER",
        }
    }

    /// Whether this build reaches such a store.
    #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
    pub(super) fn is_built(self) -> bool {
        match self {
            Provider::S3 => cfg!(feature = "s3"),
            Provider::Gcs => cfg!(feature = "gcs"),
            Provider::Azure => cfg!(feature = "azure"),
        }
    }

    /// The feature with which a build reaches such a store.
    #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
    pub(super) fn feature(self) -> &'static str {
        match self {
            Provider::S3 => "s3",
            Provider::Gcs => "gcs",
            Provider::Azure => "azure",
        }
    }

    /// Whether there is such a setting, and it is the operator's to choose. A build that can't reach such
    /// a store knows none of its settings.
    #[cfg(feature = "remote")]
    pub(super) fn takes_setting(self, name: &str) -> bool {
        self.role(name).is_some()
    }

    #[cfg(not(feature = "remote"))]
    pub(super) fn takes_setting(self, _: &str) -> bool {
        false
    }

    /// `None` where there is no such setting, or it is not the operator's to choose.
    #[cfg(feature = "remote")]
    pub(super) fn role(self, name: &str) -> Option<Role> {
        match self {
            #[cfg(feature = "s3")]
            Provider::S3 => Some(match name.parse().ok()? {
                AmazonS3ConfigKey::Bucket
                | AmazonS3ConfigKey::ConditionalPut
                | AmazonS3ConfigKey::CopyIfNotExists => return None,
                AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint => Role::Endpoint,
                AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp) => Role::AllowHttp,
                _ => Role::Other,
            }),
            #[cfg(feature = "gcs")]
            Provider::Gcs => Some(match name.parse().ok()? {
                GoogleConfigKey::Bucket => return None,
                GoogleConfigKey::BaseUrl => Role::Endpoint,
                GoogleConfigKey::Client(ClientConfigKey::AllowHttp) => Role::AllowHttp,
                _ => Role::Other,
            }),
            #[cfg(feature = "azure")]
            Provider::Azure => Some(match name.parse().ok()? {
                AzureConfigKey::ContainerName | AzureConfigKey::UseEmulator => return None,
                AzureConfigKey::Endpoint => Role::Endpoint,
                AzureConfigKey::Client(ClientConfigKey::AllowHttp) => Role::AllowHttp,
                _ => Role::Other,
            }),
            #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
            _ => None,
        }
    }

    /// Where the credentials of such a store come from.
    #[cfg(feature = "remote")]
    pub(super) fn credentials_hint(self) -> &'static str {
        match self {
            Provider::S3 => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; they must be \
                 allowed to list, get, put and delete below the prefix"
            }
            Provider::Gcs => {
                "set GOOGLE_APPLICATION_CREDENTIALS to the file of an account that may list, get, \
                 create and delete objects below the prefix"
            }
            Provider::Azure => {
                "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or \
                 AZURE_STORAGE_SAS_TOKEN) of an account that may read, write and delete blobs"
            }
        }
    }
}
