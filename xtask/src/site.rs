//! `cargo xtask site DIR`: the documents, laid out for mdBook.
//!
//! The documents have the same paths in the book's sources as in the tree, so that their links hold; only
//! `README.md` is `index.md` there, the page of its directory. Beside them are the files that they lead to: a
//! licence, a unit, a source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tidy::Tree;
use crate::tidy::links::{leads_to, links};
use crate::tidy::summary;

/// Where the settings of the book are.
const SETTINGS: &str = "docs/book.toml";

/// The sources of the book.
struct Sources {
    /// What is written, by path: the summary and the documents.
    texts: BTreeMap<String, String>,
    /// Other files that a document leads to; they are copied.
    files: BTreeSet<String>,
}

impl Sources {
    fn of(tree: &Tree) -> Result<Sources> {
        let list = &tree.file(summary::PATH).context("the summary is missing")?.text;
        // It stands at the root of the sources.
        let from_root =
            relink(list, |target| leads_to(summary::PATH, target).map(|path| page(&path)));
        let mut texts = BTreeMap::from([("SUMMARY.md".to_string(), from_root)]);
        let mut files = BTreeSet::new();
        for (_, path) in summary::documents(list) {
            let text = &tree.file(&path).with_context(|| format!("{path} is missing"))?.text;
            let targets = links(text).into_iter();
            // mdBook makes a page of each listed document, and of no other.
            let others = targets
                .filter_map(|(_, target)| leads_to(&path, target))
                .filter(|path| !path.ends_with(".md"));
            files.extend(others);
            let inside = |target: &str| leads_to(&path, target).map(|_| page(target));
            texts.insert(page(&path), relink(text, inside));
        }
        Ok(Sources { texts, files })
    }
}

/// A path, or the target of a link, as it is among the sources.
fn page(target: &str) -> String {
    let (path, heading) = match target.find('#') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    match path.strip_suffix("README.md") {
        Some(dir) if dir.is_empty() || dir.ends_with('/') => format!("{dir}index.md{heading}"),
        _ => target.to_string(),
    }
}

/// The text with other targets, where `to` has one.
fn relink(text: &str, to: impl Fn(&str) -> Option<String>) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    for (number, old) in links(text) {
        if let Some(new) = to(old)
            && let Some(line) = lines.get_mut(number - 1)
        {
            *line = line.replace(&format!("]({old})"), &format!("]({new})"));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Lays the sources of the book out in `dir`, which must not exist.
pub(crate) fn write(tree: &Tree, root: &Path, dir: &Path) -> Result<()> {
    let sources = Sources::of(tree)?;
    let src = dir.join("src");
    std::fs::create_dir(dir).with_context(|| format!("creating {}", dir.display()))?;
    std::fs::copy(root.join(SETTINGS), dir.join("book.toml")).context(SETTINGS)?;
    let beside = |path: &Path| path.parent().map_or(Ok(()), std::fs::create_dir_all);
    for (path, text) in &sources.texts {
        let to = src.join(path);
        beside(&to).and_then(|()| std::fs::write(&to, text)).with_context(|| path.clone())?;
    }
    for path in &sources.files {
        let (from, to) = (root.join(path), src.join(path));
        // What a link leads to may be a directory, which no site shows: the check of its links tells.
        if from.is_file() {
            beside(&to).and_then(|()| std::fs::copy(&from, &to)).with_context(|| path.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "# Summary\n\n[First](../README.md)\n\n- [A](a.md)\n- [No link]\n";

    #[test]
    fn what_the_site_is_made_of_keeps_its_paths() {
        let readme = "[a](docs/a.md#top) [l](LICENSE) [w](https://x.org/README.md) [n](NEWS.md)\n";
        let a = "# Top\n[t](#top) [r](../README.md#x) [unit](../packaging/a.service)\n```\n[x](x.rs)\n```\n";
        let tree = Tree::of(&[
            (summary::PATH, SUMMARY),
            ("README.md", readme),
            ("docs/a.md", a),
            ("docs/b.md", "[l](../other.rs)\n"),
        ]);
        let Sources { texts, files } = Sources::of(&tree).expect("all documents are there");
        let expected = [
            (
                "SUMMARY.md",
                "# Summary\n\n[First](index.md)\n\n- [A](docs/a.md)\n- [No link]\n".into(),
            ),
            ("docs/a.md", a.replace("README.md", "index.md")),
            ("index.md", readme.to_string()),
        ];
        let texts: Vec<_> =
            texts.iter().map(|(path, text)| (path.as_str(), text.clone())).collect();
        assert_eq!(texts, expected);
        assert!(files.iter().eq(["LICENSE", "packaging/a.service"]), "{files:?}");
    }

    #[test]
    fn a_listed_document_must_be_there() {
        let tree = Tree::of(&[(summary::PATH, SUMMARY), ("README.md", "")]);
        assert!(Sources::of(&tree).is_err());
        assert!(Sources::of(&Tree::of(&[])).is_err());
    }

    #[test]
    fn the_sources_are_laid_out_in_a_new_directory() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("docs")).expect("created");
        std::fs::write(root.path().join(SETTINGS), "[book]\n").expect("written");
        std::fs::write(root.path().join("LICENSE"), "mine").expect("written");
        let readme = "[d](docs) [l](LICENSE)\n";
        let files = [(summary::PATH, SUMMARY), ("README.md", readme), ("docs/a.md", "a\n")];
        let (tree, dir) = (Tree::of(&files), root.path().join("site"));
        write(&tree, root.path(), &dir).expect("a new directory");
        let read = |path: &str| std::fs::read_to_string(dir.join(path)).expect("it was laid out");
        assert_eq!(read("book.toml"), "[book]\n");
        assert!(read("src/SUMMARY.md").contains("(docs/a.md)"));
        assert_eq!(read("src/docs/a.md"), "a\n");
        assert_eq!(read("src/index.md"), readme);
        assert_eq!(read("src/LICENSE"), "mine");
        assert!(write(&tree, root.path(), &dir).is_err(), "something may be in it");
    }
}
