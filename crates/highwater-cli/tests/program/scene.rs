//! A scene of its own for each test: a node, a vault, a key, a state directory, and the program
//! that runs between them, also in a mount namespace or as another user.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use highwater::Env;
use highwater::env::FaultPoint;
use highwater::vault::{Location, Secret, Vault};
use serde_json::Value;

use crate::{node, tree};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_highwater");

/// The number of a user and of a group that own nothing.
const NOBODY: u32 = 65534;

/// A fault that the program meets.
#[derive(Clone, Copy)]
pub(crate) struct Strike<'a> {
    pub(crate) point: FaultPoint,
    /// At which passage of the point.
    pub(crate) count: u64,
    /// What happens there: `kill`, `error` or `enospc`.
    pub(crate) action: &'a str,
}

impl Strike<'_> {
    pub(crate) fn kill(point: FaultPoint, count: u64) -> Strike<'static> {
        Strike { point, count, action: "kill" }
    }
}

/// A directory with all that a test needs; gone at its end.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    /// What stands before the program's name: a namespace to enter, a user to become.
    launcher: Vec<OsString>,
    /// Where the file system of the program is, as seen from outside its namespace.
    root: PathBuf,
    program: PathBuf,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) json: Value,
    #[expect(dead_code, reason = "shown where a run did not end as it should")]
    pub(crate) stderr: String,
}

impl Ran {
    /// It ended well; its document.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.json
    }

    /// It failed with this exit code and this kind of error; the error.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, kind: &str) -> Value {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.json["error"]["kind"], kind, "{self:?}");
        self.json["error"].clone()
    }

    /// It was killed.
    pub(crate) fn killed(&self) -> bool {
        self.signal == Some(9)
    }
}

impl Scene {
    /// A vault, its key, and no node yet.
    pub(crate) fn new() -> Scene {
        let dir = tempfile::Builder::new().prefix("highwater-").tempdir().unwrap();
        let (launcher, root) = (Vec::new(), PathBuf::from("/"));
        let scene = Scene { dir, launcher, root, program: PROGRAM.into() };
        let vault = scene.path("vault");
        scene.run(["init".as_ref(), vault.as_os_str()]).ok();
        scene
    }

    /// [`Scene::new`] with a node in its old state.
    pub(crate) fn with_node() -> Scene {
        let scene = Scene::new();
        node::make(&scene.path("node"));
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the program finds `name`, as seen from outside its namespace.
    pub(crate) fn seen(&self, name: &str) -> PathBuf {
        self.root.join(self.path(name).strip_prefix("/").unwrap())
    }

    /// What is run from now on is run by `launcher`.
    pub(crate) fn launch_by<S: AsRef<OsStr>>(&mut self, launcher: &[S]) {
        self.launcher = launcher.iter().map(|word| word.as_ref().to_owned()).collect();
    }

    /// What is run from now on is run in the namespace of `mounted`.
    pub(crate) fn move_into(&mut self, mounted: &Mounted) {
        self.launcher.clone_from(&mounted.launcher);
        self.root = mounted.see(Path::new("/"));
    }

    /// What is run from now on is run by a user who is not root; all that is there is given to that
    /// user.
    pub(crate) fn become_nobody(&mut self) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        self.launch_by_nobody();
        give_away(self.dir.path());
    }

    /// The same, while what is there stays whose it is: that user may pass through.
    pub(crate) fn lend_to_nobody(&mut self) {
        self.launch_by_nobody();
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    }

    fn launch_by_nobody(&mut self) {
        self.program = self.path("highwater");
        fs::copy(PROGRAM, &self.program).unwrap();
        let id = NOBODY.to_string();
        self.launch_by(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    }

    /// The program with the vault, key and state directory of the scene, for a document.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.plain_command(args);
        command.arg("--json");
        command
    }

    /// The same, for people.
    pub(crate) fn plain_command<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut words =
            self.launcher.iter().map(OsString::as_os_str).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(args);
        command
            .env("HIGHWATER_VAULT", self.path("vault"))
            .env("HIGHWATER_KEY_FILE", self.path("vault.key"))
            .env("HIGHWATER_STATE_DIR", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("no-settings"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command of the program.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    /// The same, struck by a fault.
    pub(crate) fn run_with_fault<S: AsRef<OsStr>>(
        &self,
        strike: Strike<'_>,
        args: impl IntoIterator<Item = S>,
    ) -> Ran {
        let mut command = self.command(args);
        command
            .env("HIGHWATER_FAULT_POINT", strike.point.name())
            .env("HIGHWATER_FAULT_COUNT", strike.count.to_string())
            .env("HIGHWATER_FAULT_ACTION", strike.action);
        finish(command.spawn().unwrap())
    }

    /// Backs the node up.
    pub(crate) fn backup(&self) -> Ran {
        self.run(["backup".as_ref(), self.path("node").as_os_str()])
    }

    /// Restores a snapshot to where nothing is, or nothing is kept.
    pub(crate) fn restore(&self, snapshot: &str, target: &Path) -> Ran {
        self.run(["restore".as_ref(), snapshot.as_ref(), target.as_os_str(), "--force".as_ref()])
    }

    /// What a snapshot restores to; the vault is checked to its last byte on the way.
    pub(crate) fn restored(&self, snapshot: &str) -> tree::Tree {
        let scratch = self.path("scratch-of-a-restore");
        self.restore(snapshot, &scratch).ok();
        let found = tree::read(&scratch).unwrap();
        fs::remove_dir_all(&scratch).unwrap();
        found
    }

    /// Ids of the visible snapshots, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let listed = self.run(["snapshots"]).ok();
        let id = |listed: &Value| listed["snapshot"].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(id).collect()
    }

    /// The vault holds what its visible snapshots need, all of it good, and nothing else.
    #[track_caller]
    pub(crate) fn assert_vault_clean(&self, what: &str) {
        assert_eq!(self.run(["check", "--read-data"]).ok()["ok"], true, "{what}");
        let vault = self.seen("vault");
        assert_eq!(tree::names(&vault.join("intents")), [""; 0], "{what}: intents");
        assert_eq!(tree::names(&vault.join(".tmp")), [""; 0], "{what}: temporary files");
        let needed: BTreeSet<String> = self
            .open_vault()
            .snapshots(None)
            .unwrap()
            .iter()
            .flat_map(|info| info.manifest.packs.iter().map(|pack| pack.id.to_string()))
            .collect();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let found: BTreeSet<String> = tree::files(&vault.join("packs")).iter().map(name).collect();
        assert_eq!(found, needed, "{what}: packs");
    }

    /// The vault by the library.
    pub(crate) fn open_vault(&self) -> Vault {
        let location: Location = self.seen("vault").to_str().unwrap().parse().unwrap();
        let secret = Secret::from_key_file(&self.path("vault.key")).unwrap();
        Vault::open_with(&location, &secret, &Env::system()).unwrap()
    }
}

fn give_away(path: &Path) {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        tree::names(path).iter().for_each(|name| give_away(&path.join(name)));
    }
}

/// Waits for a program that was started by [`Scene::command`].
pub(crate) fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ran { code: output.status.code(), signal: output.status.signal(), json, stderr }
}

/// 1, 2, 5, 10, 20, 50, …: at which passage of a fault point a test strikes.
pub(crate) fn counts() -> impl Iterator<Item = u64> {
    (0..6).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power)))
}

/// Says aloud that something could not be tested here.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// A mount namespace with a file system of its own in it, for as long as this lives.
pub(crate) struct Mounted {
    holder: Child,
    launcher: Vec<OsString>,
}

impl Mounted {
    /// A file system in memory at `at`, an empty directory; `None`, said aloud, where that is not
    /// permitted.
    pub(crate) fn at(at: &Path, size: &str) -> Option<Mounted> {
        let root = rustix::process::geteuid().is_root();
        let script =
            r#"mount -t tmpfs -o "mode=0755,size=$1" none "$0" && echo mounted && read end"#;
        let mut holder = Command::new("unshare")
            .args(if root { &["-m"][..] } else { &["-U", "-r", "-m"] })
            .args(["sh", "-c", script])
            .arg(at)
            .arg(size)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            holder.wait().unwrap();
            skip("nothing can be mounted in a namespace here");
            return None;
        }
        let id = holder.id().to_string();
        let enter = ["nsenter", "--target", &id, "--mount"].map(OsString::from).to_vec();
        let user = ["--user", "--preserve-credentials"].map(OsString::from);
        let launcher = if root { enter } else { [enter, user.to_vec()].concat() };
        Some(Mounted { holder, launcher })
    }

    /// Runs a command in the namespace.
    pub(crate) fn run(&self, words: &[&OsStr]) {
        let (enter, rest) = self.launcher.split_first().unwrap();
        assert!(Command::new(enter).args(rest).args(words).status().unwrap().success());
    }

    /// Where `path` is, as seen from outside.
    pub(crate) fn see(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().unwrap();
    }
}
