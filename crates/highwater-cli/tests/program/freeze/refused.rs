//! Nodes that can't be frozen: each is refused, says why, and runs on.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::child::Writer;
use super::{assert_goes_on, assert_no_image, scene};
use crate::scene::{Scene, skip};

/// The message of a refusal, which left nothing behind.
#[track_caller]
fn refusal(scene: &Scene, pid: &str, code: i32, kind: &str) -> String {
    let ran = scene.freeze(pid, &[]);
    let message = ran.json["error"]["message"].as_str().unwrap_or_default().to_owned();
    let hint = ran.json["error"]["hint"].as_str().unwrap_or_default().to_owned();
    ran.failed(code, kind);
    assert_no_image(&scene.path("node"));
    format!("{message}; {hint}")
}

#[test]
fn a_process_that_is_none_or_writes_nothing_is_refused() {
    let scene = scene();
    let writer = Writer::start("log", &scene.path("node"));
    let mut ended = Command::new("true").spawn().unwrap();
    let pid = ended.id().to_string();
    ended.wait().unwrap();
    let said = refusal(&scene, &pid, 3, "not_found");
    assert!(said.contains(&format!("there is no process {pid}")), "{said}");
    let said = refusal(&scene, &std::process::id().to_string(), 4, "conflict");
    assert!(said.contains(&format!("(pid {})", writer.pid())), "names who writes: {said}");
    let thread = fs::read_dir(format!("/proc/{}/task", writer.pid())).unwrap();
    let thread = thread.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let thread = thread.filter(|id| *id != writer.pid()).last().expect("the test's own thread");
    let said = refusal(&scene, &thread, 2, "input");
    assert!(said.contains(&format!("--freeze {}", writer.pid())), "{said}");
}

#[test]
fn a_node_that_is_stopped_already_is_left_so() {
    let scene = scene();
    let mut writer = Writer::start("log", &scene.path("node"));
    writer.signal(Signal::STOP);
    writer.wait_stopped(true);
    let said = refusal(&scene, &writer.pid(), 4, "conflict");
    assert!(said.contains("is stopped already"), "{said}");
    assert!(writer.state().starts_with('T'));
    writer.signal(Signal::CONT);
    assert_goes_on(&scene, &mut writer);
}

/// The shell that waits for the program holds a file of the node open.
#[test]
fn who_waits_for_the_program_is_not_stopped() {
    let scene = scene();
    let log = scene.path("node/log");
    let script = r#"log=$1; shift; exec 3>>"$log"; "$@" --freeze $$ 3>&-; code=$?; exit $code"#;
    let mut scene = scene;
    scene.launch_by(&[
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        "sh".as_ref(),
        log.as_os_str(),
    ]);
    let ran = scene.backup();
    let message = ran.json["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("waits for this process"), "{message}");
    ran.failed(4, "conflict");
}

/// A python program that says 1 once it has done what it is to be refused for.
fn python(scene: &Scene, program: &str) -> Option<Child> {
    let said = scene.path("said-by-python");
    let child = Command::new("python3")
        .args(["-c", program])
        .arg(scene.path("node"))
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&said).unwrap())
        .spawn();
    let Ok(mut child) = child else {
        skip("python3 is not installed");
        return None;
    };
    while fs::read_to_string(&said).unwrap().is_empty() {
        if child.try_wait().unwrap().is_some() {
            skip("this kernel does not permit what the program tries");
            return None;
        }
        highwater::Env::system().pause(std::time::Duration::from_millis(5));
    }
    Some(child)
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_file_that_is_written_through_memory_is_refused_unless_its_engine_is_known() {
    let scene = scene();
    fs::write(scene.path("node/mapped.dat"), [0; 8192]).unwrap();
    let program = "import mmap, sys
file = open(sys.argv[1] + '/mapped.dat', 'r+b')
memory = mmap.mmap(file.fileno(), 0)
memory[0] = 1
print(1, flush=True)
sys.stdin.read()";
    let Some(child) = python(&scene, program) else { return };
    let said = refusal(&scene, &child.id().to_string(), 4, "conflict");
    assert!(said.contains("mapped.dat") && said.contains("through its memory"), "{said}");
    end(child);
}

#[test]
fn a_process_for_which_the_kernel_writes_by_itself_is_refused() {
    let scene = scene();
    let program = "import ctypes, sys
file = open(sys.argv[1] + '/data', 'wb')
libc = ctypes.CDLL(None)
ring = libc.syscall(425, 8, ctypes.create_string_buffer(120))
if ring < 0: sys.exit(1)
print(1, flush=True)
sys.stdin.read()";
    let Some(child) = python(&scene, program) else { return };
    let said = refusal(&scene, &child.id().to_string(), 4, "conflict");
    assert!(said.contains("io_uring"), "{said}");
    end(child);
}

/// A process of another user, which this one may neither look into nor stop, holds a lock on a file
/// of the node.
#[test]
fn a_writer_that_may_not_be_stopped_is_named() {
    let mut scene = scene();
    if !rustix::process::geteuid().is_root() {
        return skip("it takes root to run something as another user");
    }
    let data = scene.path("node/data");
    fs::write(&data, "data").unwrap();
    scene.become_nobody();
    let script = r#"exec 3>>"$0/log"; echo 1 >&3; echo 1; read end"#;
    let mut own = Command::new("setpriv");
    own.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script]);
    own.arg(scene.path("node")).stdin(Stdio::piped());
    let own = Writer::of(own, scene.path("said-by-own"));
    scene.freeze(&own.pid(), &[]).ok();
    let other = locker(&data);
    let said = refusal(&scene, &own.pid(), 4, "conflict");
    assert!(said.contains(&format!("(pid {}", other.id())), "{said}");
    end(other);
    scene.freeze(&own.pid(), &[]).ok();
}

/// Holds a lock on a file, as root.
fn locker(file: &Path) -> Child {
    let mut child = Command::new("flock")
        .arg(file)
        .args(["-c", "echo; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    child
}

#[test]
fn a_pause_without_a_freeze_is_a_wrong_call() {
    let scene = scene();
    scene.run(["backup", "node", "--max-pause", "10"]).failed(2, "input");
    scene.run(["backup", "node", "--freeze", "0"]).failed(2, "input");
}

/// The supervisor is started by a backup alone.
#[test]
fn nothing_that_people_read_names_the_supervisor() {
    let scene = scene();
    let said = |words: &[&str]| {
        let output = scene.plain_command(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for words in [&["--help"][..], &["backup", "--help"], &["completions", "bash"]] {
        let text = said(words);
        assert!(text.contains("backup") && !text.contains("supervise"), "{words:?}: {text}");
    }
    assert!(said(&["backup", "--help"]).contains("--max-pause"));
}
