//! What only PostgreSQL asks for: servers that won't do, tables, TLS, keys and pages at its limits.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use highwater::{Env, Kind};
use highwater_vss::{Backend, Postgres};
use tokio_postgres::NoTls;

use crate::cluster::Cluster;
use crate::world::{all, kind, plan, store};

async fn refused(url: &str) -> highwater::Error {
    match Postgres::connect(url, Env::system()).await {
        Ok(_) => panic!("this server is taken"),
        Err(error) => error,
    }
}

/// A connection of the test's own.
async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_server_that_would_lose_what_it_acknowledges_is_refused() {
    let cluster = Cluster::start(&["fsync=off"]);
    let error = refused(&cluster.database()).await;
    assert_eq!(error.kind(), Kind::Input, "{error}");
    assert!(error.to_string().contains("fsync") && error.hint().is_some());

    let cluster = Cluster::shared();
    let latin = ["--template=template0", "--encoding=LATIN1", "--locale=C"];
    let error = refused(&cluster.database_with(&latin)).await;
    assert_eq!(error.kind(), Kind::Input, "{error}");
    assert!(error.to_string().contains("LATIN1") && error.hint().is_some());

    assert_eq!(refused(&cluster.url("none")).await.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_weaker_default_of_the_server_does_not_weaken_a_commit() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let admin = client(&url).await;
    let name: String = admin.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
    for (default, expected) in [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")] {
        let alter = format!("ALTER DATABASE {name} SET synchronous_commit = {default}");
        admin.batch_execute(&alter).await.unwrap();
        let backend = Postgres::connect(&url, Env::system()).await.unwrap();
        // The table tells what the sessions that write have.
        admin
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS seen (setting text);
                 DELETE FROM seen;
                 CREATE OR REPLACE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO public.seen VALUES (current_setting('synchronous_commit'));
                     RETURN NULL;
                 END $$;
                 DROP TRIGGER IF EXISTS see ON vss.items;
                 CREATE TRIGGER see AFTER INSERT OR UPDATE ON vss.items EXECUTE FUNCTION see();",
            )
            .await
            .unwrap();
        backend.put(&store("s"), plan(&[("k", -1, b"")], &[])).await.unwrap();
        let seen = admin.query("SELECT DISTINCT setting FROM seen", &[]).await.unwrap();
        let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, [expected], "{default}");
        backend.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_make_the_tables_at_once_and_a_newer_one_is_left_alone() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        starts.spawn(async move { Postgres::connect(&url, Env::system()).await.map(drop) });
    }
    while let Some(done) = starts.join_next().await {
        done.unwrap().unwrap();
    }
    let admin = client(&url).await;
    admin.batch_execute("UPDATE vss.schema_version SET number = 1000").await.unwrap();
    assert_eq!(refused(&url).await.kind(), Kind::Conflict);
    let version = admin.query_one("SELECT number FROM vss.schema_version", &[]).await.unwrap();
    assert_eq!(version.get::<_, i32>(0), 1000);
}

#[tokio::test]
async fn the_longest_keys_and_values_past_a_page_are_kept() {
    let cluster = Cluster::shared();
    let backend = Postgres::connect(&cluster.database(), Env::system()).await.unwrap();
    let name = store(&"\u{10ffff}".repeat(120));
    // As random as ciphertext is: nothing to compress.
    let mut random = fastrand::Rng::with_seed(1);
    let mut long = || -> String { (0..600).map(|_| random.char('\u{10000}'..)).collect() };
    let keys = [long(), long(), "\u{10ffff}".repeat(600)];
    let large = vec![0_u8; 20 << 20];
    let keep = highwater_vss::Keep { versions: 1, days: 1 };
    let change = highwater_vss::Change { fence: None, history: Some(Some(keep)) };
    backend.change(&name, change).await.unwrap();
    for version in 0..2 {
        let items: Vec<(&str, i64, &[u8])> =
            keys.iter().map(|key| (key.as_str(), version, large.as_slice())).collect();
        backend.put(&name, plan(&items, &[])).await.unwrap();
    }
    let found = all(&backend, &name).await;
    assert!(found.iter().all(|(_, version, value)| *version == 2 && value[..] == large[..]));
    assert_eq!(found.len(), 3);
    let page = backend.list(&name, "\u{10ffff}", None, 100).await.unwrap();
    assert_eq!(page.keys, [(keys[2].clone(), 2)]);
    backend.restore(&name, 2).await.unwrap();
    assert_eq!(all(&backend, &name).await.len(), 3);
}

/// A prefix of few keys and one of many are listed by different ways: to the same end.
#[tokio::test]
async fn a_prefix_of_many_keys_is_listed_page_by_page() {
    let cluster = Cluster::shared();
    let backend = Postgres::connect(&cluster.database(), Env::system()).await.unwrap();
    let name = store("s");
    let keys: Vec<String> = (0..9000)
        .map(|number| match number % 10 {
            0 => format!("few.{number}"),
            _ => format!("many_{number}"),
        })
        .collect();
    for some in keys.chunks(1000) {
        let items: Vec<(&str, i64, &[u8])> =
            some.iter().map(|key| (key.as_str(), 0, b"v".as_slice())).collect();
        backend.put(&name, plan(&items, &[])).await.unwrap();
    }
    for prefix in ["few.", "many_", "", "many_8", "manyX"] {
        let (mut found, mut below) = (Vec::new(), None);
        loop {
            let page = backend.list(&name, prefix, below, 100).await.unwrap();
            found.extend(page.keys.into_iter().map(|(key, _)| key));
            below = page.next;
            if below.is_none() {
                break;
            }
        }
        let mut expected: Vec<&String> =
            keys.iter().filter(|key| key.starts_with(prefix)).collect();
        expected.reverse();
        assert!(found.iter().eq(expected), "{prefix}");
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn tls_verifies_the_server_and_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::fs::write(path.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(path, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    openssl(path, &format!("req {key} -keyout key.pem -out req.pem -subj /CN=localhost"));
    openssl(
        path,
        "x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 \
         -extfile names",
    );
    let cluster = Arc::new(Cluster::start(&[]));
    let url = cluster.database();
    assert_eq!(
        refused(&format!("{url}?sslmode=require")).await.kind(),
        Kind::Unavailable,
        "a server without TLS"
    );
    for file in ["cert.pem", "key.pem"] {
        cluster.give(&path.join(file), file);
    }
    let admin = client(&url).await;
    for setting in ["ssl_cert_file = 'cert.pem'", "ssl_key_file = 'key.pem'", "ssl = on"] {
        admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    cluster.stop();
    cluster.start_again();

    let roots = path.join("ca.pem").display().to_string();
    let named = url.replace("127.0.0.1", "localhost");
    let trusted = format!("{named}?sslmode=verify-full&sslrootcert={roots}");
    let backend = Postgres::connect(&trusted, Env::system()).await.unwrap();
    backend.put(&store("s"), plan(&[("k", 0, b"v")], &[])).await.unwrap();
    let admin = client(&url).await;
    let plain = admin
        .query_one(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'highwater' AND NOT ssl",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(plain.get::<_, i64>(0), 0);

    let unknown = refused(&format!("{named}?sslmode=verify-full")).await;
    assert_eq!(unknown.kind(), Kind::Unavailable, "{unknown}");
    let other = format!("{url}?sslmode=require&sslrootcert={roots}");
    let other = refused(&other).await;
    assert_eq!(other.kind(), Kind::Unavailable, "{other}");
    assert!(other.to_string().contains("certificate"), "{other}");
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_no_store() {
    let cluster = Cluster::shared();
    let backend = Postgres::connect(&cluster.database(), Env::system()).await.unwrap();
    let refused = backend.put(&store("s"), plan(&[("k", 3, b"v")], &[])).await;
    assert_eq!(kind(&refused), "conflict");
    backend.delete(&store("s"), "k", -1).await.unwrap();
    assert_eq!(backend.stats().await.unwrap(), highwater_vss::Stats::default());
}
