//! Where a vault is: a local directory, or a prefix in an object store.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Remedy, Result};

use super::provider::Provider;

/// Where a vault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A local directory, absolute.
    Local(PathBuf),
    /// A prefix in an object store; the features `s3`, `gcs` and `azure` reach it.
    Remote(RemoteLocation),
    /// Archive files, in the order of their chain: a vault that can only be read. What opens them is
    /// [`crate::archive::open`].
    Archive(Vec<PathBuf>),
}

/// A prefix in an object store, and how it is reached. `Display` prints its URL.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteLocation {
    provider: Provider,
    bucket: String,
    /// Without a slash at either end; empty for the whole bucket.
    prefix: String,
    settings: BTreeMap<String, String>,
}

impl Location {
    /// Where it lies in this machine's file system: a directory, files, or nowhere.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Location::Local(path) => std::slice::from_ref(path),
            Location::Archive(paths) => paths,
            Location::Remote(_) => &[],
        }
    }

    /// Whether a store of this kind takes a setting of that name, as `aws_region`. What the URL
    /// says, and what the format of a vault rests on, can't be set.
    pub fn takes_setting(&self, name: &str) -> bool {
        match self {
            Location::Local(_) | Location::Archive(_) => false,
            Location::Remote(remote) => remote.provider.takes_setting(name),
        }
    }

    /// With settings for the store: credentials, region, endpoint, by the names that
    /// `object_store` gives them (`aws_access_key_id`). Input where the store takes no such
    /// setting, or where this build lacks the feature that reaches it.
    pub fn with_settings(self, settings: BTreeMap<String, String>) -> Result<Location> {
        #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
        if let Location::Remote(remote) = &self
            && !settings.is_empty()
            && !remote.provider.is_built()
        {
            return Err(remote.not_built());
        }
        if let Some(name) = settings.keys().find(|name| !self.takes_setting(name)) {
            return Err(Error::input(format!("a vault at {self} takes no setting `{name}`")));
        }
        Ok(match self {
            Location::Remote(remote) => Location::Remote(RemoteLocation { settings, ..remote }),
            local => local,
        })
    }

    /// That archives can't be written, nor opened as a vault of their own.
    pub(super) fn read_only(&self) -> Error {
        Error::input("an archive is no vault that could be written")
            .with_entry(self.to_string())
            .with_remedy(Remedy::ImportArchive)
            .with_remedy(Remedy::RestoreArchive)
    }
}

impl FromStr for Location {
    type Err = Error;

    /// A path, `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    fn from_str(text: &str) -> Result<Location> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let path =
                std::path::absolute(text).map_err(|error| Error::io("the vault's path", error))?;
            return Ok(Location::Local(path));
        };
        if scheme.eq_ignore_ascii_case("file") {
            return file_path(rest).map(Location::Local);
        }
        let provider = Provider::of_scheme(scheme).ok_or_else(|| {
            Error::input(format!("a vault at `{}://` is not supported", visible(scheme)))
                .with_remedy(
                    "give the path of a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or \
                 az://CONTAINER/PREFIX",
                )
        })?;
        let remote = RemoteLocation::parse(provider, rest).map_err(|why| {
            // The rest may hold a password: it is not repeated.
            Error::input(format!("the vault's {} URL is wrong: {why}", provider.scheme()))
                .with_remedy(format!(
                    "write {}://{}/PREFIX",
                    provider.scheme(),
                    provider.bucket_word()
                ))
        })?;
        Ok(Location::Remote(remote))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Remote(remote) => remote.fmt(f),
            local => {
                let name = |path: &PathBuf| crate::ids::encode(path.as_os_str().as_encoded_bytes());
                f.write_str(&local.paths().iter().map(name).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl RemoteLocation {
    fn parse(provider: Provider, rest: &str) -> Result<RemoteLocation, &'static str> {
        if rest.contains(['?', '#']) {
            return Err("it has a query or a fragment; settings come from the environment");
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            return Err(
                "it has credentials in it; they come from the environment or their usual files",
            );
        }
        if bucket.is_empty() {
            return Err("it names no bucket");
        }
        if bucket.contains(':') {
            return Err("it has a port; an endpoint comes from the environment");
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !bucket.bytes().all(letter) || bucket.bytes().all(|byte| byte == b'.') {
            return Err("the bucket has a name that no bucket can have");
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let plain = |byte: u8| letter(byte) || b"=+@,:".contains(&byte);
        for part in prefix.split('/').filter(|_| !prefix.is_empty()) {
            if part.is_empty() || part == "." || part == ".." {
                return Err("the prefix has an empty part, `.` or `..` in it");
            }
            if !part.bytes().all(plain) {
                return Err("the prefix may hold letters, digits and -_.=+@,: between its slashes");
            }
        }
        Ok(RemoteLocation {
            provider,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            settings: BTreeMap::new(),
        })
    }

    /// That this build can't reach such a store.
    #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
    pub(super) fn not_built(&self) -> Error {
        let what = format!("this build can't reach {}:// stores", self.provider.scheme());
        Error::input(what)
            .with_entry(self.to_string())
            .with_remedy(format!("build it with the feature `{}`", self.provider.feature()))
    }

    #[cfg(feature = "remote")]
    pub(super) fn provider(&self) -> Provider {
        self.provider
    }

    #[cfg(any(feature = "remote", test))]
    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    #[cfg(any(feature = "remote", test))]
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    #[cfg(feature = "remote")]
    pub(super) fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }
}

impl fmt::Display for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Settings hold credentials: their names alone are shown.
impl fmt::Debug for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.settings.keys().collect();
        write!(f, "RemoteLocation({self}, settings: {names:?})")
    }
}

/// The path of a `file://` URL.
fn file_path(rest: &str) -> Result<PathBuf> {
    let wrong = |why: &str| {
        Error::input(format!("the vault's file URL is wrong: {why}"))
            .with_remedy("write file:///PATH")
    };
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(wrong("it names another machine, or a path that is not absolute"));
    }
    if path.contains(['?', '#']) {
        return Err(wrong("it has a query or a fragment"));
    }
    let bytes = crate::ids::decode(path).map_err(|_| wrong("its percent-encoding is damaged"))?;
    let path = PathBuf::from(OsString::from_vec(bytes));
    std::path::absolute(path).map_err(|error| Error::io("the vault's path", error))
}

/// A scheme as it may be printed.
fn visible(scheme: &str) -> String {
    scheme.chars().filter(char::is_ascii_graphic).take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn remote(text: &str) -> RemoteLocation {
        match text.parse().unwrap() {
            Location::Remote(remote) => remote,
            other => panic!("{other} is on this machine"),
        }
    }

    #[test]
    fn a_url_is_normalised_and_printed() {
        for (text, printed, bucket, prefix) in [
            ("s3://b", "s3://b", "b", ""),
            ("s3://b/", "s3://b", "b", ""),
            ("S3://b/a/c/", "s3://b/a/c", "b", "a/c"),
            ("gs://my_bucket.x/n=1", "gs://my_bucket.x/n=1", "my_bucket.x", "n=1"),
            ("az://container/a", "az://container/a", "container", "a"),
        ] {
            let remote = remote(text);
            assert_eq!(remote.to_string(), printed);
            assert_eq!((remote.bucket(), remote.prefix()), (bucket, prefix));
            let again: Location = printed.parse().unwrap();
            assert_eq!(again, Location::Remote(remote));
        }
    }

    #[test]
    fn what_is_no_url_of_a_store_is_refused_without_being_repeated() {
        for text in [
            "s3://",
            "s3:///a",
            "s3://key:hunter2@b/a",
            "s3://hunter2@b",
            "s3://b:9000/a",
            "s3://b/a?versionId=hunter2",
            "s3://b/a#x",
            "s3://b?x",
            "s3://b//a",
            "s3://b/a//",
            "s3://b/../a",
            "s3://b/a/./c",
            "s3://b/a b",
            "s3://b/ä",
            "s3://b/a%20b",
            "s3://../a",
            "s3://bücket/a",
            "ftp://host/path",
            "http://127.0.0.1:9000/b",
            "://b",
            "file://host/path",
            "file:///a?b",
            "file:///a%2",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error.kind(), Kind::Input, "{text}");
            assert!(error.hint().is_some(), "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_url_is_a_path() {
        for (text, path) in [
            ("file:///srv/vault", "/srv/vault"),
            ("file://localhost/srv/my%20vault", "/srv/my vault"),
            ("/srv/vault", "/srv/vault"),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location, Location::Local(path.into()));
            assert_eq!(location.paths(), [PathBuf::from(path)]);
        }
    }

    #[test]
    #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
    fn what_this_build_does_not_reach_is_told_with_its_feature() {
        use crate::vault::{Secret, Vault};

        let secret = Secret::Key(zeroize::Zeroizing::new([1; 32]));
        for (url, feature, built) in [
            ("s3://b/a", "s3", cfg!(feature = "s3")),
            ("gs://b/a", "gcs", cfg!(feature = "gcs")),
            ("az://b/a", "azure", cfg!(feature = "azure")),
        ] {
            if built {
                continue;
            }
            let location: Location = url.parse().unwrap();
            let settings = BTreeMap::from([("aws_region".to_owned(), "here".to_owned())]);
            for error in [
                Vault::open(&location, &secret).map(drop).unwrap_err(),
                Vault::create(&location, &secret).map(drop).unwrap_err(),
                location.with_settings(settings).unwrap_err(),
            ] {
                assert_eq!((error.kind(), error.entry()), (Kind::Input, Some(url)), "{error}");
                assert!(error.hint().unwrap().contains(&format!("`{feature}`")), "{error}");
            }
        }
    }

    #[test]
    #[cfg(all(feature = "s3", feature = "gcs", feature = "azure"))]
    fn settings_are_known_ones_and_never_shown() {
        let settings = |name: &str| BTreeMap::from([(name.to_owned(), "hunter2".to_owned())]);
        for (url, name) in [
            ("s3://b", "aws_secret_access_key"),
            ("gs://b", "google_service_account_key"),
            ("az://b", "azure_storage_account_key"),
        ] {
            let location: Location = url.parse().unwrap();
            let location = location.with_settings(settings(name)).unwrap();
            assert!(location.takes_setting(name));
            let shown = format!("{location} {location:?}");
            assert!(shown.contains(name) && !shown.contains("hunter2"), "{shown}");
            // The URL says which bucket; conditions on puts are not to be switched off.
            for name in ["aws_bucket", "google_bucket", "azure_container_name", "bucket"] {
                assert!(!location.takes_setting(name), "{name}");
            }
            for name in ["aws_conditional_put", "aws_secret_access_kex", "aws_profile"] {
                let error = location.clone().with_settings(settings(name)).unwrap_err();
                assert_eq!(error.kind(), Kind::Input);
                assert!(!error.to_string().contains("hunter2"));
            }
        }
        let local: Location = "/srv/vault".parse().unwrap();
        assert!(local.with_settings(settings("aws_region")).is_err());
    }
}
