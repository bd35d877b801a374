//! The ground on which it is fought: a node of another user, root's files beside it, and a watch over
//! those.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::node;
use crate::scene::{Ran, Scene, skip};
use crate::tree;

/// The owner of the node: a user and a group that own nothing else.
pub(super) const OWNER: u32 = 65534;
/// What stands in root's secret file, and may be nowhere else.
pub(super) const ROOTS: &str = "only root may ever read this line";

/// Whose the directory above the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Above {
    Roots,
    Owners,
}

/// What is known of a file of root's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    owner: (u32, u32),
    mode: u32,
    content: Vec<u8>,
}

/// A node of another user, and root's files.
pub(super) struct Ground {
    pub(super) scene: Scene,
    above: PathBuf,
    watched: BTreeMap<PathBuf, Seen>,
}

impl Ground {
    /// The node is in its old state, in a vault, and goes on to its new state; `None`, said aloud,
    /// where this is not run by root.
    pub(super) fn new(above: Above) -> Option<Ground> {
        let ground = Ground::without_backup(above)?;
        ground.backup().ok();
        node::go_on(&ground.node());
        ground.give_node();
        Some(ground)
    }

    /// The same, and the vault has nothing yet.
    pub(super) fn without_backup(above: Above) -> Option<Ground> {
        if !rustix::process::geteuid().is_root() {
            skip("only root works in another user's directory with rights to lose");
            return None;
        }
        let scene = Scene::new();
        open_to_all(&scene.path(""));
        let place = scene.path("home");
        fs::create_dir(&place).unwrap();
        open_to_all(&place);
        if above == Above::Owners {
            std::os::unix::fs::chown(&place, Some(OWNER), Some(OWNER)).unwrap();
        }
        make_roots(&scene.path("roots"));
        let mut ground = Ground { scene, above: place, watched: BTreeMap::new() };
        node::make(&ground.node());
        ground.give_node();
        ground.watch();
        Some(ground)
    }

    /// The node directory.
    pub(super) fn node(&self) -> PathBuf {
        self.above.join("node")
    }

    /// Root's files.
    pub(super) fn roots(&self) -> PathBuf {
        self.scene.path("roots")
    }

    /// Makes everything in the node directory its owner's.
    pub(super) fn give_node(&self) {
        give(&self.node());
    }

    pub(super) fn backup(&self) -> Ran {
        self.on_node(&["backup"], &["--node", "node"])
    }

    /// A command of root's whose next argument is the node directory.
    pub(super) fn on_node(&self, before: &[&str], after: &[&str]) -> Ran {
        let node = self.node();
        let words = before.iter().copied().chain([node.to_str().unwrap()]);
        self.scene.run(words.chain(after.iter().copied()))
    }

    /// A shell of the node's owner, in the directory above the node. `$N` is the node directory, `$R`
    /// root's files.
    pub(super) fn shell(&self, script: &str) -> Command {
        let id = OWNER.to_string();
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--",
                "/bin/sh",
                "-uc",
                script,
            ])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("N", self.node())
            .env("R", self.roots())
            .current_dir(&self.above)
            .stdin(Stdio::null());
        command
    }

    /// The owner does this.
    #[track_caller]
    pub(super) fn as_owner(&self, script: &str) {
        let output = self.shell(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    }

    /// Remembers root's files as they are now.
    pub(super) fn watch(&mut self) {
        self.watched = self.look();
    }

    fn look(&self) -> BTreeMap<PathBuf, Seen> {
        let mut seen = BTreeMap::new();
        look_below(&self.roots(), &mut seen);
        for file in ["vault.key", "vault"] {
            let path = self.scene.path(file);
            let mut one = seen_at(&path);
            one.content.clear();
            seen.insert(path, one);
        }
        seen
    }

    /// Nothing of root's has changed, and its secrets are where the owner can't read them.
    #[track_caller]
    pub(super) fn assert_untouched(&self, what: &str) {
        let now = self.look();
        let name = |path: &Path| path.display().to_string();
        for (path, seen) in &self.watched {
            match now.get(path) {
                None => panic!("{what}: {} is gone", name(path)),
                Some(now) => assert_eq!(now, seen, "{what}: {}", name(path)),
            }
        }
        for path in now.keys() {
            assert!(self.watched.contains_key(path), "{what}: {} was made", name(path));
        }
        self.assert_secret(what);
    }

    /// The owner finds neither root's line, nor the key, nor a piece of the vault.
    #[track_caller]
    fn assert_secret(&self, what: &str) {
        let key = fs::read_to_string(self.scene.path("vault.key")).unwrap();
        let script = format!(
            "cat '{}' '{}/'* && exit 1; grep -r -l -s -a -F -e '{ROOTS}' -e '{}' . | head -3 >&2; \
             ! grep -r -q -s -a -F -e '{ROOTS}' -e '{}' .",
            self.scene.path("vault.key").display(),
            self.scene.path("vault").display(),
            key.trim(),
            key.trim(),
        );
        // What the owner's pipes would keep waiting is not read.
        let script = format!("find . -type p -delete 2>/dev/null; {script}");
        let output = self.shell(&script).output().unwrap();
        assert!(output.status.success(), "{what}: a secret is out: {output:?}");
    }
}

/// Everything at and below `path` belongs to the node's owner.
pub(super) fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(OWNER), Some(OWNER)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        tree::names(path).iter().for_each(|name| give(&path.join(name)));
    }
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Files that an attacker would want: one to read, one to write, a directory to write in, a database.
fn make_roots(dir: &Path) {
    fs::create_dir_all(dir.join("etc/cron.d")).unwrap();
    for dir in [dir, &dir.join("etc"), &dir.join("etc/cron.d")] {
        open_to_all(dir);
    }
    let file = |name: &str, mode: u32, content: &str| {
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    file("shadow", 0o600, &format!("{ROOTS}\n"));
    file("passwd", 0o644, "root:x:0:0\n");
    file("etc/cron.d/nightly", 0o644, "0 3 * * * root true\n");
    file("node.key", 0o600, &format!("{ROOTS}\n"));
    rusqlite::Connection::open(dir.join("ledger.sqlite"))
        .unwrap()
        .execute_batch(&format!(
            "CREATE TABLE secret (line); INSERT INTO secret VALUES ('{ROOTS}')"
        ))
        .unwrap();
    fs::set_permissions(dir.join("ledger.sqlite"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn look_below(path: &Path, seen: &mut BTreeMap<PathBuf, Seen>) {
    seen.insert(path.to_owned(), seen_at(path));
    if path.symlink_metadata().unwrap().is_dir() {
        tree::names(path).iter().for_each(|name| look_below(&path.join(name), seen));
    }
}

fn seen_at(path: &Path) -> Seen {
    let found = path.symlink_metadata().unwrap();
    let content = if found.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    Seen { inode: found.ino(), owner: (found.uid(), found.gid()), mode: found.mode(), content }
}

/// A process of the owner's, ended when this is dropped.
pub(super) struct Busy(Child);

impl Busy {
    pub(super) fn start(mut command: Command) -> Busy {
        Busy(command.spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each command by which root works on a node, with what follows the directory. They run in this
/// order on one ground.
pub(super) const COMMANDS: [(&[&str], &[&str]); 12] = [
    (&["inspect"], &[]),
    (&["recover"], &[]),
    (&["guard", "list"], &[]),
    (&["guard", "release"], &["--all", "--reason", "a test"]),
    (&["backup"], &["--node", "node"]),
    (&["restore", "latest"], &["--force", "--part", "files"]),
    (&["recover"], &[]),
    (&["restore", "latest"], &["--plan", "--force"]),
    (&["restore", "latest"], &["--force"]),
    (&["recover"], &[]),
    (&["rollback"], &[]),
    (&["run"], &["--timeout", "0", "--", "true"]),
];
