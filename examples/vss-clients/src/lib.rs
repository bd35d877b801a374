//! Starts `highwater vss serve` for clients, and makes the tokens that it asks for.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a step gives, or why it could not.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The variable that names the program.
const PROGRAM: &str = "VSS_PROGRAM";

/// How the server asks who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// By signatures.
    Signature,
    /// By tokens.
    Jwt,
    /// Not at all.
    None,
}

/// A server, ended when this is dropped.
pub struct Served {
    process: Child,
    /// Kept open, so that the server can write.
    _output: BufReader<ChildStdout>,
    url: String,
    dir: TempDir,
}

impl Served {
    /// Starts one in a directory of its own, on a free port.
    ///
    /// # Errors
    /// Where the program is not named by `VSS_PROGRAM`, or does not start.
    pub fn start(auth: Auth) -> Outcome<Served> {
        let program = std::env::var_os(PROGRAM).ok_or_else(|| {
            format!("{PROGRAM} must name the program; `make test-clients` does it")
        })?;
        let dir = TempDir::new()?;
        let mut command = Command::new(program);
        command.args(["--json", "vss", "serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir.path().join("data"));
        match auth {
            Auth::Signature => command.args(["--auth", "signature"]),
            Auth::None => command.args(["--auth", "none"]),
            Auth::Jwt => {
                make_key(dir.path())?;
                command.args(["--auth", "jwt", "--jwt-key"]).arg(public_key(dir.path()))
            }
        };
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("the server has no output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let mut served = Served { process, _output: output, url: String::new(), dir };
        let event: Value = serde_json::from_str(&line)?;
        let address = event.get("address").and_then(Value::as_str).ok_or(line)?;
        served.url = format!("http://{address}/vss");
        Ok(served)
    }

    /// Where clients find it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A token of that user, valid for so many seconds from now on.
    ///
    /// # Errors
    /// Where the server was not started for tokens.
    pub fn token(&self, user: &str, seconds: i64) -> Outcome<String> {
        let now = UNIX_EPOCH.elapsed()?.as_secs();
        let end = i64::try_from(now)? + seconds;
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "RS256", "typ": "JWT"}));
        let signed = format!("{head}.{}", part(json!({"sub": user, "exp": end})));
        let message = self.dir.path().join("message");
        std::fs::write(&message, &signed)?;
        let signature = openssl(
            Command::new("openssl")
                .args(["dgst", "-sha256", "-sign"])
                .arg(private_key(self.dir.path()))
                .arg(&message),
        )?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn private_key(dir: &Path) -> PathBuf {
    dir.join("private.pem")
}

fn public_key(dir: &Path) -> PathBuf {
    dir.join("public.pem")
}

fn make_key(dir: &Path) -> Outcome<()> {
    openssl(
        Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
            .arg(private_key(dir)),
    )?;
    openssl(
        Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(private_key(dir))
            .arg("-out")
            .arg(public_key(dir)),
    )?;
    Ok(())
}

fn openssl(command: &mut Command) -> Outcome<Vec<u8>> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}
