//! `backup --freeze` on nodes that go on writing: what was acknowledged before is in the snapshot, and
//! the node never notices more than a pause.

pub(crate) mod child;
mod crash;
pub(crate) mod engines;
mod refused;

use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use crate::scene::{Ran, Scene};
use crate::tree;
use child::Writer;

/// A launcher for which the kernel denies ptrace, as Yama or a container's profile does: the
/// arguments are a program and its arguments. Exit code 99 where it can't be done.
const WITHOUT_PTRACE: &str = r#"
import ctypes, os, platform, struct, sys
number = {"x86_64": 101, "aarch64": 117}.get(platform.machine())
libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number or 0), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(code))
if number is None or libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(99)
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// A scene with an empty node directory.
fn scene() -> Scene {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("node")).unwrap();
    scene
}

impl Scene {
    /// Backs the node up, frozen.
    fn freeze(&self, pid: &str, more: &[&str]) -> Ran {
        self.run(self.freezing(pid, more))
    }

    fn freezing<'a>(&self, pid: &'a str, more: &[&'a str]) -> Vec<std::ffi::OsString> {
        let dir = self.path("node");
        let words = [OsStr::new("backup"), dir.as_os_str(), "--freeze".as_ref(), pid.as_ref()];
        // On a busy machine all takes longer.
        let patient = if more.contains(&"--max-pause") { &[][..] } else { &["--max-pause", "60s"] };
        let more = patient.iter().chain(more).map(|word| OsStr::new(*word));
        words.into_iter().chain(more).map(OsStr::to_owned).collect()
    }

    /// Restores the newest snapshot to where nothing is yet, after the engines have checked it.
    fn thawed(&self, name: &str) -> std::path::PathBuf {
        let tested = self.run(["check", "latest", "--restore-test"]).ok();
        assert_eq!(tested["ok"], true, "{tested}");
        let target = self.path(name);
        self.restore("latest", &target).ok();
        target
    }

    /// The program is run where ptrace is denied; `false` where that can't be arranged.
    fn deny_ptrace(&mut self) -> bool {
        let script = self.path("without-ptrace.py");
        std::fs::write(&script, WITHOUT_PTRACE).unwrap();
        let launcher = ["python3".as_ref(), script.as_os_str()];
        let mut trial = std::process::Command::new(launcher[0]);
        if trial.args([launcher[1], "true".as_ref()]).status().is_ok_and(|ended| ended.success()) {
            self.launch_by(&launcher);
            return true;
        }
        crate::scene::skip("this machine has no python3, or no seccomp, to deny ptrace with");
        false
    }
}

/// It was frozen, and nothing of the image is left.
#[track_caller]
fn assert_frozen(scene: &Scene, document: &Value) {
    assert_eq!(document["barrier"], "frozen", "{document}");
    assert!(document["pause_ms"].is_u64(), "{document}");
    assert_no_image(&scene.path("node"));
}

/// Directories of images in a node directory.
fn images(node: &Path) -> Vec<String> {
    let below = [node.to_path_buf(), node.join(".highwater")];
    let mut names: Vec<String> = below.iter().flat_map(|dir| tree::names(dir)).collect();
    names.retain(|name| name.starts_with(".highwater-freeze-"));
    names
}

#[track_caller]
fn assert_no_image(node: &Path) {
    assert_eq!(images(node), [""; 0]);
}

/// The writer goes on, and a backup of it works: nothing of what came before is in its way.
#[track_caller]
fn assert_goes_on(scene: &Scene, writer: &mut Writer) {
    writer.wait_stopped(false);
    writer.more();
    let document = scene.freeze(&writer.pid(), &[]).ok();
    assert_frozen(scene, &document);
    writer.more();
}
