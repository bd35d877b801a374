//! Rights that files give: what a snapshot brings back of them, and what the owner's directory hands on
//! to what root makes in it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::ground::{Above, Ground, OWNER};
use crate::scene::skip;

/// An extended attribute that a program keeps its capabilities in: `cap_setuid=ep`.
const CAPABILITY: &str = "0100000280000000000000000000000000000000";

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

fn run(words: &[&str], path: &Path) -> Option<String> {
    let output = Command::new(words[0]).args(&words[1..]).arg(path).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn capability(path: &Path) -> bool {
    let script = "import os, sys; sys.exit('security.capability' not in os.listxattr(sys.argv[1]))";
    run(&["/usr/bin/python3", "-c", script], path).is_some()
}

fn warned(document: &serde_json::Value) -> String {
    document["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn programs_get_their_rights_back_only_when_that_is_asked_for() {
    let Some(ground) = Ground::without_backup(Above::Roots) else { return };
    let node = ground.node();
    for (name, rights) in [("setuid", 0o4755), ("setgid", 0o2755), ("plain", 0o755)] {
        fs::write(node.join(name), "#!/bin/sh\n").unwrap();
        fs::set_permissions(node.join(name), fs::Permissions::from_mode(rights)).unwrap();
    }
    let script = format!(
        "import os, sys; os.setxattr(sys.argv[1], 'security.capability', bytes.fromhex('{CAPABILITY}'))"
    );
    let capable = run(&["/usr/bin/python3", "-c", &script], &node.join("plain")).is_some();
    if !capable {
        skip("this file system keeps no capabilities");
    }
    ground.backup().ok();
    let target = ground.scene.path("home/restored");
    let answer = ground.scene.restore("latest", &target).ok();
    let warnings = warned(&answer);
    assert!(warnings.contains("setuid") && warnings.contains("setgid"), "{answer}");
    assert!(!capable || warnings.contains("plain"), "{answer}");
    for name in ["setuid", "setgid", "plain"] {
        assert_eq!(mode(&target.join(name)), 0o755, "{name}");
        assert!(!capability(&target.join(name)), "{name}");
    }
    let again = ground.scene.path("home/again");
    let words = ["restore".as_ref(), "latest".as_ref(), again.as_os_str(), "--setid".as_ref()];
    let answer = ground.scene.run(words).ok();
    assert!(!warned(&answer).contains("set-user-id"), "{answer}");
    assert_eq!(mode(&again.join("setuid")), 0o4755);
    assert_eq!(mode(&again.join("setgid")), 0o2755);
    assert_eq!(capability(&again.join("plain")), capable);
}

#[test]
fn a_restore_of_one_part_makes_no_program_of_roots() {
    let Some(ground) = Ground::new(Above::Owners) else { return };
    // The owner gives a name in the node directory to a program of root's.
    let sudo = ground.node().join("sudo");
    fs::write(&sudo, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o4755)).unwrap();
    ground.on_node(&["restore", "latest"], &["--force", "--part", "store"]).ok();
    let found = sudo.metadata().unwrap();
    assert!(found.uid() != 0 || found.mode() & 0o6000 == 0, "{:o}", found.mode());
}

/// A list of access in its stored form (`acl(5)`; the kernel's `posix_acl_xattr.h`): the owner of the node
/// may do everything.
fn list() -> Vec<u8> {
    const NOBODYS: u32 = u32::MAX;
    let (owner, user, group, mask, other) = (0x01u16, 0x02u16, 0x04u16, 0x10u16, 0x20u16);
    let entries = [
        (owner, 7u16, NOBODYS),
        (user, 7, OWNER),
        (group, 0, NOBODYS),
        (mask, 7, NOBODYS),
        (other, 0, NOBODYS),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The directory above the node hands on a list that lets its owner read and write all that is made in
/// it; root's files come back as they were.
#[test]
fn no_list_of_access_is_inherited_from_the_owners_directory() {
    let Some(ground) = Ground::without_backup(Above::Owners) else { return };
    let secret = ground.node().join("roots-own");
    fs::write(&secret, super::ground::ROOTS).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(ground.node().join("roots-dir")).unwrap();
    fs::set_permissions(ground.node().join("roots-dir"), fs::Permissions::from_mode(0o770))
        .unwrap();
    ground.backup().ok();
    fs::remove_file(&secret).unwrap();
    fs::remove_dir(ground.node().join("roots-dir")).unwrap();
    for dir in [ground.node().parent().unwrap().to_owned(), ground.node()] {
        let set = XattrFlags::empty();
        match rustix::fs::setxattr(&dir, "system.posix_acl_default", &list(), set) {
            Err(Errno::NOTSUP) => return skip("this file system keeps no lists of access"),
            done => done.unwrap(),
        }
    }
    for target in [ground.node(), ground.scene.path("home/fresh")] {
        ground.scene.restore("latest", &target).ok();
        for name in ["roots-own", "roots-dir"] {
            for kind in ["system.posix_acl_access", "system.posix_acl_default"] {
                let mut value = [0; 256];
                let found = rustix::fs::getxattr(target.join(name), kind, &mut value);
                assert_eq!(found, Err(Errno::NODATA), "{name}: {kind}");
            }
        }
        assert_eq!(mode(&target.join("roots-own")), 0o640);
        ground.assert_untouched("a restore below a list of access");
    }
    ground.on_node(&["rollback"], &[]).ok();
    ground.assert_untouched("a rollback below a list of access");
}
