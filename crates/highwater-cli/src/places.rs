//! Where things lie: paths with their links resolved, also of what does not exist yet.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use highwater::{Error, Result};

/// A path as text, percent-encoded where it is not UTF-8.
pub(crate) fn text(path: &Path) -> String {
    highwater::ids::encode(path.as_os_str().as_bytes())
}

/// Whether `path` is `dir` or lies below it, once all links are resolved.
pub(crate) fn is_inside(path: &Path, dir: &Path) -> Result<bool> {
    Ok(resolve(path)?.starts_with(resolve(dir)?))
}

/// The path without links: what exists of it is resolved, the rest is appended as it stands.
fn resolve(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?;
    for ancestor in path.ancestors() {
        match ancestor.canonicalize() {
            Ok(resolved) => {
                let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
                // Joining an empty path would leave a slash behind.
                return Ok(if rest.as_os_str().is_empty() {
                    resolved
                } else {
                    resolved.join(rest)
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(Error::io(ancestor.display(), error)),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_is_judged_by_the_place_and_not_by_the_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (node, other) = (dir.path().join("node"), dir.path().join("node2"));
        std::fs::create_dir(&node).expect("a directory");
        std::fs::create_dir(&other).expect("a directory");
        std::fs::write(node.join("key"), "").expect("a file");
        std::os::unix::fs::symlink(&node, dir.path().join("link")).expect("a link");
        std::os::unix::fs::symlink(node.join("key"), other.join("key")).expect("a link");

        let inside = |path: &Path, dir: &Path| is_inside(path, dir).expect("paths that resolve");
        assert!(inside(&node.join("key"), &node));
        assert!(inside(&node.join("missing/key"), &node));
        assert!(inside(&dir.path().join("link/key"), &node));
        assert!(inside(&node.join("key"), &dir.path().join("link")));
        assert!(inside(&other.join("key"), &node), "a link to a key inside is a key inside");
        assert!(!inside(&dir.path().join("node2/other"), &node), "a longer name is another place");
        assert!(!inside(&dir.path().join("key"), &dir.path().join("missing")));
    }
}
