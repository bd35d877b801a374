//! The files of the tree: what git knows and would add, or all files where there is no git.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::rust::Rust;

/// A text file.
pub(crate) struct File {
    /// From the root of the tree, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// What the checks need to know of it, where it is Rust.
    pub(crate) rust: Option<Rust>,
}

/// All files.
#[derive(Default)]
pub(crate) struct Tree {
    /// The text files, by path.
    pub(crate) files: Vec<File>,
    /// The paths of all files and of the directories that hold them.
    pub(crate) paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the tree below `root`.
    pub(crate) fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree::default();
        for path in list(root)? {
            let full = root.join(&path);
            // A file that was deleted but not yet removed from the index, or a link.
            if !full.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| path.clone())?;
            tree.add(&path, bytes);
        }
        tree.mark_test_modules();
        Ok(tree)
    }

    /// A tree that a test makes up.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.add(path, text.as_bytes().to_vec());
        }
        tree.mark_test_modules();
        tree
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>) {
        self.paths.insert(path.into());
        let mut rest = path;
        while let Some((dir, _)) = rest.rsplit_once('/') {
            self.paths.insert(dir.into());
            rest = dir;
        }
        // Seeds, and a database that somebody else's library has written, are data, also where they could be read.
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
            && !path.starts_with("fuzz/seeds/")
            && !path.starts_with("crates/highwater-cli/src/demo/store/")
        {
            let rust = path.ends_with(".rs").then(|| Rust::parse(path, &text));
            self.files.push(File { path: path.into(), text, rust });
        }
    }

    /// A file behind `#[cfg(test)] mod name;` holds tests, whatever its name.
    fn mark_test_modules(&mut self) {
        let modules: BTreeSet<String> = self
            .rust()
            .flat_map(|(file, rust)| rust.test_modules.iter().map(|name| child(&file.path, name)))
            .collect();
        for file in &mut self.files {
            let stem = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
            if let Some(rust) = &mut file.rust
                && modules.iter().any(|module| {
                    stem.strip_prefix(module.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            {
                rust.all_test = true;
            }
        }
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&File, &Rust)> {
        self.files.iter().filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    /// The file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// The path, without ending, of the module `name` that the file at `path` declares.
fn child(path: &str, name: &str) -> String {
    let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "mod.rs" | "lib.rs" | "main.rs" => format!("{dir}/{name}"),
        _ => format!("{}/{name}", path.trim_end_matches(".rs")),
    }
}

fn list(root: &Path) -> Result<Vec<String>> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let mut paths = match git {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let names = String::from_utf8(output.stdout).context("names in the tree are UTF-8")?;
            names.split_terminator('\0').map(String::from).collect()
        }
        _ => {
            let mut paths = Vec::new();
            walk(root, "", &mut paths)?;
            paths
        }
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn walk(root: &Path, dir: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(root.join(dir)).with_context(|| format!("listing {dir}"))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("names in the tree are UTF-8")?;
        let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_file() {
            paths.push(path);
        } else if kind.is_dir() && !matches!(name.as_str(), ".git" | "target") {
            walk(root, &path, paths)?;
        }
    }
    Ok(())
}
