//! Real object stores on loopback, for tests: each on a free port, with a directory of its own, stopped
//! by its process id. `scripts/setup` installs moto, azurite and s3rver; `scripts/setup s3s-fs` builds
//! s3s-fs, which takes minutes, so that its tests are skipped where it is missing.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each user takes a part")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The bucket, or container, that every server has.
pub(crate) const BUCKET: &str = "bucket";
/// What the servers of S3 take for credentials.
pub(crate) const KEY_ID: &str = "test-key-id";
pub(crate) const SECRET: &str = "test-secret-key-of-the-store";
/// Azurite's account, which its documentation publishes.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// A free port may be taken between looking and listening: another one is tried so often.
const STARTS_MAX: usize = 5;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// S3. Its writes are let in one at a time: by itself it looks first and writes then.
    Moto,
    /// The same over TLS, with a certificate of its own making.
    MotoTls,
    /// Azure, blobs alone.
    Azurite,
    /// S3 that ignores conditions.
    S3rver,
    /// S3 that looks first and writes then.
    S3sFs,
}

/// A server that runs.
pub(crate) struct Server {
    product: Product,
    port: u16,
    dir: tempfile::TempDir,
    process: Option<Running>,
}

struct Running {
    server: Child,
    /// Takes what the server prints, so that it never waits for a reader.
    drain: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = self.drain.wait();
    }
}

impl Server {
    /// Starts one; `None`, told loudly, where it is not installed.
    pub(crate) fn start(product: Product) -> Option<Server> {
        let program = program(product)?;
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..STARTS_MAX {
            let port = free_port();
            if product == Product::MotoTls {
                let made =
                    Command::new(&program).args(["-c", CERTIFICATE]).current_dir(&dir).status();
                assert!(made.unwrap().success());
            }
            let Some(process) = launch(product, &program, port, dir.path()) else { continue };
            let server = Server { product, port, dir, process: Some(process) };
            server.make_bucket();
            return Some(server);
        }
        panic!("{product:?} does not start");
    }

    /// The URL of a vault in it.
    pub(crate) fn url(&self, prefix: &str) -> String {
        let scheme = if self.product == Product::Azurite { "az" } else { "s3" };
        format!("{scheme}://{BUCKET}/{prefix}")
    }

    /// The variables that lead to it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let endpoint = self.endpoint();
        if self.product == Product::Azurite {
            return vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY.to_owned()),
                ("AZURE_STORAGE_ENDPOINT", endpoint),
            ];
        }
        // s3rver knows one pair.
        let lies = self.product == Product::S3rver;
        let (id, secret) = if lies { ("S3RVER", "S3RVER") } else { (KEY_ID, SECRET) };
        let mut variables = vec![
            ("AWS_ACCESS_KEY_ID", id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        if self.product == Product::MotoTls {
            let certificate = self.dir.path().join("certificate.pem");
            variables.push(("SSL_CERT_FILE", certificate.to_str().unwrap().to_owned()));
        }
        variables
    }

    /// The same as settings of a location.
    pub(crate) fn settings(&self) -> std::collections::BTreeMap<String, String> {
        let variables = self.variables().into_iter();
        variables.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
    }

    /// Kills it, as a machine that loses its power does.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port, with what its disk holds.
    pub(crate) fn restart(&mut self) {
        let program = program(self.product).expect("it was there");
        self.process = launch(self.product, &program, self.port, self.dir.path());
        assert!(self.process.is_some(), "the port was taken meanwhile");
    }

    /// Waits until its log has a line with `text` in it.
    pub(crate) fn await_log(&self, text: &str) {
        let log = self.dir.path().join("log");
        let found = Command::new("sh")
            .args(["-c", "tail -n +1 -s 0.1 -F \"$1\" 2>/dev/null | grep -q -m 1 -e \"$2\"", "sh"])
            .arg(log)
            .arg(text)
            .status();
        assert!(found.unwrap().success());
    }

    fn endpoint(&self) -> String {
        let path =
            if self.product == Product::Azurite { format!("/{ACCOUNT}") } else { String::new() };
        let scheme = if self.product == Product::MotoTls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    fn make_bucket(&self) {
        let made = match self.product {
            Product::S3rver | Product::S3sFs => return,
            Product::Moto | Product::MotoTls => {
                python(MAKE_BUCKET, &[&format!("{}/{BUCKET}", self.endpoint())])
            }
            Product::Azurite => {
                python(MAKE_CONTAINER, &[&self.endpoint(), ACCOUNT, ACCOUNT_KEY, BUCKET])
            }
        };
        assert!(made, "no bucket could be made");
    }
}

/// Where the servers are installed.
fn home() -> PathBuf {
    if let Some(dir) = std::env::var_os("STORE_SERVERS") {
        return dir.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    cache.unwrap_or_else(home).join("highwater/store-servers")
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn program(product: Product) -> Option<PathBuf> {
    let path = home().join(match product {
        Product::Moto | Product::MotoTls => "moto/bin/python",
        Product::Azurite => "npm/node_modules/.bin/azurite-blob",
        Product::S3rver => "npm/node_modules/.bin/s3rver",
        Product::S3sFs => "s3s-fs/bin/s3s-fs",
    });
    if path.exists() {
        return Some(path);
    }
    let how = if product == Product::S3sFs { " s3s-fs" } else { "" };
    eprintln!("SKIPPED: {} is missing; `scripts/setup{how}` installs it", path.display());
    None
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts the server, and waits until it says that it listens; `None` where it ends before.
fn launch(product: Product, program: &Path, port: u16, dir: &Path) -> Option<Running> {
    let port = port.to_string();
    let data = dir.join("data");
    std::fs::create_dir_all(data.join(BUCKET)).unwrap();
    let data = data.to_str().unwrap();
    let (arguments, ready): (Vec<&str>, &str) = match product {
        Product::Moto => (vec!["-c", MOTO, &port], "Running on"),
        Product::MotoTls => (vec!["-c", MOTO, &port, "certificate.pem", "key.pem"], "Running on"),
        Product::Azurite => (
            vec![
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port,
                "--location",
                data,
                "--disableTelemetry",
                "--skipApiVersionCheck",
            ],
            "successfully listens",
        ),
        Product::S3rver => (
            vec!["-d", data, "-a", "127.0.0.1", "-p", &port, "--configure-bucket", BUCKET],
            "listening",
        ),
        Product::S3sFs => (
            vec![
                "--host",
                "127.0.0.1",
                "--port",
                &port,
                "--access-key",
                KEY_ID,
                "--secret-key",
                SECRET,
                data,
            ],
            "server is running",
        ),
    };
    let mut server = Command::new("sh")
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .arg(program)
        .args(arguments)
        .env("RUST_LOG", "s3s_fs=info")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(ready) {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            server.wait().unwrap();
            return None;
        }
    }
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let drain =
        Command::new("cat").stdin(Stdio::from(lines.into_inner())).stdout(log).spawn().unwrap();
    Some(Running { server, drain })
}

fn python(script: &str, arguments: &[&str]) -> bool {
    Command::new("python3").args(["-c", script]).args(arguments).status().unwrap().success()
}

const MOTO: &str = r#"
import io, sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
inner, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
def app(environ, start_response):
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return inner(environ, start_response)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with lock:
        return inner(environ, start_response)
context = tuple(sys.argv[2:]) or None
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, ssl_context=context)
"#;

const CERTIFICATE: &str = r#"
import datetime, ipaddress
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a store for tests")])
now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
certificate = (
    x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    .add_extension(x509.SubjectAlternativeName([address]), False)
    .sign(key, hashes.SHA256())
)
pem = serialization.Encoding.PEM
with open("certificate.pem", "wb") as file:
    file.write(certificate.public_bytes(pem))
with open("key.pem", "wb") as file:
    plain = serialization.NoEncryption()
    file.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
"#;

const MAKE_BUCKET: &str = r#"
import ssl, sys, urllib.request
request = urllib.request.Request(sys.argv[1], method="PUT")
urllib.request.urlopen(request, context=ssl._create_unverified_context()).read()
"#;

/// Makes a container under a shared key.
const MAKE_CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
endpoint, account, key, name = sys.argv[1:]
version, date = "2021-08-06", email.utils.formatdate(usegmt=True)
headers = f"x-ms-date:{date}\nx-ms-version:{version}"
text = "PUT" + "\n" * 12 + headers + f"\n/{account}/{account}/{name}\nrestype:container"
digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
request = urllib.request.Request(f"{endpoint}/{name}?restype=container", data=b"", method="PUT")
request.add_header("x-ms-date", date)
request.add_header("x-ms-version", version)
request.add_header("Content-Type", "")
signature = base64.b64encode(digest).decode()
request.add_header("Authorization", f"SharedKey {account}:{signature}")
urllib.request.urlopen(request).read()
"#;
