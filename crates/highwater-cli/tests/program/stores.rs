//! Vaults in object stores, with real servers on loopback: the whole circle, two writers, what the
//! operator is told, a server that dies, a store that lies.

use serde_json::json;

use crate::servers::{Product, SECRET, Server};
use crate::world::{Answered, ROWS, World, add_payments, answered, assert_node, make_node};

/// A world whose program finds a server.
struct Cloud {
    world: World,
    server: Server,
    url: String,
}

impl Cloud {
    /// `None` where the server is not installed.
    fn start(product: Product) -> Option<Cloud> {
        let server = Server::start(product)?;
        let url = server.url("vaults/one");
        Some(Cloud { world: World::new(), server, url })
    }

    fn with_vault(product: Product) -> Option<Cloud> {
        let cloud = Cloud::start(product)?;
        let init = ["init", &cloud.url, "--key-file", "key", "--json"];
        let unfenced: &[&str] = if product == Product::S3rver { &["--unfenced"] } else { &[] };
        cloud.run(&[&init[..], unfenced].concat()).code(0);
        make_node(&cloud.world.path("node"));
        Some(cloud)
    }

    fn run(&self, arguments: &[&str]) -> Answered {
        self.run_with(arguments, &[])
    }

    /// With further variables, which go before those of the server.
    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Answered {
        let mut command = self.world.command(arguments);
        command.envs(self.server.variables()).envs(variables.iter().copied());
        let said = answered(command.output().expect("the program starts"));
        for text in [&said.stdout, &said.stderr] {
            assert!(!text.contains(SECRET), "a secret was printed: {text}");
        }
        said
    }

    fn on_vault(&self, arguments: &[&str]) -> Answered {
        self.on_vault_with(arguments, &[])
    }

    fn on_vault_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Answered {
        let vault = ["--vault", &self.url, "--key-file", "key", "--json"];
        self.run_with(&[arguments, &vault].concat(), variables)
    }

    fn add_payments(&self, rows: std::ops::Range<u32>) {
        let ledger = rusqlite::Connection::open(self.world.path("node/ledger.sqlite"));
        add_payments(&ledger.expect("the SQLite"), rows);
    }
}

fn comes_full_circle(product: Product) {
    let Some(cloud) = Cloud::with_vault(product) else { return };
    let first = cloud.on_vault(&["backup", "node"]).code(0).json();
    cloud.add_payments(ROWS..ROWS + 20);
    let second = cloud.on_vault(&["backup", "node"]).code(0).json();
    assert_eq!(second["parent"], first["snapshot"]);
    let number = |document: &serde_json::Value, field: &str| document[field].as_u64().expect(field);
    assert!(number(&second, "bytes_stored") < number(&first, "bytes_stored"));
    let checked = cloud.on_vault(&["check", "--read-data"]).code(0).json();
    assert_eq!((&checked["ok"], &checked["snapshots"]), (&json!(true), &json!(2)));
    let tested = cloud.on_vault(&["check", "latest", "--restore-test"]).code(0).json();
    assert_eq!(tested["ok"], true);
    let status = cloud.on_vault(&["status", "--max-age", "1h"]).code(0).json();
    assert_eq!(status["nodes"][0]["newest"], second["snapshot"]);
    assert_eq!(status["nodes"][0]["level"], "restored");
    assert_eq!((&status["slots"], &status["warnings"]), (&json!(2), &json!([])));

    std::fs::remove_dir_all(cloud.world.path("node")).expect("the node is gone");
    cloud.on_vault(&["restore", "latest", "node"]).code(0);
    assert_node(&cloud.world.path("node"), ROWS + 20);
    let id = first["snapshot"].as_str().expect("an id");
    cloud.on_vault(&["restore", id, "older"]).code(0);
    assert_node(&cloud.world.path("older"), ROWS);
}

/// Requests of a backup that stores one pack, at most: each is a round trip, one after the other.
const REQUESTS_MAX: u64 = 33;

/// What a store is asked for goes with what is new, and not with what the vault holds.
fn requests_do_not_grow_with_the_vault(product: Product) {
    let Some(cloud) = Cloud::with_vault(product) else { return };
    let requests = |rows: std::ops::Range<u32>| {
        cloud.add_payments(rows);
        let told = cloud.on_vault(&["backup", "node"]).code(0).json()["requests"].take();
        ["put", "get", "list", "delete"].map(|of| told[of].as_u64().expect("a number"))
    };
    let counts: Vec<[u64; 4]> = (0..5).map(|n| requests(ROWS + n..ROWS + n + 1)).collect();
    for [put, get, list, delete] in &counts[2..] {
        // Packs that hold pages of the database are opened: with each backup there is one more of them.
        let all = put + get + list + delete;
        assert!(all <= REQUESTS_MAX && (*list, *put) == (counts[1][2], counts[1][0]), "{counts:?}");
    }
}

#[test]
fn requests_do_not_grow_with_the_vault_on_s3() {
    requests_do_not_grow_with_the_vault(Product::Moto);
}

#[test]
fn requests_do_not_grow_with_the_vault_on_azure() {
    requests_do_not_grow_with_the_vault(Product::Azurite);
}

#[test]
fn a_node_comes_full_circle_over_s3() {
    comes_full_circle(Product::Moto);
}

#[test]
fn a_node_comes_full_circle_over_azure() {
    comes_full_circle(Product::Azurite);
}

fn a_second_writer_is_fenced(product: Product) {
    let Some(cloud) = Cloud::with_vault(product) else { return };
    cloud.on_vault(&["backup", "node"]).code(0);
    let state = cloud.world.path("other-state");
    let other = [("HIGHWATER_STATE_DIR", state.to_str().expect("UTF-8"))];
    cloud.on_vault_with(&["backup", "node"], &other).code(6).error("fenced");
    let taken = ["owner", "take-over", "--node", "node", "--reason", "the machine burnt down"];
    cloud.on_vault_with(&taken, &other).code(0);
    cloud.add_payments(ROWS..ROWS + 1);
    cloud.on_vault_with(&["backup", "node"], &other).code(0);
    cloud.on_vault(&["backup", "node"]).code(6).error("fenced");
    assert_eq!(cloud.on_vault(&["snapshots"]).code(0).json().as_array().map(Vec::len), Some(2));
}

#[test]
fn a_second_writer_over_s3_is_fenced() {
    a_second_writer_is_fenced(Product::Moto);
}

#[test]
fn a_second_writer_over_azure_is_fenced() {
    a_second_writer_is_fenced(Product::Azurite);
}

#[test]
fn init_prints_the_url_and_refuses_a_prefix_that_holds_something() {
    let Some(cloud) = Cloud::start(Product::Moto) else { return };
    let made = cloud.run(&["init", &cloud.url, "--key-file", "key", "--json"]).code(0).json();
    assert_eq!((&made["vault"], &made["fenced"]), (&json!(cloud.url), &json!(true)));
    let command = made["restore_command"].as_str().expect("a command");
    assert!(command.contains(&format!("--vault {} ", cloud.url)), "{command}");
    let again = ["init", &cloud.url, "--key-file", "other", "--json"];
    cloud.run(&again).code(4).error("conflict");
    assert!(!cloud.world.path("other").exists(), "a key that nothing needs does not stay");
    let above = cloud.server.url("vaults");
    cloud.run(&["init", &above, "--key-file", "other", "--json"]).code(4).error("conflict");

    // The words open it, by the command that the sheet tells.
    make_node(&cloud.world.path("node"));
    cloud.on_vault(&["backup", "node"]).code(0);
    let words = made["recovery_words"].as_str().expect("words");
    cloud.world.write_secret("WORDS_FILE", words);
    let command = command.replace("NODE_DIR", "again");
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    cloud.run(&arguments).code(0);
    assert_node(&cloud.world.path("again"), ROWS);
}

#[test]
fn a_url_in_the_settings_and_a_profile_lead_to_the_vault() {
    let Some(cloud) = Cloud::with_vault(Product::Moto) else { return };
    let home = cloud.world.path("home");
    for dir in [".aws", ".config/highwater"] {
        std::fs::create_dir_all(home.join(dir)).expect("a directory");
    }
    let settings =
        format!("[vault]\nurl = {:?}\nkey_file = {:?}\n", cloud.url, cloud.world.path("key"));
    std::fs::write(home.join(".config/highwater/highwater.toml"), settings).expect("a file");
    let endpoint = cloud.server.settings()["aws_endpoint_url"].clone();
    let config = format!("[profile test]\nregion = us-east-1\nendpoint_url = {endpoint}\n");
    std::fs::write(home.join(".aws/config"), config).expect("a file");
    let keys = format!("[test]\naws_access_key_id = id\naws_secret_access_key = {SECRET}\n");
    std::fs::write(home.join(".aws/credentials"), keys).expect("a file");
    let run = |profile: &str| {
        let mut command = cloud.world.command(&["snapshots", "--json"]);
        answered(command.env("AWS_PROFILE", profile).output().expect("it starts"))
    };
    assert_eq!(run("test").code(0).json(), json!([]));
    run("none").code(3).error("not_found");
    std::fs::write(home.join(".aws/credentials"), format!("[test]\n{SECRET}\n")).expect("a file");
    let said = run("test").code(2);
    assert!(!said.stdout.contains(SECRET) && !said.stderr.contains(SECRET));
    let error = said.error("input");
    let entry = error["error"]["entry"].as_str().expect("an entry");
    assert!(entry.ends_with(".aws/credentials"), "{entry}");
}

#[test]
fn what_a_store_refuses_has_its_kind() {
    let Some(cloud) = Cloud::with_vault(Product::Azurite) else { return };
    let wrong = "d3Jvbmc=";
    let denied = [("AZURE_STORAGE_ACCOUNT_KEY", wrong)];
    let error = cloud.on_vault_with(&["snapshots"], &denied).code(7).error("denied");
    assert!(error["error"]["hint"].as_str().is_some_and(|hint| hint.contains("AZURE_")), "{error}");
    let nowhere = ["snapshots", "--vault", "az://nowhere/a", "--key-file", "key", "--json"];
    let error = cloud.run(&nowhere).code(3).error("not_found");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("no such bucket")));
    let elsewhere = cloud.server.url("elsewhere");
    let empty = ["snapshots", "--vault", &elsewhere, "--key-file", "key", "--json"];
    let error = cloud.run(&empty).code(3).error("not_found");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("no vault here")));
    let plain = [("AZURE_STORAGE_ENDPOINT", "http://192.0.2.1/account")];
    cloud.on_vault_with(&["snapshots"], &plain).code(2).error("input");
    for url in ["s3://key:secret@bucket/a", "s3://", "ftp://host/a", "s3://bucket/a?b"] {
        cloud
            .run(&["snapshots", "--vault", url, "--key-file", "key", "--json"])
            .code(2)
            .error("input");
    }
}

#[test]
fn tls_takes_a_certificate_that_is_known_and_no_other() {
    let Some(cloud) = Cloud::with_vault(Product::MotoTls) else { return };
    cloud.on_vault(&["backup", "node"]).code(0);
    assert_eq!(cloud.on_vault(&["check", "--read-data"]).code(0).json()["ok"], true);
    let stranger = [("SSL_CERT_FILE", "/dev/null")];
    let error = cloud.on_vault_with(&["snapshots"], &stranger).code(8).error("unavailable");
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(message.contains("certificate"), "{message}");
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_no_snapshot_and_the_next_backup_works() {
    // The only one of them that has all that it has acknowledged on its disk.
    let Some(mut cloud) = Cloud::with_vault(Product::S3rver) else { return };
    let bytes = crate::world::noise(40 << 20);
    std::fs::write(cloud.world.path("node/blob"), bytes).expect("a file");
    let vault = ["--vault", &cloud.url, "--key-file", "key", "--json"];
    let slow = [&["backup", "node", "--limit-rate", "8M"], &vault[..]].concat();
    let mut command = cloud.world.command(&slow);
    command.envs(cloud.server.variables());
    let running = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    cloud.server.await_log("one/packs/");
    cloud.server.kill();
    let said = answered(running.wait_with_output().expect("it ends")).code(8);
    assert!(!said.stdout.contains(SECRET));
    let error = said.error("unavailable");
    assert!(error["error"]["hint"].is_string(), "{error}");

    cloud.server.restart();
    assert_eq!(cloud.on_vault(&["snapshots"]).code(0).json(), json!([]));
    cloud.on_vault(&["backup", "node"]).code(0);
    assert_eq!(cloud.on_vault(&["check", "--read-data"]).code(0).json()["ok"], true);
    cloud.on_vault(&["restore", "latest", "again"]).code(0);
    assert_node(&cloud.world.path("again"), ROWS);
}

#[test]
fn a_store_that_lies_is_refused_and_without_a_fence_serves_one_writer() {
    let Some(cloud) = Cloud::start(Product::S3rver) else { return };
    let init = ["init", &cloud.url, "--key-file", "key", "--json"];
    let error = cloud.run(&init).code(4).error("conflict");
    assert!(error["error"]["hint"].as_str().is_some_and(|hint| hint.contains("--unfenced")));
    assert!(!cloud.world.path("key").exists(), "a key that nothing needs does not stay");

    let made = cloud.run(&[&init[..], &["--unfenced"]].concat()).code(0).json();
    assert_eq!(made["fenced"], false);
    make_node(&cloud.world.path("node"));
    for payments in [ROWS, ROWS + 10] {
        cloud.add_payments(ROWS..payments);
        let backup = cloud.on_vault(&["backup", "node"]).code(0).json();
        let warning = backup["warnings"][0].as_str().expect("a warning");
        assert!(warning.contains("two writers"), "{warning}");
        cloud.on_vault(&["restore", "latest", "node", "--force"]).code(0);
        assert_node(&cloud.world.path("node"), payments);
        cloud.run(&["rollback", "node", "--json"]).code(0);
    }
    let status = cloud.on_vault(&["status"]).code(0).json();
    assert!(status["warnings"][0].as_str().is_some_and(|text| text.contains("two writers")));
    assert_eq!(cloud.on_vault(&["check", "--read-data"]).code(0).json()["ok"], true);
    let taken = ["owner", "take-over", "--node", "node", "--reason", "why not"];
    let error = cloud.on_vault(&taken).code(2).error("input");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("stop nobody")));
    // That it is fenced still is a courtesy here, and no promise.
    let state = cloud.world.path("other-state");
    let other = [("HIGHWATER_STATE_DIR", state.to_str().expect("UTF-8"))];
    cloud.on_vault_with(&["backup", "node"], &other).code(6).error("fenced");
}
