//! Where PostgreSQL is, how it is talked to, and what it must be like.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures::future::BoxFuture;
use highwater::{Error, Result};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

use super::failure::failure;
use super::tls::Tls;

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing has come for this long is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(30);
/// And again so often, and so many times, before it is given up.
const SILENCE_AGAIN: Duration = Duration::from_secs(10);
const SILENCES: u32 = 3;
/// A connection ends if something sent on it is not acknowledged for this long.
const UNHEARD_MAX: Duration = Duration::from_secs(30);
/// How long one waits for a connection to be free, and to be made and set up.
pub(super) const POOL_WAIT: Duration = Duration::from_secs(20);
/// The oldest PostgreSQL that is known to do.
const OLDEST: i32 = 140_000;

/// How long a statement may take.
pub(super) const STATEMENT_MAX: Duration = Duration::from_secs(60);
/// How long one of those may take that go over a whole store.
pub(super) const LONG_MAX: Duration = Duration::from_secs(60 * 60);

/// What each session is set to: nothing that an operator has set for other programs weakens a commit.
/// `remote_apply` is stronger than `on`, and stays. Plans are made once: those made anew for each request
/// go by what few rows a prefix is guessed to have, and sort a whole store for one page of it.
const SESSION: &str = "
    SET search_path = pg_catalog;
    SET jit = off;
    SET plan_cache_mode = force_generic_plan;
    SET statement_timeout = '60s';
    SET lock_timeout = 0;
    SET idle_in_transaction_session_timeout = '120s';
    SET default_transaction_isolation = 'read committed';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') <> 'remote_apply'";
/// For sessions that write, or read a little: their plans must do for a table that has grown since, so
/// they go by an index even where a table is small.
const BY_INDEX: &str =
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";

/// Where PostgreSQL is.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    tls: Tls,
    by_index: bool,
}

impl Server {
    /// Reads a URL.
    ///
    /// # Errors
    /// Input where it is malformed, or asks for a connection that others could read or take over; not
    /// found or denied where its certificates can't be read.
    pub(super) fn parse(url: &str) -> Result<Server> {
        let (rest, options) = split(url)?;
        // Its own words are not passed on: they may quote a password.
        let malformed = |_| Error::input("the URL of PostgreSQL is malformed").with_remedy(FORM);
        let mut config = Config::from_str(&rest).map_err(malformed)?;
        if config.get_hosts().is_empty() {
            return Err(Error::input("the URL of PostgreSQL names no host").with_remedy(FORM));
        }
        config.ssl_mode(mode(options.mode.as_deref(), is_local(&config))?);
        let tls = Tls::new(options.roots.as_deref())?;
        if config.get_application_name().is_none() {
            config.application_name("highwater");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_MAX);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNHEARD_MAX);
        }
        config.keepalives_idle(config.get_keepalives_idle().min(SILENCE));
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(SILENCE_AGAIN);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(SILENCES);
        }
        Ok(Server { config, tls, by_index: false })
    }

    /// For sessions that write, or read a little.
    pub(super) fn by_index(&self) -> Server {
        Server { by_index: true, ..self.clone() }
    }

    /// A session.
    pub(super) async fn session(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        // How it ends shows in what is asked of the client.
        let task = tokio::spawn(async move { drop(connection.await) });
        client.batch_execute(SESSION).await?;
        if self.by_index {
            client.batch_execute(BY_INDEX).await?;
        }
        Ok((client, task))
    }

    /// Sessions that are made where they are needed, at most `size`.
    pub(super) fn pool(&self, size: usize) -> Result<Pool> {
        let method = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(self.config.clone(), Sessions(self.clone()), method);
        Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(POOL_WAIT))
            .build()
            .map_err(|error| Error::bug("the pool of connections").with_source(error))
    }
}

struct Sessions(Server);

impl Connect for Sessions {
    fn connect(
        &self,
        _: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(self.0.session())
    }
}

/// Refuses a server that would lose what it has acknowledged, or could not keep every key.
///
/// # Errors
/// Input where the server is not fit.
pub(super) async fn check(client: &Client) -> Result<()> {
    let row = client
        .query_one(
            "SELECT current_setting('fsync'), current_setting('server_encoding'),
                 current_setting('server_version_num')::int",
            &[],
        )
        .await
        .map_err(|error| failure(&error))?;
    let (fsync, encoding, version): (&str, &str, i32) = (row.get(0), row.get(1), row.get(2));
    if version < OLDEST {
        return Err(
            Error::input("PostgreSQL is older than version 14").with_remedy("use a newer one")
        );
    }
    if fsync != "on" {
        return Err(Error::input(
            "PostgreSQL runs with fsync off: a loss of power would lose what it has acknowledged",
        )
        .with_remedy("set fsync = on in its configuration, and restart it"));
    }
    if encoding != "UTF8" {
        return Err(Error::input(format!(
            "the encoding of the database is {encoding}: it can't keep every key"
        ))
        .with_remedy("make one with UTF8: createdb --template=template0 --encoding=UTF8 NAME"));
    }
    Ok(())
}

const FORM: &str = "postgres://USER:PASSWORD@HOST:PORT/DATABASE, with what is special in the password \
                    percent-encoded";

/// What of a URL is read here: the client knows neither.
#[derive(Default)]
struct Options {
    mode: Option<String>,
    roots: Option<PathBuf>,
}

fn split(url: &str) -> Result<(String, Options)> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(Error::input("this is not a PostgreSQL URL").with_remedy(FORM));
    }
    let mut options = Options::default();
    let Some((rest, query)) = url.split_once('?') else { return Ok((url.to_owned(), options)) };
    let mut others = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => options.mode = Some(mode.to_owned()),
            Some(("sslrootcert", path)) => options.roots = Some(PathBuf::from(decode(path)?)),
            _ => others.push(pair),
        }
    }
    let rest = match others.is_empty() {
        true => rest.to_owned(),
        false => format!("{rest}?{}", others.join("&")),
    };
    Ok((rest, options))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String> {
    let malformed = || Error::input("`sslrootcert` in the URL of PostgreSQL is malformed");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded).map_err(|_| malformed())?;
        bytes.extend(decoded);
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// Whether nobody else is on the way there.
fn is_local(config: &Config) -> bool {
    let local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    config.get_hosts().iter().all(local) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// Whether TLS is used. There is none that does not verify.
fn mode(asked: Option<&str>, local: bool) -> Result<SslMode> {
    match (asked, local) {
        (None | Some("disable" | "allow" | "prefer"), true) => Ok(SslMode::Disable),
        (None, false) | (Some("require" | "verify-full"), _) => Ok(SslMode::Require),
        (Some("disable"), false) => Ok(SslMode::Disable),
        (Some("allow" | "prefer"), false) => Err(Error::input(
            "`sslmode` in the URL of PostgreSQL lets whoever is on the way turn TLS off",
        )
        .with_remedy("sslmode=verify-full, or sslmode=disable where the network is your own")),
        (Some("verify-ca"), _) => {
            Err(Error::input("`sslmode=verify-ca` in the URL of PostgreSQL is not known")
                .with_remedy("sslmode=verify-full verifies the name as well"))
        }
        _ => Err(Error::input("`sslmode` in the URL of PostgreSQL is not known")
            .with_remedy("sslmode=verify-full, or sslmode=disable")),
    }
}

#[cfg(test)]
mod tests {
    use highwater::Kind;

    use super::*;

    #[test]
    fn a_connection_beyond_this_machine_is_verified_unless_the_url_says_otherwise() {
        let ssl = |url: &str| Server::parse(url).map(|server| server.config.get_ssl_mode());
        for (url, expected) in [
            ("postgres://u:p@127.0.0.1/d", SslMode::Disable),
            ("postgres://u:p@[::1]/d?sslmode=prefer", SslMode::Disable),
            ("postgres://u@%2Frun%2Fpostgresql/d", SslMode::Disable),
            ("postgres://u@localhost/d?sslmode=verify-full", SslMode::Require),
            ("postgres://u:p@db.example/d", SslMode::Require),
            ("postgres://u:p@db.example/d?sslmode=require&connect_timeout=3", SslMode::Require),
            ("postgres://u:p@db.example/d?sslmode=disable", SslMode::Disable),
            ("postgres://u:p@localhost,db.example/d", SslMode::Require),
            ("postgres://u:p@localhost/d?hostaddr=10.0.0.1", SslMode::Require),
        ] {
            assert_eq!(ssl(url).unwrap(), expected, "{url}");
        }
        for url in [
            "postgres://u:secret@db.example/d?sslmode=prefer",
            "postgres://u:secret@db.example/d?sslmode=verify-ca",
            "postgres://u:secret@localhost/d?sslmode=maybe",
            "postgres://u:secret@localhost/d?secret=1",
            "postgres:///secret",
            "host=localhost password=secret",
        ] {
            let error = Server::parse(url).err().unwrap();
            assert_eq!(error.kind(), Kind::Input, "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(
            Server::parse("postgres://u@localhost/d?sslmode=require&sslrootcert=%2Fno%2Fsuch.pem")
                .err()
                .unwrap()
                .kind(),
            Kind::NotFound
        );
    }
}
