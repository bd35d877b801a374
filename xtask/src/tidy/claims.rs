//! `docs/requirements.md`: each requirement and incident in one row, and the tests that show it.

use std::collections::BTreeMap;

use super::{Problem, Tree};

const PATH: &str = "docs/requirements.md";

/// The families of ids, and how many there are of each.
const FAMILIES: &[(char, usize)] = &[
    ('B', 21),
    ('S', 6),
    ('R', 10),
    ('G', 12),
    ('V', 14),
    ('O', 4),
    ('X', 9),
    ('N', 7),
    ('T', 8),
    ('P', 4),
    ('I', 59),
];

/// What stands in a row that nothing claims.
const NOT_YET: &str = "not yet";

/// A row of the table: `| id | what | tests |`.
struct Row<'a> {
    line: usize,
    id: &'a str,
    tests: Vec<&'a str>,
    not_yet: bool,
    /// What is named where it is said to be missing.
    missing: Vec<&'a str>,
}

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(file) = tree.file(PATH) else {
        return vec![Problem::new(PATH, 1, "missing: it maps requirements to tests")];
    };
    let rows = rows(&file.text);
    let mut problems = ids(&rows, file.text.lines().count());
    let tests = tests(tree);
    for row in &rows {
        if row.tests.is_empty() != row.not_yet {
            let message = format!("{}: name its tests, or say `{NOT_YET}`", row.id);
            problems.push(Problem::new(PATH, row.line, message));
        }
        for named in &row.missing {
            let message =
                format!("{}: `{named}` stands behind `{NOT_YET}`: is it there or not?", row.id);
            problems.push(Problem::new(PATH, row.line, message));
        }
        for claim in &row.tests {
            if !shown(claim, &tests) {
                let message = format!("{}: there is no test `{claim}`", row.id);
                problems.push(Problem::new(PATH, row.line, message));
            }
        }
    }
    problems
}

/// How many ids are claimed.
pub(super) fn counts(tree: &Tree) -> String {
    let text = tree.file(PATH).map_or("", |file| file.text.as_str());
    let rows = rows(text);
    let claimed = rows.iter().filter(|row| !row.not_yet).count();
    format!("{claimed} of {} requirements and incidents claimed", rows.len())
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [id, .., last] = cells.as_slice() else { continue };
        if line.starts_with('|') && is_id(id) {
            let (there, missing) = last.split_once(NOT_YET).unwrap_or((last, ""));
            rows.push(Row {
                line: number + 1,
                id,
                tests: quoted(there),
                not_yet: last.starts_with(NOT_YET),
                missing: quoted(missing),
            });
        }
    }
    rows
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn is_id(cell: &str) -> bool {
    let mut letters = cell.chars();
    letters.next().is_some_and(|letter| FAMILIES.iter().any(|(family, _)| *family == letter))
        && !letters.as_str().is_empty()
        && letters.all(|digit| digit.is_ascii_digit())
}

/// Every id stands in exactly one row.
fn ids(rows: &[Row<'_>], last_line: usize) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        if let Some(first) = seen.insert(row.id.to_string(), row.line) {
            let message = format!("{} has a row already, in line {first}", row.id);
            problems.push(Problem::new(PATH, row.line, message));
        }
    }
    for (family, count) in FAMILIES {
        for number in 1..=*count {
            let id = format!("{family}{number}");
            if seen.remove(&id).is_none() {
                problems.push(Problem::new(PATH, last_line, format!("{id} has no row")));
            }
        }
    }
    for (id, line) in seen {
        problems.push(Problem::new(PATH, line, format!("{id} is no id that is known")));
    }
    problems
}

/// The tests of the tree: path of the file and name.
fn tests(tree: &Tree) -> Vec<(&str, &str)> {
    let rust = tree.rust().flat_map(|(file, rust)| {
        let tests = rust.functions.iter().filter(|function| function.test);
        tests.map(|function| (file.path.as_str(), function.name.as_str()))
    });
    rust.chain(python_tests(tree)).collect()
}

/// Those that pytest finds.
fn python_tests(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let is_test = |path: &str| {
        path.ends_with(".py")
            && path.rsplit('/').next().is_some_and(|name| name.starts_with("test_"))
    };
    let files = tree.files.iter().filter(move |file| is_test(&file.path));
    files.flat_map(|file| {
        let names =
            file.text.lines().filter_map(|line| line.strip_prefix("def ")?.split('(').next());
        let tests = names.filter(|name| name.starts_with("test_"));
        tests.map(|name| (file.path.as_str(), name))
    })
}

/// `name`, `path/of/file.rs::name` or `module::name`.
fn shown(claim: &str, tests: &[(&str, &str)]) -> bool {
    let (place, name) = claim.rsplit_once("::").unwrap_or(("", claim));
    tests.iter().any(|(path, test)| {
        *test == name
            && if place.ends_with(".rs") {
                *path == place
            } else {
                let module = path.trim_end_matches(".rs").replace('/', "::");
                format!("::{module}::").contains(&format!("::{place}::")) || place.is_empty()
            }
    })
}
